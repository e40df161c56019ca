"""Random numbers for samplers: one stream, or one for each recording of a padded batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Streams:
    """Generators of the recordings in a batch, so that each gets the numbers that it would get alone.

    `lengths` are the recordings' frames; the padding gets zeros.
    """

    def __init__(self, generators: Sequence[torch.Generator], lengths: Sequence[int]) -> None:
        self.generators, self.lengths = list(generators), list(lengths)

    def fill(self, draw: Callable[..., Tensor], shape: torch.Size, frames: int, **kind: Any) -> Tensor:
        """Numbers of a shape whose dimension `frames` (negative) counts frames and the one before it recordings."""
        numbers = torch.zeros(shape, **kind)
        rows = numbers.movedim(frames - 1, 0).unbind(0)
        for row, generator, length in zip(rows, self.generators, self.lengths, strict=True):
            part = row.narrow(frames, 0, length)
            part.copy_(draw(part.shape, generator=generator, **kind))
        return numbers


Randomness = torch.Generator | Streams


def normal(like: Tensor, source: Randomness) -> Tensor:
    """Standard normal draws of the shape of z [..., N, L]."""
    kind: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    if isinstance(source, Streams):
        return source.fill(torch.randn, like.shape, -2, **kind)
    return torch.randn(like.shape, generator=source, **kind)


def uniform(like: Tensor, source: Randomness) -> Tensor:
    """Uniform draws from [0, 1) of the shape of a log density [..., N]."""
    kind: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    if isinstance(source, Streams):
        return source.fill(torch.rand, like.shape, -1, **kind)
    return torch.rand(like.shape, generator=source, **kind)
