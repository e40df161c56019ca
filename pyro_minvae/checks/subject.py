"""What is checked: a model and its guide in double precision, and frames of speech for them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_minvae.config.load import override_recipe
from pyro_minvae.config.schema import Recipe
from pyro_minvae.features.visual import LipProjection
from pyro_minvae.guides.base import Guide
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.systems.checkpoint import load_model
from pyro_minvae.systems.system import System
from pyro_minvae.types import Visual

# The share of synthetic frames with valid lips.
SEEN = 0.7
# A model in which integrals over z are exact: one latent dimension, three bins, two lip features.
TOY = ("model.latent=1", "stft.window=4", "stft.hop=2", "lips.components=2", "lips.context=0")


class Subject(NamedTuple):
    """A model and a guide in evaluation mode, and the projection of mouth crops where there is one."""

    recipe: Recipe
    model: SpeechModel
    guide: Guide
    lips: LipProjection | None = None

    @property
    def sees(self) -> bool:
        """Whether anything looks at lips, or asks whether there are any."""
        return self.model.visual or self.guide.visual or self.model.prior.mixed

    def per_unit(self, factors: Tensor) -> Tensor:
        """Sum frames [..., N] to what is independent: [..., N] themselves, or whole sequences [...]."""
        return factors.sum(-1) if self.model.coupled else factors


class Frames(NamedTuple):
    """Arguments of models and guides: `power` [N, F], and the lips of the same frames or None."""

    power: Tensor
    visual: Visual | None

    def repeated(self, count: int, *, flat: bool) -> Frames:
        """`count` copies: `flat` [count N, F] of independent frames, else sequences [count, N, F]."""

        def copy(tensor: Tensor, content: int) -> Tensor:
            copies = tensor.expand(count, *tensor.shape)
            return copies.reshape(-1, *tensor.shape[tensor.dim() - content :]) if flat else copies

        if self.visual is None:
            return Frames(copy(self.power, 1), None)
        return Frames(copy(self.power, 1), Visual(copy(self.visual.features, 1), copy(self.visual.valid, 0)))


def untrained(recipe: Recipe, seed: int) -> Subject:
    """A recipe's system with random parameters everywhere.

    At their initial values (means 0, variances 1, pi 1/2) many wrong formulas are right.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        system = System(recipe).double().eval()
        randomise(system)
    if system.lips is not None:
        # Crops are in single precision; a projection has no parameters.
        system.lips.float()
    return Subject(recipe, system.model(), system.guide_network(), system.lips)


def trained(name: str | Path) -> Subject:
    """A bundled model, or a folder that training wrote.

    Raises:
        InputError: if there is none.
    """
    found = load_model(name)
    for module in (found.model, found.guide):
        module.double().requires_grad_(True)
    return Subject(found.recipe, found.model, found.guide.network, found.lips)


def toy(recipe: Recipe, seed: int) -> Subject:
    """A model of the same kinds of prior, guide, decoder and likelihood, so small that its integrals are exact."""
    return untrained(override_recipe(recipe, list(TOY)), seed)


def randomise(module: nn.Module) -> None:
    """Move every parameter by a normal draw, so that each layer answers with numbers of order one."""
    with torch.no_grad():
        for parameter in module.parameters():
            size = 0.3 if parameter.dim() < 2 else parameter.shape[-1] ** -0.5
            parameter.add_(size * torch.randn_like(parameter))


def synthetic(subject: Subject, count: int, seed: int) -> Frames:
    """Random power spectra of random levels and random lips; some frames have none, where the subject has eyes."""
    generator = torch.Generator().manual_seed(seed)
    stft, lips = subject.recipe.stft, subject.recipe.lips
    level = torch.randn(count, 1, generator=generator, dtype=torch.float64).exp()
    power = level * torch.empty(count, stft.bins, dtype=torch.float64).exponential_(generator=generator)
    if not subject.sees:
        return Frames(power, None)
    features = torch.randn(count, lips.dimension, generator=generator, dtype=torch.float64)
    valid = torch.rand(count, generator=generator) < SEEN
    if count > 1:
        valid[0], valid[-1] = True, False
    return Frames(power, Visual(features, valid))
