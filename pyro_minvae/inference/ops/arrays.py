"""Tensors as arrays that the compiled passes take: views of the same memory, never copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# For operands that are absent.
NOTHING = np.empty(0, np.float32)
NO_FRAMES = np.empty((0, 0), np.float32)


class UnfitError(Exception):
    """The compiled pass is not for these arrays."""


def require(condition: bool) -> None:
    """`UnfitError` if it does not hold."""
    if not condition:
        raise UnfitError


def wide(tensor: Tensor) -> np.ndarray:
    """[..., F] as rows [R, F]."""
    return array_of(tensor).reshape(-1, tensor.shape[-1])


def narrow(tensor: Tensor) -> np.ndarray:
    """[...] as [R]."""
    return array_of(tensor).reshape(-1)


def array_of(tensor: Tensor) -> np.ndarray:
    """The tensor's own numbers.

    Raises:
        UnfitError: unless they are of single precision, in one piece, in this machine's memory, and in no graph.
    """
    if (
        tensor.dtype is not torch.float32
        or tensor.requires_grad
        or not tensor.is_cpu
        or not tensor.is_contiguous()
        or tensor.numel() == 0
    ):
        raise UnfitError
    return tensor.numpy()


def repeated(part: Tensor, whole: Sequence[int]) -> bool:
    """Whether `part` has the last dimensions of that shape, so that broadcasting repeats it as a whole."""
    shape = part.shape
    return shape == tuple(whole[len(whole) - len(shape) :])
