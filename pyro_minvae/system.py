"""From a recipe to a system: the parts, and the models and guides that the stages and the enhancer build from them."""

from __future__ import annotations

from torch import nn

from pyro_minvae import config
from pyro_minvae.features.visual import LipProjection
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


class System(nn.Module):
    """The networks that a recipe names, each built once and shared by all stages that use it.

    `decoder`, `audio` (encoder), `visual` (encoder), `visual_prior` (network of p(z | v)) and `mixture` (means,
    variances and pi of MIN-VAE's prior) are the parts that `Stage.learn` names; `lips` projects the crops.
    """

    def __init__(self, recipe: config.Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        latent, bins = recipe.model.latent, recipe.stft.bins
        self.decoder = SpectralDecoder(bins, latent, recipe.model.decoder)
        self.audio = audio_network(bins, latent, recipe.guide.audio)
        self.lips = LipProjection(recipe.crops, recipe.lips) if needs_video(recipe) else None
        if self.lips is not None:
            dimension = recipe.lips.dimension
            self.visual_prior = visual_network(dimension, latent, _visual_prior_layers(recipe))
            if isinstance(recipe.guide, config.MixtureGuide):
                self.visual = visual_network(dimension, latent, recipe.guide.visual)
        self.mixture = self._mixture()

    def _mixture(self) -> MixturePrior | None:
        kind = self.recipe.model.prior.kind
        if kind == "mixture":
            return MixturePrior(self.recipe.model.latent)
        if kind == "visual-mixture":
            return VisualMixturePrior(self.recipe.model.latent, self.visual_prior)
        return None

    def prior(self, kind: str) -> Prior:
        """The prior of that kind around this system's parts."""
        if kind == "standard":
            return StandardPrior(self.recipe.model.latent)
        if kind == "visual":
            return VisualPrior(self.recipe.model.latent, self.visual_prior)
        assert self.mixture is not None, kind
        return self.mixture

    def model(self, kind: str | None = None) -> SpeechModel:
        """The speech model with the recipe's prior, or with that of another `kind` (for a stage)."""
        return SpeechModel(self.prior(kind or self.recipe.model.prior.kind), self.decoder)

    def guide(self, kind: str | None = None) -> Guide:
        """The recipe's guide, or one of another `kind` (for a stage)."""
        if (kind or self.recipe.guide.kind) == "audio":
            return AudioGuide(self.audio)
        return MixtureGuide(self.audio, self.visual)

    def part(self, name: str) -> nn.Module:
        """One part, by the name that `Stage.learn` and `warm_start` use."""
        module = getattr(self, name.replace("-", "_"))
        assert isinstance(module, nn.Module), name
        return module

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """What a part learns; the mixture's network of p(z | v), if it has one, is the part "visual-prior"."""
        named = self.part(name).named_parameters()
        return [p for n, p in named if name != "mixture" or not n.startswith("network.")]

    def warm_start(self, target: str, origin: str) -> None:
        """Copy the weights of part `origin` into part `target`, which has the same layers."""
        self.part(target).load_state_dict(self.part(origin).state_dict())


def needs_video(recipe: config.Recipe) -> bool:
    """Whether any stage or the final model looks at lips."""
    return (
        recipe.model.prior.kind in ("visual", "visual-mixture")
        or recipe.guide.kind == "mixture"
        or any(stage.prior in ("visual", "visual-mixture") for stage in recipe.training.stages)
    )


def _visual_prior_layers(
    recipe: config.Recipe,
) -> config.VisualEncoder | config.VisualPrior | config.VisualMixturePrior:
    """Layers of the network of p(z | v): the prior's own, else the visual encoder's (which it then starts)."""
    if isinstance(recipe.model.prior, config.VisualPrior | config.VisualMixturePrior):
        return recipe.model.prior
    assert isinstance(recipe.guide, config.MixtureGuide)
    return recipe.guide.visual
