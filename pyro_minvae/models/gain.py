"""The speech's level in each frame, g_n, with a gamma prior: MAP updates for both E-steps (derivations, sec. 12)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_minvae.inference.ops.minimisers import TINY, minimiser


class GainPrior(NamedTuple):
    """g_n ~ Gamma(a, b), a = `shape` > 0 and b = `rate` >= 0: mean a / b. Gamma(1, 0) is flat: maximum likelihood.

    Gamma(1, 1), the exponential distribution, keeps temporal models stable.
    """

    shape: float = 1.0
    rate: float = 1.0

    def log_prob(self, gain: Tensor) -> Tensor:
        """log p(g) = (a - 1) log g - b g + a log b - log Gamma(a); without the last two where b = 0. Any shape."""
        a, b = self.shape, self.rate
        constant = a * math.log(b) - math.lgamma(a) if b > 0 else 0.0
        return (a - 1) * gain.log() - b * gain + constant

    def flat(self, shape: Sequence[int]) -> TorchDistribution:
        """The improper prior of b = 0 as a site of that shape: density g^(a - 1), which can be conditioned on only."""
        return _Power(self.shape - 1, shape)


class _Power(dist.ImproperUniform):
    """Density prod g^c of positive numbers, one event."""

    def __init__(self, exponent: float, shape: Sequence[int]) -> None:
        self.exponent = exponent
        super().__init__(constraints.independent(constraints.positive, len(shape)), (), tuple(shape))

    def expand(self, batch_shape: Sequence[int], _instance: _Power | None = None) -> _Power:
        new = self._get_checked_instance(_Power, _instance)
        new.exponent = self.exponent
        return super().expand(batch_shape, new)

    def log_prob(self, value: Tensor) -> Tensor:
        total = value.log().sum(tuple(range(-self.event_dim, 0)))
        return self.exponent * total.expand(torch.broadcast_shapes(total.shape, self.batch_shape))


FLAT = GainPrior(1.0, 0.0)
"""Maximum likelihood."""


def marginal_gain(gain: Tensor, up: Tensor, down: Tensor, prior: GainPrior) -> Tensor:
    """One step of g [..., N] that never lowers -mean_r sum_f [log V + |x|^2 / V] + log p(g), V = g sigma + others.

    Minus the likelihood is majorised by up g~^2 / g + down g, with up = mean_r sum_f |x|^2 sigma V^-2 and
    down = mean_r sum_f sigma V^-1 at the present g~. With the prior the minimum is the positive root of

        (down + b) g^2 - (a - 1) g - up g~^2 = 0

    (derivations, eq. 12.29), g~ sqrt(up / down) for a flat prior (Leglaive et al. 2018, eq. 20).
    `gain`, `up` and `down` are [..., N].
    """
    return minimiser(down + prior.rate, up * gain**2, 1 - prior.shape).clamp_min(TINY)


def mean_field_gain(level: Tensor, bins: int, prior: GainPrior) -> Tensor:
    """The g [..., N] that maximises -mean_r sum_f [log g sigma + E|sqrt(g) s|^2 / g sigma] + log p(g), exactly.

    `level` [..., N] is y = sum_f E|sqrt(g) s|^2 mean_r 1 / sigma, `bins` is F. The positive root of

        b g^2 + (F + 1 - a) g - y = 0

    (derivations, eq. 12.31), y / F for a flat prior.

    Raises:
        ValueError: if a >= F + 1 and b = 0, where there is no maximum.
    """
    slope = bins + 1 - prior.shape
    if prior.rate == 0 and slope <= 0:
        raise ValueError(f"expected a shape below {bins + 1} where the rate is 0, got {prior.shape}")
    return minimiser(prior.rate, level, slope).clamp_min(TINY)
