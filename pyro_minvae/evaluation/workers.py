"""Jobs on one model, in this process or in several, as a stream of answers in the order of the jobs."""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, NamedTuple, TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class Work(NamedTuple):
    """`make()` builds a model, once in each process; `do(job, model)` answers a job. Both are picklable."""

    make: Callable[[], Any]
    do: Callable[[Any, Any], Any]


def stream(
    jobs: Sequence[Job],
    work: Work,
    *,
    lost: Callable[[Job, str], Answer],
    workers: int = 1,
) -> Iterator[Answer]:
    """Yield `work.do(job, model)` for each job; `lost(job, cause)` for one that takes its process down.

    Each process keeps to one torch thread. Raises what `work.make` or `work.do` raises.
    """
    if workers <= 1 or len(jobs) <= 1:
        yield from _serial(jobs, work)
    else:
        yield from _parallel(jobs, work, lost, workers=min(workers, len(jobs)))


def _serial(jobs: Sequence[Job], work: Work) -> Iterator[Any]:
    """All in this process, on one thread as in the workers, so that both give the same numbers."""
    model = work.make()
    for job in jobs:
        with _one_thread():
            answer = work.do(job, model)
        yield answer


def _parallel(
    jobs: Sequence[Job], work: Work, lost: Callable[[Job, str], Answer], *, workers: int
) -> Iterator[Answer]:
    """A pool of processes; when one dies (out of memory, a crash in compiled code), a new pool takes over."""
    rest = deque(jobs)
    while rest:
        with _pool(workers, work) as pool:
            futures = deque(pool.submit(_do, job) for job in rest)
            try:
                while futures:
                    answer = futures[0].result()
                    futures.popleft()
                    rest.popleft()
                    yield answer
            except BrokenProcessPool:
                pass
        if rest:
            # Nobody knows which of the jobs in work was the cause: the first one is tried again by itself.
            job = rest.popleft()
            with _pool(1, work) as pool:
                try:
                    answer = pool.submit(_do, job).result()
                except BrokenProcessPool:
                    answer = lost(job, "the process died (out of memory, or a crash in compiled code)")
            yield answer


@contextmanager
def _pool(workers: int, work: Work) -> Iterator[ProcessPoolExecutor]:
    """Fresh interpreters (threads of the parent's libraries do not survive a fork); none is left waiting."""
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start, initargs=(work,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: dict[str, Any] = {}
"""What a worker process keeps between jobs: the model (or why there is none) and what to do with it."""


def _start(work: Work) -> None:
    """Runs once in each worker. Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker["do"] = work.do
    try:
        _worker["model"] = work.make()
    # An exception here would break the pool without a word: it is kept for `_do` to raise.
    except Exception as error:
        _worker["error"] = error


def _do(job: Any) -> Any:
    """One job in a worker."""
    if "error" in _worker:
        raise _worker["error"]
    with _one_thread():
        return _worker["do"](job, _worker["model"])


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread, where the model has loaded torch at all, and the former number afterwards."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    if torch:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(threads)
