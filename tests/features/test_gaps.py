"""Lips carried over gaps, against tracks that are known everywhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pyro_minvae.config.schema import VisualFeatureConfig
from pyro_minvae.features.gaps import CARRY_S, carried, distance, nearest
from pyro_minvae.features.visual import on_clock
from pyro_minvae.types import Visual

LIPS = VisualFeatureConfig(components=3, context=2)
HOP_S, FRAMES = 0.016, 200
CLOCK = HOP_S * torch.arange(FRAMES, dtype=torch.float64)


def line(slope: float = 1.0) -> Visual:
    """Lips that move evenly, seen everywhere, made at the clock's own instants and a second beyond both ends."""
    times = HOP_S * torch.arange(-60, FRAMES + 60, dtype=torch.float64)
    track = (slope * times)[:, None] * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    return on_clock(track, times, torch.ones(len(times), dtype=torch.bool), CLOCK, LIPS)


def without(visual: Visual, gap: slice) -> Visual:
    """The same where the frames of a gap have no lips, and hold rubbish."""
    features, valid = visual.features.clone(), visual.valid.clone()
    features[gap], valid[gap] = 99.0, False
    return Visual(features, valid)


def spoilt(visual: Visual, gap: slice) -> Visual:
    """The same with rubbish also in the context of the gap's neighbours, as wrong pictures leave it there."""
    features = without(visual, gap).features.unflatten(-1, (5, 3)).clone()
    for k, shift in enumerate((-0.08, -0.04, 0.0, 0.04, 0.08)):
        at = CLOCK + shift
        inside = (at > CLOCK[gap][0] - HOP_S) & (at < CLOCK[gap][-1] + HOP_S)
        if k != 2:
            features[inside, k] = 99.0
    return Visual(features.flatten(1), without(visual, gap).valid)


@pytest.mark.parametrize("spoil", [without, spoilt])
def test_what_moves_evenly_is_found_again(spoil: Callable[[Visual, slice], Visual]) -> None:
    whole, gap = line(), slice(80, 110)
    found = carried(spoil(whole, gap), LIPS, HOP_S)
    assert bool(found.valid.all())
    inner = slice(10, FRAMES - 10)
    torch.testing.assert_close(found.features[inner], whole.features[inner])


def test_frames_away_from_gaps_stay_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    visual = Visual(torch.randn(FRAMES, 15, generator=generator), torch.ones(FRAMES, dtype=torch.bool))
    found = carried(without(visual, slice(80, 110)), LIPS, HOP_S)
    far = (torch.arange(FRAMES) < 70) | (torch.arange(FRAMES) >= 120)
    assert torch.equal(found.features[far], visual.features[far])
    assert not torch.equal(found.features[79], visual.features[79])


def test_lips_reach_half_a_second() -> None:
    reach = int(CARRY_S / HOP_S)
    found = carried(without(line(), slice(50, 150)), LIPS, HOP_S)
    wanted = torch.ones(FRAMES, dtype=torch.bool)
    wanted[50 + reach : 150 - reach] = False
    assert torch.equal(found.valid, wanted)
    assert float(found.features[~wanted].abs().max()) == 0


def test_beyond_the_last_frame_the_lips_stand_still() -> None:
    whole = line()
    found = carried(without(whole, slice(150, FRAMES)), LIPS, HOP_S)
    torch.testing.assert_close(found.features[160], whole.features[149, 6:9].repeat(5))


@pytest.mark.parametrize("seen", [0, FRAMES])
def test_lips_without_gaps_and_no_lips_stay(seen: int) -> None:
    visual = line()._replace(valid=torch.arange(FRAMES) < seen)
    assert carried(visual, LIPS, HOP_S) is visual


def test_carrying_twice_changes_nothing() -> None:
    first = carried(spoilt(line(), slice(80, 110)), LIPS, HOP_S)
    again = carried(Visual(first.features, without(line(), slice(80, 110)).valid), LIPS, HOP_S)
    torch.testing.assert_close(again.features, first.features)


@pytest.mark.parametrize("places", [[3], [0, 9], [2, 3, 7], list(range(10))])
def test_the_nearest_frame_is_found(places: list[int]) -> None:
    chosen = torch.zeros(10, dtype=torch.bool)
    chosen[places] = True
    wanted = [min(places, key=lambda one: (abs(one - n), one)) for n in range(10)]
    assert nearest(chosen).tolist() == wanted
    assert distance(chosen).tolist() == [abs(one - n) for n, one in enumerate(wanted)]
