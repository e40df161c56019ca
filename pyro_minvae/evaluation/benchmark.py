"""Enhance and score every mixture of a noisy set, in parallel processes, as a stream of rows."""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.manifest import Item
from pyro_minvae.evaluation.metrics import Scores, failed, score
from pyro_minvae.evaluation.mixing import stable_seed
from pyro_minvae.evaluation.trust import Detection, detect
from pyro_minvae.media.audio import mono, read_audio

MakeEnhancer = Callable[[], Any]
"""Builds what `Enhancer` is: a callable (waveform [S], rate, video=, seed=) -> Enhanced. Picklable."""


class Row(NamedTuple):
    """One mixture: its scores before (`input`) and after (`output`), and what the enhancer says of its work.

    `seconds` of audio, `real_time_factor` (processing time / `seconds`), `acceptance` of the sampler and mean
    `responsibility` of the audio network are NaN where the model has none. `detection` is its trust in lips that
    were spoilt on purpose, beside the truth. `error` is empty unless the item failed.
    """

    item: Item
    input: Scores
    output: Scores
    seed: int
    seconds: float = float("nan")
    iterations: int = 0
    acceptance: float = float("nan")
    responsibility: float = float("nan")
    real_time_factor: float = float("nan")
    used_video: bool = False
    error: str = ""
    detection: Detection | None = None


class Outcome(NamedTuple):
    """What an `inspect` function sees: the signals [S] at `rate` Hz and the enhancer's whole answer."""

    item: Item
    clean: np.ndarray
    mixture: np.ndarray
    rate: int
    enhanced: Any


Inspect = Callable[[Outcome], None]


def evaluate(
    items: Sequence[Item],
    make_enhancer: MakeEnhancer,
    *,
    workers: int = 1,
    seed: int = 0,
    use_video: bool = True,
    inspect: Inspect | None = None,
) -> Iterator[Row]:
    """Yield one row for each of `items`, in their order; an item that fails has NaN scores and the reason.

    Each process loads the model once and keeps to one thread. The random seed of an item depends on `seed`
    and the mixture only, so neither the order nor the number of `workers` matters. `inspect` is called in the
    worker (it must be picklable). Raises `InputError` where the model cannot be made.
    """
    jobs = [
        (item if use_video else item.model_copy(update={"video": None}), item_seed(seed, item))
        for item in items
    ]
    if workers <= 1 or len(jobs) <= 1:
        yield from _serial(jobs, make_enhancer, inspect)
    else:
        yield from _parallel(jobs, make_enhancer, inspect, workers=min(workers, len(jobs)))


def item_seed(seed: int, item: Item) -> int:
    """The seed of one mixture (31 bits)."""
    return stable_seed(seed, item.id, item.noise, f"{item.snr_db:g}") % 2**31


def evaluate_item(item: Item, enhancer: Any, *, seed: int, inspect: Inspect | None = None) -> Row:
    """Read, enhance and score one mixture; a failure becomes NaN scores with the reason."""
    before, seconds = None, float("nan")
    try:
        clean, mixture, rate = _read(item)
        seconds = len(mixture) / rate
        before = score(clean, mixture, rate)
        enhanced = enhancer(mixture, rate, video=item.video, seed=seed)
        after = score(clean, np.asarray(enhanced.speech, np.float64).reshape(-1), rate)
        detection = detect(enhanced, item.video)
    # One bad item must not end a run of hours, whatever is wrong with it: the row carries the cause.
    except Exception as error:
        cause = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        cause = " ".join(cause.split())
        return Row(item, before or failed(cause), failed(cause), seed, seconds, error=cause)
    if inspect:
        inspect(Outcome(item, clean, mixture, rate, enhanced))
    return Row(
        item=item,
        input=before,
        output=after,
        seed=seed,
        seconds=seconds,
        iterations=int(enhanced.iterations),
        acceptance=_number(enhanced.acceptance),
        responsibility=_number(enhanced.responsibility),
        real_time_factor=_number(enhanced.real_time_factor),
        used_video=bool(enhanced.used_video),
        detection=detection,
    )


def _read(item: Item) -> tuple[np.ndarray, np.ndarray, int]:
    """The clean speech at its level in the mixture [S], the mixture [S] and their rate in Hz."""
    mixture, clean = read_audio(item.mixture), read_audio(item.clean)
    if mixture.rate != clean.rate:
        raise InputError(
            f"{item.mixture}: expected the rate of the clean speech, {clean.rate} Hz, found {mixture.rate}"
        )
    if mixture.waveform.shape[-1] != clean.waveform.shape[-1]:
        raise InputError(
            f"{item.mixture}: expected the {clean.waveform.shape[-1]} samples of the clean speech,"
            f" found {mixture.waveform.shape[-1]}"
        )
    rate = mixture.rate
    speech = mono(clean, rate).astype(np.float64) * item.scale
    return speech, mono(mixture, rate).astype(np.float64), rate


def _number(value: Any) -> float:
    """A float; None becomes NaN."""
    return float("nan") if value is None else float(value)


def _serial(
    jobs: list[tuple[Item, int]], make_enhancer: MakeEnhancer, inspect: Inspect | None
) -> Iterator[Row]:
    """All in this process, on one thread as in the workers, so that both give the same numbers."""
    enhancer = make_enhancer()
    for item, seed in jobs:
        with _one_thread():
            row = evaluate_item(item, enhancer, seed=seed, inspect=inspect)
        yield row


def _parallel(
    jobs: list[tuple[Item, int]], make_enhancer: MakeEnhancer, inspect: Inspect | None, *, workers: int
) -> Iterator[Row]:
    """A pool of processes; when one dies (out of memory, a crash in compiled code), a new pool takes over."""
    rest = deque(jobs)
    while rest:
        with _pool(workers, make_enhancer, inspect) as pool:
            futures = deque(pool.submit(_work, item, seed) for item, seed in rest)
            try:
                while futures:
                    row = futures[0].result()
                    futures.popleft()
                    rest.popleft()
                    yield row
            except BrokenProcessPool:
                pass
        if rest:
            # Nobody knows which of the items in work was the cause: the first one is tried again by itself.
            item, seed = rest.popleft()
            with _pool(1, make_enhancer, inspect) as pool:
                try:
                    row = pool.submit(_work, item, seed).result()
                except BrokenProcessPool:
                    cause = "the process died (out of memory, or a crash in compiled code)"
                    row = Row(item, failed(cause), failed(cause), seed, error=cause)
            yield row


@contextmanager
def _pool(
    workers: int, make_enhancer: MakeEnhancer, inspect: Inspect | None
) -> Iterator[ProcessPoolExecutor]:
    """Fresh interpreters (threads of the parent's libraries do not survive a fork); none is left waiting."""
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start, initargs=(make_enhancer, inspect)
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: dict[str, Any] = {}
"""What a worker process keeps between items: the enhancer (or why there is none) and the inspector."""


def _start(make_enhancer: MakeEnhancer, inspect: Inspect | None) -> None:
    """Runs once in each worker. Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker["inspect"] = inspect
    try:
        _worker["enhancer"] = make_enhancer()
    # An exception here would break the pool without a word: it is kept for `_work` to raise.
    except Exception as error:
        _worker["error"] = error


def _work(item: Item, seed: int) -> Row:
    """One item in a worker."""
    if "error" in _worker:
        raise _worker["error"]
    with _one_thread():
        return evaluate_item(item, _worker["enhancer"], seed=seed, inspect=_worker["inspect"])


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread, where the enhancer has loaded torch at all, and the former number afterwards."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    if torch:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(threads)
