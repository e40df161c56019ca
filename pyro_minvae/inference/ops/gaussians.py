"""What passes over latent vectors are given of a prior, and what a decision leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Normal(NamedTuple):
    """log N(z; mean, diag precision^-2) = constant - |(z - mean) precision|^2 / 2: [..., N, L] or [L], and [..., N]."""

    mean: Tensor
    precision: Tensor
    constant: Tensor


class Gaussians:
    """One component p(z), or two p(z | alpha) with log p(alpha) [..., N] in `log_weights`, for many calls."""

    def __init__(self, parts: Sequence[Normal], log_weights: tuple[Tensor, Tensor] | None = None) -> None:
        self.parts, self.log_weights = tuple(parts), log_weights
        # The same as arrays of NumPy, once the compiled passes have been asked.
        self.arrays: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies make arrays of their own."""
        return self.__dict__ | {"arrays": None}


class Place(NamedTuple):
    """Chains at z [..., N, L] with log densities [..., N] and gradients [..., N, L] (None: not known or not wanted)."""

    position: Tensor
    log_density: Tensor
    gradient: Tensor | None


class Decision(NamedTuple):
    """Which chains [..., N] `accepted`, where they are then, and the acceptance `probability` [..., N] if wanted."""

    accepted: Tensor
    place: Place
    probability: Tensor | None
