"""The variational mixture of posteriors."""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_minvae.models.distributions import VectorMixture
from pyro_minvae.models.priors.base import Prior
from pyro_minvae.types import Visual

Posterior = Callable[[Tensor, Visual], TorchDistribution]
"""q(z | s, v) of a guide without alpha: power [K, F] and lips to a distribution over z with batch shape [K]."""


class VampPrior(Prior):
    """p(z) = 1/K sum_k q(z | u_k): the guide's posterior averaged over K learned pseudo-inputs.

    Tomczak & Welling 2018 (derivations, eq. 3.6); its KL term has no closed form (eq. 3.7).

    A pseudo-input is a frame, a power spectrum and the lips that go with it; both start as noise around an average
    frame (`start_at`) and are learned with the rest.

    Args:
        posterior: the guide's q(z | s, v). It is called anew each time, so that p follows q; its parameters stay the
            guide's.
        count: K.
        bins: F.
        lips: D, the length of the lip features.
    """

    def __init__(self, posterior: Posterior, count: int, bins: int, lips: int) -> None:
        super().__init__()
        self.posterior = posterior
        self.log_power = nn.Parameter(torch.randn(count, bins))
        self.lips = nn.Parameter(torch.randn(count, lips))

    def start_at(self, log_power: Tensor) -> None:
        """Move the pseudo-inputs around a mean log power [F]."""
        with torch.no_grad():
            self.log_power.add_(log_power)

    def conditionals(self, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        everywhere = torch.ones(len(self.lips), dtype=torch.bool, device=self.lips.device)
        # Above this a power spectrum at full scale 1 is no sound, and the exponential would overflow.
        parts = self.posterior(self.log_power.clamp(max=30.0).exp(), Visual(self.lips, everywhere))
        weights = dist.Categorical(logits=torch.zeros_like(self.lips[:, 0]), validate_args=False)
        return (VectorMixture(weights, parts, validate_args=False),)
