"""Laws of the short-time Fourier transform: exact inversion, and where and how loud things are."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyro_minvae.config.schema import Stft
from pyro_minvae.features.stft import analyse, frame_count, frame_times, power, sine_window, synthesise


@st.composite
def settings_of_stft(draw: st.DrawFn, longest: float = 1.0) -> Stft:
    """Even windows with any hop up to `longest` windows, also such that do not divide the window."""
    window = 2 * draw(st.integers(1, 32))
    return Stft(rate=1000, window=window, hop=draw(st.integers(1, max(1, int(longest * window)))))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(settings_of_stft(), st.integers(1, 200), st.sampled_from([(), (2,), (2, 3)]), st.integers(0, 99))
@settings(max_examples=150)
def test_synthesis_inverts_analysis(stft: Stft, samples: int, batch: tuple[int, ...], seed: int) -> None:
    waveform = noise(*batch, samples, seed=seed)
    spectrum = analyse(waveform, stft)
    assert spectrum.shape == (*batch, frame_count(samples, stft), stft.bins)
    back = synthesise(spectrum, samples, stft)
    assert back.shape == waveform.shape
    assert float((back - waveform).abs().max()) <= 1e-10 * max(1.0, float(waveform.abs().max()))


@given(settings_of_stft(longest=0.75), st.integers(1, 200), st.integers(0, 99))
@settings(max_examples=60)
def test_synthesis_inverts_analysis_in_single_precision(stft: Stft, samples: int, seed: int) -> None:
    waveform = noise(samples, seed=seed).float()
    back = synthesise(analyse(waveform, stft), samples, stft)
    assert back.dtype == torch.float32
    assert float((back - waveform).abs().max()) <= 1e-5 * float(waveform.abs().max())


@pytest.mark.parametrize("hop", [256, 533, 320])
def test_published_settings_invert_a_second_of_sound(hop: int) -> None:
    stft = Stft(rate=16000, window=1024, hop=hop)
    waveform = noise(16001).float()
    back = synthesise(analyse(waveform, stft), 16001, stft)
    assert float((back - waveform).abs().max()) <= 1e-5 * float(waveform.abs().max())


@given(settings_of_stft(), st.integers(1, 100))
def test_both_directions_are_linear(stft: Stft, samples: int) -> None:
    """Speech and noise spectra that sum to the mixture give waveforms that sum to it."""
    a, b = noise(2, samples, seed=1)
    torch.testing.assert_close(analyse(2 * a - b, stft), 2 * analyse(a, stft) - analyse(b, stft))
    mask = noise(frame_count(samples, stft), stft.bins, seed=2).sigmoid()
    spectrum = analyse(a, stft)
    parts = synthesise(mask * spectrum, samples, stft) + synthesise((1 - mask) * spectrum, samples, stft)
    torch.testing.assert_close(parts, a)


@pytest.mark.parametrize(("window", "hop"), [(64, 16), (64, 24), (64, 64), (32, 1)])
def test_a_click_is_where_the_clock_says(window: int, hop: int) -> None:
    """A click falls into exactly those frames whose centre is less than half a window away."""
    stft = Stft(rate=1000, window=window, hop=hop)
    waveform = torch.zeros(500, dtype=torch.float64)
    waveform[237] = 1.0
    spectrum = analyse(waveform, stft)
    times = frame_times(spectrum.shape[0], stft)
    # Sample t is the instant (t + 1/2) / rate: the window is symmetric about the middle between two samples.
    distance = (times - 237.5 / 1000).abs()
    encoder_input = power(spectrum).sum(-1) > 1e-20
    assert torch.equal(encoder_input, distance < window / 2 / 1000)
    assert float(distance[power(spectrum).sum(-1).argmax()]) <= hop / 2 / 1000 + 1e-9


@given(settings_of_stft(), st.integers(1, 200))
def test_times_run_at_the_hop_and_cover_the_sound(stft: Stft, samples: int) -> None:
    times = frame_times(frame_count(samples, stft), stft)
    assert times.dtype == torch.float64
    half = stft.window / 2 / stft.rate
    torch.testing.assert_close(times.diff(), torch.full_like(times.diff(), stft.hop / stft.rate))
    assert float(times[0]) <= half + 1e-9
    assert float(times[-1]) + half >= samples / stft.rate - 1e-9


def test_interior_frames_equal_those_of_torch() -> None:
    stft = Stft(rate=16000, window=64, hop=16)
    waveform = noise(1000)
    ours = analyse(waveform, stft)
    lead = round(32 - float(frame_times(1, stft)[0]) * 16000)  # zeros in front of the first sample
    first = math.ceil(lead / 16)  # the first frame without padding, at sample `start`
    start = first * 16 - lead
    window = sine_window(64, dtype=torch.float64)
    theirs = torch.stft(waveform[start:], 64, 16, window=window, center=False, return_complex=True).mT
    assert theirs.shape[0] > 50
    torch.testing.assert_close(ours[first : first + theirs.shape[0]], theirs)


def test_a_sinusoid_peaks_in_its_bin_at_its_power() -> None:
    """A cos(2 pi f t) of bin f has |x_f| = A sum_t w_t / 2."""
    stft = Stft(rate=1000, window=64, hop=16)
    time = torch.arange(640, dtype=torch.float64) / 1000
    f = 10 * 1000 / 64
    spectrum = power(analyse(0.3 * torch.cos(2 * math.pi * f * time), stft))[8:-8]
    assert bool((spectrum.argmax(-1) == 10).all())
    expected = (0.3 * float(sine_window(64, dtype=torch.float64).sum()) / 2) ** 2
    torch.testing.assert_close(spectrum[:, 10], torch.full_like(spectrum[:, 10], expected), rtol=1e-3, atol=0)


@pytest.mark.parametrize("hop", [8, 16, 32])
def test_energy_is_preserved(hop: int) -> None:
    """Parseval: with w^2 summing to a constant, sum_fn |x_fn|^2 / window is that constant times the energy."""
    stft = Stft(rate=1000, window=64, hop=hop)
    waveform = noise(333)
    spectrum = power(analyse(waveform, stft))
    both_sides = 2 * spectrum.sum() - spectrum[:, 0].sum() - spectrum[:, -1].sum()
    overlap = 64 / hop / 2  # mean of sin^2 is 1/2
    torch.testing.assert_close(both_sides / 64, overlap * waveform.square().sum())


def test_power_is_the_squared_modulus() -> None:
    spectrum = torch.complex(noise(4, 3, seed=1), noise(4, 3, seed=2))
    torch.testing.assert_close(power(spectrum), spectrum.abs() ** 2)


def test_odd_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 sample"):
        analyse(torch.zeros(0), Stft())
    with pytest.raises(ValueError, match="no shorter than the hop"):
        analyse(torch.zeros(5), Stft(window=16, hop=17))
    with pytest.raises(ValueError, match="frames for 50 samples"):
        synthesise(torch.zeros(2, 9, dtype=torch.complex64), 50, Stft(window=16, hop=4))
