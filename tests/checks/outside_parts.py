"""Parts from outside the package with other distributions, right ones and a wrong one."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_minvae.guides.base import Guide
from pyro_minvae.models.distributions import normal
from pyro_minvae.models.likelihoods import Likelihood
from pyro_minvae.models.priors import Prior
from pyro_minvae.types import Shapes, Visual


class LaplacePrior(Prior):
    """z ~ Laplace(m, 1 / sqrt 2) in each dimension: torch knows KL(N || Laplace)."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(shapes.latent))

    def conditionals(self, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        return (dist.Laplace(self.mean, torch.full_like(self.mean, 0.5**0.5)).to_event(1),)


class LogisticPrior(Prior):
    """z ~ Logistic(m, 1/2) in each dimension: no divergence from it has a closed form."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(shapes.latent))

    def conditionals(self, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        return (dist.Logistic(self.mean, torch.full_like(self.mean, 0.5)).to_event(1),)


class LogisticGuide(Guide):
    """q(z | s) logistic around a linear function of the log power."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.mean = nn.Linear(shapes.bins, shapes.latent)
        self.log_scale = nn.Parameter(torch.zeros(shapes.latent))

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        mean = self.mean(((power if encoder_input is None else encoder_input) + 1e-4).log() / 5)
        return (dist.Logistic(mean, self.log_scale.exp().expand_as(mean) / 2).to_event(1),)


class LaplaceGuide(LogisticGuide):
    """The same with Laplace in place of logistic: torch knows KL(Laplace || Normal), with kinks for the quadrature."""

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        mean = self.mean(((power if encoder_input is None else encoder_input) + 1e-4).log() / 5)
        return (dist.Laplace(mean, self.log_scale.exp().expand_as(mean) / 2).to_event(1),)


class GaussianGuide(LogisticGuide):
    """The same, Gaussian."""

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        mean = self.mean(((power if encoder_input is None else encoder_input) + 1e-4).log() / 5)
        return (normal(mean, self.log_scale.exp().expand_as(mean) / 2),)


class Lomax(Likelihood):
    """s | z, w ~ N_c(0, sigma / w), w ~ Gamma(a, b): the power is Lomax.

    p(P) = a / (b sigma) (1 + P / (b sigma))^-(a + 1).
    """

    weighted = True

    def __init__(self, shapes: Shapes, shape: float = 1.5, rate: float = 0.8) -> None:
        super().__init__()
        self.shape, self.rate = shape, rate

    def log_prob(self, power: Tensor, log_variance: Tensor) -> Tensor:
        ratio = power * (-log_variance).exp() / self.rate
        return math.log(self.shape / self.rate) - log_variance - (self.shape + 1) * ratio.log1p()

    def weight_prior(self, like: Tensor) -> TorchDistribution:
        return dist.Gamma(torch.full_like(like, self.shape), torch.full_like(like, self.rate))

    def weight_posterior(self, ratio: Tensor) -> TorchDistribution:
        return dist.Gamma(torch.full_like(ratio, self.shape + 1), self.rate + ratio)


class Weibull(Likelihood):
    """A trap: the power is Weibull in `log_prob`, but the Pyro site "s" is still the complex Gaussian's."""

    def __init__(self, shapes: Shapes, shape: float = 0.7) -> None:
        super().__init__()
        self.shape = shape

    def log_prob(self, power: Tensor, log_variance: Tensor) -> Tensor:
        log_power = power.clamp_min(1e-300).log()
        ratio = (log_power - log_variance) * self.shape
        return ratio - log_power + math.log(self.shape) - ratio.exp()
