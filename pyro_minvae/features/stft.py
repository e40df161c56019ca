"""Short-time Fourier transform with a sine window and perfect reconstruction of any length."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from pyro_minvae.config.schema import Stft


def sine_window(
    length: int, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Tensor:
    """w_t = sin(pi (t + 1/2) / length), shape [length]; w^2 sums to a constant at a hop of length / 2^k."""
    t = torch.arange(length, dtype=torch.float64, device=device)
    return torch.sin(math.pi * (t + 0.5) / length).to(dtype)


def frame_count(samples: int, stft: Stft) -> int:
    """N, the number of frames that `analyse` makes of that many samples."""
    return math.ceil((_lead(stft) + samples) / stft.hop)


def frame_times(count: int, stft: Stft) -> Tensor:
    """The centre of each frame in seconds, float64 [N]: the clock on which lips and sound meet."""
    start = stft.window / 2 - _lead(stft)
    return (start + torch.arange(count, dtype=torch.float64) * stft.hop) / stft.rate


def analyse(waveform: Tensor, stft: Stft) -> Tensor:
    """x_fn = sum_t w_t x_{t + n hop} exp(-2 pi i f t / window): [..., S] real to [..., N, F] complex.

    The signal is padded with zeros so that every sample lies under as many windows as any other.

    Raises:
        ValueError: for a signal without samples, or a hop longer than the window.
    """
    samples = waveform.shape[-1]
    if samples < 1:
        raise ValueError("expected at least 1 sample, got 0")
    _check(stft)
    padded = functional.pad(waveform, (_lead(stft), _padded(samples, stft) - _lead(stft) - samples))
    frames = padded.unfold(-1, stft.window, stft.hop)  # [..., N, window]
    window = sine_window(stft.window, dtype=waveform.dtype, device=waveform.device)
    return torch.fft.rfft(frames * window, dim=-1)


def synthesise(spectrum: Tensor, samples: int, stft: Stft) -> Tensor:
    """Weighted overlap-add, the least-squares inverse of `analyse`: [..., N, F] complex to [..., samples] real.

    Griffin & Lim (1984), eq. 6: x_t = sum_n w_{t - n hop} y_n(t - n hop) / sum_n w^2_{t - n hop}.

    Raises:
        ValueError: if the number of frames is not the one that `analyse` makes of `samples`.
    """
    count = frame_count(samples, stft)
    if spectrum.shape[-2] != count:
        raise ValueError(f"expected {count} frames for {samples} samples, got {spectrum.shape[-2]}")
    frames = torch.fft.irfft(spectrum, n=stft.window, dim=-1)
    window = sine_window(stft.window, dtype=frames.dtype, device=frames.device)
    total = _padded(samples, stft)
    signal = _overlap_add(frames * window, total, stft.hop)
    weight = _overlap_add((window**2).expand(count, -1), total, stft.hop)
    inside = slice(_lead(stft), _lead(stft) + samples)
    return signal[..., inside] / weight[inside]


def power(spectrum: Tensor) -> Tensor:
    """|x_fn|^2, linear power at full scale 1."""
    return spectrum.real**2 + spectrum.imag**2


def _overlap_add(frames: Tensor, total: int, hop: int) -> Tensor:
    """Sum frames [..., N, window] at multiples of `hop` into a signal [..., total]."""
    lead = frames.shape[:-2]
    count, window = frames.shape[-2:]
    columns = frames.reshape(-1, count, window).transpose(1, 2)
    signal = functional.fold(columns, (1, total), (1, window), stride=(1, hop))
    return signal.reshape(*lead, total)


def _check(stft: Stft) -> None:
    if stft.hop > stft.window or stft.window % 2:
        raise ValueError(f"expected an even window no shorter than the hop, got {stft.window} and {stft.hop}")


def _lead(stft: Stft) -> int:
    """Zeros in front: the first sample lies under every window that could hold it."""
    return (math.ceil(stft.window / stft.hop) - 1) * stft.hop


def _padded(samples: int, stft: Stft) -> int:
    """Padded length: the last window starts at the last hop that is not past the signal."""
    return (frame_count(samples, stft) - 1) * stft.hop + stft.window
