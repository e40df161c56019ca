"""Wiener filtering: what of the mixture belongs to each source."""

from __future__ import annotations

from torch import Tensor


def masks(variances: Tensor, noise: Tensor) -> Tensor:
    """mean_r [ v_j / (sum_i v_i + WH) ]: variances [J, R, ..., N, F] and noise [..., N, F] to [J, ..., N, F].

    (derivations, eqs. 6.9 and 7.6)

    Each lies in [0, 1] and they sum to less than 1; the rest is the noise's.
    """
    total = variances.sum(0) + noise
    return (variances / total).mean(1)


def second_moment(component: Tensor, total: Tensor, power: Tensor) -> Tensor:
    """E[|c|^2 | x] = (v / V)^2 |x|^2 + v (1 - v / V) for a component of variance v in a sum of variance V.

    (derivations, eq. 6.5)
    """
    share = component / total
    return share**2 * power + component * (1 - share)
