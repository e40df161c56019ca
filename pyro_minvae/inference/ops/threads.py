"""Rows of an array shared out to the threads of a pool, one for the whole process."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

# Fewer numbers than this are done before another thread has woken.
WORTHWHILE = 65536

_pool: ThreadPoolExecutor | None = None


def over_rows(kernel: Callable[..., None], rows: int, numbers: int, *arguments: Any) -> None:
    """kernel(start, stop, *arguments) over 0 .. `rows`, in as many runs of rows as there are threads for them.

    `numbers` is how many the kernel goes over in all. A row is computed the same whatever run it is in.
    """
    count = min(torch.get_num_threads(), rows, 2 * numbers // WORTHWHILE)
    if count <= 1:
        kernel(0, rows, *arguments)
        return
    bounds = [rows * k // count for k in range(count + 1)]
    pool = _threads()
    others = [pool.submit(kernel, *bounds[k : k + 2], *arguments) for k in range(1, count)]
    try:
        kernel(0, bounds[1], *arguments)
    finally:
        for other in others:  # whatever happens nobody writes any more once this returns
            other.result()


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="pyro_minvae")
    return _pool


def _forget() -> None:
    """A forked process has none of the threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
