"""The standard normal prior."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution

from pyro_minvae.models.distributions import normal
from pyro_minvae.models.priors.base import Prior
from pyro_minvae.types import Visual


class StandardPrior(Prior):
    """z ~ N(0, I) (derivations, eq. 1.4)."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.register_buffer("zero", torch.zeros(latent), persistent=False)
        self.register_buffer("one", torch.ones(latent), persistent=False)

    def conditionals(self, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        return (normal(self.get_buffer("zero"), self.get_buffer("one")),)
