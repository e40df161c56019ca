"""What the EM loop consists of: how many iterations with which E-step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyro_minvae.config.schema import Inference
from pyro_minvae.models.noisy import Source


def is_mean_field(config: Inference, sources: Sequence[Source]) -> bool:
    """Whether E-steps begin as mean-field ones: by name, or because lips chose where all the chains start."""
    led = all(source.visual is not None and source.led for source in sources)
    return config.e_step == "mean-field" or (config.e_step == "auto" and led)


class Phase(NamedTuple):
    """So many `iterations` of one kind; in marginal ones log p(z | v) counts `prior` times (derivations, eq. 6.46)."""

    iterations: int
    mean_field: bool
    prior: float = 1.0


def stretches(config: Inference, mean_field: bool) -> list[Phase]:
    """What the loop consists of where its E-steps begin as mean-field ones, or not (see `is_mean_field`)."""
    last = min(config.last_marginal, config.iterations) if mean_field else 0
    found = [Phase(config.iterations - last, mean_field), Phase(last, False, config.last_prior)]
    return [stretch for stretch in found if stretch.iterations > 0]


def exponent_of(config: Inference, sources: Sequence[Source]) -> float:
    """That of the multiplicative updates of W and H: 1/2, or 1 in the papers' mean-field loop."""
    return 1.0 if config.mean_field == "published" and is_mean_field(config, sources) else 0.5
