"""From prepared utterances to frames and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_training import tiny_recipe, utterances

from pyro_minvae.data.loader import batches, frame_set
from pyro_minvae.features.stft import frame_times
from pyro_minvae.system import System

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
        [power for power, _ in batches(frames, None, size=10, level_db=(-20, -10), generator=generator)]
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
