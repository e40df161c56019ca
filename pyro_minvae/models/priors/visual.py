"""The visual prior p(z | v)."""

from __future__ import annotations

from pyro.distributions import TorchDistribution

from pyro_minvae.models.networks import GaussianNetwork
from pyro_minvae.models.priors.base import seen
from pyro_minvae.models.priors.standard import StandardPrior
from pyro_minvae.types import Visual


class VisualPrior(StandardPrior):
    """z | v ~ N(mu(v), diag sigma^2(v)); N(0, I) on frames without lips.

    AV-CVAE (Sadeghi et al. 2020; derivations, eqs. 3.1 and 5.1).
    """

    visual = True

    def __init__(self, latent: int, network: GaussianNetwork) -> None:
        super().__init__(latent)
        self.network = network

    def conditionals(self, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        if visual is None:
            return super().conditionals(visual)
        return (seen(self.network, visual),)
