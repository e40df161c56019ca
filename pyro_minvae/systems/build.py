"""From a section of a recipe to the object it names; parts from outside the package by their import path."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from pyro.distributions import TorchDistribution
from torch import Generator, Tensor, nn

from pyro_minvae.config import components, noise
from pyro_minvae.errors import InputError
from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.mixture import MixtureGuide, MixtureOfProductsGuide
from pyro_minvae.guides.separation import MixedSpeechGuide
from pyro_minvae.guides.single import AudioGuide, ConcatenationGuide, ProductGuide, VisualGuide
from pyro_minvae.models.decoders import ContextDecoder, SpectralDecoder, VisualDecoder
from pyro_minvae.models.likelihoods import ComplexGaussian, Likelihood, StudentT
from pyro_minvae.models.networks import AudioWeight, ContextNetwork, JointNetwork
from pyro_minvae.models.noise.ard import ArdNmf
from pyro_minvae.models.noise.floor import Floor
from pyro_minvae.models.noise.gamma_chain import ChainNmf
from pyro_minvae.models.noise.low_energy import low_energy_frames, low_energy_spectra
from pyro_minvae.models.noise.nmf import Nmf, published
from pyro_minvae.models.noise.stationary import stationary
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
from pyro_minvae.types import Shapes, Visual


def prior(section: components.PriorConfig, networks: Any, guide: Guide, shapes: Shapes) -> Prior:
    """The prior that a section names, around the network "visual-prior" or the guide where it needs them."""
    latent = shapes.latent
    match section:
        case components.StandardPriorConfig():
            return StandardPrior(latent)
        case components.MixturePriorConfig():
            return MixturePrior(latent)
        case components.VisualPriorConfig():
            return VisualPrior(latent, networks["visual-prior"])
        case components.VisualMixturePriorConfig():
            return VisualMixturePrior(latent, networks["visual-prior"])
        case components.VampPriorConfig():
            return VampPrior(_PosteriorOf(guide), section.count, shapes.bins, shapes.lips)
        case components.Ar1PriorConfig():
            return Ar1Prior(latent, section.coefficient)
        case components.RandomWalkPriorConfig():
            return RandomWalkPrior(latent, section.step)
        case _:
            return build(section, Prior, shapes)


class _PosteriorOf:
    """q(z | s, v) of a guide without alpha. No module, so that the prior does not own the guide's networks."""

    def __init__(self, guide: Guide) -> None:
        self.guide = guide

    def __call__(self, power: Tensor, visual: Visual) -> TorchDistribution:
        return self.guide.posteriors(power, visual)[0]


def guide(section: components.GuideConfig, networks: Any, shapes: Shapes) -> Guide:
    """The guide that a section names, around the encoders in `networks`."""
    match section:
        case components.AudioGuideConfig():
            return AudioGuide(networks["audio"])
        case components.VisualGuideConfig():
            return VisualGuide(networks["visual"])
        case components.ConcatenationGuideConfig():
            return ConcatenationGuide(networks["joint"])
        case components.MixedSpeechGuideConfig():
            return MixedSpeechGuide(networks["joint"])
        case components.ProductGuideConfig():
            return ProductGuide(networks["audio"], networks["visual"])
        case components.MixtureGuideConfig():
            kind = (
                MixtureOfProductsGuide
                if isinstance(section, components.MixtureOfProductsGuideConfig)
                else MixtureGuide
            )
            weight = getattr(networks, "responsibility", None)
            return kind(networks["audio"], networks["visual"], weight)
        case _:
            return build(section, Guide, shapes)


def add_guide_networks(networks: nn.ModuleDict, section: components.GuideConfig, shapes: Shapes) -> None:
    """Add the networks that only the guide uses: the joint encoder and that of an amortised q(alpha)."""
    if isinstance(section, components.ConcatenationGuideConfig):
        networks["joint"] = JointNetwork(shapes.bins, shapes.lips, shapes.latent, section.joint)
    if isinstance(section, components.MixedSpeechGuideConfig):
        networks["joint"] = ContextNetwork(shapes.bins, shapes.lips, shapes.latent, section.joint)
    if isinstance(section, components.MixtureGuideConfig) and section.responsibility == "amortised":
        networks["responsibility"] = AudioWeight(shapes.bins, shapes.lips, section.network)


def decoder(section: components.DecoderConfig, shapes: Shapes) -> SpectralDecoder:
    """The decoder that a section names."""
    match section:
        case components.PlainDecoderConfig():
            return SpectralDecoder(shapes.bins, shapes.latent, section.hidden, section.floor)
        case components.VisualDecoderConfig():
            return VisualDecoder(
                shapes.bins,
                shapes.latent,
                section.hidden,
                section.floor,
                lips=shapes.lips,
                embedding=section.embedding,
                dropout=section.dropout,
            )
        case components.ContextDecoderConfig():
            return ContextDecoder(
                shapes.bins, shapes.latent, section.hidden, section.floor, context=section.context
            )
        case _:
            return build(section, SpectralDecoder, shapes)


def likelihood(section: components.LikelihoodConfig, shapes: Shapes) -> Likelihood:
    """The likelihood that a section names."""
    match section:
        case components.ComplexGaussianConfig():
            return ComplexGaussian()
        case components.StudentTConfig():
            return StudentT(section.dof)
        case _:
            return build(section, Likelihood, shapes)


def noise_model(
    section: noise.NoiseConfig,
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
    if isinstance(section, noise.FloorConfig):
        return Floor(power, level=section.level_db)
    spectra = None
    if section.quiet > 0:
        rank = 1 if isinstance(section, noise.StationaryConfig) else section.rank
        weights = low_energy_frames(speech(), share=section.quiet)
        spectra = low_energy_spectra(power, weights, rank=rank, generator=generator)
    start: dict[str, Any] = {"generator": generator, "spectra": spectra}
    match section:
        case noise.StationaryConfig():
            return stationary(power, slow=section.slow_s * rate, **start)
        case noise.GammaChainConfig():
            smooth = section.smooth_s * rate
            return ChainNmf(power, rank=section.rank, strength=section.strength, smooth=smooth, **start)
        case noise.ArdConfig():
            smooth = section.smooth_s * rate
            return ArdNmf(power, rank=section.rank, shape=section.shape, smooth=smooth, **start)
        case noise.NmfConfig():
            if section.start == "published":
                plain = published(power, rank=section.rank, generator=generator)
            else:
                plain = Nmf(power, rank=section.rank, smooth=section.smooth_s * rate, **start)
            plain.exponent = exponent
            return plain


def build(section: components.ImportConfig, base: type[Any], shapes: Shapes) -> Any:
    """The part `target(shapes, **options)` from outside the package.

    Raises:
        InputError: if it cannot be imported, is not a `base`, or refuses the options.
    """
    target = imported(section, base)
    try:
        return target(shapes, **section.options)
    except (TypeError, ValueError) as error:
        raise InputError(f"{section.target}: expected options that the class takes, found {error}") from error


def imported(section: components.ImportConfig, base: type[Any] = nn.Module) -> type[Any]:
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
    if isinstance(section, components.ImportConfig):
        return bool(getattr(imported(section), "visual", False))
    return bool(section.sees)
