"""Pictures of one mixture: log spectrograms, and of an enhanced one which network explains each frame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation import separation
from pyro_minvae.evaluation.benchmark import Inspect, Outcome
from pyro_minvae.evaluation.manifest import NoisyItem, SeparationItem
from pyro_minvae.evaluation.mixing import spread
from pyro_minvae.evaluation.panels import paint
from pyro_minvae.media.files import atomic, check_writable, make_folder

WINDOW_S = 0.032


def plotter(what: str, items: Sequence[NoisyItem], *, out: Path | None) -> Inspect:
    """The inspector for `--plot`: how many of `items` (spread evenly) go into OUT/plots, or a folder for all.

    Raises `InputError` for a number without `out`, and for a folder that cannot be made.
    """
    return partial(plot_outcome, **_places(what, items, out))


def speakers_plotter(what: str, items: Sequence[SeparationItem], *, out: Path | None) -> separation.Inspect:
    """The same for mixtures of several speakers."""
    return partial(plot_speakers, **_places(what, items, out))


def _places(
    what: str, items: Sequence[NoisyItem] | Sequence[SeparationItem], out: Path | None
) -> dict[str, Any]:
    """Where to draw, and which mixtures (by their files)."""
    picked: Sequence[NoisyItem | SeparationItem] = items
    folder = Path(what)
    if what.isdigit():
        if out is None:
            raise InputError(f"--plot {what}: expected --out, a folder to draw into, found none")
        folder, picked = out / "plots", spread(items, int(what))
    check_writable(make_folder(folder, "a folder to write to") / "plot.png")
    return {"folder": folder, "chosen": frozenset(item.mixture for item in picked)}


def plot_outcome(outcome: Outcome, *, folder: Path, chosen: frozenset[Path]) -> None:
    """Draw an item into `folder` if its mixture is among `chosen`; for `evaluation.benchmark.evaluate`."""
    item = outcome.item
    if item.mixture not in chosen:
        return
    enhanced = outcome.enhanced
    draw(
        folder / _file_name(f"{item.id}_{item.noise}_{item.snr_db:g}dB"),
        {
            "mixture": outcome.mixture,
            "estimate": np.asarray(enhanced.speech, np.float64).reshape(-1),
            "clean": outcome.clean,
        },
        rate=outcome.rate,
        title=f"{item.id}: {item.noise} at {item.snr_db:g} dB",
        times=enhanced.times,
        responsibilities=enhanced.responsibilities,
    )


def plot_speakers(outcome: separation.SeparationOutcome, *, folder: Path, chosen: frozenset[Path]) -> None:
    """Draw a mixture of speakers, every estimate above the clean speech that it was scored by."""
    task, estimates = outcome.task, outcome.answer.estimates
    item = task.item
    if item.mixture not in chosen:
        return
    noise = "" if item.noise is None else f", {item.noise} at {item.snr_db:g} dB"
    pictures = {"mixture": task.mixture}
    for number, (estimate, clean) in enumerate(zip(estimates, task.speakers, strict=True), start=1):
        pictures |= {f"estimate {number}": estimate, f"clean {number}": clean}
    draw(
        folder / _file_name(f"{item.id}_{item.noise or 'quiet'}_{item.snr_db or 0:g}dB_{item.level_db:g}dB"),
        pictures,
        rate=task.rate,
        title=f"{item.id}: speakers at {item.level_db:g} dB{noise}",
    )


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", text) + ".png"


def draw(
    path: Path,
    signals: dict[str, np.ndarray],
    *,
    rate: int,
    title: str = "",
    times: np.ndarray | None = None,
    responsibilities: np.ndarray | None = None,
) -> None:
    """Write a PNG of the spectrograms of `signals` (name to [S] at `rate` Hz), one above the other.

    All share the time axis and the colours: dB relative to the loudest point of the first. Below them stands
    the responsibility of the audio network [N] at `times` [N] s, where the model has one. Raises `InputError`
    where `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    switching = (
        times is not None and responsibilities is not None and bool(np.isfinite(responsibilities).any())
    )
    ratios = [2.0] * len(signals) + [1.0] * switching
    # Figure with its own canvas, not pyplot: no global state, so it works in any thread or process.
    figure = Figure(figsize=(9, 1.1 * sum(ratios) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = list(figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0])
    pictures = {name: spectrogram(signal, rate) for name, signal in signals.items()}
    top = max(float(next(iter(pictures.values())).max()), -200.0)
    seconds = max(len(signal) for signal in signals.values()) / rate
    for axis, (name, picture) in zip(axes, pictures.items(), strict=False):
        image = paint(axis, picture - top, (0, len(signals[name]) / rate, 0, rate / 2000))
        axis.set_ylabel(f"{name}\nfrequency [kHz]")
    figure.colorbar(image, ax=axes[: len(signals)], label="power [dB re loudest point of the mixture]")
    if switching:
        axis = axes[-1]
        axis.plot(times, responsibilities, linewidth=0.8, color="tab:blue")
        axis.fill_between(times, 0, responsibilities, alpha=0.25, linewidth=0, color="tab:blue")
        axis.set_ylim(-0.03, 1.03)
        axis.set_ylabel("q(audio)")
        axis.set_title("responsibility of the audio network (1: audio, 0: lips)", fontsize="small")
    axes[-1].set_xlim(0, seconds)
    axes[-1].set_xlabel("time [s]")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)


def spectrogram(signal: np.ndarray, rate: int) -> np.ndarray:
    """Power of `signal` [S] in dB, [N, F] from 0 Hz to rate / 2: Hann window of 32 ms, hop of a quarter."""
    window = max(16, round(WINDOW_S * rate / 4) * 4)
    hop = window // 4
    padded = np.pad(np.asarray(signal, np.float64), (window // 2, window // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]  # [N, window]
    spectrum = np.fft.rfft(frames * np.hanning(window)) / (window / 2)
    return 10 * np.log10(np.abs(spectrum) ** 2 + 1e-20)
