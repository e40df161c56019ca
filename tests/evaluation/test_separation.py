"""Separating and scoring a set: rows, swaps, tables, and the command from end to end."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fake_separators as fake
import numpy as np
import pytest

from pyro_minvae.evaluation import separation_report as report
from pyro_minvae.evaluation.manifest import SeparationItem
from pyro_minvae.evaluation.mixing import White
from pyro_minvae.evaluation.separated import HEADINGS
from pyro_minvae.evaluation.separation import SpeakerRow, evaluate, item_seed, with_separator
from pyro_minvae.evaluation.separation_set import casts, make_separation_set
from pyro_minvae.types import Utterance


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory, speech_folder: Path) -> list[SeparationItem]:
    """Two pairs of voices at two levels in faint noise; the first of each pair has a video."""
    out = tmp_path_factory.mktemp("crowd")
    (out / "lips.npz").touch()
    pool = [Utterance(f"v{n}", f"s{n}", speech_folder / f"voice{n}.wav", None, "val") for n in range(4)]
    first = [one._replace(video=out / "lips.npz") for one in pool[:2]]
    cast = casts(first, pool[2:], count=2, seed=0)
    return make_separation_set(cast, [White()], levels_db=[0, 5], snrs_db=[40], out=out)


@pytest.fixture(scope="module")
def rows(crowd: list[SeparationItem]) -> list[SpeakerRow]:
    """What a system earns that knows the truth."""
    return list(evaluate(crowd, fake.right))


def test_gains_are_over_the_mixture(crowd: list[SeparationItem], rows: list[SpeakerRow]) -> None:
    assert [row.item for row in rows] == crowd
    for row in rows:
        assert row.swapped is False
        assert row.error == ""
        # At 5 dB the louder one starts about 10 dB above the other, and nine tenths of it are taken away.
        before = [scores.values["si_sdr"] for scores in row.input]
        assert before[0] - before[1] == pytest.approx(2 * row.item.level_db, abs=1.5)
        for old, new in zip(row.input, row.output, strict=True):
            assert new.values["si_sdr"] - old.values["si_sdr"] == pytest.approx(20, abs=2)
            assert new.values["sir"] - old.values["sir"] > 15


def test_swaps_are_counted_and_not_forgiven(crowd: list[SeparationItem], rows: list[SpeakerRow]) -> None:
    right = rows
    swapped, blind = (list(evaluate(crowd, make)) for make in (fake.swapped, fake.blind))
    assert [report.swap_rate(rows) for rows in (right, swapped)] == [0, 1]
    assert np.isnan(report.swap_rate(blind))
    assert report.gains(swapped, "sdr").gain < -5 < 10 < report.gains(right, "sdr").gain
    assert [row.output for row in blind] == [row.output for row in right]
    half = list(evaluate(crowd, fake.seeded))
    wrong = [row.swapped for row in half]
    assert wrong == [item_seed(0, item) % 2 == 0 for item in crowd]
    assert report.swap_rate(half) == np.mean(wrong)
    # What is known of the mixtures is not computed again.
    marked = [row._replace(input=row.output) for row in right]
    assert [row.input for row in evaluate(crowd, fake.seeded, earlier=marked)] == [
        row.output for row in right
    ]
    assert "In 4 of 4 mixtures" in report.assignment(blind)
    assert report.assignment(right) == report.assignment(swapped)


def test_processes_give_the_same_rows(crowd: list[SeparationItem]) -> None:
    make = partial(with_separator, fake.Nothing)
    serial = list(evaluate(crowd[:2], make, seed=3))
    assert list(evaluate(crowd[:2], make, seed=3, workers=2)) == serial
    assert list(evaluate(crowd[1:2], make, seed=3)) == serial[1:]
    assert list(evaluate(crowd[:1], make, seed=4)) != serial[:1]


def test_the_separator_gets_the_lips_that_there_are(crowd: list[SeparationItem]) -> None:
    separator = fake.Nothing()
    (row,) = evaluate(crowd[:1], partial(with_separator, lambda: separator, background=False))
    (blind,) = evaluate(crowd[:1], partial(with_separator, lambda: separator, use_video=False))
    video = crowd[0].speakers[0].video
    assert video is not None
    assert separator.asked == [
        {"videos": [video, None], "background": False},
        {"videos": [None, None], "background": True},
    ]
    assert (row.fixed, row.used_video, row.acceptance) == ((True, False), (True, False), 0.4)
    assert (blind.fixed, blind.swapped) == ((False, False), None)


def test_a_mixture_that_fails_is_a_row_with_the_reason(crowd: list[SeparationItem]) -> None:
    # Which mixtures are deadly is known from their seeds: one of them, then one that only fails, then no file.
    seed = next(n for n in range(99) if [item_seed(n, item) % 2 for item in crowd[:2]] == [0, 1])
    gone = crowd[0].model_copy(update={"mixture": Path("gone.flac")})
    dead, failed = evaluate(crowd[:2], fake.deadly, workers=2, seed=seed)
    (missing,) = evaluate([gone], fake.right)
    assert dead.error == "the process died (out of memory, or a crash in compiled code)"
    assert failed.error == "RuntimeError: cannot separate this"
    assert np.isfinite(failed.input[0].values["sdr"])
    assert "gone.flac" in missing.error
    rows = [dead, failed, missing]
    assert [row.item for row in rows] == [*crowd[:2], gone]
    assert len(report.failures(rows)) == 3
    assert not any(report.scored(row) for row in rows)


def test_parts_of_another_length_are_named(crowd: list[SeparationItem]) -> None:
    longer = crowd[0].model_copy(update={"speakers": crowd[-1].speakers})
    (row,) = evaluate([longer], fake.right)
    assert "samples at 16000 Hz" in row.error


@pytest.fixture
def separator(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let every model be one that does nothing; what it was asked for is noted."""
    from pyro_minvae.config.schema import Recipe
    from pyro_minvae.pipelines.separator import Separator

    asked: list[dict[str, Any]] = []

    def from_pretrained(name: str, **options: Any) -> Any:
        asked.append({"name": name, **options})
        model: Any = fake.Nothing()
        model.recipe = Recipe.model_validate({"name": "nothing", "training": {"stages": []}})
        return model

    monkeypatch.setattr(Separator, "from_pretrained", from_pretrained)
    return asked


def test_the_command_prints_and_keeps_scores(
    run_cli: Callable[..., Any], tmp_path: Path, crowd: list[SeparationItem], separator: list[dict[str, Any]]
) -> None:
    folder, out = crowd[0].mixture.parents[4], tmp_path / "scores"
    done = run_cli(
        *("evaluate", folder, "--model", "nothing", "--out", out, "--workers", 1, "--plot", 1),
        *("--no-background", "--set", "inference.iterations=3"),
    )
    assert done.exit_code == 0, done.stderr
    for part in ("nothing: 4 mixtures", "SDR (dB)", "SIR (dB)", "swaps", "different", "overall"):
        assert part in done.stdout
    assert "Every estimate is scored as the speaker that it was asked for." in done.stdout
    assert separator[0]["overrides"] == ["inference.iterations=3"]
    with open(out / "scores.csv", encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [(line["speaker"], line["level_db"]) for line in lines[:3]] == [
        ("1", "0.0"),
        ("2", "0.0"),
        ("1", "5.0"),
    ]
    assert all(abs(float(line["output_sdr"]) - float(line["input_sdr"])) < 1 for line in lines)
    tree = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert tree["settings"]["background"] is False
    assert tree["summary"][0]["cells"].keys() == HEADINGS.keys()
    assert len(tree["rows"]) == 2 * len(crowd)
    assert [path.suffix for path in (out / "plots").iterdir()] == [".png"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--corrupt", "frozen:0.5"], "expected a noisy set, found one of several speakers"),
        (["--plot", "2"], "expected --out"),
    ],
)
def test_bad_requests_are_one_line(
    arguments: list[str],
    fault: str,
    run_cli: Callable[..., Any],
    crowd: list[SeparationItem],
    separator: list[dict[str, Any]],
) -> None:
    done = run_cli("evaluate", crowd[0].mixture.parents[4], "--model", "nothing", *arguments)
    assert done.exit_code == 2
    assert fault in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_no_background_is_for_several_speakers(
    run_cli: Callable[..., Any], tmp_path: Path, speech_folder: Path
) -> None:
    assert (
        run_cli("mix", speech_folder, "--white", "--snr", 0, "--limit", 1, "--out", tmp_path).exit_code == 0
    )
    done = run_cli("evaluate", tmp_path, "--model", "a-vae", "--no-background")
    assert done.exit_code == 2
    assert "expected a set of several speakers" in done.stderr


def test_a_real_separator_runs_from_the_command_line(
    run_cli: Callable[..., Any], tmp_path: Path, speech_folder: Path
) -> None:
    from tiny import save_tiny_model

    model = save_tiny_model(tmp_path / "tiny", video=False)
    mixed = run_cli("mix", speech_folder, "--speakers", 2, "--limit", 1, "--out", tmp_path / "set")
    assert mixed.exit_code == 0, mixed.stderr
    done = run_cli("evaluate", tmp_path / "set", "--model", model, "--workers", 1, "--no-background")
    assert done.exit_code == 0, done.stderr
    assert "In 1 of 1 mixtures speakers without lips" in done.stdout


def test_the_table_has_a_line_for_each_kind(rows: list[SpeakerRow]) -> None:
    groups = report.summarise(rows)
    assert [(group.voices, group.level_db, group.mixtures) for group in groups] == [
        ("different", 0, 2),
        ("different", 5, 2),
        ("overall", None, 4),
    ]
    assert all(group.swaps == 0 and group.failures == 0 for group in groups)


def test_noise_counts_as_artefact(tmp_path: Path, speech_folder: Path) -> None:
    pool = [Utterance(f"v{n}", "", speech_folder / f"voice{n}.wav", None, "val") for n in range(2)]
    cast = casts(pool[:1], pool, count=2, seed=0)
    (item,) = make_separation_set(cast, [White()], levels_db=[0], snrs_db=[5], out=tmp_path)
    (row,) = evaluate([item], fake.right)
    assert item.voices == "same"
    for old, new in zip(row.input, row.output, strict=True):
        assert old.values["sar"] == pytest.approx(5, abs=2)
        assert new.values["sar"] > old.values["sar"] + 10


@pytest.mark.real_data
def test_lips_tell_one_voice_from_itself(
    run_cli: Callable[..., Any], tmp_path: Path, data_root: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("bgbbzn\nsbbu3a\n")
    mixed = run_cli(
        *(
            "mix",
            data_root / "grid",
            "--list",
            names,
            "--speakers",
            2,
            "--limit",
            1,
            "--out",
            tmp_path / "set",
        )
    )
    assert mixed.exit_code == 0, mixed.stderr
    scores = {}
    for name, option in (("lips", "--video"), ("sound", "--no-video")):
        done = run_cli(
            *("evaluate", tmp_path / "set", "--model", "av-separation-grid", "--workers", 1),
            *("--no-background", option, "--out", tmp_path / name),
        )
        assert done.exit_code == 0, done.stderr
        (group, _) = json.loads((tmp_path / name / "scores.json").read_text(encoding="utf-8"))["summary"]
        assert group["voices"] == "same"
        scores[name] = group
    assert scores["lips"]["swaps"] == 0
    assert scores["sound"]["swaps"] is None
    assert scores["lips"]["cells"]["sdr"]["gain"] > 2
    assert scores["lips"]["cells"]["sdr"]["gain"] > scores["sound"]["cells"]["sdr"]["gain"] + 1
