"""Random-walk Metropolis-Hastings with one decision per frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_minvae.inference.kernels.base import ChainInfo, ChainState, LogDensity


@dataclass(frozen=True)
class Metropolis:
    """z' = z + step_size xi, xi ~ N(0, I), accepted with probability min(1, p(z') / p(z)) in each frame.

    The papers' proposal variance 0.01 is a `step_size` of 0.1 (Leglaive et al. 2018, sec. 4.2).
    """

    step_size: float = 0.1

    def init(self, log_density: LogDensity, z: Tensor) -> ChainState:
        return ChainState(z, log_density(z))

    def step(
        self, log_density: LogDensity, state: ChainState, generator: torch.Generator
    ) -> tuple[ChainState, ChainInfo]:
        z = state.position
        xi = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device)
        proposal = z + self.step_size * xi
        proposed = log_density(proposal)
        u = torch.rand(proposed.shape, generator=generator, dtype=z.dtype, device=z.device)
        # A proposal of NaN density compares false: it is rejected.
        accepted = u.log() < proposed - state.log_density
        position = torch.where(accepted[..., None], proposal, z)
        return ChainState(position, torch.where(accepted, proposed, state.log_density)), ChainInfo(accepted)
