"""Wiener filtering: what of the mixture belongs to each source."""

from __future__ import annotations

from torch import Tensor

from pyro_minvae.inference import ops
from pyro_minvae.inference.ops.formulas_m_step import second_moment as second_moment


def masks(variances: Tensor, noise: Tensor, gain: Tensor | None = None) -> Tensor:
    """mean_r [ v_j / (sum_i v_i + WH) ]: variances [J, R, ..., N, F] and noise [..., N, F] to [J, ..., N, F].

    (derivations, eqs. 6.9 and 7.6)

    Each lies in [0, 1] and they sum to less than 1; the rest is the noise's. With a `gain` [J, ..., N] the variances
    are that many times those given.
    """
    return ops.filters(variances, noise, gain)


def mean_of(values: Tensor) -> Tensor:
    """The mean over the first dimension, R draws."""
    return values[0] if len(values) == 1 else values.sum(0).div_(len(values))
