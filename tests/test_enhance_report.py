"""`enhance --report`: pages and pictures that open, refusals before any work, and outputs that do not depend on it."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from signals import speechlike
from tiny import save_tiny_model

from pyro_minvae.evaluation import page
from pyro_minvae.inference.mcmc import mixing

EXAMPLE = Path(__file__).parents[1] / "examples" / "noisy.mkv"
RATE = 16000
Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "WARMUP", 5)
    monkeypatch.setattr(mixing, "STEPS", 16)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "in.wav"
    soundfile.write(path, speechlike(RATE, 1.0), RATE, subtype="PCM_16")
    return path


class Page(HTMLParser):
    """What a page holds: images, headings, table cells, and every address that it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[np.ndarray] = []
        self.texts: dict[str, list[str]] = {}
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        for name in ("src", "href"):
            address = values.get(name)
            if address is not None and not address.startswith("data:"):
                self.fetched.append(address)
        if tag == "img":
            assert values["alt"]
            source = values["src"] or ""
            assert source.startswith("data:image/png;base64,")
            self.images.append(opened(base64.b64decode(source.partition(",")[2], validate=True)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.strip())


def opened(data: bytes) -> np.ndarray:
    """The pixels of a PNG."""
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def told(path: Path) -> dict[str, str]:
    cells = Page(path.read_text(encoding="utf-8")).texts["td"]
    return dict(zip(cells[::2], cells[1::2], strict=True))


def test_page_holds_pictures_and_numbers(run_cli: Cli, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    settings = "--set", "inference.lips=always"
    arguments = "--model", model, "--out", tmp_path / "out.wav", "--report", out, *settings
    result = run_cli("enhance", EXAMPLE, *arguments)
    assert result.exit_code == 0, result.stderr
    text = out.read_text(encoding="utf-8")
    shown = Page(text)
    assert shown.open == []
    assert shown.fetched == []
    assert "url(" not in text
    assert "@import" not in text
    assert shown.texts["h1"] == ["noisy.mkv"]
    assert shown.texts["h2"] == ["Spectrograms", "Sampler", "Sound and lips", "Expectation-maximisation"]
    assert len(shown.images) == 4
    assert all(image.std() > 5 for image in shown.images)
    values = told(out)
    assert values["iterations"] == "2"
    assert values["draws"] == "96"
    assert float(values["video frames with a face (%)"]) > 50
    assert {"R-hat, worst", "effective draws, fewest", "objective, last (nats)"} <= set(values)
    assert "audio-visual" in shown.texts["p"][0]


def test_picture_opens(run_cli: Cli, model: Path, sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.PNG"
    result = run_cli("enhance", sound, "--model", model, "--report", out)
    assert result.exit_code == 0, result.stderr
    image = opened(out.read_bytes())
    assert image.std() > 5
    # One figure, taller than wide: spectrograms, sampler, responsibility, EM.
    assert image.shape[0] > 1.5 * image.shape[1]


def test_the_output_is_the_same_with_a_report(run_cli: Cli, model: Path, tmp_path: Path) -> None:
    for name, extra in (("plain", ()), ("report", ("--report", tmp_path / "r.html"))):
        out = tmp_path / f"{name}.wav"
        result = run_cli("enhance", EXAMPLE, "--model", model, "--out", out, "--seed", 3, *extra)
        assert result.exit_code == 0, result.stderr
    assert (tmp_path / "plain.wav").read_bytes() == (tmp_path / "report.wav").read_bytes()


@pytest.mark.parametrize("suffix", ["html", "png"])
def test_silence_and_no_video(suffix: str, run_cli: Cli, model: Path, tmp_path: Path) -> None:
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(RATE), RATE)
    out = tmp_path / f"r.{suffix}"
    result = run_cli("enhance", silence, "--model", model, "--report", out)
    assert result.exit_code == 0, result.stderr
    if suffix == "html":
        shown = Page(out.read_text(encoding="utf-8"))
        assert "silence: nothing to infer" in shown.texts["p"][0]
        assert "audio-only (no video)" in shown.texts["p"][0]
        assert "Sampler" not in shown.texts["h2"]
        assert len(shown.images) >= 1
    else:
        assert opened(out.read_bytes()).ndim == 3


def test_a_very_short_sound(run_cli: Cli, model: Path, tmp_path: Path) -> None:
    blip, out = tmp_path / "blip.wav", tmp_path / "r.png"
    soundfile.write(blip, [0.5], RATE)
    result = run_cli("enhance", blip, "--model", model, "--report", out)
    assert result.exit_code == 0, result.stderr
    opened(out.read_bytes())


@pytest.mark.parametrize("name", ["r.pdf", "report", "r.html.gz"])
def test_other_suffixes_are_refused_before_any_work(
    name: str, run_cli: Cli, sound: Path, tmp_path: Path
) -> None:
    result = run_cli("enhance", sound, "--report", tmp_path / name, "--model", "no-such-model")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"error: {tmp_path / name}: expected the name of a report, .html or .png, "
        f"found {Path(name).suffix or 'no suffix'}"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


def test_places_that_cannot_be_written_are_refused_before_any_work(
    run_cli: Cli, sound: Path, tmp_path: Path
) -> None:
    for place in (tmp_path / "none" / "r.html", sound.with_name(f"{300 * 'a'}.html")):
        result = run_cli("enhance", sound, "--report", place, "--model", "no-such-model")
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
        assert "a.html" in result.stderr or "a folder" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


def test_an_older_report_is_replaced(run_cli: Cli, model: Path, sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    out.write_text("old")
    assert run_cli("enhance", sound, "--model", model, "--report", out).exit_code == 0
    assert "R-hat, worst" in told(out)


def test_several_inputs_get_a_folder_of_pages(run_cli: Cli, model: Path, sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    result = run_cli(
        "enhance",
        sound,
        EXAMPLE,
        *("--model", model, "--out", tmp_path / "out", "--report", folder, "--set", "inference.lips=always"),
    )
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in folder.iterdir()} == {"in.html", "noisy.html"}
    assert "audio-visual" in Page((folder / "noisy.html").read_text()).texts["p"][0]
    # A folder that is there takes the page of a single input too.
    assert run_cli("enhance", sound, "--model", model, "--report", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "in.html").is_file()


def test_inputs_of_one_stem_collide(run_cli: Cli, model: Path, sound: Path, tmp_path: Path) -> None:
    other = tmp_path / "in.flac"
    soundfile.write(other, speechlike(RATE, 0.5), RATE)
    settings = "--model", model, "--set", "inference.iterations=1", "--out", tmp_path / "out"
    result = run_cli("enhance", sound, other, "--report", tmp_path / "reports", *settings)
    assert result.exit_code == 2
    assert "in.html: expected one output per input" in result.stderr
    assert "1 of 2 recordings failed" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["in.wav"]


def test_a_failing_report_costs_no_result(
    run_cli: Cli, model: Path, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "r.html"
    run_cli("enhance", sound, "--model", model, "--out", tmp_path / "plain.wav")
    monkeypatch.setattr(Path, "write_bytes", full)
    result = run_cli("enhance", sound, "--model", model, "--out", tmp_path / "out.wav", "--report", out)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        f"error: {out}: expected a writable place, found: No space left on device"
    )
    assert (tmp_path / "out.wav").read_bytes() == (tmp_path / "plain.wav").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "out.wav", "plain.wav"]


def test_a_drawing_that_fails_leaves_no_file(
    run_cli: Cli, model: Path, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> bytes:
        raise RuntimeError("broken")

    monkeypatch.setattr(page, "_png", broken)
    out = tmp_path / "r.png"
    result = run_cli("enhance", sound, "--model", model, "--out", tmp_path / "out.wav", "--report", out)
    assert result.exit_code == 2
    assert "in.wav: expected to be enhanced, found RuntimeError: broken" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "out.wav"]


def test_matplotlib_is_loaded_for_reports_only(model: Path, sound: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pyro_minvae.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    command = [sys.executable, "-c", script, "enhance", sound, "--model", model, "--out", tmp_path / "o.wav"]
    command += ["--set", "inference.iterations=1"]
    for extra, loaded in (([], "False False"), (["--report", tmp_path / "r.png"], "True False")):
        done = subprocess.run([*command, *extra], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == loaded
