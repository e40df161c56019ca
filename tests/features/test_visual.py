"""Lips meet the sound by timestamp: tracks that are known functions of time come out at the frames' own times."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyro_minvae.config.schema import CropConfig, Stft, VisualFeatureConfig
from pyro_minvae.features.stft import frame_times
from pyro_minvae.features.visual import REACH_S, LipProjection, augment, on_clock
from pyro_minvae.types import MouthCrops, Visual

PLAIN = VisualFeatureConfig(components=2, context=0)
CLOCK = frame_times(120, Stft())  # 16 ms apart, about 1.9 s


def known(times: Tensor) -> Tensor:
    """A track that can be checked anywhere: one part linear in time, one that waves at 1.5 Hz."""
    return torch.stack([2 * times - 1, torch.sin(3 * torch.pi * times)], -1)


def stamps(fps: float, seconds: float, start: float = 0.0) -> Tensor:
    return start + torch.arange(round(fps * seconds), dtype=torch.float64) / fps


def seen_at(
    times: Tensor, lips: VisualFeatureConfig = PLAIN, *, valid: Tensor | None = None, clock: Tensor = CLOCK
) -> Visual:
    if valid is None:
        valid = torch.ones(len(times), dtype=torch.bool)
    return on_clock(known(times), times, valid, clock, lips)


@pytest.mark.parametrize("fps", [25.0, 29.97, 30.0, 60.0])
def test_a_known_track_is_recovered_whatever_the_frame_rate(fps: float) -> None:
    visual = seen_at(stamps(fps, 2.5, start=-0.2))
    assert bool(visual.valid.all())
    wanted = known(CLOCK)
    torch.testing.assert_close(visual.features[:, 0], wanted[:, 0])
    # Linear interpolation of a wave: at most (w / fps)^2 / 8 off.
    assert float((visual.features[:, 1] - wanted[:, 1]).abs().max()) <= (3 * torch.pi / fps) ** 2 / 8 * 1.01


@given(st.lists(st.floats(0.005, 0.06), min_size=40, max_size=60), st.floats(-0.5, 0.0))
def test_uneven_timestamps_are_honoured(gaps: list[float], start: float) -> None:
    times = start + torch.tensor(gaps, dtype=torch.float64).cumsum(0)
    clock = CLOCK[(times[0] < CLOCK) & (times[-1] > CLOCK)]
    visual = seen_at(times, clock=clock)
    assert bool(visual.valid.all())
    torch.testing.assert_close(visual.features[:, 0], known(clock)[:, 0])


def test_context_looks_back_and_ahead_in_seconds() -> None:
    lips = VisualFeatureConfig(components=2, context=2, spacing_s=0.05)
    clock = CLOCK[(CLOCK > 0.3) & (CLOCK < 1.5)]
    visual = seen_at(stamps(25, 2.5), lips, clock=clock)
    assert visual.features.shape == (len(clock), lips.dimension)
    for position, offset in enumerate((-0.1, -0.05, 0.0, 0.05, 0.1)):
        torch.testing.assert_close(visual.features[:, 2 * position], known(clock + offset)[:, 0])


@pytest.mark.parametrize(("start", "seconds"), [(0.0, 0.8), (0.7, 2.0), (0.51, 0.6), (-1.0, 1.5)])
def test_video_that_starts_late_or_ends_early_is_masked(start: float, seconds: float) -> None:
    times = stamps(25, seconds, start)
    visual = seen_at(times)
    covered = (times[0] - REACH_S <= CLOCK) & (times[-1] + REACH_S >= CLOCK)
    assert torch.equal(visual.valid, covered)
    assert not bool(visual.valid.all())
    assert bool(visual.valid.any())
    assert float(visual.features[~visual.valid].abs().max()) == 0
    inside = (times[0] <= CLOCK) & (times[-1] >= CLOCK)
    torch.testing.assert_close(visual.features[inside, 0], known(CLOCK[inside])[:, 0])


def test_faceless_frames_are_bridged_and_masked() -> None:
    """Nothing of a faceless frame is used: its neighbours are joined by a line, and it is marked."""
    times = stamps(25, 2.5)
    valid = (times < 0.6) | (times > 1.0)
    track = known(times)
    spoilt = torch.where(valid[:, None], track, torch.nan)
    lips = VisualFeatureConfig(components=2, context=3)
    visual = on_clock(spoilt, times, valid, CLOCK, lips)
    assert bool(torch.isfinite(visual.features).all())
    nearest = (CLOCK[:, None] - times).abs().argmin(1)
    assert torch.equal(visual.valid, valid[nearest])
    assert float(visual.features[~visual.valid].abs().max()) == 0
    # The linear part shows that the bridge is a line: it is right even where context reaches into the gap.
    offsets = 0.04 * torch.arange(-3, 4)
    inside = visual.valid & (CLOCK > 0.13)
    torch.testing.assert_close(visual.features[inside][:, ::2], known(CLOCK[inside, None] + offsets)[..., 0])


def test_a_gap_between_frames_is_not_bridged_silently() -> None:
    """A second without any frame (a frozen camera) has no lips either."""
    times = torch.cat([stamps(25, 0.5), stamps(25, 0.5, start=1.5)])
    visual = seen_at(times)
    far = (times[11] + REACH_S < CLOCK) & (CLOCK < 1.5 - REACH_S)
    assert int(far.sum()) > 20
    assert not bool(visual.valid[far].any())


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_frame(count: int) -> None:
    times = stamps(25, 1.0)
    valid = torch.zeros(25, dtype=torch.bool)
    valid[10 : 10 + count] = True
    visual = seen_at(times, valid=valid)
    assert bool(torch.isfinite(visual.features).all())
    assert int(visual.valid.sum()) == (
        0 if count == 0 else int((CLOCK - times[10]).abs().le(0.02 + 1e-9).sum())
    )


def test_an_hour_of_lips_fits_into_memory() -> None:
    """225,000 frames of sound and 90,000 of video: distances of all pairs would take 162 GB."""
    times, clock = stamps(25, 3600.0), frame_times(225_000, Stft())
    visual = seen_at(times, valid=torch.arange(len(times)) % 100 > 0, clock=clock)
    assert 0.98 < float(visual.valid.double().mean()) < 1


def mouths(count: int, *, seed: int = 0, size: int = 12) -> MouthCrops:
    """A mouth of random opening and width on one face, each frame shown twice: two ways of moving, little grain."""
    generator = np.random.default_rng(seed)
    opening, width = generator.uniform(1, 4, count), generator.uniform(2, 5, count)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    inside = (y[None] / opening[:, None, None]) ** 2 + (x[None] / width[:, None, None]) ** 2
    crops = 180 - 120 / (1 + np.exp(8 * (inside - 1))) + 10 * x
    crops = np.repeat(
        np.clip(crops + generator.normal(0, 1, crops.shape), 0, 255).astype(np.uint8), 2, axis=0
    )
    return MouthCrops(crops, np.arange(2 * count) / 50, np.ones(2 * count, bool))


def fitted(clips: list[MouthCrops], components: int = 6) -> LipProjection:
    torch.manual_seed(0)
    projection = LipProjection(CropConfig(size=12), VisualFeatureConfig(components=components, context=0))
    projection.fit(clips)
    return projection


def vectors(projection: LipProjection, lips: MouthCrops) -> Tensor:
    return projection(torch.as_tensor(lips.crops), torch.as_tensor(lips.valid))


def test_components_hold_the_movement_and_are_scaled() -> None:
    clips = [mouths(60, seed=seed) for seed in range(4)]
    projection = fitted(clips, 20)
    u = torch.cat([vectors(projection, clip) for clip in clips])
    torch.testing.assert_close(u.mean(0), torch.zeros(20), atol=1e-4, rtol=0)
    covariance = u.T @ u / len(u)
    torch.testing.assert_close(covariance, covariance.diag().diag(), atol=0.02, rtol=0)
    # The first has variance 1 / 1.01; faint ones stay small rather than being blown up to the same size.
    variances = covariance.diag()
    assert float(variances[0]) == pytest.approx(1 / 1.01, rel=0.01)
    assert bool((variances.diff() < 0.01).all())
    assert float(variances[19]) < 0.5


def test_projection_and_back_keeps_the_variance() -> None:
    train, new = [mouths(60, seed=seed) for seed in range(4)], mouths(60, seed=9)
    few, many = (fitted(train, components) for components in (2, 12))
    assert many.novelty(new) < few.novelty(new) < 0.5
    assert many.novelty(new) < 0.1
    assert many.novelty(new) <= float(many.limit)
    grain = np.random.default_rng(0).integers(0, 256, (80, 12, 12)).astype(np.uint8)
    assert many.novelty(MouthCrops(grain, np.arange(80) / 25, np.ones(80, bool))) > float(many.limit)


def test_lighting_and_faceless_frames_do_not_matter() -> None:
    projection, clip = fitted([mouths(60)]), mouths(40, seed=3)
    valid = torch.ones(80, dtype=torch.bool)
    valid[::5] = False
    crops = torch.as_tensor(clip.crops).double()
    dim = 0.5 * crops + 20
    torch.testing.assert_close(projection(dim, valid), projection(crops, valid), atol=1e-4, rtol=1e-4)
    black = torch.where(valid[:, None, None], crops, 0.0)
    torch.testing.assert_close(projection(black, valid)[valid], projection(crops, valid)[valid])


def test_visual_is_the_projection_on_the_clock() -> None:
    projection, clip = fitted([mouths(60)]), mouths(40, seed=3)
    visual = projection.visual(clip, torch.as_tensor(clip.times))
    assert bool(visual.valid.all())
    torch.testing.assert_close(visual.features, vectors(projection, clip))
    missing = projection.missing(7)
    assert missing.features.shape == (7, 6)
    assert not bool(missing.valid.any())


def test_too_few_crops_are_refused() -> None:
    with pytest.raises(ValueError, match="lip crops"):
        fitted([mouths(3)])


def test_augmentation_is_seeded_alike_for_all_frames_and_keeps_the_shape() -> None:
    crops = torch.as_tensor(mouths(5).crops)
    still = crops[:1].expand(6, -1, -1)

    def make(clip: Tensor, seed: int) -> Tensor:
        return augment(clip, torch.Generator().manual_seed(seed))

    moved = make(crops, 1)
    assert moved.shape == crops.shape
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 255
    assert torch.equal(moved, make(crops, 1))
    assert not torch.equal(moved, make(crops, 2))
    assert bool((make(still, 1) == make(still, 1)[0]).all())
    generator = torch.Generator().manual_seed(1)
    assert not torch.equal(augment(crops, generator), augment(crops, generator))


@given(st.integers(0, 1000))
def test_augmentation_moves_by_no_more_than_it_says(seed: int) -> None:
    """A blob stays within the shift (and the zoom about the middle); a flat picture stays flat."""
    spot = torch.zeros(1, 50, 50, dtype=torch.uint8)
    spot[0, 20:25, 25:30] = 255
    moved = augment(spot, torch.Generator().manual_seed(seed))[0].double()
    weight = moved / moved.sum()
    rows = torch.arange(50, dtype=torch.float64) + 0.5
    centre = torch.stack([(weight.sum(1) * rows).sum(), (weight.sum(0) * rows).sum()])
    most = 50 * 0.06 / (1 - 0.08) + 0.09 * 2.5 + 0.3
    assert float((centre - torch.tensor([22.5, 27.5])).abs().max()) <= most
    flat = augment(torch.full((1, 8, 8), 255, dtype=torch.uint8), torch.Generator().manual_seed(seed))
    torch.testing.assert_close(flat, torch.full_like(flat, 255.0))
