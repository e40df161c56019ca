"""Lips carried over frames without any: what was seen before and after a gap tells something of what lies in it."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_minvae.config.schema import VisualFeatureConfig
from pyro_minvae.features.visual import nearest_instant, on_clock
from pyro_minvae.types import Visual

# Lips tell something of frames this near (s), so that gaps of twice that are closed: a glance aside, a hand, a freeze.
CARRY_S = 0.5


def carried(visual: Visual, lips: VisualFeatureConfig, hop_s: float) -> Visual:
    """The lips of one recording with those of its gaps, linear in time between the last seen and the next.

    (derivations, eq. 9.30)

    Frames within `CARRY_S` of one with lips are valid; before the first and after the last the lips stand still. The
    context of frames beside a gap is made anew too, since there may have been anything in it. Lips without gaps, and
    frames away from them, stay as they are.

    Args:
        visual: features [N, D], valid [N].
        lips: how the features are made.
        hop_s: from one frame to the next (s).
    """
    seen = visual.valid
    if bool(seen.all()) or not bool(seen.any()):
        return visual
    place = torch.arange(len(seen), device=seen.device, dtype=torch.float64) * hop_s
    own = visual.features.unflatten(-1, (2 * lips.context + 1, -1))[:, lips.context]
    bridged = on_clock(own, place, seen, place, lips, everywhere=True)
    reach = lips.context * lips.spacing_s + hop_s
    touched = distance(~seen) * hop_s <= reach
    near = distance(seen) * hop_s <= CARRY_S
    return Visual(torch.where(touched[:, None], bridged.features, visual.features) * near[:, None], near)


def distance(chosen: Tensor) -> Tensor:
    """How many frames away the nearest of those `chosen` [N] is [N]; some must be."""
    place = torch.arange(len(chosen), device=chosen.device)
    return (place - nearest(chosen)).abs()


def nearest(chosen: Tensor) -> Tensor:
    """For each frame [N] the index of the nearest one among those `chosen` [N], the earlier of two; some must be."""
    found = chosen.nonzero()[:, 0]
    return found[nearest_instant(found, torch.arange(len(chosen), device=chosen.device))]
