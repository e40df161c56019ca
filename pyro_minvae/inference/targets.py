"""What the chains sample: log densities of z given the mixture, one for each E-step of the literature."""

from __future__ import annotations

from torch import Tensor

from pyro_minvae.inference.kernels.base import Target
from pyro_minvae.models.mixture import log_likelihood
from pyro_minvae.models.speech import Conditioned


def marginal_target(speech: Conditioned, *, scale: Tensor, others: Tensor, power: Tensor) -> Target:
    """log p(z | x) up to a constant: log p(z | v) - sum_f [log V + |x|^2 / V], V = scale sigma(z) + `others`.

    (derivations, eqs. 6.7 and 7.4)

    Args:
        speech: the model of the speaker whose z is open, at its lips.
        scale: its gain g [..., N, 1], or g / w [..., N, F] with the weights of heavy-tailed speech.
        others: variance [..., N, F] of all else: noise and other speakers.
        power: |x|^2 [..., N, F].
    """

    def log_density(z: Tensor) -> Tensor:
        return speech.prior.log_prob(z) + log_likelihood(power, scale * speech.variance(z) + others)

    return Target(log_density, speech.reach)


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

    def log_density(z: Tensor) -> Tensor:
        likelihood = log_likelihood(expected, scale * speech.variance(z))
        return speech.prior.expected_log_prob(z, weight) + likelihood

    return Target(log_density, speech.reach)
