"""Rows of arrays shared out to the threads of a pool, one for the whole process."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import torch

# Fewer numbers than this for each thread are done before another one has woken, which takes some 80 us.
WORTHWHILE = 300_000

_pool: ThreadPoolExecutor | None = None


def over_rows(kernel: Callable[..., None], rows: int, numbers: int, *arguments: Any, bins: int = 0) -> None:
    """kernel(start, stop, *arguments) over 0 .. `rows`, in as many blocks of rows as there are threads for them.

    `numbers` is how many the kernel goes over in all. With `bins` each block gets a row [bins] to work in, as its last
    argument. A row is computed the same whatever block it is in.
    """
    count = min(torch.get_num_threads(), rows, numbers // WORTHWHILE)
    if count <= 1:
        kernel(0, rows, *arguments, *_row(bins))
        return
    bounds = [rows * k // count for k in range(count + 1)]
    pool = _threads()
    others = [pool.submit(kernel, *bounds[k : k + 2], *arguments, *_row(bins)) for k in range(1, count)]
    try:
        kernel(0, bounds[1], *arguments, *_row(bins))
    finally:
        wait(others)  # whatever happens nobody writes any more once this returns
    for other in others:
        other.result()


def _row(bins: int) -> tuple[np.ndarray, ...]:
    return (np.empty(bins, np.float32),) if bins else ()


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), "pyro_minvae")
    return _pool


def _forget() -> None:
    """A forked process has none of the threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
