"""A small noisy set of synthetic voices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from signals import speechlike

from pyro_minvae.evaluation.manifest import NoisyItem
from pyro_minvae.evaluation.mixing import White
from pyro_minvae.evaluation.noisy_set import make_noisy_set
from pyro_minvae.types import Utterance

RATE = 16000


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight synthetic voices of about a second, a file each."""
    folder = tmp_path_factory.mktemp("speech")
    for number in range(8):
        soundfile.write(
            folder / f"voice{number}.wav", speechlike(RATE, 1 + 0.1 * number, number), RATE, "PCM_16"
        )
    return folder


@pytest.fixture(scope="session")
def noise_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of coloured noise."""
    path = tmp_path_factory.mktemp("noise") / "rumble.wav"
    sound = np.cumsum(np.random.default_rng(0).standard_normal(4 * RATE))
    sound = np.convolve(sound, [1, -0.95], "same")
    soundfile.write(path, 0.3 * sound / np.abs(sound).max(), RATE, "PCM_16")
    return path


@pytest.fixture(scope="session")
def noisy_set(tmp_path_factory: pytest.TempPathFactory, speech_folder: Path) -> list[NoisyItem]:
    """One voice of 1.5 s in white noise at four SNRs (dB)."""
    utterance = Utterance("voice5", "voice5", speech_folder / "voice5.wav", None, "test")
    out = tmp_path_factory.mktemp("set")
    return make_noisy_set([utterance], [White()], snrs_db=[-5, 0, 5, 10], out=out)
