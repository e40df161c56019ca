"""From prepared utterances to frames and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_training import tiny_recipe, utterances

from pyro_minvae.data.loader import Batch, FrameSet, batches, frame_set, stretches
from pyro_minvae.features.stft import frame_times
from pyro_minvae.systems.system import System
from pyro_minvae.types import Visual

STFT = tiny_recipe("a-vae").stft


def test_every_clip_is_brought_to_full_scale() -> None:
    """max|x| = 1, as the published training has it: the level of a recording must not matter."""
    clips = utterances(2, video=False)
    quiet = [clip._replace(waveform=0.01 * clip.waveform) for clip in clips]
    torch.testing.assert_close(frame_set(quiet, STFT).power, frame_set(clips, STFT).power)
    spike = np.zeros(500, np.float32)
    spike[100] = -0.25
    # An impulse of 1 has the power w^2 in every bin, and w^2 sums to one over the frames at this hop.
    power = frame_set([clips[0]._replace(waveform=spike)], STFT).power
    torch.testing.assert_close(power.sum(0), torch.ones(STFT.bins))


def test_frames_know_their_clip_and_their_time() -> None:
    clips = utterances(3, video=False)
    frames = frame_set(clips, STFT)
    for index, times in enumerate(frames.times):
        count = int((frames.owner == index).sum())
        assert torch.equal(times, frame_times(count, STFT))
    assert bool((frames.owner.diff() >= 0).all())


def test_silent_clips_are_left_out() -> None:
    clips = utterances(3, video=False)
    silent = clips[1]._replace(waveform=0 * clips[1].waveform)
    frames = frame_set([clips[0], silent, clips[2]], STFT)
    assert [clip.id for clip in frames.utterances] == ["u0", "u2"]
    assert set(frames.owner.tolist()) == {0, 1}
    with pytest.raises(ValueError, match="not silent"):
        frame_set([silent], STFT)


def test_frames_of_clips_without_lips_are_marked() -> None:
    system, clips = System(tiny_recipe("min-vae")), [*utterances(2), *utterances(1, video=False, seed=5)]
    assert system.lips is not None
    system.lips.fit([clip.lips for clip in clips if clip.lips is not None])
    frames = frame_set(clips, system.recipe.stft)
    visual = frames.visual(system.lips)
    assert visual.features.shape[0] == visual.valid.shape[0] == frames.power.shape[0] == len(frames.owner)
    assert not bool(visual.valid[frames.owner == 2].any())
    assert bool(visual.valid[frames.owner == 0].all())


def test_batches_hold_every_frame_once_at_the_level_of_its_utterance() -> None:
    frames = frame_set(utterances(4, video=False), tiny_recipe("a-vae").stft)
    generator = torch.Generator().manual_seed(0)
    seen = torch.cat(
        [batch.power for batch in batches(frames, None, size=10, level_db=(-20, -10), generator=generator)]
    )
    assert seen.shape == frames.power.shape
    # Divided by its own clean frame each row is a constant: the level, which an utterance's frames share.
    ratios = seen[:, None, :] / frames.power
    flatness = ratios.std(-1) / ratios.mean(-1)
    owner, row = flatness.argmin(1), torch.arange(len(seen))
    assert float(flatness[row, owner].max()) < 1e-4
    assert len(set(owner.tolist())) == len(seen)
    level_db = 10 * ratios[row, owner].mean(-1).log10()
    for utterance in range(4):
        of_utterance = level_db[frames.owner[owner] == utterance]
        assert float(of_utterance.max() - of_utterance.min()) < 1e-3
        assert -20.001 <= float(of_utterance[0]) <= -9.999


def uneven(*lengths: int) -> tuple[FrameSet, Visual]:
    """Utterances of so many frames; every frame's power and features are its own number, starting from 1."""
    clips = utterances(len(lengths), video=False)
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    number = torch.arange(1.0, len(owner) + 1)[:, None]
    times = [torch.arange(n) / 10 for n in lengths]
    return FrameSet(number.expand(-1, 2), owner, clips, times), Visual(number, number[:, 0] % 2 == 0)


def epoch_of(frames: FrameSet, visual: Visual | None, seed: int, size: int = 12) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    found = stretches(frames, visual, length=4, size=size, level_db=(-20, 0), generator=generator)
    return list(found)


def test_stretches_are_frames_in_a_row_of_one_utterance() -> None:
    frames, visual = uneven(9, 4, 3, 14, 1)
    for seed in range(20):
        seen = []
        for power, lips, _ in epoch_of(frames, visual, seed):
            assert lips is not None
            assert power.shape[1:] == (4, 2)
            assert len(power) * 4 <= 12
            assert lips.features.shape[:2] == lips.valid.shape == power.shape[:2]
            # The lips are those of the same frames, and the frames follow each other.
            number = lips.features[..., 0]
            assert bool((number.diff(dim=1) == 1).all())
            assert torch.equal(lips.valid, number % 2 == 0)
            owners = frames.owner[number.long() - 1]
            assert bool((owners == owners[:, :1]).all())
            # One level a stretch.
            torch.testing.assert_close(
                power[..., 0] / number, (power[:, :1, 0] / number[:, :1]).expand(-1, 4)
            )
            seen += number.flatten().tolist()
        # Each frame once at most; as many stretches as fit, from utterances that are long enough.
        assert len(set(seen)) == len(seen) == 4 * (9 // 4 + 1 + 14 // 4)


def test_every_frame_of_a_long_utterance_is_met_in_some_epoch() -> None:
    """The cuts move, so that the ends are not left out for good."""
    frames, visual = uneven(9, 14)
    met: set[float] = set()
    for seed in range(30):
        met |= {n for _, lips, _ in epoch_of(frames, visual, seed) for n in lips.features.flatten().tolist()}
    assert met == set(range(1, 24))


def test_stretches_keep_the_level_of_their_utterance() -> None:
    frames, visual = uneven(40, 40)
    levels: dict[int, set[float]] = {0: set(), 1: set()}
    for power, lips, _ in epoch_of(frames, visual, 0):
        for row, number in zip(power[:, 0, 0], lips.features[:, 0, 0], strict=True):
            level = float(10 * (row / number).log10())
            levels[int(frames.owner[int(number) - 1])].add(round(level, 3))
    assert all(len(of_one) == 1 for of_one in levels.values())
    assert levels[0] != levels[1]
    assert all(-20 <= level <= 0 for of_one in levels.values() for level in of_one)


def test_stretches_are_those_of_the_seed_in_a_new_order_each_epoch() -> None:
    frames, visual = uneven(40, 33)
    one, again, other = (epoch_of(frames, visual, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one, again, strict=True))
    assert not all(
        a[0].shape == b[0].shape and torch.equal(a[0], b[0]) for a, b in zip(one, other, strict=False)
    )
    first = [float(lips.features[0, 0, 0]) for _, lips, _ in one]
    assert first != sorted(first)
    assert [lips for _, lips, _ in epoch_of(frames, None, 0)] == [None] * len(one)


def test_a_batch_smaller_than_a_stretch_is_one_stretch() -> None:
    frames, visual = uneven(9, 4)
    assert [len(batch.power) for batch in epoch_of(frames, visual, 0, size=2)] == [1, 1, 1]


def test_utterances_shorter_than_a_stretch_are_left_out() -> None:
    """Next to a longer one they do no harm; alone they are refused."""
    frames, visual = uneven(3, 4, 1)
    ((power, lips, _),) = epoch_of(frames, visual, 0)
    assert lips is not None
    assert lips.features.flatten().tolist() == [4, 5, 6, 7]
    assert power.shape == (1, 4, 2)
    with pytest.raises(ValueError, match="expected an utterance of at least 4 frames, got none"):
        epoch_of(*uneven(3, 2), 0)
