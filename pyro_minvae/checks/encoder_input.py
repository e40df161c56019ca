"""A guide that hears mixed speech: the bound holds for whatever it hears (derivations, eq. 7.9)."""

from __future__ import annotations

import math

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_minvae.checks.subject import Frames, Subject
from pyro_minvae.guides.base import Guide
from pyro_minvae.types import Visual


class Hearing(Guide):
    """q(z | x, v) of a guide whose `encoder_input` is fixed: |x|^2 [N, F] of a mixture, for the same frames.

    It may also be asked about copies of them, [M N, F] or [M, N, F].
    """

    def __init__(self, guide: Guide, encoder_input: Tensor) -> None:
        super().__init__()
        self.guide, self.encoder_input = guide, encoder_input
        self.mixed, self.visual, self.led, self.reach = guide.mixed, guide.visual, guide.led, guide.reach

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        return self.guide.posteriors(power, visual, self._mixture(power))

    def audio_weight(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> Tensor | None:
        return self.guide.audio_weight(power, visual, self._mixture(power))

    def _mixture(self, power: Tensor) -> Tensor:
        """The mixture once for each copy of the frames."""
        if power.dim() > 2:
            return self.encoder_input.expand(power.shape)
        return self.encoder_input.repeat(len(power) // len(self.encoder_input), 1)


def hears_mixtures(subject: Subject) -> bool:
    """Whether the guide of the final model learns from mixed speech."""
    recipe = subject.recipe
    return any(
        stage.mix_speech is not None and stage.guide in (None, recipe.guide.kind)
        for stage in recipe.training.stages
    )


def in_a_mixture(subject: Subject, frames: Frames, seed: int) -> Subject:
    """The subject with its guide hearing |s + s'|^2: each frame s with the sound s' of another at random phases.

    The other is the same frame counted from the end. A guide that has not learnt from mixed speech is left alone.
    """
    if not hears_mixtures(subject):
        return subject
    generator = torch.Generator().manual_seed(seed)
    power, other = frames.power, frames.power.flip(0)
    phase = 2 * math.pi * torch.rand(power.shape, generator=generator, dtype=power.dtype)
    encoder_input = power + other + 2 * (power * other).sqrt() * phase.cos()
    return subject._replace(guide=Hearing(subject.guide, encoder_input))
