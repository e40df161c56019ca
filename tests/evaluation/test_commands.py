"""`pyro-minvae mix` and `pyro-minvae evaluate`, end to end on synthetic voices and on one real clip."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_enhancers import Identity

from pyro_minvae.evaluation.manifest import NAME, NoisyItem, read_manifest
from pyro_minvae.evaluation.metrics import score

RunCli = Callable[..., Any]


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let every model be one that does nothing; what it was asked for is noted."""
    from pyro_minvae.config.schema import Recipe
    from pyro_minvae.pipelines.enhancer import Enhancer

    asked: list[dict[str, Any]] = []

    def from_pretrained(name: str, **options: Any) -> Any:
        asked.append({"name": name, **options})
        model: Any = Identity()
        model.caution = ""
        model.recipe = Recipe.model_validate({"name": "nothing", "training": {"stages": []}})
        return model

    monkeypatch.setattr(Enhancer, "from_pretrained", from_pretrained)
    return asked


def test_mix_writes_a_set(run_cli: RunCli, tmp_path: Path, speech_folder: Path, noise_file: Path) -> None:
    out = tmp_path / "set"
    done = run_cli(
        *("mix", speech_folder, "--out", out, "--noise", noise_file, "--white", "--babble", speech_folder),
        *("--snr", "-5", "--snr", "5", "--seed", 3, "--limit", 2),
    )
    assert done.exit_code == 0, done.stderr
    assert "12 mixtures of 2 utterances" in done.stdout
    items = read_manifest(out)
    assert {(item.noise, item.snr_db) for item in items} == {
        (noise, snr) for noise in ("rumble", "white", "babble") for snr in (-5, 5)
    }
    for item in items:
        mixture, clean = (soundfile.read(path)[0] for path in (item.mixture, item.clean))
        noise = mixture - item.scale * clean
        assert 10 * np.log10(np.sum((item.scale * clean) ** 2) / np.sum(noise**2)) == pytest.approx(
            item.snr_db, abs=1e-3
        )
        assert (item.seed, item.rate) == (3, 16000)


def test_evaluate_prints_and_writes_scores(
    run_cli: RunCli, tmp_path: Path, noisy_set: list[NoisyItem], identity: list[dict[str, Any]]
) -> None:
    folder, out = noisy_set[0].clean.parents[1], tmp_path / "scores"
    done = run_cli(
        *("evaluate", folder, "--model", "nothing", "--out", out, "--workers", 1, "--limit", 2),
        *("--preset", "best", "--set", "inference.iterations=3", "--plot", 1),
    )
    assert done.exit_code == 0, done.stderr
    for part in ("nothing: 2 mixtures", "PESQ (wide band)", "SI-SDR (dB)", "overall", "+0.00"):
        assert part in done.stdout
    assert identity[0] == {
        "name": "nothing",
        "device": "cpu",
        "preset": "best",
        "overrides": ["inference.iterations=3"],
    }
    with open(out / "scores.csv", encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["snr_db"] for line in lines] == ["-5.0", "5.0"]
    tree = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert tree["settings"]["set"] == ["inference.iterations=3"]
    assert tree["settings"]["preset"] == "best"
    assert tree["settings"]["recipe"]["name"] == "nothing"
    assert [path.suffix for path in (out / "plots").iterdir()] == [".png"]


def test_evaluate_names_what_it_could_not_score(
    run_cli: RunCli, tmp_path: Path, noisy_set: list[NoisyItem], identity: list[dict[str, Any]]
) -> None:
    good = noisy_set[0].model_dump(mode="json")
    bad = good | {"mixture": str(tmp_path / "gone.flac"), "snr_db": 7}
    for rows in ((good, bad), (bad,)):
        (tmp_path / NAME).write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = run_cli("evaluate", tmp_path, "--model", "nothing", "--workers", 1, "--out", tmp_path / "out")
        assert done.exit_code == 2
        assert "gone.flac" in done.stderr
        assert "no score" in done.stderr
        assert ("expected a mixture that can be scored, found none" in done.stderr) == (len(rows) == 1)


@pytest.mark.parametrize("missing", ["clean", "mixture", "video"])
def test_what_is_missing_is_shown_and_ends_with_2(
    missing: str, run_cli: RunCli, tmp_path: Path, noisy_set: list[NoisyItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny import save_tiny_model

    model = save_tiny_model(tmp_path / "model")
    rows = [item.model_dump(mode="json") for item in noisy_set[:2]]
    rows[1][missing] = str(tmp_path / "gone.mkv")
    (tmp_path / NAME).write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    done = run_cli("evaluate", tmp_path, "--model", model, "--workers", 1, "--out", out)
    assert done.exit_code == 2
    assert "1 of 2 mixtures, means" in done.stdout
    assert "0 (1 missing)" in done.stdout
    assert "1 of 2 mixtures failed and are missing in the means" in done.stderr
    assert "gone.mkv: expected" in done.stderr
    tree = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert [(group["mixtures"], group["scored"]) for group in tree["summary"]] == [(1, 1), (1, 0), (2, 1)]
    overall, first = tree["summary"][-1]["cells"], tree["summary"][0]["cells"]
    assert overall["si_sdr"]["output"] == first["si_sdr"]["output"]


BAD_MIXES = {
    "no noise": (["--snr", "0"], "expected a kind of noise"),
    "no snr": (["--white"], "at least one --snr"),
    "no such noise": (["--noise", "nowhere", "--snr", "0"], "nowhere: expected a noise file"),
    "no babble": (["--babble", "nowhere", "--snr", "0"], "nowhere: expected a folder of speech"),
    "doubled": (["--white", "--noise", "white.wav", "--snr", "0"], "different noises"),
    "split": (["--white", "--snr", "0", "--split", "test"], "split test"),
    "list": (["--white", "--snr", "0", "--list", "none.txt"], "none.txt: expected a list of ids"),
    "same snr": (["--white", "--snr", "0", "--snr", "0"], "different SNRs"),
    "infinite": (["--white", "--snr", "nan"], "expected a finite SNR"),
}


@pytest.mark.parametrize("case", BAD_MIXES)
def test_bad_mixes_are_one_line(
    case: str, run_cli: RunCli, tmp_path: Path, speech_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("white.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 8000), 16000)
    arguments, fault = BAD_MIXES[case]
    done = run_cli("mix", speech_folder, "--out", tmp_path / "set", *arguments)
    assert done.exit_code == 2
    assert fault in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "set" / NAME).exists()


def test_mix_refuses_missing_speech_and_bad_folders(
    run_cli: RunCli, tmp_path: Path, speech_folder: Path
) -> None:
    (tmp_path / "file").touch()
    for speech, out in ((tmp_path / "none", tmp_path / "set"), (speech_folder, tmp_path / "file" / "set")):
        done = run_cli("mix", speech, "--out", out, "--white", "--snr", 0)
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")


def test_bad_evaluations_are_one_line(
    run_cli: RunCli, tmp_path: Path, noisy_set: list[NoisyItem], identity: list[dict[str, Any]]
) -> None:
    folder = noisy_set[0].clean.parents[1]
    (tmp_path / "file").touch()
    for arguments, fault in (
        ([tmp_path / "none"], "found no file"),
        ([folder, "--plot", "3"], "expected --out"),
        ([folder, "--out", tmp_path / "file" / "x"], "expected a folder to write to"),
    ):
        done = run_cli("evaluate", *arguments, "--model", "nothing")
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")
        assert fault in done.stderr


def test_names_that_are_too_long_are_one_line(
    run_cli: RunCli, tmp_path: Path, speech_folder: Path, identity: list[dict[str, Any]]
) -> None:
    long = 300 * "a"
    mix = ("mix", speech_folder, "--snr", 0, "--out", tmp_path / "set")
    for arguments in (
        ("evaluate", long, "--model", "nothing"),
        (*mix, "--noise", long),
        (*mix, "--babble", long),
        (*mix, "--white", "--list", long),
        (*mix, "--white", "--out", tmp_path / long),
    ):
        done = run_cli(*arguments)
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.real_data
def test_a_real_clip_in_a_cafe(run_cli: RunCli, tmp_path: Path, data_root: Path) -> None:
    done = run_cli(
        *("mix", data_root / "grid", "--split", "val", "--limit", 1, "--out", tmp_path),
        *("--noise", data_root / "noise" / "cafe.flac", "--snr", -5),
        *("--babble", data_root / "librispeech" / "val"),
    )
    assert done.exit_code == 0, done.stderr
    for item in read_manifest(tmp_path):
        mixture, clean = (soundfile.read(path)[0] for path in (item.mixture, item.clean))
        scores = score(item.scale * clean, mixture, 16000)
        assert scores.reasons == {}
        assert 1 < scores.values["pesq"] < 2
        assert scores.values["si_sdr"] == pytest.approx(-5, abs=1)
        assert item.video is not None
        assert item.video.suffix == ".mkv"
