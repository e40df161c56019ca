"""Band-limited, offset and nearly clean recordings on their whole way: with made-up sound, and with real speech."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
from signals import at_snr, speechlike
from tiny import save_tiny_model

from pyro_minvae import Enhancer, Separator
from pyro_minvae.evaluation.metrics import si_sdr
from pyro_minvae.pipelines.mcem_solver import Denoiser
from pyro_minvae.pipelines.recording import Recording
from pyro_minvae.pipelines.video_guidance import load_trained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("band") / "model")


def noisy(seed: int) -> np.ndarray:
    voice = speechlike(16000, 2.0, seed)
    return voice + at_snr(voice, np.random.default_rng(seed).standard_normal(len(voice)), 0)


def resampled(signal: np.ndarray, before: int, after: int) -> np.ndarray:
    return librosa.resample(signal, orig_sr=before, target_sr=after)


def test_the_guide_is_given_what_the_model_expects_beyond_the_band(model: Path) -> None:
    trained = load_trained(model)
    loop = Denoiser([trained], trained.recipe, torch.device("cpu"))
    power = torch.rand(7, 513, generator=torch.Generator().manual_seed(0))
    whole = loop.source(power, None)
    part = loop.source(power[:, :300], None)
    assert part.start.shape == whole.start.shape
    assert part.model.variance(part.start).shape == (7, 300)
    # The fixed point of eq. 6.48: sigma at the guide's z where the bins are missing.
    filled = torch.cat([power[:, :300], trained.model.variance(part.start)[:, 300:]], -1)
    again = trained.guide.posteriors(filled, None)[-1].mean
    torch.testing.assert_close(again, part.start, atol=1e-2, rtol=0)


def test_nothing_is_given_out_beyond_the_band(model: Path) -> None:
    limited = resampled(resampled(noisy(0), 16000, 8000), 8000, 16000)
    for found in (
        Enhancer.from_pretrained(model, overrides=["inference.mix=1.0"])(limited, 16000).speech,
        *Separator.from_pretrained(model)(limited, 16000, [None, None]).speakers,
    ):
        spectrum = np.abs(np.fft.rfft(found)) ** 2
        end = round(4200 * len(found) / 16000)
        assert spectrum[end:].sum() < 1e-6 * spectrum.sum()


def test_bands_of_their_own_side_by_side(model: Path) -> None:
    """Recordings of several bands in one batch give what they give alone."""
    enhancer = Enhancer.from_pretrained(model)
    sounds = [noisy(1), resampled(noisy(2), 16000, 8000), resampled(noisy(3), 16000, 8000), noisy(4)]
    rates = [16000, 8000, 8000, 16000]
    together = enhancer.many([Recording(s, r, None, 5) for s, r in zip(sounds, rates, strict=True)])
    for sound, rate, one in zip(sounds, rates, together, strict=True):
        np.testing.assert_allclose(one.speech, enhancer(sound, rate, seed=5).speech, atol=1e-5)


def test_an_offset_is_noise(model: Path) -> None:
    enhancer = Enhancer.from_pretrained(model)
    sound = noisy(5) * 0.4
    plain, offset = enhancer(sound, 16000), enhancer(sound + 0.2, 16000)
    assert abs(float(offset.speech.mean())) < 1e-2
    np.testing.assert_allclose(offset.speech + offset.noise, sound + 0.2, atol=1e-12)
    assert si_sdr(offset.speech, plain.speech) > 15


def real_mixtures(data_root: Path, count: int, snr_db: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """(mixture, speech) of LibriSpeech validation voices in the cafe."""
    cafe = soundfile.read(data_root / "noise" / "cafe.flac")[0]
    found = []
    for index, path in enumerate(sorted((data_root / "librispeech" / "val").glob("*.flac"))[:count]):
        speech = soundfile.read(path)[0][:80000]
        speech = speech - speech.mean()
        noise = cafe[16000 * (1 + index) :][: len(speech)]
        found.append((speech + at_snr(speech, noise - noise.mean(), snr_db), speech))
    return found


@pytest.mark.real_data
def test_telephone_speech_is_as_good_as_the_wide_band_result_at_8_khz(data_root: Path) -> None:
    enhancer = Enhancer.from_pretrained("a-vae")
    difference = []
    for mixture, speech in real_mixtures(data_root, 5, 0):
        target = resampled(speech, 16000, 8000)
        wide = resampled(enhancer(mixture, 16000).speech, 16000, 8000)
        narrow = enhancer(resampled(mixture, 16000, 8000), 8000).speech
        difference.append(si_sdr(narrow, target) - si_sdr(wide, target))
    assert np.mean(difference) > -0.3


@pytest.mark.real_data
def test_an_offset_costs_nothing(data_root: Path) -> None:
    enhancer = Enhancer.from_pretrained("a-vae")
    lost = [
        si_sdr(enhancer(0.5 * mixture, 16000).speech, speech)
        - si_sdr(enhancer(0.5 * mixture + 0.1, 16000).speech, speech)
        for mixture, speech in real_mixtures(data_root, 4, 0)
    ]
    assert np.mean(lost) < 0.2


@pytest.mark.real_data
@pytest.mark.parametrize("snr_db", [10, 20])
def test_good_recordings_do_not_get_worse(data_root: Path, snr_db: float) -> None:
    enhancer = Enhancer.from_pretrained("a-vae")
    gains = [
        si_sdr(enhancer(mixture, 16000).speech, speech) - snr_db
        for mixture, speech in real_mixtures(data_root, 6, snr_db)
    ]
    # One of these voices makes no pauses, so that its noise is taken to be louder than it is.
    assert sum(gain < -0.5 for gain in gains) <= 1
    assert np.mean(gains) > 0 if snr_db == 10 else np.median(gains) > 0
