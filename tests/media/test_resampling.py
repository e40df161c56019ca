"""Resampling keeps tones, time and length, and removes what would fold back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import speechlike

from pyro_minvae.media import audio
from pyro_minvae.types import Audio


@settings(max_examples=30)
@given(st.integers(1, 3000), st.sampled_from([8000, 16000, 22050, 44100, 48000, 44101]), st.booleans())
def test_resampled_length(samples: int, rate: int, back: bool) -> None:
    pair = (16000, rate) if back else (rate, 16000)
    result = audio.resample(np.ones((2, samples)), *pair)
    assert result.shape == (2, -(-samples * pair[1] // pair[0]))


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 44101])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_resampling_keeps_a_tone_and_its_phase(rate: int, kind: type) -> None:
    time = np.arange(rate) / rate
    result = audio.resample(np.sin(2 * np.pi * 1000 * time).astype(kind), rate, 16000)
    assert result.dtype == kind
    expected = np.sin(2 * np.pi * 1000 * np.arange(len(result)) / 16000)
    assert np.abs(result - expected)[400:-400].max() < 2e-3


def test_resampling_removes_what_would_fold_back() -> None:
    time = np.arange(48000) / 48000
    assert np.abs(audio.resample(np.sin(2 * np.pi * 9000 * time), 48000, 16000))[400:-400].max() < 1e-3


def test_resampling_there_and_back() -> None:
    sound = speechlike(16000, 0.5)
    for rate in (44100, 48000):
        back = audio.resample(audio.resample(sound, 16000, rate), rate, 16000)[: len(sound)]
        assert np.abs(back - sound)[400:-400].max() < 1e-3


def test_resampling_refuses_nonsense() -> None:
    assert audio.resample(np.ones(3), 8000, 8000).shape == (3,)
    for arguments in ((np.ones(0), 8000, 16000), (np.ones(1), 0, 16000)):
        with pytest.raises(ValueError, match="expected positive rates"):
            audio.resample(*arguments)


def test_mono_is_the_mean_of_the_channels() -> None:
    sound = Audio(np.stack([speechlike(48000, 0.3, seed) for seed in range(2)]), 48000, "PCM_16", "WAV")
    result = audio.mono(sound, 48000)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, sound.waveform.mean(0), atol=1e-7)
    assert audio.mono(sound, 16000).shape == (-(-sound.waveform.shape[1] // 3),)
