"""What an evaluation says: the summary as a table, each mixture as CSV, all of it as JSON."""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_minvae import __version__
from pyro_minvae.evaluation.benchmark import Row
from pyro_minvae.evaluation.metrics import HEADINGS
from pyro_minvae.evaluation.reliability import detector
from pyro_minvae.evaluation.summary import Cell, Group, counted, has_score, summarise, title_of
from pyro_minvae.media.files import atomic

if TYPE_CHECKING:
    from rich.table import Table


def table(rows: Sequence[Row], *, model: str) -> Table:
    """The summary for the console: four lines for each noise and SNR."""
    from rich.markup import escape
    from rich.table import Table

    title = title_of(model, sum(map(scored, rows)), len(rows))
    result = Table(title=escape(title))
    for name in ("noise", "SNR", "n", ""):
        result.add_column(name, justify="left" if name in ("noise", "") else "right")
    for name in HEADINGS.values():
        result.add_column(name, justify="right")
    for group in summarise(rows):
        snr = "" if group.snr_db is None else f"{group.snr_db:g} dB"
        first = [escape(group.noise), snr, counted(group.scored, group.mixtures)]
        for label, values in four_lines(group.cells).items():
            result.add_row(*first, label, *values, end_section=label == "95 %")
            first = ["", "", ""]
    return result


def four_lines(cells: dict[str, Cell]) -> dict[str, list[str]]:
    """What a table says of a group: input, output, gain and its interval, a cell for each metric."""
    return {
        "input": [number(cell.input, name) for name, cell in cells.items()],
        "output": [number(cell.output, name) for name, cell in cells.items()],
        "gain": [number(cell.gain, name, sign=True) for name, cell in cells.items()],
        "95 %": [interval(cell, name) for name, cell in cells.items()],
    }


def comparison(systems: dict[str, Sequence[Row]]) -> Table:
    """One line for each system on the same mixtures, below the mixtures' own; ready for a Markdown page."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    result = Table(box=box.MARKDOWN)
    result.add_column("system")
    for heading in (*HEADINGS.values(), "SI-SDR gain (dB) [95 %]", "ESTOI gain [95 %]", "real-time factor"):
        result.add_column(heading, justify="right")
    for name, rows in systems.items():
        cells = summarise(rows)[-1].cells
        if not result.rows:
            result.add_row("mixture", *(number(cell.input, key) for key, cell in cells.items()), "", "", "")
        gains = [
            f"{number(cells[key].gain, key, sign=True)} {interval(cells[key], key)}"
            for key in ("si_sdr", "estoi")
        ]
        speed = [row.real_time_factor for row in rows if math.isfinite(row.real_time_factor)]
        result.add_row(
            escape(name),
            *(number(cell.output, key) for key, cell in cells.items()),
            *gains,
            f"{np.mean(speed):.2f}" if speed else "-",
        )
    return result


def trust_line(rows: Sequence[Row]) -> str:
    """How well the trust in the lips told right frames from wrong ones; empty where there is no truth to tell."""
    found = detector([row.detection for row in rows])
    if found is None:
        return ""
    return (
        f"trust in the lips as a detector of wrong frames: ROC AUC {found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"
        f" (mean of {found.recordings} recordings), {found.pooled:.2f} (all their frames together),"
        f" {found.share:.0%} of {found.frames} frames wrong"
    )


def failures(rows: Sequence[Row]) -> list[str]:
    """A line for each mixture that lacks a score, with the reason."""
    lines = []
    for row in rows:
        reason = row.error or reasons(row)
        if reason:
            lines.append(f"{row.item.mixture}: {reason}")
    return lines


def scored(row: Row) -> bool:
    """Whether the output has any score at all."""
    return has_score(row.output)


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
    return f"{value:{'+' if sign else ''}.{3 if metric in ('stoi', 'estoi') else 2}f}"


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
    flat["trust_auc"] = math.nan if row.detection is None else row.detection.auc
    return flat | {"reason": row.error or reasons(row)}


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line for each mixture."""
    write_records(path, [record(row) for row in rows])


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """A CSV of flat rows with the same keys."""
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def origin(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What made the figures."""
    return {"package": "pyro-minvae", "version": __version__, "model": model, "settings": settings}


def tree(rows: Sequence[Row], *, model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything needed to read the figures of one model and to make them again, as plain dicts."""
    return origin(model, settings) | {
        "metrics": HEADINGS,
        "trust": None if (found := detector([row.detection for row in rows])) is None else found._asdict(),
        "summary": [_group(group) for group in summarise(rows)],
        "rows": [record(row) for row in rows],
    }


def write_json(path: Path, contents: dict[str, Any]) -> None:
    """Write plain dicts; a missing score is null."""
    with atomic(path) as temporary:
        text = json.dumps(_finite(contents), indent=1, ensure_ascii=False, allow_nan=False)
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
