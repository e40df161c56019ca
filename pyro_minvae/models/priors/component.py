"""One side of a mixture prior as a prior of its own: what a switching system takes for a mode."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_minvae.models.distributions import gaussian_parameters, normal
from pyro_minvae.models.priors.base import Prior
from pyro_minvae.types import Visual

# Other times of the recording that lips are taken from: more say the same.
OTHERS = 16

# Share of the mixture's audio component in the prior of a mouth that may belong to another time.
AUDIO_SHARE = 0.5

# What is left of the standard deviation of p(z | v) where lips were carried to a frame.
NARROW = 0.25


class ComponentPrior(Prior):
    """p(z | alpha, v) of a mixture prior for one alpha: 0 the lips, 1 the sound."""

    def __init__(self, mixture: Prior, alpha: int) -> None:
        super().__init__()
        self.mixture, self.alpha = mixture, alpha
        self.visual = mixture.visual and alpha == 0

    def conditionals(self, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        return (self.mixture.conditionals(visual)[self.alpha],)


class CarriedPrior(Prior):
    """p(z_n | v_n) of a prior's first component, narrowed on frames to which lips were only carried.

    (derivations, eq. 9.31)

    There it is N(mu(v_n), nu^2 diag sigma^2(v_n)) with nu = `NARROW`: hundreds of bins outweigh any prior, and sound
    without lips settles on the noise. Held to what the lips around it call for, a latent vector keeps to the voice.

    Args:
        prior: of which `conditionals` at index 0 is Gaussian.
        frames: those [N] without lips of their own.
    """

    visual = True

    def __init__(self, prior: Prior, frames: Tensor) -> None:
        super().__init__()
        self.prior, self.frames = prior, frames

    def conditionals(self, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        lips = self.prior.conditionals(visual)[0]
        own = gaussian_parameters(lips)
        assert own is not None
        return (normal(own[0], torch.where(self.frames[:, None], NARROW * own[1], own[1])),)


class UnpairedPrior(Prior):
    """p(z_n) = rho p(z | alpha = 1) + (1 - rho) / S sum_s p(z | alpha = 0, v_(n + s N / (S + 1))): lips of other times.

    (derivations, eq. 9.23)

    What is to be expected of speech whose lips these are not: S = `OTHERS` frames of the same recording, evenly spread
    over it (beyond its end from its beginning), beside the audio component with rho = `AUDIO_SHARE`. Against this prior
    right lips win by what they say of their own frame, and not because any lips narrow the latent space. Without lips
    it is the audio component.
    """

    visual = True

    def __init__(self, mixture: Prior) -> None:
        super().__init__()
        self.mixture = mixture

    def conditionals(self, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        lips, audio = self.mixture.conditionals(visual)
        own = gaussian_parameters(audio)
        seen = None if visual is None else gaussian_parameters(lips)
        if own is None or seen is None or visual is None:
            return (audio,)
        frames = seen[0].shape[-2]
        place = torch.arange(frames, device=seen[0].device)
        lags = (torch.arange(1, OTHERS + 1, device=place.device) * frames) // (OTHERS + 1)
        others = (place[:, None] + lags) % frames  # [N, S]
        mean, scale = (
            torch.cat([part.expand_as(lip)[..., None, :], lip[..., others, :]], -2)
            for part, lip in zip(own, seen, strict=True)
        )
        members = normal(mean, scale)
        weights = dist.Categorical(self._weights(visual.valid[..., others].to(mean)), validate_args=False)
        return (dist.MixtureSameFamily(weights, members, validate_args=False),)

    def _weights(self, counted: Tensor) -> Tensor:
        """[..., N, 1 + S]: invalid lips count for nothing."""
        share = (1 - AUDIO_SHARE) * counted / counted.sum(-1, keepdim=True).clamp_min(1)
        return torch.cat([1 - share.sum(-1, keepdim=True), share], -1)
