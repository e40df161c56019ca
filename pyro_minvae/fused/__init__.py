"""The EM loop's passes over arrays, compiled: each reads what it needs once and writes what it finds once.

A call of torch does one operation on all of an array; what the loop does with a spectrum takes ten of them, which read
and write memory ten times and cost their own beginning ten times. The functions here do all of it in one go, in C
(`speech.c`, `chains.c`, `noise.c`), with the vectors of the processor at hand and torch's own threads.

They take arrays in single precision that lie in a row in this machine's memory, where no graph is wanted. For others,
and where the library was installed without a C compiler (`compiled` is False then), they answer None or False, and
whoever asks does the same with torch. Logarithms and powers of two are good to 2e-7; sums are in another order, so that
results agree with torch's to rounding. Every function's formula stands where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

threads = torch.get_num_threads

_passes: ModuleType | None
try:
    from pyro_minvae.fused import _passes
except ImportError:  # installed without a compiler
    _passes = None

compiled = _passes is not None
"""Whether there are compiled passes."""


def fit(*arrays: Tensor | None) -> bool:
    """Whether the passes take these arrays (None: one that is not there)."""
    if _passes is None:
        return False
    for one in arrays:
        if one is not None and (
            one.dtype is not torch.float32 or not one.is_cpu or not one.is_contiguous() or one.requires_grad
        ):
            return False
    return True


def usual(array: Tensor) -> bool:
    """`fit`, but for how the array lies in memory."""
    return _passes is not None and array.dtype is torch.float32 and array.is_cpu and not array.requires_grad


def fit_rows(array: Tensor) -> bool:
    """`fit` for rows [..., F] that lie equally far apart."""
    strides, shape = array.stride(), array.shape
    even = all(strides[i] == strides[i + 1] * shape[i + 1] for i in range(len(shape) - 2))
    return usual(array) and strides[-1] == 1 and even


def repeats(part: Tensor, whole: Tensor) -> bool:
    """Whether `part` has the last dimensions of `whole`, so that broadcasting repeats it as a whole."""
    return part.shape == whole.shape[whole.dim() - part.dim() :]


def rows(array: Tensor | None, width: int) -> tuple[int | None, int]:
    """Where an array lies and how many rows of `width` numbers it has."""
    return (None, 1) if array is None else (array.data_ptr(), array.numel() // width)


def passes() -> ModuleType:
    """The compiled functions, for arrays that `fit`."""
    assert _passes is not None
    return _passes


def row_count(array: Tensor) -> tuple[int, int]:
    """Rows and bins of an array [..., F]."""
    bins = array.shape[-1]
    return array.numel() // bins, bins


def at(arrays: Sequence[Tensor | None]) -> list[int | None]:
    """Where arrays lie."""
    return [None if array is None else array.data_ptr() for array in arrays]
