"""Closed minima of what majorises an objective in one positive number: steps of W, A and g (derivations, sec. 12)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# The least that noise factors and gains come to, far below any audible power at full scale 1.
TINY = 1e-12


def root_ratio(up: Tensor, down: Tensor) -> Tensor:
    """sqrt(up / down), 0 for 0 / 0."""
    return (up / down.clamp_min(1e-30)).clamp_min(0).sqrt()


class Slope(NamedTuple):
    """Slopes of `minimiser`, with what it needs of them: their squares, their sizes and which are positive."""

    square: Tensor
    size: Tensor
    positive: Tensor


def slopes(values: Tensor) -> Slope:
    """Different slopes at different places."""
    return Slope(values.square(), values.abs(), values > 0)


def minimiser(a: Tensor | float, b: Tensor, slope: Slope | float = 0.0) -> Tensor:
    """The h >= 0 that minimises a h + b / h + slope log h, for a, b >= 0 (derivations, eq. 12.3); no cancellation.

    0 where a and b vanish together; `slope` broadcasts.
    """
    tiny = torch.finfo(b.dtype).tiny
    a = a if isinstance(a, Tensor) else b.new_full((), a)
    if isinstance(slope, Slope):
        wide = torch.addcmul(slope.square, a, b, value=4).sqrt_().add_(slope.size)
        return torch.where(slope.positive, 2 * b / wide.clamp_min(tiny), wide / (2 * a).clamp_min(tiny))
    if slope == 0:
        return (a * b).sqrt_().div_(a.clamp_min(tiny))
    wide = (a * b).mul_(4).add_(slope**2).sqrt_().add_(abs(slope))
    return 2 * b / wide.clamp_min(tiny) if slope > 0 else wide / (2 * a).clamp_min(tiny)
