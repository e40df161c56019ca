"""Whether the lips of a block go with its sound: the EM loop at their own lag against the same lips moved in time."""

from __future__ import annotations

import math
from itertools import islice
from typing import NamedTuple

import torch

from pyro_minvae.config.load import preset_recipe
from pyro_minvae.config.schema import Recipe
from pyro_minvae.pipelines.mcem_solver import Block, Denoiser
from pyro_minvae.systems.checkpoint import Trained
from pyro_minvae.types import Visual

# How far the lips are moved, both ways (s): further than picture and sound are apart in real files, and near enough
# that where a sentence begins and ends does not tell the lags apart.
SHIFTS_S = (0.16, 0.288, 0.416, 0.544)

# Lips that have nothing to do with the sound pass with this probability, if all lags are alike to them.
FALSE_ACCEPTS = 0.1

# The one-sided quantile of Student's t at `FALSE_ACCEPTS`, with as many degrees of freedom as shifts less one.
LIMIT = 1.415

# The objective is compared after so many iterations: after one the noise is not fitted yet, after many it has taken
# whatever the lips do not explain.
ITERATIONS = 2

# Of shorter blocks too much is moved across the ends, in multiples of the furthest shift.
LEAST = 3


class Contrast(NamedTuple):
    """`value` is the contrast of a block's lips, Student's t under lips that go with no lag; `limit` what it takes."""

    value: float
    limit: float = LIMIT

    @property
    def fits(self) -> bool:
        """Whether the lips go with the sound."""
        return self.value >= self.limit


class LipContrast:
    """t = (Q_0 - mean_k Q_k) / (s sqrt(1 + 1 / K)), Q_k the EM objective with the lips moved by shift k of K.

    s is the standard deviation of the Q_k. Right and wrong lips are free to the same degree at every lag, so what a
    free z explains of the noise cancels, which the objective by itself is blind to.

    The loop is that of the preset "fast" whatever the recipe says, and its seed is fixed: the same lips are accepted
    with every preset and seed.
    """

    def __init__(self, trained: Trained, recipe: Recipe, device: torch.device) -> None:
        self._loop = Denoiser([trained], preset_recipe(recipe, "fast"), device)
        hops = [recipe.stft.hops(shift) for shift in SHIFTS_S]
        self._shifts = [sign * hop for hop in hops for sign in (-1, 1)]

    def __call__(self, piece: Block) -> Contrast | None:
        """The contrast of a block of one speaker with lips; None if it is too short to tell."""
        (visual,) = piece.visuals
        assert visual is not None
        if len(piece.power) < LEAST * max(self._shifts):
            return None
        right, *moved = (self._objective(piece, shifted(visual, shift)) for shift in (0, *self._shifts))
        return Contrast(contrast(right, moved))

    @torch.no_grad()
    def _objective(self, piece: Block, visual: Visual) -> float:
        states = self._loop.states([Block(piece.power, (visual,), 0)])
        return [state.objective for state in islice(states, ITERATIONS)][-1]


def shifted(visual: Visual, frames: int) -> Visual:
    """Lips moved to later frames, what leaves at the end coming in at the beginning."""
    return Visual(visual.features.roll(frames, 0), visual.valid.roll(frames, 0))


def contrast(right: float, moved: list[float]) -> float:
    """Student's t of a new value `right` against `moved`; 0 if all are the same."""
    count = len(moved)
    mean = sum(moved) / count
    spread = math.sqrt(sum((value - mean) ** 2 for value in moved) / (count - 1))
    # Lips that stand still give the same objective at every lag but for rounding.
    tiny = 1e-6 * max(abs(right), abs(mean), 1.0)
    return (
        (right - mean) / (max(spread, tiny) * math.sqrt(1 + 1 / count)) if abs(right - mean) > tiny else 0.0
    )
