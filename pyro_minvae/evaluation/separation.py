"""Separate and score every mixture of a separation set, in parallel processes, as a stream of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.manifest import SeparationItem
from pyro_minvae.evaluation.metrics import Scores
from pyro_minvae.evaluation.mixing import stable_seed
from pyro_minvae.evaluation.separated import Judged, failed, judge
from pyro_minvae.evaluation.workers import Work, stream
from pyro_minvae.media.audio import mono, read_audio

NAN = float("nan")


class Task(NamedTuple):
    """A mixture [S] at `rate` Hz and what it is made of: `speakers` [J, S], which only a baseline may look at."""

    item: SeparationItem
    mixture: np.ndarray
    speakers: np.ndarray
    rate: int
    seed: int


class Answer(NamedTuple):
    """What a system makes of a mixture: `estimates` [J, S], and for which speakers it was told who they are.

    A speaker that is `fixed` is scored by the estimate in its own place; among the others the best order counts.
    """

    estimates: np.ndarray
    fixed: tuple[bool, ...]
    iterations: int = 0
    acceptance: float = NAN
    real_time_factor: float = NAN
    used_video: tuple[bool, ...] = ()


System = Callable[[Task], Answer]
"""Separates mixtures. What `evaluate` gets is a picklable function without arguments that makes one."""


class SpeakerRow(NamedTuple):
    """One mixture: the scores of each of its speakers before (`input`: the mixture itself) and after (`output`).

    `swapped` tells whether another order of the estimates would fit better than the one that was asked for; None
    where the system was not told who is who. `fixed` as in `Answer`, `order` is which estimate was scored as whose.
    """

    item: SeparationItem
    input: tuple[Scores, ...]
    output: tuple[Scores, ...]
    seed: int
    fixed: tuple[bool, ...] = ()
    order: tuple[int, ...] = ()
    swapped: bool | None = None
    seconds: float = NAN
    iterations: int = 0
    acceptance: float = NAN
    real_time_factor: float = NAN
    used_video: tuple[bool, ...] = ()
    error: str = ""


class SetJob(NamedTuple):
    """A mixture to separate with a seed; `input` are the scores of the mixture itself, if they are known."""

    item: SeparationItem
    seed: int
    input: tuple[Scores, ...] | None = None


class SeparationOutcome(NamedTuple):
    """What an `inspect` function sees: the mixture with its parts, and the system's answer in the order scored."""

    task: Task
    answer: Answer


Inspect = Callable[[SeparationOutcome], None]


def evaluate(
    items: Sequence[SeparationItem],
    make_system: Callable[[], System],
    *,
    workers: int = 1,
    seed: int = 0,
    inspect: Inspect | None = None,
    earlier: Sequence[SpeakerRow] = (),
) -> Iterator[SpeakerRow]:
    """Yield one row for each of `items`, in their order; a mixture that fails has NaN scores and the reason.

    As `evaluation.benchmark.evaluate`: each process makes the system once, and the seed of a mixture depends on
    `seed` and the mixture only. Rows that another system `earlier` got for the same mixtures spare scoring these again.
    """
    known = {row.item.mixture: row.input for row in earlier if not row.error}
    jobs = [SetJob(item, item_seed(seed, item), known.get(item.mixture)) for item in items]
    yield from stream(jobs, Work(make_system, partial(_do, inspect=inspect)), lost=_lost, workers=workers)


def item_seed(seed: int, item: SeparationItem) -> int:
    """The seed of one mixture (31 bits)."""
    return stable_seed(seed, item.id, item.noise, item.snr_db, f"{item.level_db:g}") % 2**31


def with_separator(
    make_separator: Callable[[], Any], *, use_video: bool = True, background: bool = True
) -> System:
    """A `separator.Separator` (or what is called alike) as a system, with the lips that the set has or without any.

    Without lips for them it cannot know which speaker is which, so these are not `fixed`.
    """
    separator = make_separator()

    def separate(task: Task) -> Answer:
        videos = [speaker.video if use_video else None for speaker in task.item.speakers]
        found = separator(task.mixture, task.rate, videos, seed=task.seed, background=background)
        return Answer(
            np.stack([np.asarray(signal, np.float64).reshape(-1) for signal in found.speakers]),
            tuple(video is not None for video in videos),
            int(found.iterations),
            float(found.acceptance),
            float(found.real_time_factor),
            tuple(map(bool, found.used_video)),
        )

    return separate


def _do(job: SetJob, system: System, *, inspect: Inspect | None) -> SpeakerRow:
    return evaluate_item(job, system, inspect=inspect)


def evaluate_item(job: SetJob, system: System, *, inspect: Inspect | None = None) -> SpeakerRow:
    """Read, separate and score one mixture; a failure becomes NaN scores with the reason."""
    item, seed, before = job
    seconds = NAN
    try:
        task = read_task(item, seed)
        seconds = len(task.mixture) / task.rate
        if before is None:
            same = np.broadcast_to(task.mixture, task.speakers.shape)
            everyone = (True,) * len(task.speakers)
            before = judge(task.speakers, same, task.rate, fixed=everyone).scores
        answer = system(task)
        judged = judge(task.speakers, answer.estimates, task.rate, fixed=answer.fixed)
    # One bad item must not end a run of hours, whatever is wrong with it: the row carries the cause.
    except Exception as error:
        cause = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        return _lost(job._replace(input=before), cause)._replace(seconds=seconds)
    if inspect:
        inspect(SeparationOutcome(task, answer._replace(estimates=answer.estimates[list(judged.order)])))
    return SpeakerRow(
        item,
        before,
        judged.scores,
        seed,
        fixed=answer.fixed,
        order=judged.order,
        swapped=_swapped(judged, answer.fixed),
        seconds=seconds,
        iterations=answer.iterations,
        acceptance=answer.acceptance,
        real_time_factor=answer.real_time_factor,
        used_video=answer.used_video,
    )


def read_task(item: SeparationItem, seed: int) -> Task:
    """The mixture and its speakers; raises `InputError` for files that do not fit together."""
    mixture = read_audio(item.mixture)
    parts = [read_audio(speaker.clean) for speaker in item.speakers]
    for speaker, part in zip(item.speakers, parts, strict=True):
        here, there = ((audio.rate, audio.waveform.shape[-1]) for audio in (mixture, part))
        if here != there:
            raise InputError(
                f"{item.mixture}: expected the {there[1]} samples at {there[0]} Hz of {speaker.clean}, "
                f"found {here[1]} at {here[0]} Hz"
            )
    signals = [mono(audio, mixture.rate).astype(np.float64) for audio in (mixture, *parts)]
    return Task(item, signals[0], np.stack(signals[1:]), mixture.rate, seed)


def _swapped(judged: Judged, fixed: tuple[bool, ...]) -> bool | None:
    if not any(fixed):
        return None
    return judged.best != tuple(range(len(judged.best)))


def _lost(job: SetJob, cause: str) -> SpeakerRow:
    """The row of a mixture that could not be separated."""
    cause = " ".join(cause.split())
    none = (failed(cause),) * len(job.item.speakers)
    return SpeakerRow(job.item, job.input or none, none, job.seed, error=cause)
