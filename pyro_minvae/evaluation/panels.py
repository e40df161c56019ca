"""The pictures of a diagnosis, as panels that one figure stacks: time in seconds runs to the right in all but EM's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyro_minvae.evaluation.diagnosis import BAD_RHAT, Diagnosis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyro_minvae.types import Switches

RANGE_DB = 70.0
"""How far below the loudest point of the mixture the colours reach."""

# Inches: the width, the height of a panel of height 1, and what lies above, below and between panels.
WIDTH, UNIT, TOP, BOTTOM, GAP = 10.0, 1.15, 0.45, 0.5, 0.42
# Shares of the width: all pictures of a page have the same margins, so that their time axes stand in line.
LEFT, RIGHT = 0.11, 0.9

BLUE, RED, GREY = "tab:blue", "tab:red", "0.55"


class Panel(NamedTuple):
    """Something that draws itself into matplotlib axes, of a height relative to others."""

    draw: Callable[[Any], None]
    height: float = 1.0


def spectra(diagnosis: Diagnosis) -> list[Panel]:
    """Mixture, estimate, noise and the deviation of the estimate, on one scale of colours."""
    top = decibels(diagnosis.mixture).max() if diagnosis.mixture.any() else 0.0
    maps = {
        "mixture": decibels(diagnosis.mixture),
        "estimate of the speech": decibels(diagnosis.estimate),
        "estimate of the noise": decibels(diagnosis.noise),
        "uncertainty: posterior standard deviation of the speech": decibels(diagnosis.deviation**2),
    }
    return [
        Panel(partial(_map, diagnosis, name, picture - top), height=2.0) for name, picture in maps.items()
    ] + modes(diagnosis)


def modes(diagnosis: Diagnosis) -> list[Panel]:
    """The path of a system that switches between modes, and its trust in the lips; none for others."""
    if diagnosis.switches is None:
        return []
    path = Panel(
        partial(_modes, diagnosis, diagnosis.switches), height=0.5 + 0.25 * len(diagnosis.switches.names)
    )
    trusted = diagnosis.switches.trust is not None
    return [path, *([Panel(partial(_trust, diagnosis, diagnosis.switches), height=0.7)] if trusted else [])]


def sampler(diagnosis: Diagnosis) -> list[Panel]:
    """Acceptance, R-hat and effective sample size in each frame; none where nothing was sampled."""
    if diagnosis.mixing is None:
        return []
    return [Panel(partial(draw, diagnosis)) for draw in (_acceptance, _rhat, _ess)]


def guidance(diagnosis: Diagnosis) -> list[Panel]:
    """Which network explains each frame, and where there was a face; what there is of them."""
    panels = []
    if diagnosis.responsibilities is not None:
        panels.append(Panel(partial(_responsibility, diagnosis)))
    if diagnosis.found is not None and len(diagnosis.found):
        panels.append(Panel(partial(_lips, diagnosis), height=0.5))
    return panels


def em(diagnosis: Diagnosis) -> list[Panel]:
    """The objective and the acceptance over the EM iterations; none for silence."""
    if not len(diagnosis.objective):
        return []
    return [
        Panel(partial(_iterations, diagnosis.objective, "EM objective", "objective [nats]"), 1.5),
        Panel(partial(_iterations, diagnosis.acceptance, "share of accepted proposals in EM", "share")),
    ]


def figure(panels: Sequence[Panel], title: str = "") -> Figure:
    """The panels one above the other. A figure with its own canvas, not pyplot's: it works in any thread."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    above = TOP + 0.15 * (title.count("\n") + 1) * bool(title)
    heights = [UNIT * panel.height for panel in panels]
    total = above + BOTTOM + sum(heights) + (GAP + 0.2) * (len(panels) - 1)
    drawn = Figure(figsize=(WIDTH, total))
    FigureCanvasAgg(drawn)
    if title:
        drawn.suptitle(
            title, x=LEFT, y=1 - 0.1 / total, ha="left", va="top", fontsize="small", family="monospace"
        )
    bottom = total - above
    for panel, height in zip(panels, heights, strict=True):
        bottom -= height
        panel.draw(drawn.add_axes((LEFT, bottom / total, RIGHT - LEFT, height / total)))
        bottom -= GAP + 0.2
    return drawn


def decibels(power: np.ndarray) -> np.ndarray:
    """10 log10 of a power, at least -200 dB."""
    return 10 * np.log10(np.maximum(power, 1e-20))


def paint(axis: Any, picture: np.ndarray, extent: tuple[float, float, float, float]) -> Any:
    """A spectrogram [N, F] in dB from -70 to 0 between the (left, right, bottom, top) of `extent`; the image."""
    return axis.imshow(
        picture.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=extent,
        vmin=-RANGE_DB,
        vmax=0,
        cmap="magma",
    )


def _map(diagnosis: Diagnosis, name: str, picture: np.ndarray, axis: Any) -> None:
    step, height = _step(diagnosis), diagnosis.frequencies[1] / 2
    low, high = diagnosis.times[0] - step / 2, diagnosis.times[-1] + step / 2
    image = paint(axis, picture, (low, high, -height, diagnosis.frequencies[-1] + height))
    axis.set_ylim(0, diagnosis.frequencies[-1])
    _finish(diagnosis, axis, name, "frequency [Hz]")
    scale = axis.figure.colorbar(image, cax=axis.inset_axes((1.01, 0, 0.015, 1)))
    scale.set_label("dB re loudest\npoint of mixture", fontsize="small")


def _acceptance(diagnosis: Diagnosis, axis: Any) -> None:
    assert diagnosis.mixing is not None
    axis.plot(diagnosis.times, diagnosis.mixing.acceptance, color=BLUE, linewidth=0.8)
    if diagnosis.mixing.aim is not None:
        axis.axhline(diagnosis.mixing.aim, color=GREY, linestyle="--", linewidth=0.8)
        _note(axis, diagnosis.mixing.aim, "aim")
    axis.set_ylim(-0.03, 1.03)
    _finish(diagnosis, axis, f"accepted proposals, kernel {diagnosis.kernel}", "share")


def _rhat(diagnosis: Diagnosis, axis: Any) -> None:
    assert diagnosis.mixing is not None
    worst, middle = diagnosis.mixing.rhat, diagnosis.mixing.rhat_median
    finite = worst[np.isfinite(worst)]
    top = 1.1 * max(1.3, float(finite.max(initial=1.0)))
    axis.plot(diagnosis.times, worst, color=BLUE, linewidth=0.8, label="worst dimension")
    axis.plot(diagnosis.times, middle, color=GREY, linewidth=0.8, label="middle dimension")
    stuck = ~np.isfinite(worst)
    if stuck.any():
        axis.plot(
            diagnosis.times[stuck],
            np.full(stuck.sum(), 0.97 * top),
            "v",
            color=RED,
            markersize=3,
            label="stuck",
        )
    axis.axhline(BAD_RHAT, color=RED, linestyle="--", linewidth=0.8)
    _note(axis, BAD_RHAT, f"{BAD_RHAT:g}")
    axis.set_yscale("log")
    _plain_ticks(
        axis, [tick for tick in ((1, 1.2, 1.4, 1.7) if top < 2 else (1, 2, 4, 10, 100)) if tick < top]
    )
    axis.set_ylim(0.98, top)
    _finish(diagnosis, axis, "split R-hat: 1 if chains end up in the same place wherever they start", "R-hat")
    _legend(axis)


def _ess(diagnosis: Diagnosis, axis: Any) -> None:
    assert diagnosis.mixing is not None
    draws = diagnosis.mixing.draws
    axis.plot(diagnosis.times, diagnosis.mixing.ess, color=BLUE, linewidth=0.8, label="worst dimension")
    axis.plot(
        diagnosis.times, diagnosis.mixing.ess_median, color=GREY, linewidth=0.8, label="middle dimension"
    )
    axis.axhline(draws, color=GREY, linestyle="--", linewidth=0.8)
    _note(axis, draws, f"{draws} drawn")
    axis.set_yscale("log")
    _plain_ticks(axis, [1, 10, 100, 1000])
    axis.set_ylim(1, 4 * draws)
    _finish(diagnosis, axis, "effective sample size: independent draws that tell as much", "draws")
    _legend(axis)


def _responsibility(diagnosis: Diagnosis, axis: Any) -> None:
    axis.plot(diagnosis.times, diagnosis.responsibilities, color=BLUE, linewidth=0.8)
    axis.fill_between(diagnosis.times, 0, diagnosis.responsibilities, alpha=0.25, linewidth=0, color=BLUE)
    axis.set_ylim(-0.03, 1.03)
    _finish(diagnosis, axis, "responsibility of the audio network (1: audio, 0: lips)", "q(audio)")


def _modes(diagnosis: Diagnosis, switches: Switches, axis: Any) -> None:
    step, count = _step(diagnosis), len(switches.names)
    extent = (diagnosis.times[0] - step / 2, diagnosis.times[-1] + step / 2, -0.5, count - 0.5)
    axis.imshow(
        switches.probabilities.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=extent,
        vmin=0,
        vmax=1,
        cmap="Blues",
    )
    axis.step(diagnosis.times, switches.path, where="mid", color=RED, linewidth=1.2)
    axis.set_ylim(-0.5, count - 0.5)
    axis.set_yticks(range(count), switches.names)
    _finish(diagnosis, axis, "modes: probability (blue) and most probable path (red)", "mode")


def _trust(diagnosis: Diagnosis, switches: Switches, axis: Any) -> None:
    axis.plot(diagnosis.times, switches.trust, color="tab:green", linewidth=1.0)
    axis.set_ylim(-0.03, 1.03)
    _finish(diagnosis, axis, "trust: probability that the lips are right", "trust")


def _lips(diagnosis: Diagnosis, axis: Any) -> None:
    assert diagnosis.found is not None
    axis.fill_between(
        diagnosis.video_times,
        0,
        diagnosis.found.astype(float),
        step="mid",
        color="tab:green",
        alpha=0.5,
        linewidth=0,
    )
    axis.set_ylim(0, 1.05)
    axis.set_yticks([0, 1], ["no", "yes"])
    used = f"not used: {diagnosis.without_video}" if diagnosis.without_video else "used"
    _finish(diagnosis, axis, f"lips, {used}", "face found")


def _iterations(values: np.ndarray, title: str, label: str, axis: Any) -> None:
    count = np.arange(1, len(values) + 1)
    axis.plot(count, values, color=BLUE, linewidth=1.0, marker="." if len(values) < 60 else None)
    axis.set_xlim(0.5, len(values) + 0.5)
    axis.set_title(title, loc="left", fontsize="small")
    axis.set_xlabel("EM iteration", labelpad=1)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.yaxis.set_major_formatter("{x:,g}")
    axis.set_ylabel(label)


def _finish(diagnosis: Diagnosis, axis: Any, title: str, label: str) -> None:
    step = _step(diagnosis)
    axis.set_xlim(max(0.0, diagnosis.times[0] - step / 2), diagnosis.times[-1] + step / 2)
    axis.set_title(title, loc="left", fontsize="small")
    axis.set_xlabel("time [s]", labelpad=1)
    axis.set_ylabel(label)


def _step(diagnosis: Diagnosis) -> float:
    return float(diagnosis.times[1] - diagnosis.times[0]) if len(diagnosis.times) > 1 else 1.0


def _plain_ticks(axis: Any, ticks: list[float]) -> None:
    """Numbers as they are said, not powers of ten."""
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_yticks([], minor=True)


def _note(axis: Any, height: float, text: str) -> None:
    """What a horizontal line means, in the margin beside it."""
    axis.annotate(text, (1.005, height), xycoords=("axes fraction", "data"), va="center", fontsize="small")


def _legend(axis: Any) -> None:
    axis.legend(
        loc="lower right", bbox_to_anchor=(1, 0.98), ncols=3, frameon=False, fontsize="small", borderpad=0
    )
