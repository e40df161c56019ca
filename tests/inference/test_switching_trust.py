"""What the pictures say of themselves, and the chain that joins it to what the sound says."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from pyro_minvae.config.schema import CropConfig, VisualFeatureConfig
from pyro_minvae.features.visual import LipProjection
from pyro_minvae.inference.switching.video_reliability import (
    AGAINST,
    CUT_AT,
    CUT_FLOOR,
    CUT_MOST,
    CUT_SLOPE,
    EDGE,
    FOR,
    PLAIN,
    SOUND,
    STILL_NATS,
    WIDER,
    cut_evidence,
    picture_evidence,
    right_pictures,
    sound_evidence,
    video_reliability,
    without,
)
from pyro_minvae.types import MouthCrops, Visual

LIPS = VisualFeatureConfig(components=6, context=2)
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
@pytest.mark.parametrize("cut", [False, True])
def test_trust_is_the_posterior_of_a_chain(seed: int, cut: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    evidence = 2 * torch.randn(5, generator=generator, dtype=torch.float64)
    cuts = 3 * torch.randn(4, generator=generator, dtype=torch.float64) if cut else torch.zeros(4).double()
    seen = torch.tensor([True, True, False, True, True])
    found = video_reliability(evidence, seen, stay=0.8, cuts=cuts if cut else None)
    changes = [0.2 * math.exp(c) / (0.8 + 0.2 * math.exp(c)) for c in cuts.tolist()]
    weights = torch.zeros(5, 2).double()
    for path in itertools.product((0, 1), repeat=5):
        steps = zip(changes, itertools.pairwise(path), strict=True)
        chance = math.prod(1 - change if a == b else change for change, (a, b) in steps)
        said = sum(float(evidence[n]) for n, k in enumerate(path) if k == 0 and seen[n])
        for n, k in enumerate(path):
            weights[n, k] += chance * math.exp(said)
    wanted = weights[:, 0] / weights.sum(-1)
    torch.testing.assert_close(found, torch.where(seen, wanted, 0.0))


def test_a_single_frame_has_the_trust_of_its_picture() -> None:
    found = video_reliability(torch.tensor([1.0]), torch.tensor([True]), stay=0.9, cuts=torch.zeros(0))
    assert float(found) == pytest.approx(1 / (1 + math.exp(-1)))


def test_the_sound_speaks_within_bounds() -> None:
    other, right = torch.tensor([3.0, 100.0, 0.0]), torch.tensor([1.0, 0.0, 100.0])
    torch.testing.assert_close(sound_evidence(other, right), SOUND * torch.tensor([2.0, FOR, AGAINST]))


def moving(cut: int | None = None, context: int = 2) -> Visual:
    """Lips that move evenly, 0.04 s between instants and 0.016 s between frames, and are elsewhere from `cut` on."""
    generator = torch.Generator().manual_seed(2)
    phases, speeds, apart = torch.randn(3, 6, generator=generator)
    frames = torch.arange(FRAMES)[:, None, None] + 2.5 * torch.arange(-context, context + 1)[:, None]
    track = torch.sin(phases + 0.05 * (1 + speeds.abs()) * frames)
    if cut is not None:
        track = track + 2 * apart * (frames > cut + 0.5)
    return Visual(track.flatten(1), torch.ones(FRAMES, dtype=torch.bool))


@pytest.mark.parametrize("cut", [60, 61, 113])
def test_lips_are_cut_where_they_are_not_where_they_were_going(cut: int) -> None:
    visual = moving(cut)
    found = cut_evidence(visual, LIPS, 1.0)
    assert found.shape == (FRAMES - 1,)
    assert abs(int(found.argmax()) - cut) <= 1
    assert found.max() > 3
    assert int((found > 0).sum()) == 1
    assert (cut_evidence(moving(), LIPS, 1.0) <= 0).all()
    # By hand, at the frame whose instants lie on either side of the step.
    peak = int(found.argmax())
    y = visual.features[peak - 1].unflatten(-1, (5, 6))[1:]
    gap = ((y[2] - y[1]) - (y[1] - y[0]) / 2 - (y[3] - y[2]) / 2).square().mean()
    move = (y[1] - y[0]).square().mean() + (y[3] - y[2]).square().mean()
    wanted = CUT_SLOPE * (math.log(gap / (move + CUT_FLOOR)) - CUT_AT)
    assert float(found[peak]) == pytest.approx(min(wanted, CUT_MOST), rel=1e-4)


def test_cuts_say_nothing_where_nothing_can_be_said() -> None:
    visual = moving(60)
    valid = torch.ones(FRAMES, dtype=torch.bool)
    valid[58:60] = False
    beside = cut_evidence(visual._replace(valid=valid), LIPS, 1.0)
    assert (beside[56:63] == 0).all()
    assert (beside[70:] != 0).any()
    still = Visual(visual.features.clone(), visual.valid)
    still.features[:] = still.features[:1, :6].repeat(1, 5)
    assert (cut_evidence(still, LIPS, 1.0) == 0).all()
    narrow = VisualFeatureConfig(components=6, context=1)
    assert (cut_evidence(moving(60, context=1), narrow, 1.0) == 0).all()
    assert cut_evidence(Visual(visual.features[:1], visual.valid[:1]), LIPS, 1.0).shape == (0,)


def test_a_cut_ends_what_is_doubtful() -> None:
    """Evidence spreads over its neighbours as far as the next cut."""
    evidence = torch.full((FRAMES,), 0.02)
    evidence[80:120] = -0.5
    visual = track(torch.ones(FRAMES))
    cuts = torch.full((FRAMES - 1,), -4.0)
    cuts[[69, 139]] = 4.0
    found = video_reliability(evidence, visual.valid, stay=0.97, cuts=cuts)
    assert (found[70:140] < 0.5).all()
    assert (found[:70] > 0.5).all()
    assert (found[140:] > 0.5).all()


def test_the_typical_square_is_that_of_training() -> None:
    """What `picture_evidence` takes for right is what the projection's training frames have."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.randn(3, 12, 12, generator=generator)
    weights = torch.randn(400, 3, generator=generator) * torch.tensor([3.0, 2.0, 1.0])
    pictures = (weights[:, :, None, None] * shapes).sum(1) + 0.3 * torch.randn(
        400, 12, 12, generator=generator
    )
    crops = (128 + 10 * pictures).clamp(0, 255).to(torch.uint8)
    lips = MouthCrops(
        crops.numpy(), torch.arange(400).numpy() / 25, torch.ones(400, dtype=torch.bool).numpy()
    )
    projection = LipProjection(CropConfig(size=12), VisualFeatureConfig(components=5, context=0))
    projection.fit([lips])
    vectors = projection(crops, torch.ones(400, dtype=torch.bool))
    assert projection.typical == pytest.approx(float(vectors.square().mean()), rel=0.02)


def test_pictures_that_look_wrong_leave_the_lips_and_their_mean() -> None:
    """What is left is what the features would be if no face had been found there (derivations, eq. 9.28)."""
    visual = track(torch.ones(FRAMES))
    valid = torch.arange(FRAMES) > 5
    evidence = torch.full((FRAMES,), 2.0)
    evidence[80:120] = -4.0
    # Wrong, but not for long enough to be sure.
    evidence[150:152] = -4.0
    # For long, but not plainly: a head that has moved.
    evidence[160:190] = PLAIN + 0.1
    moved = visual._replace(features=visual.features + torch.arange(6.0).repeat(5), valid=valid)
    cuts = torch.full((FRAMES - 1,), -1.0)
    cuts[[79, 119]] = 4.0
    found = right_pictures(moved, evidence, context=2, stay=0.9, cuts=cuts)
    right = valid.clone()
    right[80 - EDGE : 120 + EDGE] = False
    assert torch.equal(found.valid, right)
    wanted = visual.features - visual.features[right, 12:18].mean(0).repeat(5)
    torch.testing.assert_close(found.features, wanted * right[:, None])


@pytest.mark.parametrize("said", [2.0, -4.0])
def test_pictures_that_look_alike_stay(said: float) -> None:
    visual = track(torch.ones(FRAMES))
    assert right_pictures(visual, torch.full((FRAMES,), said), context=2, stay=0.9) is visual


def test_what_would_leave_nothing_is_left_as_it_is() -> None:
    visual = track(torch.ones(FRAMES))
    assert without(visual, torch.ones(FRAMES, dtype=torch.bool), context=2) is visual
    assert without(visual, torch.zeros(FRAMES, dtype=torch.bool), context=2) is visual
