"""`--corrupt` of `mix` and `evaluate`, end to end on synthetic voices with random lips."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_enhancers import Watchful
from signals import speechlike
from tiny import save_tiny_model

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.corrupted import Corrupter
from pyro_minvae.evaluation.manifest import NAME, NoisyItem, read_manifest
from pyro_minvae.media.corruption import KINDS, MIXED, Corruption
from pyro_minvae.media.crop_files import read_crops, read_wrong, save_lips
from pyro_minvae.types import MouthCrops

RunCli = Callable[..., Any]
RATE, FRAMES = 16000, 40


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three voices of 1.6 s with random lips, and one without any."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    for number, name in enumerate(("a", "b", "c", "unseen")):
        soundfile.write(folder / f"{name}.wav", speechlike(RATE, 1.6, number), RATE)
        if name != "unseen":
            crops = random.integers(0, 256, (FRAMES, 16, 16), np.uint8)
            save_lips(
                folder / f"{name}.npz", MouthCrops(crops, np.arange(FRAMES) / 25, np.ones(FRAMES, bool))
            )
    return folder


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every model be `Watchful`."""
    from pyro_minvae.config.schema import Recipe
    from pyro_minvae.pipelines.enhancer import Enhancer

    def from_pretrained(name: str, **options: Any) -> Any:
        model: Any = Watchful()
        model.caution = ""
        model.recipe = Recipe.model_validate({"name": "nothing", "training": {"stages": []}})
        return model

    monkeypatch.setattr(Enhancer, "from_pretrained", from_pretrained)


def mix(run_cli: RunCli, corpus: Path, out: Path, *more: object) -> list[NoisyItem]:
    done = run_cli("mix", corpus, "--out", out, "--white", "--snr", 0, "--snr", 5, *more)
    assert done.exit_code == 0, done.stderr
    return read_manifest(out)


def test_mix_writes_spoilt_lips_beside_the_mixtures(run_cli: RunCli, corpus: Path, tmp_path: Path) -> None:
    items = mix(run_cli, corpus, tmp_path / "set", "--corrupt", "frozen:0.25")
    # A set can be moved: the lips move with it.
    shutil.move(tmp_path / "set", tmp_path / "moved")
    for item in read_manifest(tmp_path / "moved"):
        if item.id == "unseen":
            assert (item.video, item.corrupt) == (None, "")
            continue
        assert item.corrupt == "frozen:0.25"
        assert item.video == item.mixture.with_suffix(".npz")
        clean, lips, wrong = (
            read_crops(corpus / f"{item.id}.npz"),
            read_crops(item.video),
            read_wrong(item.video),
        )
        assert wrong is not None
        assert wrong.sum() == FRAMES / 4
        changed = (lips.crops != clean.crops).any((1, 2))
        np.testing.assert_array_equal(changed, wrong)
    assert len(items) == 8


def test_a_part_of_a_set_is_spoilt_as_in_the_whole(run_cli: RunCli, corpus: Path, tmp_path: Path) -> None:
    whole = mix(run_cli, corpus, tmp_path / "whole", "--corrupt", "mixed:0.5")
    part = mix(run_cli, corpus, tmp_path / "part", "--corrupt", "mixed:0.5", "--limit", 1)
    other = mix(run_cli, corpus, tmp_path / "other", "--corrupt", "mixed:0.5", "--limit", 1, "--seed", 1)
    truths = set()
    for mine, others in zip(part, other, strict=True):
        (same,) = (item for item in whole if (item.id, item.snr_db) == (mine.id, mine.snr_db))
        assert same.video is not None and mine.video is not None and others.video is not None  # noqa: PT018
        for one, two in zip(read_crops(same.video), read_crops(mine.video), strict=True):
            np.testing.assert_array_equal(one, two)
        truths |= {read_crops(item.video).crops.tobytes() for item in (mine, others) if item.video}
    # Another seed and another SNR are other draws.
    assert len(truths) == 4


def test_swapped_lips_are_of_another_clip(run_cli: RunCli, corpus: Path, tmp_path: Path) -> None:
    clips = {name: read_crops(corpus / f"{name}.npz").crops.tobytes() for name in "abc"}
    for item in mix(run_cli, corpus, tmp_path / "set", "--corrupt", "swapped"):
        if item.video is not None:
            shown = read_crops(item.video).crops.tobytes()
            assert shown in {crops for name, crops in clips.items() if name != item.id}


def test_evaluate_tells_how_well_trust_detects(
    run_cli: RunCli, corpus: Path, tmp_path: Path, watchful: None
) -> None:
    mix(run_cli, corpus, tmp_path / "clean")
    mix(run_cli, corpus, tmp_path / "spoilt", "--corrupt", "frozen:0.5")
    results = {}
    for name, more in (("spoilt", []), ("clean", ["--corrupt", "frozen:0.5"]), ("untouched", [])):
        source, out = tmp_path / name.replace("untouched", "clean"), tmp_path / f"{name}-scores"
        done = run_cli("evaluate", source, "--model", "nothing", "--workers", 1, "--out", out, *more)
        assert done.exit_code == 0, done.stderr
        tree = json.loads((out / "scores.json").read_text(encoding="utf-8"))
        assert ("ROC AUC" in done.stdout) == (name != "untouched")
        with open(out / "scores.csv", encoding="utf-8", newline="") as stream:
            areas = {(row["id"], row["snr_db"]): float(row["trust_auc"]) for row in csv.DictReader(stream)}
        results[name] = tree["trust"], areas
        assert tree["settings"]["corrupt"] == (more[1] if more else None)
    assert results["untouched"][0] is None
    for name in ("spoilt", "clean"):
        found, areas = results[name]
        # It misses the last frame of each burst, whose successor moves.
        assert 0.9 < found["mean"] <= 1
        assert 0.9 < found["pooled"] <= 1
        assert (found["recordings"], round(found["share"], 1)) == (6, 0.5)
        assert all(np.isnan(area) == (key[0] == "unseen") for key, area in areas.items())
    # The random numbers are those of the mixture's name, whoever spoils it.
    assert results["spoilt"][0] == results["clean"][0]


def test_spoiling_twice_keeps_both_truths(corpus: Path, tmp_path: Path) -> None:
    item = NoisyItem(id="a", noise="n", snr_db=0, mixture=Path("m"), clean=Path("c"), video=corpus / "a.npz")
    donors = {name: corpus / f"{name}.npz" for name in "abc"}
    once = Corrupter(Corruption("frozen", 0.2), donors)(item, tmp_path / "once.npz")
    twice = Corrupter(Corruption("swapped", 0.2), donors, 1)(once, tmp_path / "twice.npz")
    assert once.video is not None
    assert twice.video is not None
    first, both = read_wrong(once.video), read_wrong(twice.video)
    assert first is not None
    assert both is not None
    assert both[first].all()
    assert 8 < both.sum() <= 16
    assert twice.corrupt == "frozen:0.2, swapped:0.2"


def test_a_video_that_cannot_be_read_costs_its_own_mixture_only(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    donors = {"bad": tmp_path / "bad.npz", "a": corpus / "a.npz"}
    items = [
        NoisyItem(id=name, noise="n", snr_db=0, mixture=Path("m"), clean=Path("c"), video=video)
        for name, video in donors.items()
    ]
    frozen, encoder_input = Corrupter(Corruption("frozen"), donors), []
    bad, good = frozen.all(items, tmp_path, encoder_input.append)
    assert (bad, encoder_input) == (items[0], ["bad", "a"])
    assert good.video != items[1].video
    # Nor is it anybody's donor.
    with pytest.raises(InputError, match="expected another clip with a face, found none for a"):
        Corrupter(Corruption("swapped"), donors)(items[1], tmp_path / "x.npz")
    with pytest.raises(InputError, match=r"bad\.npz"):
        frozen(items[0], tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize("kind", [*KINDS, MIXED])
def test_spoilt_sets_work_with_models(run_cli: RunCli, corpus: Path, tmp_path: Path, kind: str) -> None:
    item = mix(run_cli, corpus, tmp_path / "set", "--corrupt", f"{kind}:0.4", "--limit", 1)[0]
    model = save_tiny_model(tmp_path / "tiny")
    done = run_cli(
        "enhance", item.mixture, "--video", item.video, "--model", model, "--out", tmp_path / "e.wav"
    )
    assert done.exit_code == 0, done.stderr
    done = run_cli("evaluate", tmp_path / "set", "--model", model, "--workers", 1)
    assert done.exit_code == 0, done.stderr
    # Of frames without a face there is nothing to find out.
    assert ("ROC AUC" in done.stdout) == (kind not in ("dropped", "lost"))


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--corrupt", "melted"], "--corrupt melted: expected one of dropped,"),
        (["--corrupt", "frozen:2"], "--corrupt frozen:2: expected a share from 0 to 1"),
        (["--corrupt", "frozen", "--speakers", "2"], "expected a single speaker"),
    ],
)
def test_bad_spoiling_is_one_line(
    run_cli: RunCli, corpus: Path, tmp_path: Path, arguments: list[str], fault: str
) -> None:
    done = run_cli("mix", corpus, "--out", tmp_path / "set", "--white", "--snr", 0, *arguments)
    assert done.exit_code == 2
    assert fault in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "set").exists()


def test_without_lips_nothing_can_be_spoilt(
    run_cli: RunCli, corpus: Path, speech_folder: Path, tmp_path: Path, watchful: None
) -> None:
    blind, alone = tmp_path / "blind", tmp_path / "alone"
    alone.mkdir()
    for name in ("a.wav", "a.npz"):
        shutil.copy(corpus / name, alone)
    mix(run_cli, speech_folder, blind)
    mix(run_cli, corpus, tmp_path / "set")
    noisy = ["--out", tmp_path / "out", "--white", "--snr", 0]
    for arguments, fault in (
        (
            ["mix", speech_folder, *noisy, "--corrupt", "frozen"],
            "expected at least 1 clips with lips, found 0",
        ),
        (["mix", alone, *noisy, "--corrupt", "mixed"], "expected at least 2 clips with lips, found 1"),
        (["evaluate", blind, "--model", "m", "--corrupt", "frozen"], "expected at least 1 clips with lips"),
        (
            ["evaluate", tmp_path / "set", "--model", "m", "--corrupt", "frozen", "--no-video"],
            "found --no-video",
        ),
        (["evaluate", tmp_path / "set", "--model", "m", "--corrupt", "x"], "expected one of dropped"),
    ):
        done = run_cli(*arguments)
        assert done.exit_code == 2
        assert fault in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out" / NAME).exists()
