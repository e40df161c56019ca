"""Unadjusted Langevin dynamics (LDEM)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_minvae.inference.mcmc.base import ChainInfo, ChainState, LogDensity
from pyro_minvae.inference.mcmc.blocked import advance, known_gradient, start
from pyro_minvae.inference.mcmc.draws import Randomness, normal


@dataclass(frozen=True)
class UnadjustedLangevin:
    """z' = z + (eta / 2) grad log p(z) + sqrt(eta) xi, xi ~ N(0, I), never rejected; `step_size` is sqrt(eta).

    The draws are from p only as eta goes to 0: on N(0, s^2) their variance is s^2 / (1 - eta / (4 s^2)), and where
    eta > 4 s^2 they diverge (Roberts & Tweedie 1996; derivations, sec. 11). All frames move at once,
    coupled or not, at the cost of one gradient. Only a move to where the density is not finite is not made.
    The published eta is 0.005, a `step_size` of 0.07 (Sadeghi & Serizel 2023, Langevin dynamics EM), with more moves in
    each E-step than the one that the larger default serves.
    """

    step_size: float = 0.11

    def __post_init__(self) -> None:
        if not self.step_size > 0:
            raise ValueError(f"expected step_size > 0, got {self.step_size}")

    def init(self, log_density: LogDensity, z: Tensor) -> ChainState:
        return start(log_density, z)

    def step(
        self, log_density: LogDensity, state: ChainState, generator: Randomness
    ) -> tuple[ChainState, ChainInfo]:
        z = state.position
        xi = normal(z, generator)
        there = langevin_move(z, known_gradient(log_density, state), xi, self.step_size)
        # EM makes few moves under a target, so that the gradient after the last of them would be for nothing.
        return advance(log_density, state, there, ahead=False)


def langevin_move(z: Tensor, gradient: Tensor, xi: Tensor, step_size: Tensor | float) -> Tensor:
    """z + (step_size^2 / 2) gradient + step_size xi."""
    return z + step_size * (0.5 * step_size * gradient + xi)
