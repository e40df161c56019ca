"""One recording on its way through enhancement or separation: what comes in, what goes out, the blocks in between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from pyro_minvae.config.schema import Inference, Stft
from pyro_minvae.errors import InputError
from pyro_minvae.features.bandwidth import band
from pyro_minvae.features.rumble import without_rumble
from pyro_minvae.features.stft import analyse, frame_count, frame_times, power, synthesise
from pyro_minvae.media.audio import resample
from pyro_minvae.pipelines.arrays import as_channels, whole_number
from pyro_minvae.pipelines.blocks import fade
from pyro_minvae.pipelines.mcem_solver import Block, Filtered
from pyro_minvae.pipelines.remix import share_to_keep
from pyro_minvae.pipelines.video_guidance import Guided
from pyro_minvae.types import MouthCrops, Switches, Visual

# Channels whose mean has less than this share of the loudest one's power (-20 dB) cancel each other.
CANCELLED = 0.01

# Seconds of a recording whose spectra are in memory at once while its band is looked for.
SPECTRA_S = 60.0

# Seeds of a recording's blocks are this far apart, so that neighbouring seeds of recordings do not share them.
STRIDE = 7_919


class Recording(NamedTuple):
    """What to enhance: `waveform` [S] or [channels, S] at `rate` Hz, a video (file, `MouthCrops`, None), and a seed."""

    waveform: np.ndarray | Tensor
    rate: int
    video: str | Path | MouthCrops | None = None
    seed: int = 0


class Mixture(NamedTuple):
    """What to separate: as `Recording`, with a video (file or `MouthCrops`) or None for each speaker."""

    waveform: np.ndarray | Tensor
    rate: int
    videos: Sequence[str | Path | MouthCrops | None]
    seed: int = 0


class Enhanced(NamedTuple):
    """What `Enhancer` returns.

    `speech` and `noise` have the shape and rate of `mixture`, the input, and sum to it. `responsibilities` [N] at
    `times` [N] (s) are the probability that a frame follows the audio component (None for models without alpha),
    `responsibility` their mean; `acceptance` is the share of accepted proposals in the last EM iteration, of all blocks
    and recordings that went side by side; `used_video` tells whether the lips guided the inference, `without_video` why
    not, `lips_evidence` the figures by which they were accepted.
    `real_time_factor` is processing over playing time (of all recordings, where several are enhanced at once);
    processing is all from waveform and mouth crops to the result, but not finding the face in a video. `switches` are
    the same probabilities, of the modes of a system that switches between several or of lips and sound.
    """

    mixture: np.ndarray
    speech: np.ndarray
    rate: int
    seconds: float
    iterations: int
    acceptance: float
    responsibility: float | None
    responsibilities: np.ndarray | None
    times: np.ndarray
    real_time_factor: float
    used_video: bool
    without_video: str
    switches: Switches | None = None
    lips_evidence: str = ""

    @property
    def noise(self) -> np.ndarray:
        """The rest of the mixture."""
        return self.mixture - self.speech


class Finished(NamedTuple):
    """A recording after the loop: `speakers` have the shape and rate of `mixture`, J of them.

    `responsibilities` [J, N] and `switch` [J, N, M] are `Filtered`'s of all blocks; the rest is as in `Enhanced`.
    """

    mixture: np.ndarray
    speakers: list[np.ndarray]
    rate: int
    seconds: float
    iterations: int
    acceptance: float
    responsibilities: np.ndarray | None
    switch: np.ndarray | None
    times: np.ndarray
    real_time_factor: float


class OpenRecording:
    """A recording at the model's rate, filtered block by block.

    `signal` is the waveform as `checked` gives it, `channels` [channels, S'] the same at the STFT's rate, `mono` [S']
    what the filter is estimated on; `guided` are the lips of the speakers or why there are none, `visuals` the same
    lips on the STFT clock, or None.
    """

    def __init__(
        self,
        recording: Recording | Mixture,
        signal: np.ndarray,
        *,
        stft: Stft,
        device: torch.device,
        guided: Sequence[Guided],
    ) -> None:
        self.recording, self.stft, self.guided = recording, stft, list(guided)
        self.signal = signal
        # Offset and rumble are noise.
        self.heard = without_rumble(signal, recording.rate)
        self.seconds = self.signal.shape[-1] / recording.rate
        resampled = resample(self.heard, recording.rate, stft.rate)
        self.channels = torch.as_tensor(resampled, dtype=torch.float32, device=device)
        self.mono = reference(self.channels)
        self.peak = float(self.mono.abs().max())
        self.visuals: list[Visual | None] = [None] * len(self.guided)
        # Where blocks begin whose lips are left out.
        self.refused: set[int] = set()
        self.speech = self.channels.new_zeros(len(self.guided), *self.channels.shape)
        self.frames = frame_count(self.samples, stft)
        self.bins = band(self._mean_power(), stft) if self.peak > 0 else stft.bins
        self.weights: Tensor | None = None
        self.switch: Tensor | None = None
        self.iterations = 0
        self.acceptance: list[float] = []

    @property
    def samples(self) -> int:
        """S', at the model's rate."""
        return self.channels.shape[-1]

    def piece(self, span: range) -> Block:
        """A block as the loop takes it: its power at max|x| = 1 of the whole recording, and its lips."""
        seed = whole_number(self.recording.seed, "seed", "a whole number")
        seed = (seed + STRIDE * span.start) % 2**63
        return Block(
            self._power(span)[:, : self.bins],
            tuple(self._lips_in(span, visual) for visual in self.visuals),
            seed,
        )

    def _power(self, span: range) -> Tensor:
        """|x|^2 [N, F] at max|x| = 1 of the whole recording."""
        return power(analyse(self.mono[span.start : span.stop] / self.peak, self.stft))

    def _mean_power(self) -> Tensor:
        """The mean of |x|^2 over the recording's frames [1, F], a minute at a time, so that memory does not grow."""
        length = self.stft.hops(SPECTRA_S) * self.stft.hop
        parts = [range(n, min(n + length, self.samples)) for n in range(0, self.samples, length)]
        # A rest of less than a frame would be all edge.
        whole = [part for part in parts if len(part) >= self.stft.window] or parts
        return torch.stack([self._power(part).mean(0) for part in whole]).mean(0, keepdim=True)

    def sees(self, span: range) -> tuple[bool, ...]:
        """Of which speakers some frame of a block has lips."""
        return tuple(self._lips_in(span, visual) is not None for visual in self.visuals)

    def _lips_in(self, span: range, visual: Visual | None) -> Visual | None:
        """The lips in a block; None if there are none to use, which is then like one of a recording without video."""
        if visual is None or span.start in self.refused:
            return None
        first = span.start // self.stft.hop
        part = slice(first, first + frame_count(len(span), self.stft))
        return Visual(visual.features[part], visual.valid[part]) if bool(visual.valid[part].any()) else None

    def add(self, span: range, filtered: Filtered, overlap: int) -> None:
        """Filter a block of all channels, faded into its neighbours."""
        block = self.channels[:, span.start : span.stop]
        weights = fade(span, samples=self.samples, overlap=overlap).to(block)
        spectrum = analyse(block, self.stft)
        # One speaker after the other, so that memory does not grow with their number.
        for speech, mask in zip(self.speech, filtered.masks, strict=True):
            # What lies beyond the band is no speech.
            whole = pad(mask, (0, self.stft.bins - self.bins))
            part = synthesise(whole * spectrum, block.shape[-1], self.stft)
            speech[:, span.start : span.stop] += weights * part
        # From the middle of the overlap on the later block speaks.
        skip = overlap // 2 // self.stft.hop if span.start > 0 else 0
        first = span.start // self.stft.hop + skip
        if filtered.responsibility is not None:
            if self.weights is None:
                self.weights = torch.ones(len(self.guided), self.frames)
            later = filtered.responsibility[:, skip:].cpu()[:, : self.frames - first]
            self.weights[:, first : first + later.shape[1]] = later
        if filtered.switch is not None:
            if self.switch is None:
                modes = filtered.switch.shape[-1]
                self.switch = torch.full((len(self.guided), self.frames, modes), 1 / modes)
            later = filtered.switch[:, skip:].cpu()[:, : self.frames - first]
            self.switch[:, first : first + later.shape[1]] = later
        self.iterations = max(self.iterations, filtered.iterations)
        self.acceptance.append(filtered.acceptance)

    def close(self, real_time_factor: float, inference: Inference) -> Finished:
        """The result at the input's rate, shape and level."""
        share = 0.0
        if len(self.guided) == 1 and self.peak > 0:
            share = share_to_keep(inference, self.mono, reference(self.speech[0]), self.stft)
        # An hour of sound is half a gigabyte in double precision: nothing is kept longer than it is needed.
        del self.channels, self.mono
        filtered = list(self.speech.cpu().numpy())
        del self.speech
        shape = np.shape(self.recording.waveform)
        speakers = []
        while filtered:
            speech = resample(filtered.pop(0).astype(np.float64), self.stft.rate, self.recording.rate)
            speech = _fit_length(speech, self.signal.shape[-1])
            if share > 0:
                speech = (1 - share) * speech + share * self.heard
            speakers.append(speech.reshape(shape))
        return Finished(
            mixture=self.signal.reshape(shape),
            speakers=speakers,
            rate=self.recording.rate,
            seconds=self.seconds,
            iterations=self.iterations,
            acceptance=float(np.mean(self.acceptance)) if self.acceptance else float("nan"),
            responsibilities=None if self.weights is None else self.weights.numpy(),
            switch=None if self.switch is None else self.switch.numpy(),
            times=frame_times(self.frames, self.stft).numpy(),
            real_time_factor=real_time_factor,
        )


def reference(channels: Tensor) -> Tensor:
    """The signal [S] that the filter of [channels, S] is estimated on: their mean, or the loudest if they cancel."""
    if len(channels) == 1:
        return channels[0]
    mean, powers = channels.mean(0), channels.square().mean(-1)
    cancelled = mean.square().mean() < CANCELLED * powers.max()
    return channels[powers.argmax()] if cancelled else mean


def checked(waveform: np.ndarray | Tensor, rate: int) -> np.ndarray:
    """The input as float64 [channels, S].

    Raises:
        InputError: for a bad rate, and as `arrays.as_channels`.
    """
    what = "a positive whole number (Hz)"
    if whole_number(rate, "rate", what) <= 0:
        raise InputError(f"rate: expected {what}, found {rate}")
    return as_channels(waveform)


def _fit_length(signal: np.ndarray, samples: int) -> np.ndarray:
    """Cut or pad [channels, S] with zeros at the end: resampling there and back may add or lose a few samples."""
    signal = signal[..., :samples]
    if signal.shape[-1] == samples:
        return signal
    return np.pad(signal, ((0, 0), (0, samples - signal.shape[-1])))
