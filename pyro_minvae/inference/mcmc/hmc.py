"""Hamiltonian Monte Carlo with a few leapfrog steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pyro_minvae.inference.mcmc.base import ChainState, LogDensity, value_and_gradient
from pyro_minvae.inference.mcmc.blocked import BlockedKernel, Proposal, known_gradient, only


@dataclass(frozen=True)
class Hmc(BlockedKernel):
    """Momentum p ~ N(0, I), then `leapfrogs` steps p += (e/2) grad, z += e p, p += (e/2) grad; e is `step_size`.

    The end is accepted with probability min(1, exp(H(z, p) - H(z', p'))), H = -log p(z) + |p|^2 / 2, in each frame
    (Neal 2011, sec. 2 and 3; derivations, sec. 11). One leapfrog step is MALA. A step costs `leapfrogs` gradients;
    about 65 % accepted is best (Neal 2011, sec. 4.4).

    Raises:
        ValueError: if `leapfrogs` < 1.
    """

    uses_gradient: ClassVar[bool] = True

    step_size: float = 0.1
    target_acceptance: float = 0.65
    leapfrogs: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.leapfrogs < 1:
            raise ValueError(f"expected leapfrogs >= 1, got {self.leapfrogs}")

    def propose(
        self, log_density: LogDensity, state: ChainState, xi: Tensor, frames: Tensor | None
    ) -> Proposal:
        assert state.scale is not None
        step, z = state.scale[..., None], state.position
        gradient = known_gradient(log_density, state)
        factors, momentum = state.log_density, xi
        for _ in range(self.leapfrogs):
            momentum = momentum + 0.5 * step * gradient
            z = only(frames, z + step * momentum, z)
            factors, gradient = value_and_gradient(log_density, z)
            momentum = momentum + 0.5 * step * gradient
        return Proposal(z, factors, gradient, 0.5 * (xi.square() - momentum.square()).sum(-1))
