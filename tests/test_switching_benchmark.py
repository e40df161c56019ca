"""`benchmarks/switching.py` on small settings: its tables, its conditions, and what it writes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from signals import speechlike
from test_benchmarks import folder, run  # noqa: F401

from pyro_minvae.evaluation.manifest import NoisyItem, read_manifest
from pyro_minvae.evaluation.mixing import White
from pyro_minvae.media.crop_files import read_crops, read_wrong
from pyro_minvae.types import Switches

ROOT = Path(__file__).parents[1]
RATE = 16000


@pytest.fixture
def switching(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark as a module."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    before = set(sys.modules)
    import switching  # type: ignore[import-not-found]

    yield switching
    for name in set(sys.modules) - before:
        if str(ROOT / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_tables_of_all_lips_and_their_differences(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- switching: begin -->\nold\n<!-- switching: end -->\nafter\n")
    blind, tiny = f"{folder}/blind", f"{folder}/tiny,inference.lips=always"
    printed = run(
        "switching.py", "--noisy-set", folder / "set", "--audio", blind, "--visual", tiny, "--system", tiny,
        "--lips", "clean", "--lips", "missing", "--lips", "swapped:0.4", "--speakers", "none",
        "--workers", 1, "--json", tmp_path / "scores.json", "--out", page,
    )  # fmt: skip
    gains, differences, times = (lines_of(text) for text in printed.split("\n\n") if text.startswith("|"))
    kinds = [(line[0], line[1]) for line in gains[1:]]
    # A model without lips has one line.
    assert kinds == [
        ("clean", tiny),
        ("missing", blind),
        ("missing", tiny),
        ("swapped:0.4", tiny),
    ]
    areas = {line[0]: line[-1] for line in gains[1:] if line[1] == tiny}
    assert 0 <= float(areas.pop("swapped:0.4")) <= 1
    assert set(areas.values()) == {""}
    assert [(line[0], line[1]) for line in differences[1:]] == [
        ("clean", f"{tiny} less {blind}"),
        ("missing", f"{tiny} less {blind}"),
        ("swapped:0.4", f"{tiny} less {blind}"),
        ("swapped:0.4", f"{tiny} less its own with clean lips"),
    ]
    assert [line[0] for line in times[1:]] == [blind, tiny]
    assert times[2][2] == "1.00"
    text = page.read_text()
    assert text.startswith("before\n<!-- switching: begin -->\n2 mixtures at 0 dB:")
    assert text.endswith("<!-- switching: end -->\nafter\n")
    assert "old" not in text
    tree = json.loads((tmp_path / "scores.json").read_text())
    assert len(tree["systems"]) == 4
    assert sum(system["trust"] is not None for system in tree["systems"]) == 1


def lines_of(table: str) -> list[list[str]]:
    """The cells of a Markdown table, line by line, without the rule below its head."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [lines[0], *lines[2:]]


def test_lips_are_clean_missing_or_spoilt(folder: Path, tmp_path: Path, switching: Any) -> None:  # noqa: F811
    items = read_manifest(folder / "set")
    sets = {
        lips: switching.with_lips(items, lips, tmp_path / lips, 0)
        for lips in ("clean", "missing", "mixed:0.5")
    }
    assert [item.video for item in sets["missing"]] == [None, None]
    for before, clean, spoilt in zip(items, sets["clean"], sets["mixed:0.5"], strict=True):
        assert before.video is not None
        np.testing.assert_array_equal(read_crops(clean.video).crops, read_crops(before.video).crops)
        for item, count in ((clean, 0), (spoilt, 15)):
            wrong = read_wrong(item.video)
            assert wrong is not None
            assert wrong.sum() == count
            assert item.mixture == before.mixture


class Half:
    """Follows "female" in the first half, then "male"."""

    def __call__(self, waveform: np.ndarray, rate: int, video: Any = None, *, seed: int = 0) -> Any:
        times = np.arange(0, len(waveform) / rate, 0.016)
        path = (times > times[-1] / 2).astype(int)
        return SimpleNamespace(switches=Switches(("female", "male"), times, np.eye(2)[path], path, None))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Corpora of one voice for each group."""
    for name in ("grid/s1", "librispeech/val"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("11-1-0000.flac", "12-1-0000.flac"):
        soundfile.write(tmp_path / "librispeech" / "val" / name, speechlike(RATE, 6, 0), RATE)
    shutil.copy(ROOT / "examples" / "noisy.mkv", tmp_path / "grid" / "s1" / "one.mkv")
    for name, text in (("train.txt", ""), ("val.txt", "one\n")):
        (tmp_path / "grid" / name).write_text(text)
    (tmp_path / "librispeech" / "SPEAKERS.TXT").write_text(
        "; comment\n11   | F | x\n12 | M | x\n110 | M | x\n"
    )
    return tmp_path


def test_voices_are_cut_and_the_right_ones_counted(tmp_path: Path, data: Path, switching: Any) -> None:
    groups = switching.voices(data, tmp_path / "cut", count=10)
    assert {group: [voice.id for voice in found] for group, found in groups.items()} == {
        "s1": ["s1/one"],
        "female": ["female/11-1-0000"],
        "male": ["male/12-1-0000"],
    }
    cut, _ = soundfile.read(groups["male"][0].audio)
    np.testing.assert_allclose(cut, speechlike(RATE, 6, 0)[: 4 * RATE], atol=1e-4)
    path = groups["female"][0].audio
    item = NoisyItem(id="female/11-1-0000", noise="n", snr_db=10, mixture=path, clean=path)
    found = switching.follow(item, Half(), seed=0)
    assert found.group == "female"
    assert found.right == pytest.approx(0.5, abs=0.05)
    assert found._replace(group="s1").right == 0


def test_the_switch_between_voices_is_counted(
    tmp_path: Path, data: Path, switching: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switching, "noises_of", lambda root: [White()])
    options = SimpleNamespace(
        data=data, voices=1, seed=0, workers=1, speakers="sw-speakers,inference.iterations=2"
    )
    table, found = switching.speakers(options, tmp_path / "run")
    head, *lines = lines_of(table)
    assert head[:3] == ["voice", "mixtures", "right [95 %]"]
    assert set(head[3:]) > {"s1", "female", "male"}
    assert [line[:2] for line in lines] == [["s1", "1"], ["female", "1"], ["male", "1"], ["all", "3"]]
    for line, one in zip(lines, found, strict=False):
        assert line[2].split()[0] == f"{one.right:.0%}" == line[head.index(one.group)]
        assert sum(one.modes.values()) > 20
