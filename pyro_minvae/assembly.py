"""From a section of a recipe to the object it names; parts from outside the package by their import path."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from pyro.distributions import TorchDistribution
from torch import Generator, Tensor, nn

from pyro_minvae import noise, parts
from pyro_minvae.errors import InputError
from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.mixed_speech import MixedSpeechGuide
from pyro_minvae.guides.mixture import MixtureGuide, MixtureOfProductsGuide
from pyro_minvae.guides.single import AudioGuide, ConcatenationGuide, ProductGuide, VisualGuide
from pyro_minvae.models.decoders import ContextDecoder, LipDecoder, SpectralDecoder
from pyro_minvae.models.likelihood import ComplexGaussian, Likelihood, StudentT
from pyro_minvae.models.networks import AudioWeight, ContextNetwork, JointNetwork
from pyro_minvae.models.noise import Nmf, published, stationary
from pyro_minvae.models.noise_ard import ArdNmf
from pyro_minvae.models.noise_chain import ChainNmf
from pyro_minvae.models.noise_floor import Floor
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
from pyro_minvae.models.quiet import quiet_frames, quiet_spectra
from pyro_minvae.types import Shapes, Visual


def prior(section: parts.Prior, networks: Any, guide: Guide, shapes: Shapes) -> Prior:
    """The prior that a section names, around the network "visual-prior" or the guide where it needs them."""
    latent = shapes.latent
    match section:
        case parts.StandardPrior():
            return StandardPrior(latent)
        case parts.MixturePrior():
            return MixturePrior(latent)
        case parts.VisualPrior():
            return VisualPrior(latent, networks["visual-prior"])
        case parts.VisualMixturePrior():
            return VisualMixturePrior(latent, networks["visual-prior"])
        case parts.VampPrior():
            return VampPrior(_PosteriorOf(guide), section.count, shapes.bins, shapes.lips)
        case parts.Ar1Prior():
            return Ar1Prior(latent, section.coefficient)
        case parts.RandomWalkPrior():
            return RandomWalkPrior(latent, section.step)
        case _:
            return build(section, Prior, shapes)


class _PosteriorOf:
    """q(z | s, v) of a guide without alpha. No module, so that the prior does not own the guide's networks."""

    def __init__(self, guide: Guide) -> None:
        self.guide = guide

    def __call__(self, power: Tensor, visual: Visual) -> TorchDistribution:
        return self.guide.posteriors(power, visual)[0]


def guide(section: parts.Guide, networks: Any, shapes: Shapes) -> Guide:
    """The guide that a section names, around the encoders in `networks`."""
    match section:
        case parts.AudioGuide():
            return AudioGuide(networks["audio"])
        case parts.VisualGuide():
            return VisualGuide(networks["visual"])
        case parts.ConcatenationGuide():
            return ConcatenationGuide(networks["joint"])
        case parts.MixedSpeechGuide():
            return MixedSpeechGuide(networks["joint"])
        case parts.ProductGuide():
            return ProductGuide(networks["audio"], networks["visual"])
        case parts.MixtureGuide():
            kind = (
                MixtureOfProductsGuide if isinstance(section, parts.MixtureOfProductsGuide) else MixtureGuide
            )
            weight = getattr(networks, "responsibility", None)
            return kind(networks["audio"], networks["visual"], weight)
        case _:
            return build(section, Guide, shapes)


def add_guide_networks(networks: nn.ModuleDict, section: parts.Guide, shapes: Shapes) -> None:
    """Add the networks that only the guide uses: the joint encoder and that of an amortised q(alpha)."""
    if isinstance(section, parts.ConcatenationGuide):
        networks["joint"] = JointNetwork(shapes.bins, shapes.lips, shapes.latent, section.joint)
    if isinstance(section, parts.MixedSpeechGuide):
        networks["joint"] = ContextNetwork(shapes.bins, shapes.lips, shapes.latent, section.joint)
    if isinstance(section, parts.MixtureGuide) and section.responsibility == "amortised":
        networks["responsibility"] = AudioWeight(shapes.bins, shapes.lips, section.network)


def decoder(section: parts.Decoder, shapes: Shapes) -> SpectralDecoder:
    """The decoder that a section names."""
    match section:
        case parts.PlainDecoder():
            return SpectralDecoder(shapes.bins, shapes.latent, section.hidden, section.floor)
        case parts.LipDecoder():
            return LipDecoder(
                shapes.bins,
                shapes.latent,
                section.hidden,
                section.floor,
                lips=shapes.lips,
                embedding=section.embedding,
                dropout=section.dropout,
            )
        case parts.ContextDecoder():
            return ContextDecoder(
                shapes.bins, shapes.latent, section.hidden, section.floor, context=section.context
            )
        case _:
            return build(section, SpectralDecoder, shapes)


def likelihood(section: parts.Likelihood, shapes: Shapes) -> Likelihood:
    """The likelihood that a section names."""
    match section:
        case parts.ComplexGaussian():
            return ComplexGaussian()
        case parts.StudentT():
            return StudentT(section.dof)
        case _:
            return build(section, Likelihood, shapes)


def noise_model(
    section: noise.Noise,
    power: Tensor,
    *,
    rate: float,
    speech: Callable[[], Tensor],
    generator: Generator,
    exponent: float = 0.5,
) -> Nmf:
    """The noise model that a section names, for the mixture's `power` [..., N, F].

    `rate` is in frames per second; `speech` tells the variance of the speech [..., N, F] where the chains start, if
    somebody wants to know; `exponent` is that of plain NMF's updates.
    """
    if isinstance(section, noise.Floor):
        return Floor(power, level=section.level_db)
    spectra = None
    if section.quiet > 0:
        rank = 1 if isinstance(section, noise.Stationary) else section.rank
        weights = quiet_frames(speech(), share=section.quiet)
        spectra = quiet_spectra(power, weights, rank=rank, generator=generator)
    start: dict[str, Any] = {"generator": generator, "spectra": spectra}
    match section:
        case noise.Stationary():
            return stationary(power, slow=section.slow_s * rate, **start)
        case noise.GammaChain():
            smooth = section.smooth_s * rate
            return ChainNmf(power, rank=section.rank, strength=section.strength, smooth=smooth, **start)
        case noise.Ard():
            smooth = section.smooth_s * rate
            return ArdNmf(power, rank=section.rank, shape=section.shape, smooth=smooth, **start)
        case noise.Nmf():
            if section.start == "published":
                plain = published(power, rank=section.rank, generator=generator)
            else:
                plain = Nmf(power, rank=section.rank, smooth=section.smooth_s * rate, **start)
            plain.exponent = exponent
            return plain


def build(section: parts.Import, base: type[Any], shapes: Shapes) -> Any:
    """The part `target(shapes, **options)` from outside the package.

    Raises:
        InputError: if it cannot be imported, is not a `base`, or refuses the options.
    """
    target = imported(section, base)
    try:
        return target(shapes, **section.options)
    except (TypeError, ValueError) as error:
        raise InputError(f"{section.target}: expected options that the class takes, found {error}") from error


def imported(section: parts.Import, base: type[Any] = nn.Module) -> type[Any]:
    """The class that a section names.

    Raises:
        InputError: if it cannot be imported or is not a `base`.
    """
    module, _, name = section.target.partition(":")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise InputError(f"{section.target}: expected a class that can be imported, found {error}") from error
    if not (isinstance(target, type) and issubclass(target, base)):
        raise InputError(f"{section.target}: expected a subclass of {base.__name__}, found {target!r}")
    return target


def sees(section: Any) -> bool:
    """Whether the part that a section names looks at lips."""
    if isinstance(section, parts.Import):
        return bool(getattr(imported(section), "visual", False))
    return bool(section.sees)
