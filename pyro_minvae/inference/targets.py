"""What the chains sample: log densities of z given the mixture, one for each E-step of the literature."""

from __future__ import annotations

from torch import Tensor

from pyro_minvae.inference.kernels.base import Target
from pyro_minvae.models.mixture import Source, log_likelihood


def marginal_target(source: Source, *, scale: Tensor, others: Tensor, power: Tensor) -> Target:
    """log p(z | x) up to a constant: log p(z | v) - sum_f [log V + |x|^2 / V], V = scale sigma(z) + `others`.

    (derivations, eqs. 6.7 and 7.4)

    Args:
        source: the speaker whose z is open.
        scale: its gain g [..., N, 1], or g / w [..., N, F] with the weights of heavy-tailed speech.
        others: variance [..., N, F] of all else: noise and other speakers.
        power: |x|^2 [..., N, F].
    """
    prior = source.model.prior.components(source.visual)

    def log_density(z: Tensor) -> Tensor:
        variance = scale * source.model.variance(z, source.visual) + others
        return prior.log_prob(z) + log_likelihood(power, variance)

    return Target(log_density, source.model.reach)


def mean_field_target(source: Source, *, scale: Tensor, expected: Tensor, weight: Tensor | None) -> Target:
    """log q(z) up to a constant: E_q(alpha)[log p(z | alpha, v)] - sum_f [log v + E|sqrt(g) s|^2 / v], v = scale sigma.

    (derivations, eqs. 6.27, 6.28 and 6.36)

    Args:
        source: the speaker whose z is open.
        scale: its gain g [..., N, 1], or g / w [..., N, F] with the weights of heavy-tailed speech.
        expected: E|sqrt(g) s|^2 [..., N, F] under q(s).
        weight: q(alpha = 1) [..., N], None where there is no alpha.
    """
    prior = source.model.prior.components(source.visual)

    def log_density(z: Tensor) -> Tensor:
        variance = scale * source.model.variance(z, source.visual)
        return prior.expected_log_prob(z, weight) + log_likelihood(expected, variance)

    return Target(log_density, source.model.reach)
