"""The Markdown tables of `separation.py`: rows of every system on the same mixtures in, one table out."""

from __future__ import annotations

import numpy as np
from common import markdown

from pyro_minvae.evaluation import report
from pyro_minvae.evaluation import separation_report as speakers
from pyro_minvae.evaluation.separated import HEADINGS
from pyro_minvae.evaluation.separation import SpeakerRow
from pyro_minvae.evaluation.summary import bootstrap

Rows = dict[str, list[SpeakerRow]]
"""System to its rows; the first one is the system that the others are compared with."""


def table(scores: Rows) -> str:
    """One line for each system, below the mixtures' own; means over the speakers and then over the mixtures."""
    head = [
        "system",
        *HEADINGS.values(),
        "SDR gain (dB) [95 %]",
        "SI-SDR gain (dB) [95 %]",
        "swaps",
        "real-time factor",
    ]
    lines = []
    for name, rows in scores.items():
        cells = {metric: speakers.gains(rows, metric) for metric in HEADINGS}
        if not lines:
            lines.append(
                ["mixture", *(report.number(cell.input, key) for key, cell in cells.items()), *[""] * 4]
            )
        gains = [
            f"{report.number(cells[key].gain, key, sign=True)} {report.interval(cells[key], key)}"
            for key in ("sdr", "si_sdr")
        ]
        speed = [row.real_time_factor for row in rows if np.isfinite(row.real_time_factor)]
        lines.append([
            name, *(report.number(cell.output, key) for key, cell in cells.items()), *gains,
            speakers.percent(speakers.swap_rate(rows)), f"{np.median(speed):.2f}" if speed else "-",
        ])  # fmt: skip
    return markdown(head, lines)


def by_speaker(scores: Rows) -> str:
    """SDR gains of the speaker with lips and of the one without."""
    lines = []
    for name, rows in scores.items():
        cells = []
        for number in range(len(rows[0].item.speakers)):
            gain = np.array(
                [row.output[number].values["sdr"] - row.input[number].values["sdr"] for row in rows]
            )
            gain = gain[np.isfinite(gain)]
            low, high = bootstrap(gain)
            cells.append(f"{gain.mean():+.2f} [{low:.2f}, {high:.2f}]" if len(gain) else "-")
        lines.append([name, *cells])
    return markdown(["SDR gain (dB) [95 %]", "the speaker with lips", "the one without"], lines)


def aims(scores: Rows, wanted: dict[str, float]) -> str:
    """How far the first system's SDR is above the mixture's and the others', beside what is `wanted` at least (dB).

    The names in `wanted` may be parts of a system's.
    """
    names = list(scores)
    ours, lines = np.array([sdr(row) for row in scores[names[0]]]), []
    before = np.array([np.mean([one.values["sdr"] for one in row.input]) for row in scores[names[0]]])
    for name in ["mixture", *names[1:]]:
        other = before if name == "mixture" else np.array([sdr(row) for row in scores[name]])
        difference = (ours - other)[np.isfinite(ours - other)]
        low, high = bootstrap(difference)
        aim = next((f"at least {value:g}" for part, value in wanted.items() if part in name), "")
        lines.append([f"{names[0]} less {name}", f"{difference.mean():+.2f} [{low:.2f}, {high:.2f}]", aim])
    return markdown(["SDR (dB) [95 %]", "difference", "aim"], lines)


def ladder(scores: Rows) -> str:
    """One line for each rung."""
    metrics = ("sdr", "si_sdr", "pesq", "estoi")
    lines = []
    for name, rows in scores.items():
        cells = [speakers.gains(rows, metric) for metric in metrics]
        means = [report.number(cell.output, metric) for cell, metric in zip(cells, metrics, strict=True)]
        gain = f"{report.number(cells[0].gain, 'sdr', sign=True)} {report.interval(cells[0], 'sdr')}"
        lines.append([name, *means, gain])
    return markdown(["rung", *(HEADINGS[metric] for metric in metrics), "SDR gain (dB) [95 %]"], lines)


def sdr(row: SpeakerRow) -> float:
    """The mean SDR over the speakers of a mixture."""
    return float(np.mean([one.values["sdr"] for one in row.output]))
