"""What an evaluation of separation says: a table for each kind of mixture, each speaker as CSV, all of it as JSON.

The unit of every mean and interval is the mixture: a metric is first averaged over its speakers, whose scores are no
independent samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pyro_minvae.evaluation.metrics import Scores
from pyro_minvae.evaluation.report import four_lines, origin, write_records
from pyro_minvae.evaluation.separated import HEADINGS
from pyro_minvae.evaluation.separation import SpeakerRow
from pyro_minvae.evaluation.summary import Cell, cell, counted, has_score, title_of

if TYPE_CHECKING:
    from rich.table import Table


class SeparationGroup(NamedTuple):
    """The mixtures of one kind, or all ("overall"). `cells` by the keys of `HEADINGS`; `level_db`, `snr_db` in dB.

    Of `mixtures` in the set `scored` have an output with any score; `failures` lack one score or more.
    `swaps` is the share of mixtures whose estimates fit better in another order than in the one asked for, among
    those where the system was told who is who (NaN if none).
    """

    voices: str
    noise: str | None
    snr_db: float | None
    level_db: float | None
    mixtures: int
    scored: int
    failures: int
    swaps: float
    cells: dict[str, Cell]


def summarise(rows: Sequence[SpeakerRow]) -> list[SeparationGroup]:
    """One group for each kind of voices, noise, SNR and level in the order of their first mixture, then all."""
    groups: dict[tuple[str, str | None, float | None, float | None], list[SpeakerRow]] = {}
    for row in rows:
        item = row.item
        groups.setdefault((item.voices, item.noise, item.snr_db, item.level_db), []).append(row)
    groups["overall", None, None, None] = list(rows)
    return [
        SeparationGroup(
            *kind,
            mixtures=len(members),
            scored=sum(map(scored, members)),
            failures=sum(bool(faults(row)) for row in members),
            swaps=swap_rate(members),
            cells={name: gains(members, name) for name in HEADINGS},
        )
        for kind, members in groups.items()
    ]


def gains(rows: Sequence[SpeakerRow], metric: str) -> Cell:
    """Input, output and gain of a metric, the mean over speakers in each mixture."""
    return cell([(_mean(row.input, metric), _mean(row.output, metric)) for row in rows])


def swap_rate(rows: Sequence[SpeakerRow]) -> float:
    """The share of `rows` that came out in another order than asked for; NaN where there was no order to ask for."""
    told = [row.swapped for row in rows if row.swapped is not None]
    return sum(told) / len(told) if told else math.nan


def _mean(scores: Sequence[Scores], metric: str) -> float:
    return math.fsum(one.values[metric] for one in scores) / len(scores)


def table(rows: Sequence[SpeakerRow], *, model: str) -> Table:
    """The summary for the console: four lines for each kind of mixture."""
    from rich.markup import escape
    from rich.table import Table

    title = title_of(model, sum(map(scored, rows)), len(rows))
    result = Table(title=escape(title))
    for name in ("voices", "noise", "SNR", "level", "n", "swaps", ""):
        result.add_column(name, justify="left" if name in ("voices", "noise", "") else "right")
    for name in HEADINGS.values():
        result.add_column(name, justify="right")
    for group in summarise(rows):
        first = [group.voices, escape(group.noise or "-"), _decibels(group.snr_db), _decibels(group.level_db)]
        first += [counted(group.scored, group.mixtures), percent(group.swaps)]
        for label, values in four_lines(group.cells).items():
            result.add_row(*first, label, *values, end_section=label == "95 %")
            first = [""] * len(first)
    return result


def percent(share: float) -> str:
    """A share as a table shows it."""
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"


def _decibels(value: float | None) -> str:
    return "" if value is None else f"{value:g} dB"


def assignment(rows: Sequence[SpeakerRow]) -> str:
    """Who chose which estimate is whose, in a sentence."""
    # A single one without lips is told apart by the others' lips.
    free = sum(sum(not fixed for fixed in row.fixed) > 1 for row in rows)
    if not free:
        return "Every estimate is scored as the speaker that it was asked for."
    return (
        f"In {free} of {len(rows)} mixtures speakers without lips were scored in the order that fits best; "
        "those with lips are scored by the estimate that was asked for."
    )


def faults(row: SpeakerRow) -> str:
    """Why scores of a row are missing, in one line; empty where none is."""
    if row.error:
        return row.error
    return "; ".join(
        f"{side} of speaker {number}, {name}: {why}"
        for side in ("input", "output")
        for number, scores in enumerate(getattr(row, side), start=1)
        for name, why in scores.reasons.items()
    )


def failures(rows: Sequence[SpeakerRow]) -> list[str]:
    """A line for each mixture that lacks a score, with the reason."""
    return [f"{row.item.mixture}: {reason}" for row in rows if (reason := faults(row))]


def scored(row: SpeakerRow) -> bool:
    """Whether any estimate has any score at all."""
    return has_score(*row.output)


def records(row: SpeakerRow) -> list[dict[str, Any]]:
    """A flat row of the CSV for each speaker of a mixture; NaN stays NaN."""
    item, flat = row.item, []
    for number, speaker in enumerate(item.speakers):
        one: dict[str, Any] = {
            key: getattr(item, key) for key in ("id", "voices", "noise", "snr_db", "level_db")
        }
        one |= {"speaker": number + 1, "utterance": speaker.id, "voice": speaker.speaker}
        one |= {"video": speaker.video is not None}
        for side, scores in (("input", row.input), ("output", row.output)):
            one |= {f"{side}_{name}": scores[number].values[name] for name in HEADINGS}
        one["used_video"] = row.used_video[number] if row.used_video else False
        one["fixed"] = row.fixed[number] if row.fixed else None
        one["estimate"] = row.order[number] + 1 if row.order else None
        for key in ("swapped", "seconds", "iterations", "acceptance", "real_time_factor", "seed"):
            one[key] = getattr(row, key)
        flat.append(one | {"reason": faults(row)})
    return flat


def write_csv(path: Path, rows: Sequence[SpeakerRow]) -> None:
    """One line for each speaker of each mixture."""
    write_records(path, [record for row in rows for record in records(row)])


def tree(rows: Sequence[SpeakerRow], *, model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything needed to read the figures of one system and to make them again, as plain dicts."""
    return origin(model, settings) | {
        "metrics": HEADINGS,
        "assignment": assignment(rows),
        "summary": [
            group._asdict() | {"cells": {name: one._asdict() for name, one in group.cells.items()}}
            for group in summarise(rows)
        ],
        "rows": [record for row in rows for record in records(row)],
    }
