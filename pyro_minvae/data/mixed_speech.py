"""Mixtures of clean voices, made on the fly: what the guide of a separation system hears in training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_minvae.config.schema import Stft
from pyro_minvae.data.loader import FrameSet
from pyro_minvae.features.stft import analyse
from pyro_minvae.features.stft import power as power_of
from pyro_minvae.types import Prepared

# Other voices in a mixture: one of these numbers at random, most often one.
OTHERS = (1, 1, 1, 2)


def mixed(
    frames: FrameSet,
    voices: Sequence[Prepared],
    *,
    level_db: tuple[float, float],
    stft: Stft,
    generator: torch.Generator,
) -> FrameSet:
    """The frames with `encoder_input` = |STFT of x|^2 for mixtures x = s + sum_i a_i s_i of one or two other voices.

    Each s_i is another of `voices`, read in a loop from a random sample on, so that it lasts as long as s; a_i makes
    its energy over that time 10^(l_i / 10) times that of s, for a level l_i drawn uniformly from `level_db` (dB). A
    recording is played at max|x| = 1 when it is separated, and so is the mixture here: s and its `power` are scaled
    along (derivations, eq. 7.9).

    Args:
        frames: of the targets s, at max|s| = 1.
        voices: utterances to mix in, none of them silent; one that is a target itself is not mixed with itself.
        level_db: the lowest and the highest level.
        stft: as that of the frames.
        generator: of numbers, choices, offsets and levels.

    Raises:
        ValueError: if there is no other voice for some utterance.
    """
    encoder_input, scales = [], []
    for target in frames.utterances:
        others = [voice for voice in voices if voice is not target]
        if not others:
            raise ValueError("expected another utterance to mix in, got none")
        speech = torch.as_tensor(target.waveform, dtype=torch.float32)
        mixture = speech = speech / speech.abs().max()
        for _ in range(OTHERS[int(torch.randint(len(OTHERS), (), generator=generator))]):
            voice = others[int(torch.randint(len(others), (), generator=generator))]
            mixture = mixture + _other(voice, speech, level_db, generator)
        scale = mixture.abs().max().reciprocal()
        encoder_input.append(power_of(analyse(mixture * scale, stft)))
        scales.append(scale**2)
    level = torch.stack(scales).to(frames.power.device)[frames.owner][:, None]
    return frames._replace(
        power=frames.power * level, encoder_input=torch.cat(encoder_input).to(frames.power.device)
    )


def _other(
    voice: Prepared, speech: Tensor, level_db: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Another voice, as long as the speech [S] that it is mixed with, at a random level relative to it."""
    waveform = torch.as_tensor(voice.waveform, dtype=torch.float32)
    offset = int(torch.randint(len(waveform), (), generator=generator))
    low, high = level_db
    level = low + (high - low) * float(torch.rand((), generator=generator))
    piece = waveform[(offset + torch.arange(len(speech))) % len(waveform)]
    energy = piece.square().sum()
    # A piece of a long recording may be a pause.
    ratio = speech.square().sum() / energy if energy > 0 else energy
    return piece * (ratio * 10 ** (level / 10)).sqrt()
