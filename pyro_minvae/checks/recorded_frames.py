"""Frames of a recording for the check."""

from __future__ import annotations

from pathlib import Path

import torch

from pyro_minvae.checks.subject import Frames, Subject
from pyro_minvae.errors import InputError
from pyro_minvae.features.stft import analyse, frame_times
from pyro_minvae.features.stft import power as power_of
from pyro_minvae.features.visual import LipProjection
from pyro_minvae.media.audio import is_video, read_audio, resample
from pyro_minvae.media.crop_files import resize
from pyro_minvae.media.mouths import read_lips
from pyro_minvae.types import MouthCrops, Visual


def recorded(subject: Subject, audio: Path, video: Path | None, count: int) -> Frames:
    """The `count` frames in a row with the most power, at max|x| = 1, with their lips.

    Lips come from `video`, or from `audio` itself if that is a video. A system that is not trained has no projection
    of mouth crops yet: it is fitted on this clip.

    Raises:
        InputError: if a file cannot be read, the sound is silent, lips are given to a system that does not look at
            any, or there are too few of them.
    """
    recipe = subject.recipe
    if video is not None and subject.lips is None:
        raise InputError(f"--video {video}: expected a system that looks at lips, found {recipe.name}")
    sound = read_audio(audio)
    waveform = torch.as_tensor(resample(sound.waveform.mean(0), sound.rate, recipe.stft.rate)).double()
    peak = waveform.abs().max()
    if peak == 0:
        raise InputError(f"{audio}: expected sound, found silence")
    power = power_of(analyse((waveform / peak).float(), recipe.stft)).double()
    if video is None and is_video(audio) and subject.lips is not None:
        video = audio
    visual = None
    if video is not None and subject.lips is not None:
        track = read_lips(video, size=recipe.crops.size, face=recipe.crops.face)
        track = track._replace(crops=resize(track.crops, recipe.crops.size))
        visual = _projected(subject.lips, track, video, subject, len(power))
    count = min(count, len(power))
    loudest = int(power.sum(-1).unfold(0, count, 1).sum(-1).argmax())
    part = slice(loudest, loudest + count)
    if visual is None:
        return Frames(power[part], None)
    return Frames(power[part], Visual(visual.features[part].double(), visual.valid[part]))


@torch.no_grad()
def _projected(lips: LipProjection, track: MouthCrops, video: Path, subject: Subject, frames: int) -> Visual:
    """The lips on the STFT clock, by a projection that is fitted first if it is empty."""
    if not bool(lips.basis.any()):
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                lips.fit([track])
        except ValueError as error:
            raise InputError(f"{video}: {error}") from None
    return lips.visual(track, frame_times(frames, subject.recipe.stft))
