"""Metropolis-adjusted Langevin algorithm (MALA)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pyro_minvae.inference.mcmc.base import ChainState, LogDensity, value_and_gradient
from pyro_minvae.inference.mcmc.blocked import BlockedKernel, Proposal, known_gradient, only
from pyro_minvae.inference.mcmc.langevin import langevin_move


@dataclass(frozen=True)
class Mala(BlockedKernel):
    """The Langevin move z' = z + (e^2 / 2) grad log p(z) + e xi, accepted by Metropolis-Hastings; e is `step_size`.

    The move is not symmetric: with g, g' the gradients at z, z',
    log q(z | z') - log q(z' | z) = |xi|^2 / 2 - |xi + (e / 2) (g + g')|^2 / 2 (derivations, sec. 11), in each frame
    (Roberts & Tweedie 1996). The best share of accepted moves in many dimensions is 57 % (Roberts & Rosenthal 1998).
    """

    uses_gradient: ClassVar[bool] = True

    step_size: float = 0.1
    target_acceptance: float = 0.574

    def propose(
        self, log_density: LogDensity, state: ChainState, xi: Tensor, frames: Tensor | None
    ) -> Proposal:
        assert state.scale is not None
        step, gradient = state.scale[..., None], known_gradient(log_density, state)
        z = only(frames, langevin_move(state.position, gradient, xi, step), state.position)
        factors, there = value_and_gradient(log_density, z)
        back = xi + 0.5 * step * (gradient + there)
        return Proposal(z, factors, there, 0.5 * (xi.square() - back.square()).sum(-1))
