"""Priors p(alpha) p(z | alpha, v) of one frame.

To write a new one, subclass `Prior` and answer `conditionals` (and `audio_weight` if alpha exists); everything
else, the Pyro sites included, follows from these.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_minvae.models.networks import GaussianNetwork
from pyro_minvae.types import Visual

# Without lips alpha is 1 up to this, so that log probabilities stay finite.
CERTAIN = 1e-6

Gaussian = tuple[Tensor, Tensor]
"""(mean, scale), each broadcastable to [..., N, L]."""


def gaussian_log_prob(z: Tensor, gaussian: Gaussian) -> Tensor:
    """log N(z; mean, diag scale^2), summed over L: [..., N, L] to [..., N]."""
    mean, scale = gaussian
    terms = ((z - mean) / scale) ** 2 + 2 * scale.log()
    return -0.5 * (terms.expand(z.shape).sum(-1) + z.shape[-1] * math.log(2 * math.pi))


def seen(network: GaussianNetwork, visual: Visual) -> Gaussian:
    """The Gaussian of a visual network, and N(0, I) on frames without valid lips."""
    valid = visual.valid[..., None]
    # Features of invalid frames may be anything; a NaN among them would reach the weights' gradients.
    mean, scale = network(torch.where(valid, visual.features, 0.0))
    return torch.where(valid, mean, torch.zeros_like(mean)), torch.where(valid, scale, torch.ones_like(scale))


class Components(NamedTuple):
    """p(alpha) p(z | alpha, v) at given lips, for samplers: the networks have run, only z is open.

    `gaussians` are p(z | alpha, v) at index alpha (a single one where there is no alpha), `weight` is p(alpha = 1).
    """

    gaussians: tuple[Gaussian, ...]
    weight: Tensor | None

    def log_prob(self, z: Tensor) -> Tensor:
        """log sum_alpha p(alpha) p(z | alpha, v), exactly: [..., N, L] to [..., N]."""
        parts = [gaussian_log_prob(z, gaussian) for gaussian in self.gaussians]
        if self.weight is None:
            return parts[0]
        return torch.logaddexp(parts[0] + torch.log1p(-self.weight), parts[1] + self.weight.log())

    def expected_log_prob(self, z: Tensor, weight: Tensor | None) -> Tensor:
        """E_q(alpha)[log p(z | alpha, v)] for q(alpha = 1) = `weight` [..., N]: [..., N, L] to [..., N]."""
        parts = [gaussian_log_prob(z, gaussian) for gaussian in self.gaussians]
        if weight is None:
            return parts[0]
        return weight * parts[1] + (1 - weight) * parts[0]


class Prior(nn.Module):
    """p(alpha) p(z | alpha, v); `mixed` priors have the switch alpha, the others a single component."""

    mixed = False
    visual = False
    latent: int

    def conditionals(self, visual: Visual | None) -> tuple[Gaussian, ...]:
        """The Gaussians p(z | alpha, v), at index alpha; a single one where there is no alpha."""
        raise NotImplementedError(f"{type(self).__name__} lacks conditionals()")

    def audio_weight(self, visual: Visual | None) -> Tensor:
        """p(alpha = 1), a scalar or [..., N]."""
        raise TypeError(f"{type(self).__name__} has no alpha")

    def given(self, alpha: Tensor | None, visual: Visual | None) -> Gaussian:
        """p(z | alpha, v) for alpha of any shape [..., N] (None where there is no alpha)."""
        if alpha is None:
            return self.conditionals(visual)[0]
        (mean0, scale0), (mean1, scale1) = self.conditionals(visual)
        audio = alpha[..., None] > 0.5
        return torch.where(audio, mean1, mean0), torch.where(audio, scale1, scale0)

    def components(self, visual: Visual | None) -> Components:
        """The prior at given lips, a function of z alone."""
        return Components(self.conditionals(visual), self.audio_weight(visual) if self.mixed else None)

    def log_prob(self, z: Tensor, visual: Visual | None) -> Tensor:
        """log p(z | v) = log sum_alpha p(alpha) p(z | alpha, v), exactly: [..., N, L] to [..., N]."""
        return self.components(visual).log_prob(z)


class StandardPrior(Prior):
    """z ~ N(0, I)."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.register_buffer("zero", torch.zeros(latent), persistent=False)
        self.register_buffer("one", torch.ones(latent), persistent=False)

    def conditionals(self, visual: Visual | None) -> tuple[Gaussian, ...]:
        return ((self.get_buffer("zero"), self.get_buffer("one")),)


class VisualPrior(StandardPrior):
    """z | v ~ N(mu(v), diag sigma^2(v)); N(0, I) on frames without lips (AV-CVAE)."""

    visual = True

    def __init__(self, latent: int, network: GaussianNetwork) -> None:
        super().__init__(latent)
        self.network = network

    def conditionals(self, visual: Visual | None) -> tuple[Gaussian, ...]:
        if visual is None:
            return super().conditionals(visual)
        return (seen(self.network, visual),)


class MixturePrior(Prior):
    """alpha ~ Bernoulli(pi), z | alpha ~ N(mu_alpha, s_alpha I), all learned (Sadeghi & Alameda-Pineda 2021, sec. III).

    The variances s are exponentials, so they stay positive; means start at 0, variances at 1, pi at 1/2. A frame
    without valid lips has alpha = 1 (up to `CERTAIN`): only the audio network can speak for it.
    """

    mixed = True

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.means = nn.Parameter(torch.zeros(2, latent))  # index alpha
        self.log_variances = nn.Parameter(torch.zeros(2))
        self.logit = nn.Parameter(torch.zeros(()))

    def conditionals(self, visual: Visual | None) -> tuple[Gaussian, ...]:
        scales = (0.5 * self.log_variances).exp()
        return tuple((self.means[alpha], scales[alpha].expand(self.latent)) for alpha in (0, 1))

    def audio_weight(self, visual: Visual | None) -> Tensor:
        weight = self.logit.sigmoid()
        return at_valid(weight, visual)


class VisualMixturePrior(MixturePrior):
    """MIN-VAE's mixture with p(z | alpha = 0, v) = N(mu(v), diag sigma^2(v)): the lips stay in the target."""

    visual = True

    def __init__(self, latent: int, network: GaussianNetwork) -> None:
        super().__init__(latent)
        self.network = network

    def conditionals(self, visual: Visual | None) -> tuple[Gaussian, ...]:
        base, audio = super().conditionals(visual)
        if visual is None:
            return base, audio
        return seen(self.network, visual), audio


def at_valid(audio_weight: Tensor, visual: Visual | None) -> Tensor:
    """A probability of alpha = 1 that is (almost) certain on frames without valid lips."""
    audio_weight = audio_weight.clamp(CERTAIN, 1 - CERTAIN)
    if visual is None:
        return torch.full_like(audio_weight, 1 - CERTAIN)
    return torch.where(visual.valid, audio_weight, torch.full_like(audio_weight, 1 - CERTAIN))
