"""Constructors of small random priors, guides and models, in float64, for the laws that all of them obey.

Every parameter is drawn at random: a law that holds only at the initial values (means 0, variances 1, pi 1/2)
would hide the faults it is there to find.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.config import components
from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.mixture import MixtureGuide, MixtureOfProductsGuide
from pyro_minvae.guides.separation import MixedSpeechGuide
from pyro_minvae.guides.single import AudioGuide, ConcatenationGuide, ProductGuide, VisualGuide
from pyro_minvae.guides.speech import SpeechGuide
from pyro_minvae.models.decoders import ContextDecoder, SpectralDecoder, VisualDecoder
from pyro_minvae.models.likelihoods import ComplexGaussian, Likelihood, StudentT
from pyro_minvae.models.networks import (
    AudioWeight,
    ContextNetwork,
    JointNetwork,
    audio_network,
    visual_network,
)
from pyro_minvae.models.priors import (
    Ar1Prior,
    MixturePrior,
    Prior,
    RandomWalkPrior,
    StandardPrior,
    VampPrior,
    VisualMixturePrior,
    VisualPrior,
)
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual

PRIORS = ("standard", "mixture", "visual", "visual-mixture", "vamp", "ar1", "random-walk")
MIXED = ("mixture", "visual-mixture")
VISUAL = ("visual", "visual-mixture")
COUPLED = ("ar1", "random-walk")
INDEPENDENT = tuple(kind for kind in PRIORS if kind not in COUPLED)
PLAIN_GUIDES = ("audio", "visual", "concatenation", "mixed-speech", "product")
MIXED_GUIDES = ("mixture", "mixture-of-products", "mixture+amortised", "mixture-of-products+amortised")
GUIDES = (*PLAIN_GUIDES, *MIXED_GUIDES)
DECODERS = ("plain", "lips", "context")
LIKELIHOODS = ("complex-gaussian", "student-t")
# Every prior with every guide that has the same sites.
PAIRS = [
    (prior, guide) for prior in PRIORS for guide in GUIDES if (prior in MIXED) == (guide in MIXED_GUIDES)
]
# Every prior with the guide that uses most of what there is.
TYPICAL = [(prior, "mixture-of-products" if prior in MIXED else "product") for prior in PRIORS]
# Every legal model.
MODELS = [
    (prior, decoder, likelihood)
    for prior in PRIORS
    for decoder in DECODERS
    for likelihood in LIKELIHOODS
    if not (prior in MIXED and decoder == "context")
]
Kinds = tuple[str, str, str, str]
"""Prior, guide, decoder and likelihood."""
FAMILY: list[Kinds] = [
    (prior, guide, decoder, likelihood)
    for prior, decoder, likelihood in MODELS
    for partner, guide in PAIRS
    if partner == prior
]
BINS, FEATURES, DOF, CONTEXT = 5, 4, 3.0, 1


class Frames(NamedTuple):
    """Arguments of models and guides: `power` [..., N, F] and the lips of the same frames."""

    power: Tensor
    visual: Visual


def random_parameters(module: torch.nn.Module, generator: torch.Generator, size: float = 0.4) -> None:
    """Replace every parameter by normal draws of that size."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))


def make_prior(kind: str, *, latent: int = 3, seed: int = 0, guide: Guide | None = None) -> Prior:
    """A prior of that kind without dropout; a vamp prior's pseudo-inputs go through `guide`."""
    layers = components.VisualPriorConfig(hidden=(6,), dropout=0.0)
    through = guide or make_guide("concatenation", latent=latent, seed=seed + 20)
    made = {
        "standard": lambda: StandardPrior(latent),
        "mixture": lambda: MixturePrior(latent),
        "visual": lambda: VisualPrior(latent, visual_network(FEATURES, latent, layers)),
        "visual-mixture": lambda: VisualMixturePrior(latent, visual_network(FEATURES, latent, layers)),
        "vamp": lambda: VampPrior(lambda s, v: through.to(s.dtype).posteriors(s, v)[0], 4, BINS, FEATURES),
        "ar1": lambda: Ar1Prior(latent),
        "random-walk": lambda: RandomWalkPrior(latent),
    }
    prior: Prior = made[kind]().double()
    random_parameters(prior, torch.Generator().manual_seed(seed), 0.7)
    return prior


def make_decoder(
    kind: str = "plain",
    *,
    latent: int = 3,
    seed: int = 0,
    floor: float = 1e-2,
    bins: int = BINS,
    hidden: int = 7,
) -> SpectralDecoder:
    """A decoder of that kind without dropout."""
    decoder: SpectralDecoder
    if kind == "plain":
        decoder = SpectralDecoder(bins, latent, (hidden,), floor)
    elif kind == "lips":
        decoder = VisualDecoder(bins, latent, (hidden,), floor, lips=FEATURES, embedding=(6, 3), dropout=0.0)
    else:
        decoder = ContextDecoder(bins, latent, (hidden,), floor, context=CONTEXT)
    decoder = decoder.double()
    random_parameters(decoder, torch.Generator().manual_seed(seed + 1), 0.8)
    return decoder


def make_likelihood(kind: str) -> Likelihood:
    """A likelihood of that kind."""
    return StudentT(DOF) if kind == "student-t" else ComplexGaussian()


def make_model(
    prior: str,
    decoder: str = "plain",
    likelihood: str = "complex-gaussian",
    *,
    latent: int = 3,
    seed: int = 0,
    floor: float = 1e-2,
    guide: Guide | None = None,
) -> SpeechModel:
    """A speech model of these parts; a vamp prior needs the `guide` it will meet."""
    return SpeechModel(
        make_prior(prior, latent=latent, seed=seed, guide=guide),
        make_decoder(decoder, latent=latent, seed=seed, floor=floor),
        make_likelihood(likelihood),
    )


def make_guide(kind: str, *, latent: int = 3, seed: int = 0) -> Guide:
    """A guide of that kind without dropout; "+amortised" adds a network of q(alpha)."""
    audio = audio_network(BINS, latent, components.AudioEncoderConfig(hidden=(6,)))
    lips = visual_network(FEATURES, latent, components.VisualEncoderConfig(hidden=(6,), dropout=0.0))
    name, _, amortised = kind.partition("+")
    guide: Guide
    if name == "audio":
        guide = AudioGuide(audio)
    elif name == "visual":
        guide = VisualGuide(lips)
    elif name == "concatenation":
        guide = ConcatenationGuide(
            JointNetwork(BINS, FEATURES, latent, components.JointEncoderConfig(hidden=(6,)))
        )
    elif name == "mixed-speech":
        layers_around = components.ContextEncoderConfig(width=6, dilations=(1, 2), dropout=0.0)
        guide = MixedSpeechGuide(ContextNetwork(BINS, FEATURES, latent, layers_around))
    elif name == "product":
        guide = ProductGuide(audio, lips)
    else:
        layers = components.ResponsibilityNetworkConfig(hidden=(5,))
        weight = AudioWeight(BINS, FEATURES, layers) if amortised else None
        guide = (MixtureGuide if name == "mixture" else MixtureOfProductsGuide)(audio, lips, weight)
    guide = guide.double()
    random_parameters(guide, torch.Generator().manual_seed(seed + 2))
    return guide


def make_pair(
    prior: str,
    kind: str,
    decoder: str = "plain",
    likelihood: str = "complex-gaussian",
    *,
    latent: int = 3,
    seed: int = 0,
) -> tuple[SpeechModel, Guide]:
    """A model and the guide that belongs to it."""
    guide = make_guide(kind, latent=latent, seed=seed)
    return make_model(prior, decoder, likelihood, latent=latent, seed=seed, guide=guide), guide


def make_program(kind: str) -> SpeechGuide:
    """A guide as a Pyro program, beside the simplest model that has its sites."""
    return SpeechGuide(make_model("mixture" if kind in MIXED_GUIDES else "standard"), make_guide(kind))


def make_frames(count: int, *, seed: int = 0, valid: float = 0.7) -> Frames:
    """Power spectra and lips; a share `valid` of the frames has a face (one at least has, one has not)."""
    generator = torch.Generator().manual_seed(seed + 3)
    power = torch.empty(count, BINS, dtype=torch.float64).exponential_(generator=generator)
    features = torch.randn(count, FEATURES, generator=generator, dtype=torch.float64)
    seen = torch.rand(count, generator=generator) < valid
    if count > 1 and 0 < valid < 1:
        seen[0], seen[-1] = True, False
    return Frames(power, Visual(features, seen))


def make_sequences(batch: int, count: int, *, seed: int = 0, valid: float = 0.7) -> Frames:
    """The same frames as several sequences: `power` [B, N, F]."""
    power, visual = make_frames(batch * count, seed=seed, valid=valid)
    lips = Visual(visual.features.reshape(batch, count, -1), visual.valid.reshape(batch, count))
    return Frames(power.reshape(batch, count, -1), lips)


def normal_draws(*shape: int, seed: int) -> Tensor:
    """Standard normal draws."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
