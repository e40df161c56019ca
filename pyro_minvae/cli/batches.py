"""Several jobs: short recordings side by side in the EM loop, long ones by themselves, and a bad one stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from pyro_minvae.cli.files import Done, EnhancementJob, Opened
from pyro_minvae.errors import InputError
from pyro_minvae.inference.mcem.loop import EMState
from pyro_minvae.pipelines.blocks import spans
from pyro_minvae.pipelines.enhancer import Enhancer
from pyro_minvae.pipelines.filtering import overlap_of, side_by_side

# Called with the jobs that are about to run together and the number of EM iterations that they take in all; gives what
# to call with the number done so far and the state.
Bar = Callable[[Sequence[EnhancementJob], int], AbstractContextManager[Callable[[int, EMState], None]]]


def run_all(
    jobs: Sequence[EnhancementJob], enhancer: Enhancer, bar: Bar, *, seed: int = 0
) -> Iterator[tuple[EnhancementJob, Done | InputError]]:
    """What becomes of each job, in groups as they are finished; a job that fails gives the reason, whatever it is.

    Recordings of one block go through the loop side by side, as many as `inference.batch` and `batch_s` let, each as if
    it came alone: those that lips guide by themselves, since the loop differs. No more than two such groups and the
    next recording are in memory. Longer recordings, and those with a report, go one by one.
    """
    waiting: dict[bool, list[tuple[EnhancementJob, Opened]]] = {True: [], False: []}
    for job in jobs:
        try:
            opened = job.open(enhancer, seed)
        except Exception as error:
            yield job, reason(job, error)
            continue
        if job.report is not None or len(blocks(enhancer, opened)) > 1:
            yield from run_together([(job, opened)], enhancer, bar)
            continue
        alike = waiting[_guided(enhancer, opened)]
        if alike and rounds(enhancer, [*alike, (job, opened)]) > 1:
            yield from run_together(alike, enhancer, bar)
            alike.clear()
        alike.append((job, opened))
    for rest in waiting.values():
        if rest:
            yield from run_together(rest, enhancer, bar)


def run_together(
    group: Sequence[tuple[EnhancementJob, Opened]], enhancer: Enhancer, bar: Bar
) -> Iterator[tuple[EnhancementJob, Done | InputError]]:
    """Enhance and write a few recordings."""
    iterations = enhancer.recipe.inference.iterations
    with bar([job for job, _ in group], rounds(enhancer, group) * iterations) as show:
        counter = Counter(iterations, show)
        if len(group) == 1:
            outcomes = [_attempt(*group[0], enhancer, watch=counter)]
        else:
            outcomes = _side_by_side(group, enhancer, counter)
    yield from zip([job for job, _ in group], outcomes, strict=True)


def rounds(enhancer: Enhancer, group: Sequence[tuple[EnhancementJob, Opened]]) -> int:
    """How often the loop runs for a group of recordings that all have lips, or none."""
    lengths = [length for _, opened in group for length in blocks(enhancer, opened)]
    return len(side_by_side(lengths, enhancer.recipe, enhancer.denoiser, enhancer.device))


def _guided(enhancer: Enhancer, opened: Opened) -> bool:
    """Whether lips guide a recording."""
    return enhancer.speaker.guidance(opened.recording.video).lips is not None


def blocks(enhancer: Enhancer, opened: Opened) -> list[int]:
    """The lengths of the blocks that a recording is cut into, in samples."""
    stft, recording = enhancer.recipe.stft, opened.recording
    samples = round(opened.audio.waveform.shape[-1] / recording.rate * stft.rate)
    size = stft.hops(enhancer.recipe.inference.block_s) * stft.hop
    return [len(span) for span in spans(samples, block=size, overlap=overlap_of(enhancer.recipe))]


class Counter:
    """EM states to the number of iterations done so far, over all blocks, of `iterations` each at most."""

    def __init__(self, iterations: int, show: Callable[[int, EMState], None]) -> None:
        self.iterations, self.show, self.rounds = iterations, show, 0

    def __call__(self, state: EMState) -> None:
        if state.iteration == 1:
            self.rounds += 1
        self.show((self.rounds - 1) * self.iterations + state.iteration, state)


def _side_by_side(
    group: Sequence[tuple[EnhancementJob, Opened]], enhancer: Enhancer, counter: Counter
) -> list[Done | InputError]:
    """Several recordings in one loop; where that fails, each by itself, so that one costs no other its result."""
    try:
        results = enhancer.many([opened.recording for _, opened in group], watch=counter)
    except Exception:
        return [_attempt(job, opened, enhancer) for job, opened in group]
    return [
        _attempt(job, opened, enhancer, result=result)
        for (job, opened), result in zip(group, results, strict=True)
    ]


def _attempt(job: EnhancementJob, opened: Opened, enhancer: Enhancer, **given: object) -> Done | InputError:
    try:
        return job.finish(enhancer, opened, **given)  # type: ignore[arg-type]
    except Exception as error:
        return reason(job, error)


def reason(job: EnhancementJob, error: Exception) -> InputError:
    """What went wrong with a recording, in one line that names it."""
    if isinstance(error, InputError):
        return error
    said = [*str(error).strip().splitlines(), ""][0]
    return InputError(f"{job.audio}: expected to be enhanced, found {type(error).__name__}: {said}")
