"""p(s | z): what the decoder's variance says of a power spectrum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class ComplexGaussianPower(TorchDistribution):
    """The power |s|^2 of a circular complex Gaussian: log p = -log v - |s|^2 / v (Exponential with mean v).

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
            return (
                torch.empty(shape, device=self.log_variance.device).exponential_() * self.log_variance.exp()
            )

    def log_prob(self, value: Tensor) -> Tensor:
        return log_power_density(value, self.log_variance)


def log_power_density(power: Tensor, log_variance: Tensor) -> Tensor:
    """-log v - |s|^2 / v, elementwise: minus the Itakura-Saito divergence up to a term in the power alone."""
    return -log_variance - power * (-log_variance).exp()
