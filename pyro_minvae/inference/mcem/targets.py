"""What the chains sample: log densities of z given the mixture, one for each E-step of the literature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from pyro_minvae.inference import ops
from pyro_minvae.inference.mcmc.base import Target
from pyro_minvae.inference.ops.workspace import Workspace, joined
from pyro_minvae.models.speech import Conditioned


def joint_target(
    speeches: Sequence[Conditioned],
    *,
    scales: Sequence[Tensor],
    others: Tensor,
    power: Tensor,
    prior: float = 1.0,
    workspace: Workspace | None = None,
) -> Target:
    """log p(z | x) up to a constant: sum_j log p(z_j | v_j) - sum_f [log V + |x|^2 / V], V = sum_j scale_j sigma_j + o.

    (derivations, eq. 7.3; with `prior` kappa times the first sum, eq. 6.46; its gradient is eq. 11.22)

    z [..., N, J L] is all z_j of a frame side by side, so that one decision moves or leaves all of them.

    Args:
        speeches: the models of the speakers whose z are open, each at its lips.
        scales: of each its gain g [..., N, 1], or g / w [..., N, F] with the weights of heavy-tailed speech.
        others: variance o [..., N, F] of all else: noise and speakers whose z are not open.
        power: |x|^2 [..., N, F].
        prior: kappa, how many times log p(z_j | v_j) counts.
        scratch: arrays to work in.
    """

    workspace = workspace or Workspace()

    def voices(z: Tensor) -> list[tuple[Tensor, Tensor]]:
        """z_j and sigma(z_j) of every speaker."""
        parts = [z] if len(speeches) == 1 else z.chunk(len(speeches), -1)
        return [(part, speech.variance(part)) for part, speech in zip(parts, speeches, strict=True)]

    @cache
    def shape_with(sigma: torch.Size) -> torch.Size:
        """Of V: several draws of others may meet a single z."""
        return torch.broadcast_shapes(others.shape, sigma, *(scale.shape for scale in scales))

    def total_of(sigmas: Sequence[Tensor]) -> Tensor:
        """V, or o and the first of the speakers where not all are given."""
        variance = others
        tracked = any(sigma.requires_grad for sigma in sigmas)
        room = None if tracked or not sigmas else workspace("total", others, shape_with(sigmas[0].shape))
        for sigma, scale in zip(sigmas, scales, strict=False):
            variance = torch.addcmul(variance, scale, sigma, out=room)
        return variance

    def likelihood(sigmas: Sequence[Tensor]) -> Tensor:
        *first, last = sigmas
        rest = total_of(first)
        return ops.log_likelihood(power, last, scale=scales[-1], others=rest, workspace=workspace)

    def log_density(z: Tensor) -> Tensor:
        found = voices(z)
        density = likelihood([sigma for _, sigma in found])
        for (part, _), speech in zip(found, speeches, strict=True):
            density = torch.add(density, speech.prior.log_prob(part), alpha=prior)
        return density

    def gradient(z: Tensor) -> Tensor:
        with torch.no_grad():
            found, parts = voices(z), []
            outers = slopes([sigma for _, sigma in found])
            for (part, sigma), outer, speech in zip(found, outers, speeches, strict=True):
                own = speech.variance.back(part, sigma, outer)
                parts.append(own.add_(speech.prior.gradient(part), alpha=prior))
            return joined(parts, -1)

    def slopes(sigmas: Sequence[Tensor]) -> Iterator[Tensor]:
        """The likelihood's derivatives by sigma_j; each holds until the next one is asked for."""
        room = workspace("slope", others, shape_with(sigmas[0].shape))
        if len(sigmas) == 1:
            (sigma,), (scale,) = sigmas, scales
            yield ops.slope(power, sigma, scale=scale, others=others, out=room, workspace=workspace)
            return
        slope = ops.slope(power, total_of(sigmas), out=room)
        for scale in scales:
            yield torch.mul(slope, scale, out=workspace("total", slope))

    def finite(z: Tensor) -> Tensor:
        first, *rest = (_finite(*voice) for voice in voices(z))
        return sum(rest, start=first)

    # A decision by all speakers' factors has to wait for the widest of them.
    befores, afters = zip(*(speech.reach for speech in speeches), strict=True)
    return Target(log_density, (max(befores), max(afters)), gradient, finite)


def _finite(z: Tensor, sigma: Tensor) -> Tensor:
    """Numbers [..., N] that are not finite where z or sigma(z) is not."""
    return z.square().sum(-1).add_(sigma.sum(-1))


def marginal_target(
    speech: Conditioned, *, scale: Tensor, others: Tensor, power: Tensor, prior: float = 1.0
) -> Target:
    """log p(z | x) up to a constant: log p(z | v) - sum_f [log V + |x|^2 / V], V = scale sigma(z) + `others`.

    (derivations, eqs. 6.7, 6.46 and 7.4)

    The case of one open speaker; arguments as for `joint_target`.
    """
    return joint_target([speech], scales=[scale], others=others, power=power, prior=prior)


def mean_field_target(
    speech: Conditioned,
    *,
    scale: Tensor,
    ratio: Tensor,
    weight: Tensor | None,
    workspace: Workspace | None = None,
) -> Target:
    """log q(z) up to a constant: E_q(alpha)[log p(z | alpha, v)] - sum_f [log v + E|sqrt(g) s|^2 / v], v = scale sigma.

    (derivations, eqs. 6.27, 6.28 and 6.36; its gradient is eq. 11.23)

    v is not formed: log v = log scale + log sigma, and E / v = (E / scale) / sigma.

    Args:
        speech: the model of the speaker whose z is open, at its lips.
        scale: its gain g [..., N, 1], or g / w [..., N, F] with the weights of heavy-tailed speech.
        ratio: E|sqrt(g) s|^2 / scale [..., N, F] under q(s).
        weight: q(alpha = 1) [..., N], None where there is no alpha.
        scratch: arrays to work in.
    """
    workspace = workspace or Workspace()
    bins = 1 if scale.shape == ratio.shape else ratio.shape[-1]
    constant = cache(lambda: bins * scale.log().sum(-1))

    def log_density(z: Tensor) -> Tensor:
        likelihood = ops.log_likelihood(ratio, speech.variance(z), workspace=workspace) - constant()
        return speech.prior.expected_log_prob(z, weight) + likelihood

    def gradient(z: Tensor) -> Tensor:
        with torch.no_grad():
            sigma = speech.variance(z)
            slope = ops.slope(ratio, sigma, out=workspace("slope", sigma))
            return speech.variance.back(z, sigma, slope).add_(speech.prior.expected_gradient(z, weight))

    return Target(log_density, speech.reach, gradient, lambda z: _finite(z, speech.variance(z)))
