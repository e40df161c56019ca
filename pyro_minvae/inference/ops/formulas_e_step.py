"""The formulas of the E-step's passes, each once, by torch: for every type of number, every device, and graphs.

`ops` holds the table of those that are compiled too. Arrays are gone over a few frames at a time, so that they stay
in the processor's cache from one operation to the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_minvae.inference.ops.autograd import LogLikelihood, summed
from pyro_minvae.inference.ops.gaussians import Decision, Gaussians, Normal, Place
from pyro_minvae.inference.ops.workspace import Workspace, cut, joined, tiles


def decode_(values: Tensor, bias: Tensor, *, limit: float, floor: float) -> Tensor:
    """2^min(x + b, limit) + floor in place of x [..., F], with b [F]."""
    values.add_(bias)
    if limit < torch.inf:
        values.clamp_(max=limit)
    return values.exp2_().add_(floor)


def through(sigma: Tensor, outer: Tensor, *, floor: float, most: float, out: Tensor) -> Tensor:
    """outer (sigma - floor), 0 where sigma - floor >= `most`, in `out`, which may be `outer`; all [..., F]."""
    for part in tiles(sigma):
        exponential, back = cut(sigma, part) - floor, cut(outer, part)
        if most == torch.inf:
            torch.mul(exponential, back, out=cut(out, part))
        else:
            cut(out, part).copy_(torch.where(exponential < most, exponential * back, 0.0))
    return out


def log_likelihood(
    power: Tensor,
    sigma: Tensor,
    *,
    scale: Tensor | None = None,
    others: Tensor | None = None,
    workspace: Workspace | None = None,
) -> Tensor:
    """-sum_f [log V + |x|^2 / V] [..., N] with V = scale sigma + others; V = sigma if they are not given.

    (derivations, eq. 6.3)

    Logarithms cost most, so that bins are multiplied in pairs before: V should lie within 1e-19 and 1e19 (in single
    precision).

    Args:
        power: |x|^2 [..., N, F].
        sigma: [..., N, F]; gradients go back to it (once more differentiable), not to the others.
        scale: g [..., N, 1] or [..., N, F].
        others: [..., N, F].
        workspace: arrays to work in.
    """
    if sigma.requires_grad:
        variance = sigma if scale is None or others is None else torch.addcmul(others, scale, sigma)
        return LogLikelihood.apply(power, variance)
    workspace, found = workspace or Workspace(), []
    variance = _variance(sigma, scale, others, workspace)
    for part in tiles(variance):
        own = cut(variance, part)
        ratio = torch.div(cut(power, part), own, out=workspace("ratio", own))
        found.append(summed(ratio, own, workspace))
    return joined(found, -1)


def slope(
    power: Tensor,
    sigma: Tensor,
    *,
    scale: Tensor | None = None,
    others: Tensor | None = None,
    out: Tensor,
    workspace: Workspace | None = None,
) -> Tensor:
    """d log_likelihood / d sigma = scale (|x|^2 / V - 1) / V in `out` [..., N, F]; arguments as there."""
    variance = _variance(sigma, scale, others, workspace or Workspace())
    for part in tiles(variance):
        own, row = cut(variance, part), cut(out, part)
        torch.div(cut(power, part), own, out=row).sub_(1).div_(own)
        if scale is not None:
            row.mul_(cut(scale, part))
    return out


def _variance(sigma: Tensor, scale: Tensor | None, others: Tensor | None, workspace: Workspace) -> Tensor:
    if scale is None or others is None:
        return sigma
    shape = torch.broadcast_shapes(others.shape, sigma.shape, scale.shape)
    return torch.addcmul(others, scale, sigma, out=workspace("variance", sigma, shape))


def log_normal(z: Tensor, part: Normal) -> Tensor:
    """log N(z; mean, diag precision^-2) [..., N] of z [..., N, L]."""
    away = (z - part.mean) * part.precision
    return torch.sub(part.constant, away.square().sum(-1), alpha=0.5)


def log_mixture(z: Tensor, gaussians: Gaussians, weight: Tensor | None = None) -> Tensor:
    """log p(z), the sum over alpha, [..., N]; its mean for q(alpha = 1) = `weight` [..., N] if that is given."""
    return mixed([log_normal(z, part) for part in gaussians.parts], gaussians.log_weights, weight)


def mixed(
    parts: Sequence[Tensor], log_weights: tuple[Tensor, Tensor] | None, weight: Tensor | None = None
) -> Tensor:
    """The same of the components' log densities."""
    if len(parts) == 1:
        return parts[0]
    if weight is not None:
        return torch.lerp(parts[0], parts[1], weight)
    assert log_weights is not None
    return torch.logaddexp(*(part + log for part, log in zip(parts, log_weights, strict=True)))


def mixture_gradient(z: Tensor, gaussians: Gaussians, weight: Tensor | None = None) -> Tensor:
    """That of `log_mixture` [..., N, L]: sum_alpha p(alpha | z) (mean_alpha - z) precision_alpha^2."""
    parts = [(part.mean - z) * part.precision.square() for part in gaussians.parts]
    if len(parts) == 1:
        return parts[0]
    share = responsibility(z[None], gaussians, of_mean=False) if weight is None else weight
    return torch.lerp(parts[0], parts[1], share[..., None])


def responsibility(draws: Tensor, gaussians: Gaussians, *, of_mean: bool) -> Tensor:
    """p(alpha = 1) [..., N] of draws [D, ..., N, L]: that of their mean log ratio, or the mean of each draw's."""
    assert gaussians.log_weights is not None
    first, second = (log_normal(draws, part) for part in gaussians.parts)
    return shared(second - first, gaussians.log_weights[1] - gaussians.log_weights[0], of_mean=of_mean)


def shared(ratio: Tensor, logit: Tensor, *, of_mean: bool) -> Tensor:
    """The same of the components' log ratios [D, ..., N] and the prior's logit (derivations, eqs. 6.29 and 6.10)."""
    if of_mean:
        return (logit + ratio.mean(0)).sigmoid_()
    return (logit + ratio).sigmoid_().mean(0)


def decide(
    uniform: Tensor, there: Place, here: Place, correction: Tensor | None, *, probability: bool
) -> Decision:
    """Metropolis and Hastings: go `there` where log u < log p(z') - log p(z) + correction, all [..., N].

    Never where log p(z') is not finite, and otherwise always where log p(z) is not: chains leave places of NaN density,
    and never enter one.
    """
    least = torch.finfo(uniform.dtype).min
    ratio = there.log_density.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    ratio.sub_(here.log_density.nan_to_num(least, least, least))
    if correction is not None:
        ratio = (ratio + correction).nan_to_num(-torch.inf, torch.inf, -torch.inf)
    accepted = uniform.log() < ratio
    went, gradient = accepted[..., None], None
    if there.gradient is not None and here.gradient is not None:
        gradient = torch.where(went, there.gradient, here.gradient)
    place = Place(
        torch.where(went, there.position, here.position),
        torch.where(accepted, there.log_density, here.log_density),
        gradient,
    )
    return Decision(accepted, place, ratio.clamp_max_(0.0).exp_() if probability else None)


def exchange(accepted: Tensor, there: Tensor, here: Tensor) -> bool:
    """Copy the fewer frames [..., N, F] into the other's array, of which the old contents are lost.

    True if `there` then holds where the chains are after a decision `accepted` [..., N], False if `here` does.
    """
    frames, bins = accepted.flatten(), there.shape[-1]
    went, count = int(torch.count_nonzero(frames)), frames.numel()
    most, few, rows = (there, here, ~frames) if 2 * went > count else (here, there, frames)
    if 0 < went < count:
        places = rows.nonzero()[:, 0]
        most.view(-1, bins).index_copy_(0, places, few.view(-1, bins).index_select(0, places))
    return most is there
