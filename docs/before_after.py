"""The README's picture: the example before and after, as log spectrograms. `python docs/before_after.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot

from pyro_minvae import Enhancer
from pyro_minvae.media.audio import read_audio

ROOT = Path(__file__).parents[1]
WINDOW, HOP = 512, 128


def decibels(signal: np.ndarray) -> np.ndarray:
    """20 log10 |STFT| [F, N] of a signal [S]."""
    frames = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP] * np.hanning(WINDOW)
    return 20 * np.log10(np.abs(np.fft.rfft(frames)).T + 1e-4)


def draw(path: Path) -> None:
    """Write the picture."""
    audio = read_audio(ROOT / "examples" / "noisy.mkv")
    enhanced = Enhancer.from_pretrained("a-vae", preset="best")(audio.waveform, audio.rate)
    panels = {"before": audio.waveform[0], "after": enhanced.speech[0]}
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 2.6), sharey=True, layout="constrained")
    for axis, (name, signal) in zip(axes, panels.items(), strict=True):
        extent = (0, len(signal) / audio.rate, 0, audio.rate / 2000)
        axis.imshow(
            decibels(signal), origin="lower", aspect="auto", extent=extent, vmin=-40, vmax=30, cmap="magma"
        )
        axis.set(title=name, xlabel="time (s)")
    axes[0].set_ylabel("frequency (kHz)")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    draw(ROOT / "docs" / "before-after.png")
