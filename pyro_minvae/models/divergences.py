"""Divergences of distributions over latent vectors, frame by frame, in closed form where there is one."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_minvae.models.distributions import MarkovNormal, factors, gaussian_parameters

Gaussian = tuple[Tensor, Tensor]
"""(mean, scale), each broadcastable to [..., N, L]."""


def gaussian_kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) = sum_l [log(p_l / q_l) + (q_l^2 + (m_q - m_p)^2) / (2 p_l^2) - 1/2] for scales q_l, p_l: [..., N].

    (derivations, eqs. 1.7 and 2.7)
    """
    (mean, scale), (prior_mean, prior_scale) = q, p
    ratio = (scale / prior_scale) ** 2
    distance = ((mean - prior_mean) / prior_scale) ** 2
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)


def markov_kl(q: Gaussian, p: MarkovNormal) -> Tensor:
    """E_q[log q(z_n) - log p(z_n | z_(n-1))] of independent Gaussians q (mean, scale) [..., N, L]: [..., N].

    These sum over n to KL(q || p). Frame 1 meets N(0, I); later frames a Gaussian whose mean is random under q:
    E (z_n - c z_(n-1))^2 = v_n + c^2 v_(n-1) + (m_n - c m_(n-1))^2 (derivations, eqs. 3.13 to 3.17).
    """
    mean, scale = q
    c, innovation = p.coefficient, p.innovation
    variance = scale**2
    first = variance[..., :1, :] + mean[..., :1, :] ** 2
    later = (
        variance[..., 1:, :] + c**2 * variance[..., :-1, :] + (mean[..., 1:, :] - c * mean[..., :-1, :]) ** 2
    ) / innovation**2 + 2 * innovation.log()
    return 0.5 * (torch.cat([first, later], -2) - 1 - variance.log()).sum(-1)


def kl(q: TorchDistribution, p: TorchDistribution, z: Tensor) -> Tensor:
    """KL(q || p) as terms that sum to it: closed where a formula is known, else log q(z) - log p(z): [..., N].

    Args:
        q: the guide's, independent over frames.
        p: the prior's.
        z: a draw from q [..., N, L], for pairs without a formula.
    """
    gaussian, prior = gaussian_parameters(q), gaussian_parameters(p)
    if gaussian is not None and prior is not None:
        return gaussian_kl(gaussian, prior)
    if gaussian is not None and isinstance(p, MarkovNormal):
        return markov_kl(gaussian, p)
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return q.log_prob(z) - factors(p, z)


def bernoulli_kl(q: Tensor, p: Tensor) -> Tensor:
    """KL(Bern(q) || Bern(p)), elementwise; both strictly between 0 and 1 (derivations, eq. 2.8)."""
    return q * (q.log() - p.log()) + (1 - q) * (torch.log1p(-q) - torch.log1p(-p))
