"""What an evaluation says: means, gains and their intervals as a table, each mixture as CSV, all as JSON."""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyro_minvae import __version__
from pyro_minvae.evaluation.benchmark import Row
from pyro_minvae.evaluation.metrics import HEADINGS
from pyro_minvae.media.files import atomic

if TYPE_CHECKING:
    from rich.table import Table

RESAMPLES = 2000


class Cell(NamedTuple):
    """One metric in a group: mean `input` and `output`, mean `gain` = output - input, its 95 % interval.

    Only the `mixtures` that have both scores enter; where there is none, all is NaN.
    """

    input: float
    output: float
    gain: float
    low: float
    high: float
    mixtures: int


class Group(NamedTuple):
    """The mixtures of one `noise` and SNR, or all ("overall", None). `cells` by the keys of `HEADINGS`."""

    noise: str
    snr_db: float | None
    mixtures: int
    failures: int
    cells: dict[str, Cell]


def summarise(rows: Sequence[Row]) -> list[Group]:
    """One group for each noise and SNR in the order of their first mixture, then the overall one."""
    groups: dict[tuple[str, float | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.item.noise, row.item.snr_db), []).append(row)
    groups["overall", None] = list(rows)
    return [
        Group(
            noise,
            snr_db,
            len(members),
            sum(bool(row.output.reasons) for row in members),
            {name: _cell(members, name) for name in HEADINGS},
        )
        for (noise, snr_db), members in groups.items()
    ]


def bootstrap(values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `values` [n] over `resamples` draws of n with replacement.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3. NaN for no values.
    """
    if len(values) == 0:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    # One resample at a time: the table of all of them would not fit in memory for a large set.
    means = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _cell(rows: Sequence[Row], metric: str) -> Cell:
    pairs = np.array([(row.input.values[metric], row.output.values[metric]) for row in rows]).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if len(pairs) == 0:
        return Cell(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    gains = pairs[:, 1] - pairs[:, 0]
    low, high = bootstrap(gains)
    return Cell(
        float(pairs[:, 0].mean()), float(pairs[:, 1].mean()), float(gains.mean()), low, high, len(pairs)
    )


def table(rows: Sequence[Row], *, model: str) -> Table:
    """The summary for the console: four lines for each noise and SNR."""
    from rich.markup import escape
    from rich.table import Table

    title = f"{model}: {len(rows)} mixtures, means and 95 % bootstrap intervals over mixtures"
    result = Table(title=escape(title))
    for heading in ("noise", "SNR", "n", ""):
        result.add_column(heading, justify="left" if heading in ("noise", "") else "right")
    for heading in HEADINGS.values():
        result.add_column(heading, justify="right")
    for group in summarise(rows):
        snr = "" if group.snr_db is None else f"{group.snr_db:g} dB"
        lines = [
            [number(cell.input, name) for name, cell in group.cells.items()],
            [number(cell.output, name) for name, cell in group.cells.items()],
            [number(cell.gain, name, sign=True) for name, cell in group.cells.items()],
            [interval(cell, name) for name, cell in group.cells.items()],
        ]
        first = [escape(group.noise), snr, str(group.mixtures)]
        for label, values in zip(("input", "output", "gain", "95 %"), lines, strict=True):
            result.add_row(*first, label, *values, end_section=label == "95 %")
            first = ["", "", ""]
    return result


def failures(rows: Sequence[Row]) -> list[str]:
    """A line for each mixture that lacks a score, with the reason."""
    lines = []
    for row in rows:
        reason = row.error or reasons(row)
        if reason:
            lines.append(f"{row.item.mixture}: {reason}")
    return lines


def reasons(row: Row) -> str:
    """Why scores of a row are missing, in one line; empty where none is."""
    faults = [
        f"{side} {name}: {why}"
        for side in ("input", "output")
        for name, why in getattr(row, side).reasons.items()
    ]
    return "; ".join(faults)


def number(value: float, metric: str, *, sign: bool = False) -> str:
    """A score with the digits that its unit deserves."""
    if not math.isfinite(value):
        return "-"
    return f"{value:{'+' if sign else ''}.{2 if metric in ('si_sdr', 'pesq') else 3}f}"


def interval(cell: Cell, metric: str) -> str:
    """The 95 % interval of the gain."""
    return f"[{number(cell.low, metric)}, {number(cell.high, metric)}]" if cell.mixtures else "-"


def record(row: Row) -> dict[str, Any]:
    """One mixture as a flat row of the CSV; NaN stays NaN."""
    item = row.item
    flat: dict[str, Any] = {
        "id": item.id,
        "speaker": item.speaker,
        "noise": item.noise,
        "snr_db": item.snr_db,
    }
    for side, scores in (("input", row.input), ("output", row.output)):
        flat |= {f"{side}_{name}": scores.values[name] for name in HEADINGS}
    for key in (
        "seconds",
        "iterations",
        "acceptance",
        "responsibility",
        "real_time_factor",
        "used_video",
        "seed",
    ):
        flat[key] = getattr(row, key)
    flat |= {"mixture": str(item.mixture), "reason": row.error or reasons(row)}
    return flat


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line for each mixture."""
    records = [record(row) for row in rows]
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def write_json(
    path: Path, rows: Sequence[Row], *, model: str, settings: dict[str, Any], command: str
) -> None:
    """Everything needed to read the figures and to make them again; a missing score is null."""
    tree = {
        "package": "pyro-minvae",
        "version": __version__,
        "command": command,
        "model": model,
        "settings": settings,
        "metrics": HEADINGS,
        "summary": [_group(group) for group in summarise(rows)],
        "rows": [record(row) for row in rows],
    }
    with atomic(path) as temporary:
        text = json.dumps(_finite(tree), indent=1, ensure_ascii=False, allow_nan=False)
        Path(temporary).write_text(text + "\n", encoding="utf-8")


def command_line(arguments: Sequence[str]) -> str:
    """What was typed, ready to be pasted into a shell; the program is named without its folder."""
    return shlex.join([Path(arguments[0]).name, *arguments[1:]])


def _group(group: Group) -> dict[str, Any]:
    """A group as plain dicts."""
    return group._asdict() | {"cells": {name: cell._asdict() for name, cell in group.cells.items()}}


def _finite(tree: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    return tree
