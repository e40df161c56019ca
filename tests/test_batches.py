"""Folders through the loop: short recordings side by side, what comes out is what each gives alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from signals import speechlike
from tiny import lips, save_tiny_model

from pyro_minvae.cli.batches import run_all
from pyro_minvae.cli.files import EnhancementJob, plan
from pyro_minvae.errors import InputError
from pyro_minvae.inference.mcem.loop import EMState
from pyro_minvae.media.crop_files import save_lips
from pyro_minvae.pipelines.enhancer import Enhancer

RATE = 16000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three short recordings, a long one and one that is no sound."""
    inside = tmp_path / "in"
    inside.mkdir()
    for name, seconds in (("a", 0.5), ("b", 0.8), ("d", 2.4), ("e", 0.6)):
        soundfile.write(inside / f"{name}.wav", speechlike(RATE, seconds), RATE, subtype="PCM_16")
    (inside / "c.wav").write_bytes(b"no sound at all")
    return inside


class Bars:
    """Remembers what each bar was to count up to and what it was told."""

    def __init__(self) -> None:
        self.bars: list[tuple[list[str], int, list[int]]] = []

    @contextmanager
    def __call__(
        self, jobs: Sequence[EnhancementJob], iterations: int
    ) -> Iterator[Callable[[int, EMState], None]]:
        told: list[int] = []
        self.bars.append(([job.audio.stem for job in jobs], iterations, told))
        yield lambda done, _: told.append(done)


def enhancer(model: Path, *settings: str) -> Enhancer:
    short = "inference.iterations=3", "inference.steps=2", "inference.keep=1", "inference.average=2"
    blocks = "inference.block_s=1.0", "inference.overlap_s=0.2"
    return Enhancer.from_pretrained(model, overrides=[*short, *blocks, *settings])


def test_short_recordings_share_the_loop_and_give_what_they_give_alone(
    model: Path, folder: Path, tmp_path: Path
) -> None:
    bars, out = Bars(), tmp_path / "out"
    outcomes = dict(run_all(plan([folder], out=out), enhancer(model, "inference.batch=2"), bars, seed=5))
    named = {job.audio.stem: outcome for job, outcome in outcomes.items()}
    assert sorted(named) == ["a", "b", "c", "d", "e"]
    assert [names for names, *_ in bars.bars] == [["d"], ["a", "b"], ["e"]]
    assert isinstance(named["c"], InputError)
    assert "c.wav" in str(named["c"])
    for name in "abde":
        (job,) = plan([folder / f"{name}.wav"], out=tmp_path / f"alone-{name}.wav")
        job.run(enhancer(model), seed=5)
        alone, _ = soundfile.read(tmp_path / f"alone-{name}.wav")
        together, _ = soundfile.read(out / f"{name}.wav")
        np.testing.assert_allclose(together, alone, atol=2 / 2**15)
        assert float(np.abs(alone).max()) > 0.002


def test_recordings_that_lips_guide_go_by_themselves(model: Path, tmp_path: Path) -> None:
    jobs = []
    for number, name in enumerate("abcd"):
        soundfile.write(tmp_path / f"{name}.wav", speechlike(RATE, 0.5), RATE)
        video = tmp_path / f"{name}.npz" if name in "ac" else None
        if video is not None:
            save_lips(video, lips(0.5, number))
        jobs.append(EnhancementJob(tmp_path / f"{name}.wav", video, tmp_path / "out" / f"{name}.wav", None))
    (tmp_path / "out").mkdir()
    bars = Bars()
    done = dict(run_all(jobs, enhancer(model, "inference.lips=always"), bars))
    used = {job.audio.stem: outcome.result.used_video for job, outcome in done.items()}  # type: ignore[union-attr]
    assert used == {"a": True, "b": False, "c": True, "d": False}
    assert [names for names, *_ in bars.bars] == [["a", "c"], ["b", "d"]]
    assert all(told == list(range(1, total + 1)) for _, total, told in bars.bars)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_bar_counts_all_blocks_and_never_goes_back(
    batch: int, model: Path, folder: Path, tmp_path: Path
) -> None:
    bars = Bars()
    jobs = plan([folder / "d.wav"], out=tmp_path / "d.wav")
    list(run_all(jobs, enhancer(model, f"inference.batch={batch}"), bars))
    ((_, total, told),) = bars.bars
    assert total == 9 if batch == 1 else total == 6  # three blocks of three iterations, or two rounds
    assert told == list(range(1, total + 1))


def test_a_bar_jumps_where_a_block_stops_early(model: Path, folder: Path, tmp_path: Path) -> None:
    bars = Bars()
    settings = "inference.tolerance=1e9", "inference.iterations=8"
    list(run_all(plan([folder / "d.wav"], out=tmp_path / "d.wav"), enhancer(model, *settings), bars))
    ((_, total, told),) = bars.bars
    assert total == 24
    assert told == [first + n for first in (0, 8, 16) for n in range(1, 7)]
    assert all(b > a for a, b in itertools.pairwise(told))


def test_no_more_recordings_are_held_than_go_side_by_side(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        soundfile.write(tmp_path / f"{number}.wav", speechlike(RATE, 0.4), RATE)
    held, most, read, write = 0, 0, EnhancementJob.open, EnhancementJob.finish
    # Three go side by side, and whether a fourth would is known when it is open.

    def opened(*arguments: Any, **options: Any) -> Any:
        nonlocal held, most
        held += 1
        most = max(most, held)
        return read(*arguments, **options)

    def finished(*arguments: Any, **options: Any) -> Any:
        nonlocal held
        held -= 1
        return write(*arguments, **options)

    monkeypatch.setattr(EnhancementJob, "open", opened)
    monkeypatch.setattr(EnhancementJob, "finish", finished)
    done = list(run_all(plan([tmp_path], out=tmp_path / "out"), enhancer(model, "inference.batch=3"), Bars()))
    assert len(done) == 7
    assert not any(isinstance(outcome, InputError) for _, outcome in done)
    assert (held, most) == (0, 4)


def test_a_result_that_cannot_be_written_stops_no_other(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = plan([folder / "a.wav", folder / "b.wav"], out=tmp_path / "out")
    write = EnhancementJob.finish

    def finished(job: EnhancementJob, *arguments: Any, **options: Any) -> Any:
        if job.audio.stem == "a":
            raise InputError("out/a.wav: expected room, found a full disk")
        return write(job, *arguments, **options)

    monkeypatch.setattr(EnhancementJob, "finish", finished)
    outcomes = {job.audio.stem: outcome for job, outcome in run_all(jobs, enhancer(model), Bars())}
    assert isinstance(outcomes["a"], InputError)
    assert (tmp_path / "out" / "b.wav").exists()


def test_the_command_tells_of_bad_files_and_goes_on(
    run_cli: Callable[..., Any], model: Path, folder: Path, tmp_path: Path
) -> None:
    result = run_cli(
        "enhance", folder, "--model", model, "--out", tmp_path / "out", "--set", "inference.iterations=2"
    )
    assert result.exit_code == 2
    assert "c.wav" in result.stderr
    assert "1 of 5 recordings failed" in result.stderr
    assert len(result.stdout.splitlines()) == 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{n}.wav" for n in "abde"]
