"""Wiener filtering: what of the mixture belongs to each source."""

from __future__ import annotations

import torch
from torch import Tensor


def masks(variances: Tensor, noise: Tensor) -> Tensor:
    """mean_r [ v_j / (sum_i v_i + WH) ]: variances [J, R, ..., N, F] and noise [..., N, F] to [J, ..., N, F].

    (derivations, eqs. 6.9 and 7.6)

    Each lies in [0, 1] and they sum to less than 1; the rest is the noise's.
    """
    if len(variances) == 1:
        # Reductions over a dimension of one are slow.
        variances = variances[0]
        return mean_of(variances / (variances + noise))[None]
    return mean_of((variances / (variances.sum(0) + noise)).movedim(1, 0))


def second_moment(component: Tensor, total: Tensor, power: Tensor) -> Tensor:
    """E[|c|^2 | x] = (v / V)^2 |x|^2 + v (1 - v / V) for a component of variance v in a sum of variance V.

    (derivations, eq. 6.5)
    """
    share = component / total
    return torch.addcmul(total, share, power).sub_(component).mul_(share)


def mean_of(values: Tensor) -> Tensor:
    """The mean over the first dimension, R draws."""
    return values[0] if len(values) == 1 else values.sum(0).div_(len(values))
