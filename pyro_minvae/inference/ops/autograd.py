"""The likelihood's gradient, written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_minvae.inference.ops.workspace import Workspace


def summed(ratio: Tensor, variance: Tensor, workspace: Workspace) -> Tensor:
    """-sum_f [log V + `ratio`], both [..., N, F]."""
    bins = variance.shape[-1]
    half = bins // 2
    pairs = workspace("pairs", variance, (*variance.shape[:-1], half))
    torch.mul(variance[..., :half], variance[..., bins - half :], out=pairs)
    log_total = pairs.log_().sum(-1)
    if bins % 2:
        log_total += variance[..., half].log()
    return log_total.add_(ratio.sum(-1)).neg_()


class LogLikelihood(torch.autograd.Function):
    """-sum_f [log V + |x|^2 / V] with its gradient (|x|^2 / V - 1) / V in few passes; none goes to `power`."""

    @staticmethod
    def forward(ctx: Any, power: Tensor, variance: Tensor) -> Tensor:
        """The sum over bins: two arrays [..., N, F] to [..., N]."""
        ratio = power / variance
        ctx.save_for_backward(power, variance)
        ctx.ratio = ratio
        return summed(ratio, variance, Workspace())

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[None, Tensor]:
        """No gradient of the power, and that of the variance [..., N, F]."""
        power, variance = ctx.saved_tensors
        (weight,) = outer
        if torch.is_grad_enabled():  # somebody wants curvature
            return None, (power / variance - 1) / variance * weight[..., None]
        return None, (ctx.ratio - 1).div_(variance).mul_(weight[..., None])
