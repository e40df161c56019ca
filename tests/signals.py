"""Small synthetic signals for tests that need sound but no corpus."""

from __future__ import annotations

import numpy as np


def speechlike(rate: int, seconds: float, seed: int = 0) -> np.ndarray:
    """Harmonics of a gliding voice under syllables, peak 0.5: float64 [S] with S = round(rate seconds)."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(rate * seconds)) / rate
    pitch = generator.uniform(100, 200) * (1 + 0.1 * np.sin(2 * np.pi * generator.uniform(0.5, 1.5) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = np.zeros_like(time)
    for harmonic in range(1, 26):
        # Above the Nyquist frequency a harmonic would fold back to a wrong pitch.
        audible = harmonic * pitch < 0.45 * rate
        voice += audible * np.sin(harmonic * phase + generator.uniform(0, 2 * np.pi)) / harmonic
    syllables = np.sin(np.pi * generator.uniform(2.5, 4) * time + generator.uniform(0, np.pi)) ** 2
    sound = syllables * voice
    return 0.5 * sound / max(np.max(np.abs(sound), initial=0.0), 1e-12)


def at_snr(speech: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """`noise` scaled so that the power ratio of `speech` to it is `snr_db` dB."""
    ratio = np.sum(speech**2) / np.sum(noise**2)
    return noise * np.sqrt(ratio / 10 ** (snr_db / 10))
