"""How much of a recording stays: none of a noisy one, nearly all of a clean one, as much as is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from signals import at_snr, speechlike

from pyro_minvae.config.schema import Inference, Stft
from pyro_minvae.pipelines.remix import input_share, input_snr_db, share_to_keep

STFT = Stft()


def recording(snr_db: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(mixture, clean voice with pauses) [S]."""
    voice = speechlike(16000, 4.0, seed)
    for start in range(0, len(voice), 16000):
        voice[start : start + 4000] = 0
    noise = at_snr(voice, np.random.default_rng(seed).standard_normal(len(voice)), snr_db)
    return torch.as_tensor(voice + noise), torch.as_tensor(voice)


@pytest.mark.parametrize("snr_db", [8, 12, 16, 20])
@pytest.mark.parametrize("level", [1e-3, 1.0, 1e3])
def test_the_ratio_is_read_from_the_quiet_frames(snr_db: float, level: float) -> None:
    for seed in range(4):
        mixture, _ = recording(snr_db, seed)
        assert input_snr_db(level * mixture, STFT) == pytest.approx(snr_db, abs=2.5)


def test_muted_stretches_are_no_pauses() -> None:
    mixture, _ = recording(10)
    muted = mixture.clone()
    muted[: len(muted) // 4] = 0
    assert input_snr_db(muted, STFT) == pytest.approx(input_snr_db(mixture[len(muted) // 4 :], STFT), abs=2.5)
    assert input_snr_db(torch.zeros(16000), STFT) == float("inf")
    assert input_share(torch.zeros(16000), torch.zeros(16000), STFT) == 0


@pytest.mark.parametrize("seed", range(4))
def test_noisy_recordings_are_left_to_the_estimate_and_clean_ones_kept(seed: int) -> None:
    shares = []
    for snr_db in (-5, 10, 20, 40):
        mixture, voice = recording(snr_db, seed)
        # An estimate with an error of -12 dB, whatever the noise.
        error = at_snr(voice.numpy(), np.random.default_rng(9).standard_normal(len(voice)), 12.0)
        shares.append(input_share(mixture, voice + torch.as_tensor(error), STFT))
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] > 0.9


@pytest.mark.parametrize("snr_db", [10, 15, 20])
@pytest.mark.parametrize("error_db", [8, 12, 18])
def test_the_remix_is_never_worse_than_the_recording(snr_db: float, error_db: float) -> None:
    for seed in range(4):
        mixture, voice = recording(snr_db, seed)
        error = at_snr(voice.numpy(), np.random.default_rng(seed + 9).standard_normal(len(voice)), error_db)
        estimate = voice + torch.as_tensor(error)
        share = input_share(mixture, estimate, STFT)
        out = (1 - share) * estimate + share * mixture
        gain = 10 * torch.log10((mixture - voice).square().sum() / (out - voice).square().sum())
        assert gain > -0.5


def test_settings_say_what_stays() -> None:
    mixture, voice = recording(20)
    asked = [(Inference(mix=1.0), 0.0), (Inference(mix=0.0), 1.0), (Inference(mix=0.75), 0.25)]
    asked.append((Inference(mix=1.0, attenuation_db=20.0), 0.1))
    for config, share in asked:
        assert share_to_keep(config, mixture, voice, STFT) == pytest.approx(share)
    assert share_to_keep(Inference(), mixture, voice, STFT) == input_share(mixture, voice, STFT)
