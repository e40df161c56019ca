"""Priors that couple neighbouring frames: a stationary AR(1) process and a Gaussian random walk."""

from __future__ import annotations

import math

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_minvae.models.distributions import MarkovNormal
from pyro_minvae.models.priors.base import Prior
from pyro_minvae.types import Visual


class Ar1Prior(Prior):
    """z_1 ~ N(0, I), z_n | z_(n-1) ~ N(rho z_(n-1), (1 - rho^2) I): every frame alone is N(0, I).

    (derivations, eq. 3.9)

    rho [L] is learned, a sigmoid, so that it stays between 0 and 1; it starts at `coefficient`.

    Raises:
        ValueError: if `coefficient` is not between 0 and 1.
    """

    coupled = True

    def __init__(self, latent: int, coefficient: float = 0.8) -> None:
        super().__init__()
        if not 0 < coefficient < 1:
            raise ValueError(f"expected a coefficient between 0 and 1, got {coefficient}")
        self.latent = latent
        self.logit = nn.Parameter(torch.full((latent,), math.log(coefficient / (1 - coefficient))))

    @property
    def coefficient(self) -> Tensor:
        """rho [L]."""
        # Never quite 1, where the innovation would vanish and every bound with it.
        return self.logit.sigmoid().clamp(max=0.999)

    def conditionals(self, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        rho = self.coefficient
        return (MarkovNormal(rho, (1 - rho**2).sqrt()),)


class RandomWalkPrior(Prior):
    """z_1 ~ N(0, I), z_n | z_(n-1) ~ N(z_(n-1), tau^2 I) (derivations, eq. 3.11).

    tau [L], the size of a step from frame to frame, is learned, an exponential; it starts at `step`.

    Raises:
        ValueError: if `step` is not positive.
    """

    coupled = True

    def __init__(self, latent: int, step: float = 0.5) -> None:
        super().__init__()
        if step <= 0:
            raise ValueError(f"expected a positive step, got {step}")
        self.latent = latent
        self.log_step = nn.Parameter(torch.full((latent,), math.log(step)))

    def conditionals(self, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        return (MarkovNormal(torch.ones_like(self.log_step), self.log_step.exp()),)
