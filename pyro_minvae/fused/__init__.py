"""The EM loop's passes over arrays, compiled: each reads what it needs once and writes what it finds once.

A call of torch does one operation on all of an array; what the loop does with a spectrum takes ten of them, which read
and write memory ten times and cost their own beginning ten times. The functions here do all of it in one go, in C
(`speech.c`, `chains.c`, `noise.c`, `products.c`), with the vectors of the processor at hand and torch's own threads.

They take arrays in single precision that lie in one piece in this machine's memory, where no graph is wanted. For
others, and where the library was installed without a C compiler (`compiled` is False then), they answer None or False,
and whoever asks does the same with torch. Logarithms and powers of two are good to 2e-7; sums are in another order, so
that results agree with torch's to rounding. Every function's formula stands where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

threads = torch.get_num_threads

_passes: ModuleType | None
try:
    from pyro_minvae.fused import _passes
except ImportError:  # installed without a compiler
    _passes = None
if _passes is not None:
    _passes.setup(torch.float32, torch.bool)

compiled = _passes is not None
"""Whether there are compiled passes."""


def done(name: str, *arguments: Any) -> Any:
    """Run a pass of `module.c`, which looks at the arrays itself; what it says, or None where there are none."""
    return None if _passes is None else getattr(_passes, name)(*arguments)


def single(*arrays: Tensor) -> bool:
    """Whether the passes take these arrays, for those that are asked about once and then used often."""
    return all(
        one.dtype is torch.float32 and one.is_cpu and one.is_contiguous() and not one.requires_grad
        for one in arrays
    )


def repeats(part: Tensor, whole: Sequence[int]) -> bool:
    """Whether `part` has the last dimensions of that shape, so that broadcasting repeats it as a whole."""
    shape = part.shape
    return shape == whole[len(whole) - len(shape) :]


def drawn(sigma: Tensor, gain: Tensor | None, shape: torch.Size) -> bool:
    """Whether draws [J, D, ..., N, F] and gains [J, ..., N] (None: 1) are of arrays of that shape [..., N, F]."""
    return sigma.shape[2:] == shape and (gain is None or gain.shape == (sigma.shape[0], *shape[:-1]))


def row_count(array: Tensor) -> tuple[int, int]:
    """Rows and bins of an array [..., F]."""
    bins = array.shape[-1]
    return array.numel() // bins, bins


def rows(array: Tensor | None, width: int) -> tuple[Tensor | None, int]:
    """An array that is repeated, and how many rows of `width` numbers it has."""
    return array, 1 if array is None else array.numel() // width
