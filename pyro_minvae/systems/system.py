"""From a recipe to a system: the parts, and the models and guides that the stages and the enhancer build from them."""

from __future__ import annotations

from typing import Any

from torch import nn

from pyro_minvae.config import components, rules, schema
from pyro_minvae.config.rules import incompatibility
from pyro_minvae.errors import InputError
from pyro_minvae.features.visual import LipProjection
from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.single import AudioGuide, VisualGuide
from pyro_minvae.guides.speech import SpeechGuide
from pyro_minvae.models.decoders import SpectralDecoder
from pyro_minvae.models.likelihoods import Likelihood
from pyro_minvae.models.networks import audio_network, visual_network
from pyro_minvae.models.priors import Prior, StandardPrior, VisualPrior
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.systems import build
from pyro_minvae.types import Shapes


class System(nn.Module):
    """The networks that a recipe names, each built once and shared by all stages that use it.

    `networks` holds the encoders and the network of p(z | v) by name; `lips` projects the crops. The prior, guide,
    decoder and likelihood of the final model can be given as objects in place of those of the recipe:
    `System(recipe, prior=MyPrior())`. Their names are `given`; such a system cannot be stored.

    Raises:
        InputError: if the parts do not go together, or an imported one cannot be had.
    """

    def __init__(
        self,
        recipe: schema.Recipe,
        *,
        prior: Prior | None = None,
        guide: Guide | None = None,
        decoder: SpectralDecoder | None = None,
        likelihood: Likelihood | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        given = {"prior": prior, "guide": guide, "decoder": decoder, "likelihood": likelihood}
        self.given = tuple(name for name, part in given.items() if part is not None)
        model = recipe.model
        shapes = Shapes(model.latent, recipe.stft.bins, recipe.lips.dimension)
        self.decoder = decoder or build.decoder(model.decoder, shapes)
        self.likelihood = likelihood or build.likelihood(model.likelihood, shapes)
        # By the names of `config.rules.parts_of`; a module dict, but its members' types are theirs.
        self.networks: Any = _networks(recipe, shapes)
        self.own_guide = guide or build.guide(recipe.guide, self.networks, shapes)
        self.own_prior = prior or build.prior(model.prior, self.networks, self.own_guide, shapes)
        fault = incompatibility(prior=self.own_prior, guide=self.own_guide, decoder=self.decoder)
        if fault:
            raise InputError(f"{recipe.name}: {fault}")
        sees = self.own_prior.visual or self.own_guide.visual or self.decoder.visual or needs_video(recipe)
        self.lips = LipProjection(recipe.crops, recipe.lips) if sees else None

    def prior(self, kind: str | None = None) -> Prior:
        """The model's own prior, or a simpler one for a stage, "standard" or "visual"."""
        if kind in (None, self.recipe.model.prior.kind):
            return self.own_prior
        if kind == "standard":
            return StandardPrior(self.recipe.model.latent)
        return VisualPrior(self.recipe.model.latent, self.networks["visual-prior"])

    def model(self, kind: str | None = None) -> SpeechModel:
        """The speech model with the recipe's prior, or with that of another `kind` (for a stage)."""
        return SpeechModel(self.prior(kind), self.decoder, self.likelihood)

    def guide(self, kind: str | None = None, prior: str | None = None) -> SpeechGuide:
        """The guide of `model(prior)` as a Pyro program, around the networks of the recipe's guide or of `kind`."""
        return SpeechGuide(self.model(prior), self.guide_network(kind))

    def guide_network(self, kind: str | None = None) -> Guide:
        """The networks of the recipe's guide, or simpler ones for a stage, "audio" or "visual"."""
        if kind in (None, self.recipe.guide.kind):
            return self.own_guide
        if kind == "audio":
            return AudioGuide(self.networks["audio"])
        return VisualGuide(self.networks["visual"])

    def part(self, name: str) -> nn.Module:
        """One part, by the name that `Stage.learn` and `warm_start` use."""
        if name in self.networks:
            return self.networks[name]
        owners = {"decoder": self.decoder, "likelihood": self.likelihood, "prior": self.own_prior}
        return owners.get(name, self.own_guide)

    def learned(self, stage: schema.Stage) -> tuple[str, ...]:
        """The parts that a stage learns; of its own prior, guide and likelihood also those given as objects."""
        names = rules.learned(self.recipe, stage)
        if stage.learn is not None:
            return names
        own = {
            "prior": self.prior(stage.prior) is self.own_prior,
            "guide": self.guide_network(stage.guide) is self.own_guide,
        }
        added = [name for name in self.given if own.get(name, True) and name not in names]
        return (*names, *(name for name in added if self.parameters_of(name)))

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """What a part learns; networks that a prior or a guide is built around are parts of their own."""
        networks = {id(p) for p in self.networks.parameters()} if name in ("prior", "guide") else set()
        return [p for p in self.part(name).parameters() if id(p) not in networks]

    def warm_start(self, target: str, origin: str) -> None:
        """Copy the weights of part `origin` into part `target`, which has the same layers."""
        self.part(target).load_state_dict(self.part(origin).state_dict())


def _networks(recipe: schema.Recipe, shapes: Shapes) -> nn.ModuleDict:
    """The encoders that the guide or a stage uses, and the network of p(z | v) that the prior or a stage uses."""
    guide, prior, stages = recipe.guide, recipe.model.prior, recipe.training.stages
    networks = nn.ModuleDict()
    audio = getattr(guide, "audio", None)
    if audio is None and any(stage.guide == "audio" for stage in stages):
        audio = components.AudioEncoderConfig()
    if audio is not None:
        networks["audio"] = audio_network(shapes.bins, shapes.latent, audio)
    visual = getattr(guide, "visual", None)
    if visual is None and any(stage.guide == "visual" for stage in stages):
        visual = components.VisualEncoderConfig()
    if visual is not None:
        networks["visual"] = visual_network(shapes.lips, shapes.latent, visual)
    own = isinstance(prior, components.VisualPriorConfig | components.VisualMixturePriorConfig)
    if own or any(stage.prior == "visual" for stage in stages):
        # A stage's network of p(z | v) may go on to start the visual encoder, so it has the same layers.
        layers: Any = prior if own else visual or components.VisualEncoderConfig()
        networks["visual-prior"] = visual_network(shapes.lips, shapes.latent, layers)
    build.add_guide_networks(networks, guide, shapes)
    return networks


def needs_video(recipe: schema.Recipe) -> bool:
    """Whether any stage or the final model looks at lips."""
    model = recipe.model
    return any(build.sees(part) for part in (model.prior, model.decoder, recipe.guide)) or any(
        stage.prior == "visual" or stage.guide == "visual" for stage in recipe.training.stages
    )
