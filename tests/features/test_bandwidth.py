"""Band-limited recordings: where their band ends, and that the rest counts neither for speech nor for noise."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from laws import DECODERS, LIKELIHOODS, make_decoder, make_frames, make_likelihood, make_prior, normal_draws
from signals import at_snr, speechlike

from pyro_minvae.config.schema import Stft
from pyro_minvae.features.bandwidth import band
from pyro_minvae.features.stft import analyse, power
from pyro_minvae.models.decoders import SpectralDecoder
from pyro_minvae.models.speech import SpeechModel

STFT = Stft()
HERTZ = STFT.rate / STFT.window


def end_of(signal: np.ndarray) -> float:
    """The end of the band in Hz."""
    scaled = torch.as_tensor(signal / np.abs(signal).max(), dtype=torch.float32)
    return band(power(analyse(scaled, STFT)), STFT) * HERTZ


def noisy_voice(snr_db: float, seed: int) -> np.ndarray:
    voice = speechlike(16000, 3.0, seed)
    return voice + at_snr(voice, np.random.default_rng(seed).standard_normal(len(voice)), snr_db)


def through(signal: np.ndarray, rate: int) -> np.ndarray:
    """Resampled to `rate` and back."""
    lower = librosa.resample(signal, orig_sr=16000, target_sr=rate)
    return librosa.resample(lower, orig_sr=rate, target_sr=16000)[: len(signal)]


def in_16_bits(signal: np.ndarray) -> np.ndarray:
    return np.round(0.9 * signal / np.abs(signal).max() * 32767) / 32768


@pytest.mark.parametrize("snr_db", [-5, 5, 20])
@pytest.mark.parametrize("rate", [8000, 11025, 12000])
def test_the_band_of_a_lower_rate_ends_below_its_half(rate: int, snr_db: float) -> None:
    signal = through(noisy_voice(snr_db, seed=rate), rate)
    for heard in (signal, in_16_bits(signal)):
        assert 0.8 * rate / 2 < end_of(heard) <= rate / 2 + HERTZ


@pytest.mark.parametrize("snr_db", [-5, 5, 20, 40])
def test_full_band_sound_keeps_every_bin(snr_db: float) -> None:
    full = 513 * HERTZ
    assert end_of(noisy_voice(snr_db, seed=1)) == full
    # Brown and speech-shaped noises fall, but at no edge.
    brown = np.cumsum(np.random.default_rng(2).standard_normal(48000))
    brown -= np.linspace(brown[0], brown[-1], len(brown))
    assert end_of(brown) == full


def test_a_hum_or_silence_is_no_band() -> None:
    time = np.arange(48000) / 16000
    hum = np.sin(2 * np.pi * 50 * time)
    assert end_of(hum + 1e-3 * np.random.default_rng(0).standard_normal(48000)) == 513 * HERTZ
    assert band(torch.zeros(10, 513), STFT) == 513


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("kind", [*DECODERS, "own variance"])
def test_the_other_bins_are_summed_out(kind: str, likelihood: str) -> None:
    """log p(s_f, f < B | z) of the banded model is the sum of those bins' terms: the rest integrate to one."""
    decoder = OwnVariance(5, 3, (4,), 1e-2).double() if kind == "own variance" else make_decoder(kind)
    model = SpeechModel(make_prior("standard"), decoder, make_likelihood(likelihood))
    frames, z = make_frames(6), normal_draws(6, 3, seed=3)
    part = SpeechModel(model.prior, decoder.banded(3), model.likelihood)
    terms = model.likelihood.log_prob(frames.power, decoder.log_variance(z, frames.visual))
    torch.testing.assert_close(
        part.log_likelihood(frames.power[:, :3], z, frames.visual), terms[:, :3].sum(-1)
    )
    with torch.no_grad():
        whole = decoder.given(frames.visual)(z)[:, :3]
        torch.testing.assert_close(part.given(frames.visual).variance(z), whole)
    assert part.coupled == model.coupled
    assert part.visual == model.visual


class OwnVariance(SpectralDecoder):
    """A decoder from outside that computes its variance in a way of its own."""

    def variance(self, z: torch.Tensor, visual: object = None) -> torch.Tensor:
        return 2 * super().variance(z, None)

    def log_variance(self, z: torch.Tensor, visual: object = None) -> torch.Tensor:
        return self.variance(z, None).log()
