"""Comparisons and their tolerances: what must agree to rounding, and what only within its standard error."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Double precision, sums of some ten thousand numbers: relative to 1 + the largest value.
ROUNDING = 1e-9
# Quadrature on the grids of `checks.grid`, whose own error is checked to be below this.
QUADRATURE = 1e-7
# Standard errors that a Monte-Carlo value may be away: past it by chance once in a million comparisons.
DEVIATIONS = 5.0


class Estimate(NamedTuple):
    """A value in nats and its standard error; 0 where nothing is random."""

    value: float
    error: float = 0.0


class Comparison(NamedTuple):
    """What must be equal (or in order): `term` of the bound, both values by name, how far off, what is allowed.

    `difference` is the largest over frames, so it can exceed that of the printed means.
    """

    term: str
    first: str
    second: str
    values: tuple[float, float]
    difference: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance (never for NaN)."""
        return self.difference <= self.tolerance

    def line(self) -> str:
        """One line for people."""
        left, right = self.values
        return (
            f"{self.term}: {self.first} {left:.10g}, {self.second} {right:.10g}; "
            f"difference {self.difference:.2g}, tolerance {self.tolerance:.2g}"
        )


def equal(
    term: str,
    first: tuple[str, Tensor],
    second: tuple[str, Tensor],
    tolerance: float = ROUNDING,
    slack: float = 0.0,
) -> Comparison:
    """Two tensors that must agree element by element.

    They may differ by `tolerance` relative to 1 + the largest element, plus `slack` nats.
    """
    left, right = (tensor.detach().double() for tensor in (first[1], second[1]))
    difference = (left - right).abs().max()
    scale = 1 + torch.maximum(left.abs().max(), right.abs().max())
    return Comparison(
        term,
        first[0],
        second[0],
        (float(left.mean()), float(right.mean())),
        float(difference),
        float(tolerance * scale) + slack,
    )


def not_above(
    term: str, low: tuple[str, Tensor], high: tuple[str, Tensor], tolerance: float, slack: float
) -> Comparison:
    """`low` must nowhere exceed `high` by more than `equal` allows."""
    left, right = low[1].detach().double(), high[1].detach().double()
    return Comparison(
        term,
        low[0],
        f"which is not to exceed {high[0]}",
        (float(left.mean()), float(right.mean())),
        float((left - right).max()),
        float(tolerance * (1 + right.abs().max())) + slack,
    )


def within_error(
    term: str, first: tuple[str, Estimate], second: tuple[str, Estimate], *, ordered: bool = False
) -> Comparison:
    """Two estimates that must agree within `DEVIATIONS` joint standard errors; `ordered`: first <= second will do."""
    left, right = first[1], second[1]
    joint = (left.error**2 + right.error**2) ** 0.5
    difference = left.value - right.value
    return Comparison(
        term,
        first[0],
        f"which is not to exceed {second[0]}" if ordered else second[0],
        (left.value, right.value),
        difference if ordered else abs(difference),
        DEVIATIONS * joint + ROUNDING * (1 + abs(left.value)),
    )


def estimate(values: Tensor, frames: int) -> Estimate:
    """The mean over draws of [draws, ...], summed over the rest and divided by `frames`, with its standard error."""
    draws = values.shape[0]
    total = float(values.mean(0).sum()) / frames
    if draws < 2:
        return Estimate(total)
    return Estimate(total, float((values.var(0) / draws).sum()) ** 0.5 / frames)
