"""Wiener filtering: what of the mixture belongs to each source."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_minvae.fused import noise as fused
from pyro_minvae.inference.ops.workspace import Workspace, cut, tiles


def masks(variances: Tensor, noise: Tensor, gain: Tensor | None = None) -> Tensor:
    """mean_r [ v_j / (sum_i v_i + WH) ]: variances [J, R, ..., N, F] and noise [..., N, F] to [J, ..., N, F].

    (derivations, eqs. 6.9 and 7.6)

    Each lies in [0, 1] and they sum to less than 1; the rest is the noise's. With a `gain` [J, ..., N] the variances
    are that many times those given.
    """
    found = fused.shares(variances, noise, gain)
    if found is not None:
        return found
    if gain is not None:
        variances = gain[:, None, ..., None] * variances
    mean, workspace = torch.empty_like(variances[:, 0]), Workspace()
    for part in tiles(noise):
        rest, share = cut(noise, part), cut(mean, part)
        for number, draw in enumerate(cut(variances, part).unbind(1)):
            # Reductions over a dimension of one are slow.
            speech = draw[0] if len(draw) == 1 else draw.sum(0)
            total = torch.add(speech, rest, out=workspace("total", rest))
            if number == 0:
                torch.div(draw, total, out=share)
            else:
                share += torch.div(draw, total, out=workspace("share", draw))
    return mean.div_(variances.shape[1])


def second_moment(
    component: Tensor,
    total: Tensor,
    power: Tensor,
    *,
    workspace: Workspace | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """E[|c|^2 | x] = (v / V)^2 |x|^2 + v (1 - v / V) for a component of variance v in a sum of variance V.

    (derivations, eq. 6.5)

    It goes into `out`, by way of an array in `scratch`.
    """
    share = torch.div(component, total, out=workspace("share", component) if workspace else None)
    return torch.addcmul(total, share, power, out=out).sub_(component).mul_(share)


def mean_of(values: Tensor) -> Tensor:
    """The mean over the first dimension, R draws."""
    return values[0] if len(values) == 1 else values.sum(0).div_(len(values))
