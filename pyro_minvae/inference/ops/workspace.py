"""How loops treat arrays of [..., N, F]: written again and again, and gone over a few frames at a time.

Fresh memory costs more than what is written into it, and an array that does not stay in the processor's cache between
one pass over it and the next costs more than twice as much a pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Frames of some 500 numbers that several passes in a row find in the caches, for each thread.
TILE = 256


class Workspace:
    """Arrays by name and shape, each the same from call to call, with whatever was written into it last.

    Whoever takes one may write into it until somebody takes the name again, and hands nothing of it on that lasts.
    """

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, torch.Size], Tensor] = {}

    def __call__(self, name: str, like: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """An array of the type and place of `like`, and of its shape if none is given."""
        key = name, like.shape if shape is None else torch.Size(shape)
        found = self._arrays.get(key)
        if found is None or found.dtype != like.dtype or found.device != like.device:
            found = self._arrays[key] = like.new_empty(key[1])
        return found


def tiles(like: Tensor) -> list[slice | None]:
    """Runs of frames of an array [..., N, F] to go over one by one; [None], all, if there are few.

    Elsewhere than on a processor one pass over all is best.
    """
    if like.dim() < 2 or like.device.type != "cpu":
        return [None]
    frames, bins = like.shape[-2:]
    numbers, most = like.numel(), TILE * torch.get_num_threads() * bins
    if numbers <= most:
        return [None]
    size = -(-frames // -(-numbers // most))
    return [slice(start, start + size) for start in range(0, frames, size)]


def cut(array: Tensor, frames: slice | None) -> Tensor:
    """A tile of an array [..., N, F]."""
    return array if frames is None else array[..., frames, :]


def joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Side by side along a dimension; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def same_place(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same numbers of the memory, as a tensor and a detached view of it are."""
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()
