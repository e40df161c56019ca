"""Random-walk Metropolis-Hastings."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_minvae.inference.mcmc.base import ChainState, LogDensity
from pyro_minvae.inference.mcmc.blocked import BlockedKernel, Proposal, only


@dataclass(frozen=True)
class Metropolis(BlockedKernel):
    """z' = z + step_size xi, xi ~ N(0, I), accepted with probability min(1, p(z') / p(z)) in each frame.

    The papers' proposal variance 0.01 is a `step_size` of 0.1 (Leglaive et al. 2018, sec. 4.2). With `warmup` steps
    the step size of each frame goes to where 23 % are accepted, the best share in many dimensions (Roberts, Gelman &
    Gilks 1997).
    """

    step_size: float = 0.1
    target_acceptance: float = 0.234

    def propose(
        self, log_density: LogDensity, state: ChainState, xi: Tensor, frames: Tensor | None
    ) -> Proposal:
        assert state.scale is not None
        z = only(frames, state.position + state.scale[..., None] * xi, state.position)
        return Proposal(z, log_density(z))
