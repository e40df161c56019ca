"""The densities of the family written out by hand: of the package they use the parameters and bare networks only."""

from __future__ import annotations

import math

import torch
from laws import DOF, Frames
from torch import Tensor, nn

from pyro_minvae.guides.base import Guide
from pyro_minvae.models.priors import Prior
from pyro_minvae.types import Visual

Moments = tuple[Tensor, Tensor]
"""(mean, scale) of a Gaussian, each [..., N, L]."""
EPSILON = 1e-6


def log_gaussian(z: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(z; mean, diag variance): [..., L] to [...]."""
    return -0.5 * (((z - mean) ** 2 / variance) + variance.log() + math.log(2 * math.pi)).sum(-1)


def at_lips(network: nn.Module, visual: Visual) -> Moments:
    """The Gaussian of a visual network where there are lips, N(0, I) elsewhere (derivations, eq. 3.1)."""
    seen = visual.valid[..., None]
    mean, scale = network(torch.where(seen, visual.features, 0.0))
    return torch.where(seen, mean, 0.0), torch.where(seen, scale, 1.0)


def product_of_experts(guide: Guide, encoder_input: Tensor, visual: Visual) -> Moments:
    """N(0, I) q_a q_v / Z; without lips N(0, I) q_a / Z (derivations, eq. 3.22, 3.24)."""
    (m_a, s_a), (m_v, s_v) = (
        guide.audio(encoder_input),
        guide.visual_network(torch.nan_to_num(visual.features)),
    )
    lips = visual.valid[..., None].double()
    precision = 1 + 1 / s_a**2 + lips / s_v**2
    mean = (m_a / s_a**2 + lips * m_v / s_v**2) / precision
    return mean, 1 / precision.sqrt()


def around(encoder: nn.Module, encoder_input: Tensor, visual: Visual) -> Moments:
    """The encoder of mixed speech, tap by tap: h + P gelu(sum_k c_k norm(h)_(n + k d) + b), zero beyond the ends."""
    trunk, valid = encoder.network.trunk, visual.valid[..., None]
    lips = torch.where(valid, visual.features, 0.0)
    h = trunk.start(torch.cat([(encoder_input + 1e-4).log() / 5, lips, valid.double()], -1))
    for layer in trunk.layers:
        d = layer.dilation
        normed, frames, total = layer.norm(h), h.shape[-2], 0.0
        for n in range(frames):
            seen = [(k, n + k * d) for k in range(-2, 3) if 0 <= n + k * d < frames]
            row = layer.bias + sum(layer.taps[k + 2] * normed[..., m, :] for k, m in seen)
            total = total + torch.eye(frames).double()[n][:, None] * row[..., None, :]
        h = h + layer.mix(0.5 * total * (1 + torch.erf(total / math.sqrt(2))))
    h = trunk.norm(h)
    log_variance = encoder.network.log_variance(h).clamp(-14, 8)
    return encoder.network.mean(h), (0.5 * log_variance).exp()


def posterior_moments(
    kind: str, guide: Guide, frames: Frames, encoder_input: Tensor | None = None
) -> list[Moments]:
    """q(z | alpha, s, v) at index alpha."""
    power, visual = frames
    encoder_input = power if encoder_input is None else encoder_input
    name = kind.partition("+")[0]
    if name == "audio":
        return [guide.audio(encoder_input)]
    if name == "visual":
        return [at_lips(guide.visual_network, visual)]
    if name == "concatenation":
        return [guide.joint(encoder_input, visual)]
    if name == "mixed-speech":
        return [around(guide.joint, encoder_input, visual)]
    if name == "product":
        return [product_of_experts(guide, encoder_input, visual)]
    audio = (
        product_of_experts(guide, encoder_input, visual) if "products" in name else guide.audio(encoder_input)
    )
    return [at_lips(guide.visual_network, visual), audio]


def switch_weight(weight: Tensor, visual: Visual) -> Tensor:
    """A probability of alpha = 1, (almost) certain on frames without lips (derivations, eq. 2.16)."""
    return torch.where(visual.valid, weight, 1 - EPSILON)


def prior_weight(prior: Prior, visual: Visual) -> Tensor:
    """p(alpha = 1)."""
    return switch_weight(1 / (1 + (-prior.logit).exp()), visual)


def prior_factors(kind: str, prior: Prior, z: Tensor, visual: Visual, guide: Guide, of: str) -> list[Tensor]:
    """log p(z_n | alpha, v) or log p(z_n | z_(n-1)) [..., N] at index alpha; a vamp prior has `guide` of kind `of`."""
    if kind == "standard":
        return [log_gaussian(z, torch.zeros(()), torch.ones(()).double())]
    if kind == "visual":
        mean, scale = at_lips(prior.network, visual)
        return [log_gaussian(z, mean, scale**2)]
    if kind == "vamp":
        pseudo = Frames(prior.log_power.exp(), Visual(prior.lips, torch.ones(len(prior.lips)).bool()))
        ((mean, scale),) = posterior_moments(of, guide, pseudo)
        parts = [log_gaussian(z, m, s**2) for m, s in zip(mean, scale, strict=True)]
        return [torch.stack(parts).logsumexp(0) - math.log(len(parts))]
    if kind in ("ar1", "random-walk"):
        return [markov_factors(*markov_parameters(kind, prior), z)]
    of_alpha = [
        log_gaussian(z, prior.means[alpha], prior.log_variances[alpha].exp().expand(z.shape[-1]))
        for alpha in (0, 1)
    ]
    if kind == "visual-mixture":
        mean, scale = at_lips(prior.network, visual)
        of_alpha[0] = log_gaussian(z, mean, scale**2)
    return of_alpha


def markov_parameters(kind: str, prior: Prior) -> Moments:
    """(c, tau) [L] of z_n = c z_(n-1) + tau eps_n (derivations, eq. 3.9, 3.11)."""
    if kind == "random-walk":
        return torch.ones_like(prior.log_step), prior.log_step.exp()
    rho = 1 / (1 + (-prior.logit).exp())
    return rho, (1 - rho**2).sqrt()


def markov_factors(coefficient: Tensor, innovation: Tensor, z: Tensor) -> Tensor:
    """log N(z_1; 0, I), log N(z_n; c z_(n-1), diag tau^2): [..., N, L] to [..., N]."""
    first = log_gaussian(z[..., 0, :], torch.zeros(()), torch.ones_like(innovation))
    later = [
        log_gaussian(z[..., n, :], coefficient * z[..., n - 1, :], innovation**2)
        for n in range(1, z.shape[-2])
    ]
    return torch.stack([first, *later], -1)


def log_speech(likelihood: str, power: Tensor, sigma: Tensor) -> Tensor:
    """log p(s | z) [..., N] with the weight of a Student-t summed out (derivations, eq. 1.2, 4.3)."""
    if likelihood == "complex-gaussian":
        return -(sigma.log() + power / sigma).sum(-1)
    a = DOF / 2
    return (-sigma.log() - (a + 1) * (1 + power / (a * sigma)).log()).sum(-1)
