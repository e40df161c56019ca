"""What the chains sample: log densities of z given the mixture, one for each E-step of the literature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_minvae.inference.kernels.base import Target
from pyro_minvae.models.mixture import log_likelihood
from pyro_minvae.models.speech import Conditioned


def joint_target(
    speeches: Sequence[Conditioned],
    *,
    scales: Sequence[Tensor],
    others: Tensor,
    power: Tensor,
    prior: float = 1.0,
) -> Target:
    """log p(z | x) up to a constant: sum_j log p(z_j | v_j) - sum_f [log V + |x|^2 / V], V = sum_j scale_j sigma_j + o.

    (derivations, eq. 7.3; with `prior` kappa times the first sum, eq. 6.46)

    z [..., N, J L] is all z_j of a frame side by side, so that one decision moves or leaves all of them.

    Args:
        speeches: the models of the speakers whose z are open, each at its lips.
        scales: of each its gain g [..., N, 1], or g / w [..., N, F] with the weights of heavy-tailed speech.
        others: variance o [..., N, F] of all else: noise and speakers whose z are not open.
        power: |x|^2 [..., N, F].
        prior: kappa, how many times log p(z_j | v_j) counts.
    """

    def log_density(z: Tensor) -> Tensor:
        parts = [z] if len(speeches) == 1 else z.chunk(len(speeches), -1)
        variance = others
        for part, speech, scale in zip(parts, speeches, scales, strict=True):
            variance = torch.addcmul(variance, scale, speech.variance(part))
        density = log_likelihood(power, variance)
        for part, speech in zip(parts, speeches, strict=True):
            density = torch.add(density, speech.prior.log_prob(part), alpha=prior)
        return density

    # A decision by all speakers' factors has to wait for the widest of them.
    befores, afters = zip(*(speech.reach for speech in speeches), strict=True)
    return Target(log_density, (max(befores), max(afters)))


def marginal_target(
    speech: Conditioned, *, scale: Tensor, others: Tensor, power: Tensor, prior: float = 1.0
) -> Target:
    """log p(z | x) up to a constant: log p(z | v) - sum_f [log V + |x|^2 / V], V = scale sigma(z) + `others`.

    (derivations, eqs. 6.7, 6.46 and 7.4)

    The case of one open speaker; arguments as for `joint_target`.
    """
    return joint_target([speech], scales=[scale], others=others, power=power, prior=prior)


def mean_field_target(
    speech: Conditioned, *, scale: Tensor, expected: Tensor, weight: Tensor | None
) -> Target:
    """log q(z) up to a constant: E_q(alpha)[log p(z | alpha, v)] - sum_f [log v + E|sqrt(g) s|^2 / v], v = scale sigma.

    (derivations, eqs. 6.27, 6.28 and 6.36)

    Args:
        speech: the model of the speaker whose z is open, at its lips.
        scale: its gain g [..., N, 1], or g / w [..., N, F] with the weights of heavy-tailed speech.
        expected: E|sqrt(g) s|^2 [..., N, F] under q(s).
        weight: q(alpha = 1) [..., N], None where there is no alpha.
    """

    # v is not formed: log v = log scale + log sigma, and E / v = (E / scale) / sigma.
    ratio = expected / scale
    bins = 1 if scale.shape == expected.shape else expected.shape[-1]
    constant = bins * scale.log().sum(-1)

    def log_density(z: Tensor) -> Tensor:
        likelihood = log_likelihood(ratio, speech.variance(z)) - constant
        return speech.prior.expected_log_prob(z, weight) + likelihood

    return Target(log_density, speech.reach)
