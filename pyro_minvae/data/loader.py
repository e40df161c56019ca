"""Prepared utterances to the frames that SVI sees: power spectra, lips on their clock, shuffled batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.config.schema import Stft
from pyro_minvae.features.stft import analyse, frame_times
from pyro_minvae.features.stft import power as power_of
from pyro_minvae.features.visual import LipProjection, augment
from pyro_minvae.types import Prepared, Visual


class Batch(NamedTuple):
    """Frames for one step: `power` [..., N, F], their lips or None, and what the guide hears instead of it, or None."""

    power: Tensor
    visual: Visual | None
    encoder_input: Tensor | None = None


class FrameSet(NamedTuple):
    """The frames of many utterances in a row.

    `power` [N, F] of waveforms scaled to max|x| = 1; `owner` [N] the utterance of each frame; `utterances` the
    sources of the lips; `times` the frame times of each utterance (s). Where other voices are mixed in, `encoder_input`
    [N, F] is the power of the mixture, scaled to max|x| = 1 in place of the utterance.
    """

    power: Tensor
    owner: Tensor
    utterances: list[Prepared]
    times: list[Tensor]
    encoder_input: Tensor | None = None

    def visual(self, lips: LipProjection, generator: torch.Generator | None = None) -> Visual:
        """Lip features of all frames [N, D], each clip shifted, scaled and brightened at random given a generator."""
        parts = []
        for utterance, times in zip(self.utterances, self.times, strict=True):
            if utterance.lips is None:
                parts.append(lips.missing(len(times)))
                continue
            crops = None
            if generator is not None:
                crops = augment(torch.as_tensor(utterance.lips.crops, device=lips.basis.device), generator)
            parts.append(lips.visual(utterance.lips, times, crops))
        return Visual(torch.cat([p.features for p in parts]), torch.cat([p.valid for p in parts]))

    def spans(self) -> list[range]:
        """The frames of each utterance."""
        ends = torch.bincount(self.owner.cpu()).cumsum(0).tolist()
        return [range(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def some(self, chosen: Sequence[int]) -> tuple[FrameSet, Tensor]:
        """The frames of some utterances, in that order, and which [n] of all frames they are."""
        spans = self.spans()
        index = torch.cat([torch.arange(spans[u].start, spans[u].stop) for u in chosen])
        lengths = torch.tensor([len(spans[u]) for u in chosen])
        index = index.to(self.power.device)
        part = FrameSet(
            self.power[index],
            torch.repeat_interleave(lengths).to(self.owner.device),
            [self.utterances[u] for u in chosen],
            [self.times[u] for u in chosen],
            None if self.encoder_input is None else self.encoder_input[index],
        )
        return part, index


def frame_set(utterances: Sequence[Prepared], stft: Stft, device: str | torch.device = "cpu") -> FrameSet:
    """Analyse utterances; silent ones (all zeros) are left out, since they have no level.

    Raises:
        ValueError: if nothing is left.
    """
    powers, owners, times = [], [], []
    kept: list[Prepared] = []
    for utterance in utterances:
        waveform = torch.as_tensor(utterance.waveform, dtype=torch.float32)
        peak = waveform.abs().max()
        if peak == 0:
            continue
        power = power_of(analyse(waveform / peak, stft))
        powers.append(power)
        owners.append(torch.full((power.shape[0],), len(kept)))
        times.append(frame_times(power.shape[0], stft))
        kept.append(utterance)
    if not kept:
        raise ValueError("expected at least one utterance that is not silent, got none")
    return FrameSet(torch.cat(powers).to(device), torch.cat(owners).to(device), kept, times)


def batches(
    frames: FrameSet,
    visual: Visual | None,
    *,
    size: int,
    level_db: tuple[float, float],
    generator: torch.Generator,
) -> Iterator[Batch]:
    """Shuffled batches (power [size, F], lips); each utterance is played at a level drawn from `level_db` (dB)."""
    scale = _levels(frames, level_db, generator)
    order = torch.randperm(frames.power.shape[0], generator=generator).to(frames.power.device)
    for index in order.split(size):
        yield _batch(frames, visual, index, scale)


def stretches(
    frames: FrameSet,
    visual: Visual | None,
    *,
    length: int,
    size: int,
    level_db: tuple[float, float],
    generator: torch.Generator,
) -> Iterator[Batch]:
    """Shuffled batches of stretches of `length` frames in a row (power [B, length, F], lips), B * length <= `size`.

    Each utterance is cut anew, from a random frame on; what is left at its ends waits for another epoch. Levels as
    in `batches`.

    Raises:
        ValueError: if every utterance is shorter than a stretch.
    """
    starts = []
    for span in frames.spans():
        if len(span) < length:
            continue
        spare = len(span) % length
        offset = int(torch.randint(spare + 1, (), generator=generator))
        starts.append(torch.arange(span.start + offset, span.stop - length + 1, length))
    if not starts:
        raise ValueError(f"expected an utterance of at least {length} frames, got none")
    first = torch.cat(starts)
    scale = _levels(frames, level_db, generator)
    order = first[torch.randperm(len(first), generator=generator)]
    for chosen in order.split(max(1, size // length)):
        index = (chosen[:, None] + torch.arange(length)).to(frames.power.device)
        yield _batch(frames, visual, index, scale)


def _levels(frames: FrameSet, level_db: tuple[float, float], generator: torch.Generator) -> Tensor:
    """The power at which each utterance is played in this epoch, drawn in dB."""
    low, high = level_db
    levels = low + (high - low) * torch.rand(len(frames.utterances), generator=generator)
    return (10 ** (levels / 10)).to(frames.power.device)


def _batch(frames: FrameSet, visual: Visual | None, index: Tensor, scale: Tensor) -> Batch:
    """The frames at `index`, of any shape, at their utterances' levels."""
    level = scale[frames.owner[index]][..., None]
    encoder_input = None if frames.encoder_input is None else frames.encoder_input[index] * level
    lips = None if visual is None else Visual(visual.features[index], visual.valid[index])
    return Batch(frames.power[index] * level, lips, encoder_input)
