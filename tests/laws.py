"""Constructors of small random priors, guides and models, in float64, for the laws that all of them obey.

Every parameter is drawn at random: a law that holds only at the initial values (means 0, variances 1, pi 1/2)
would hide the faults it is there to find.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae import config
from pyro_minvae.guides.audio import AudioGuide
from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.mixture import MixtureGuide
from pyro_minvae.models.networks import SpectralDecoder, audio_network, visual_network
from pyro_minvae.models.priors import (
    MixturePrior,
    Prior,
    StandardPrior,
    VisualMixturePrior,
    VisualPrior,
)
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual

PRIORS = ("standard", "mixture", "visual", "visual-mixture")
MIXED = ("mixture", "visual-mixture")
VISUAL = ("visual", "visual-mixture")
# Every prior with every guide that has the same sites.
PAIRS = [
    (prior, guide)
    for prior in PRIORS
    for guide in ("audio", "mixture")
    if (prior in MIXED) == (guide == "mixture")
]
BINS, FEATURES = 5, 4


class Frames(NamedTuple):
    """Arguments of models and guides: `power` [N, F] and the lips of the same frames."""

    power: Tensor
    visual: Visual


def random_parameters(module: torch.nn.Module, generator: torch.Generator, size: float = 0.4) -> None:
    """Replace every parameter by normal draws of that size."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))


def make_prior(kind: str, *, latent: int = 3, seed: int = 0) -> Prior:
    """A prior of that kind without dropout."""
    layers = config.VisualPrior(hidden=(6,), dropout=0.0)
    prior: Prior
    if kind == "standard":
        prior = StandardPrior(latent)
    elif kind == "mixture":
        prior = MixturePrior(latent)
    elif kind == "visual":
        prior = VisualPrior(latent, visual_network(FEATURES, latent, layers))
    else:
        prior = VisualMixturePrior(latent, visual_network(FEATURES, latent, layers))
    prior = prior.double()
    random_parameters(prior, torch.Generator().manual_seed(seed), 0.7)
    return prior


def make_model(kind: str, *, latent: int = 3, seed: int = 0, floor: float = 1e-2) -> SpeechModel:
    """A speech model with that kind of prior."""
    decoder = SpectralDecoder(BINS, latent, config.Decoder(hidden=(7,), floor=floor)).double()
    random_parameters(decoder, torch.Generator().manual_seed(seed + 1), 0.8)
    return SpeechModel(make_prior(kind, latent=latent, seed=seed), decoder)


def make_guide(kind: str, *, latent: int = 3, seed: int = 0) -> Guide:
    """A guide of that kind without dropout."""
    audio = audio_network(BINS, latent, config.AudioEncoder(hidden=(6,)))
    guide: Guide
    if kind == "audio":
        guide = AudioGuide(audio)
    else:
        layers = config.VisualEncoder(hidden=(6,), dropout=0.0)
        guide = MixtureGuide(audio, visual_network(FEATURES, latent, layers))
    guide = guide.double()
    random_parameters(guide, torch.Generator().manual_seed(seed + 2))
    return guide


def make_frames(count: int, *, seed: int = 0, valid: float = 0.7) -> Frames:
    """Power spectra and lips; a share `valid` of the frames has a face (one at least has, one has not)."""
    generator = torch.Generator().manual_seed(seed + 3)
    power = torch.empty(count, BINS, dtype=torch.float64).exponential_(generator=generator)
    features = torch.randn(count, FEATURES, generator=generator, dtype=torch.float64)
    seen = torch.rand(count, generator=generator) < valid
    if count > 1 and 0 < valid < 1:
        seen[0], seen[-1] = True, False
    return Frames(power, Visual(features, seen))


def normal_draws(*shape: int, seed: int) -> Tensor:
    """Standard normal draws."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
