"""Likelihoods p(s | z): what the decoder's variance says of a power spectrum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints


class ComplexGaussianPower(TorchDistribution):
    """The power |s|^2 of a circular complex Gaussian: log p = -log v - |s|^2 / v (Exponential with mean v).

    (derivations, eq. 4.1)

    It takes log v [..., F], because the decoder has it: `Exponential(exp(-log v))` would exponentiate and take the
    logarithm again.
    """

    arg_constraints = {"log_variance": constraints.real}  # noqa: RUF012 - the base class's own type
    support = constraints.nonnegative

    def __init__(self, log_variance: Tensor, validate_args: bool | None = None) -> None:
        self.log_variance = log_variance
        super().__init__(log_variance.shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> ComplexGaussianPower:
        return ComplexGaussianPower(self.log_variance.expand(*batch_shape), validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            like = self.log_variance
            return torch.empty(shape, dtype=like.dtype, device=like.device).exponential_() * like.exp()

    def log_prob(self, value: Tensor) -> Tensor:
        return log_power_density(value, self.log_variance)


def log_power_density(power: Tensor, log_variance: Tensor) -> Tensor:
    """-log v - |s|^2 / v, elementwise: minus the Itakura-Saito divergence up to a term in the power alone.

    (derivations, eqs. 1.2 and 1.3)
    """
    # Three passes over [..., F]; as it is written above it takes five.
    log_precision = -log_variance
    return torch.addcmul(log_precision, power, log_precision.exp(), value=-1)


class Likelihood(nn.Module):
    """p(s | z) of one bin given log sigma_f(z): a scale mixture of complex Gaussians, s | z, w ~ N_c(0, sigma / w).

    To write a new one, subclass this with `weighted = True` and answer the five methods below; without a weight it is
    the complex Gaussian.
    """

    weighted = False

    def log_prob(self, power: Tensor, log_variance: Tensor) -> Tensor:
        """log p(|s|^2 | z) with w summed out, elementwise in [..., F]."""
        raise NotImplementedError(f"{type(self).__name__} lacks log_prob()")

    def weight_prior(self, like: Tensor) -> TorchDistribution:
        """p(w), of the batch shape of `like`."""
        raise TypeError(f"{type(self).__name__} has no weight")

    def weight_posterior(self, ratio: Tensor) -> TorchDistribution:
        """q(w | s, z), exact, given `ratio` = |s|^2 / sigma."""
        raise TypeError(f"{type(self).__name__} has no weight")

    def weight(self, ratio: Tensor, *, mode: bool) -> Tensor:
        """A point estimate of w given E|s|^2 / sigma: the mean of q(w), or its `mode` as an EM step needs it."""
        raise TypeError(f"{type(self).__name__} has no weight")

    def log_weight_density(self, weight: Tensor) -> Tensor:
        """log p(w), elementwise."""
        raise TypeError(f"{type(self).__name__} has no weight")

    def sample(self, power: Tensor | None, log_variance: Tensor, event_dim: int) -> None:
        """The Pyro sites "w" (if weighted) and "s", observed to be `power` or sampled; `event_dim` are one event."""
        weight = self.sample_weight("w", log_variance, event_dim)
        if weight is not None:
            log_variance = log_variance - weight.log()
        likelihood = ComplexGaussianPower(log_variance, validate_args=False)
        pyro.sample("s", likelihood.to_event(event_dim), obs=power)

    def sample_weight(self, name: str, like: Tensor, event_dim: int) -> Tensor | None:
        """The Pyro site of w, of the shape of `like`; None if there is no weight."""
        return pyro.sample(name, self.weight_prior(like).to_event(event_dim)) if self.weighted else None

    def guide(self, power: Tensor, log_variance: Tensor, event_dim: int) -> None:
        """The guide's side of the site "w", if there is one: its exact posterior."""
        if self.weighted:
            ratio = power * (-log_variance).exp()
            pyro.sample("w", self.weight_posterior(ratio).to_event(event_dim))


class ComplexGaussian(Likelihood):
    """s_f | z ~ N_c(0, sigma_f(z))."""

    def log_prob(self, power: Tensor, log_variance: Tensor) -> Tensor:
        return log_power_density(power, log_variance)


class StudentT(Likelihood):
    """s_f | z, w_f ~ N_c(0, sigma_f(z) / w_f), w_f ~ Gamma(a, a) with a = dof / 2: heavy tails, bin by bin.

    The weight summed out, p(|s|^2) = 1 / sigma (1 + |s|^2 / (a sigma))^-(a + 1) (derivations, eqs. 4.2 and 4.3). In
    Pyro the weight is a site "w" of its own; the guide has the exact q(w | s, z) = Gamma(a + 1, a + |s|^2 / sigma), so
    that the sampled bound equals the one with w summed out at every draw (eqs. 4.6 to 4.9). With dof -> inf it becomes
    the complex Gaussian.

    Raises:
        ValueError: if `dof` is not positive.
    """

    weighted = True

    def __init__(self, dof: float) -> None:
        super().__init__()
        if dof <= 0:
            raise ValueError(f"expected a positive number of degrees of freedom, got {dof}")
        self.shape = dof / 2

    def log_prob(self, power: Tensor, log_variance: Tensor) -> Tensor:
        ratio = power * (-log_variance).exp() / self.shape
        return -log_variance - (self.shape + 1) * ratio.log1p()

    def weight_prior(self, like: Tensor) -> TorchDistribution:
        # The shape alone counts: a graph of the model should not show w to depend on z.
        half = torch.full(like.shape, self.shape, dtype=like.dtype, device=like.device)
        return dist.Gamma(half, half, validate_args=False)

    def weight_posterior(self, ratio: Tensor) -> TorchDistribution:
        return dist.Gamma(torch.full_like(ratio, self.shape + 1), self.shape + ratio, validate_args=False)

    def weight(self, ratio: Tensor, *, mode: bool) -> Tensor:
        """w = (a + 1) / (a + ratio), the mean, or a / (a + ratio), the mode of p(w) p(s | w) in w.

        (derivations, eqs. 6.34 and 6.38)
        """
        return (self.shape if mode else self.shape + 1) / (self.shape + ratio)

    def log_weight_density(self, weight: Tensor) -> Tensor:
        a = self.shape
        return a * math.log(a) - math.lgamma(a) + (a - 1) * weight.log() - a * weight
