"""What the pictures say of themselves, and the chain that joins it to what the sound says."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from pyro_minvae.config import LipCrops, LipFeatures
from pyro_minvae.features.visual import LipProjection
from pyro_minvae.inference.switching.trust import (
    STILL_NATS,
    WIDER,
    lip_trust,
    picture_evidence,
    right_pictures,
)
from pyro_minvae.types import Lips, Visual

LIPS = LipFeatures(components=6, context=2)
FRAMES = 200


def track(scale: torch.Tensor, seed: int = 0) -> Visual:
    """Features of a mouth that changes at every instant, wider by `scale` [N]."""
    generator = torch.Generator().manual_seed(seed)
    instants = torch.randn(FRAMES + 4, 6, generator=generator)
    stacked = torch.stack([instants[shift : shift + FRAMES] for shift in range(5)], 1)
    return Visual((scale[:, None, None] * stacked).flatten(1), torch.ones(FRAMES, dtype=torch.bool))


def test_pictures_that_spread_wider_or_stand_still_speak_against_themselves() -> None:
    scale = torch.ones(FRAMES)
    scale[50:80] = 4.0
    visual = track(scale)
    visual.features[120:150] = visual.features[119, 12:18].repeat(5)
    found = picture_evidence(visual, LIPS, 1.0)
    right, wide, still = found[:50].mean(), found[50:80].mean(), found[121:149]
    assert right > 0.2
    assert wide < -3
    here = visual.features[:, 12:18]
    square = (here - here.median(0).values).square().mean(-1)
    by_hand = math.log(WIDER) - (1 - 1 / WIDER) * square
    torch.testing.assert_close(found[:120], by_hand[:120])
    torch.testing.assert_close(still, by_hand[121:149] - STILL_NATS)


def test_frames_without_lips_say_nothing() -> None:
    visual = track(torch.ones(FRAMES))
    valid = torch.arange(FRAMES) % 3 > 0
    found = picture_evidence(visual._replace(valid=valid), LIPS, 1.0)
    assert (found[~valid] == 0).all()
    assert (picture_evidence(visual._replace(valid=torch.zeros_like(valid)), LIPS, 1.0) == 0).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_trust_is_the_posterior_of_a_chain(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    evidence = 2 * torch.randn(5, generator=generator, dtype=torch.float64)
    seen = torch.tensor([True, True, False, True, True])
    found = lip_trust(evidence, seen, stay=0.8)
    weights = torch.zeros(5, 2).double()
    for path in itertools.product((0, 1), repeat=5):
        chance = math.prod(0.8 if a == b else 0.2 for a, b in itertools.pairwise(path))
        said = sum(float(evidence[n]) for n, k in enumerate(path) if k == 0 and seen[n])
        for n, k in enumerate(path):
            weights[n, k] += chance * math.exp(said)
    wanted = weights[:, 0] / weights.sum(-1)
    torch.testing.assert_close(found, torch.where(seen, wanted, 0.0))


def test_the_typical_square_is_that_of_training() -> None:
    """What `picture_evidence` takes for right is what the projection's training frames have."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.randn(3, 12, 12, generator=generator)
    weights = torch.randn(400, 3, generator=generator) * torch.tensor([3.0, 2.0, 1.0])
    pictures = (weights[:, :, None, None] * shapes).sum(1) + 0.3 * torch.randn(
        400, 12, 12, generator=generator
    )
    crops = (128 + 10 * pictures).clamp(0, 255).to(torch.uint8)
    lips = Lips(crops.numpy(), torch.arange(400).numpy() / 25, torch.ones(400, dtype=torch.bool).numpy())
    projection = LipProjection(LipCrops(size=12), LipFeatures(components=5, context=0))
    projection.fit([lips])
    vectors = projection(crops, torch.ones(400, dtype=torch.bool))
    assert projection.typical == pytest.approx(float(vectors.square().mean()), rel=0.02)


def test_pictures_that_look_wrong_leave_the_lips_and_their_mean() -> None:
    """What is left is what the features would be if no face had been found there (derivations, eq. 9.28)."""
    visual = track(torch.ones(FRAMES))
    valid = torch.arange(FRAMES) > 5
    evidence = torch.full((FRAMES,), 2.0)
    evidence[80:120] = -4.0
    # Doubtful, but not for long enough to be sure.
    evidence[150:153] = -2.0
    moved = visual._replace(features=visual.features + torch.arange(6.0).repeat(5), valid=valid)
    found = right_pictures(moved, evidence, context=2, stay=0.9)
    right = valid.clone()
    right[80:120] = False
    assert torch.equal(found.valid, right)
    wanted = visual.features - visual.features[right, 12:18].mean(0).repeat(5)
    torch.testing.assert_close(found.features, wanted * right[:, None])


@pytest.mark.parametrize("said", [2.0, -2.0])
def test_pictures_that_look_alike_stay(said: float) -> None:
    visual = track(torch.ones(FRAMES))
    assert right_pictures(visual, torch.full((FRAMES,), said), context=2, stay=0.9) is visual
