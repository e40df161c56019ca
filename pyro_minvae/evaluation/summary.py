"""Means, gains and confidence intervals of the scores of a noisy set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pyro_minvae.evaluation.metrics import HEADINGS, Scores

if TYPE_CHECKING:
    from pyro_minvae.evaluation.benchmark import Row

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
    """The mixtures of one `noise` and SNR, or all ("overall", None). `cells` by the keys of `HEADINGS`.

    Of `mixtures` in the set `scored` have an output with any score; `failures` lack one score or more.
    """

    noise: str
    snr_db: float | None
    mixtures: int
    scored: int
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
            sum(has_score(row.output) for row in members),
            sum(bool(row.output.reasons) for row in members),
            {
                name: cell([(row.input.values[name], row.output.values[name]) for row in members])
                for name in HEADINGS
            },
        )
        for (noise, snr_db), members in groups.items()
    ]


def has_score(*several: Scores) -> bool:
    """Whether there is any score at all."""
    return any(math.isfinite(value) for scores in several for value in scores.values.values())


def counted(scored: int, mixtures: int) -> str:
    """How many mixtures a mean is over, and how many of the set are missing in it."""
    return f"{scored}" if scored == mixtures else f"{scored} ({mixtures - scored} missing)"


def title_of(model: str, scored: int, mixtures: int) -> str:
    """What stands above a table of scores."""
    of = f"{mixtures}" if scored == mixtures else f"{scored} of {mixtures}"
    return f"{model}: {of} mixtures, means and 95 % bootstrap intervals over mixtures"


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


def cell(pairs: Sequence[tuple[float, float]]) -> Cell:
    """The summary of a metric from its (input, output) values, one pair for each mixture."""
    every = np.array(pairs, np.float64).reshape(-1, 2)
    values = every[np.isfinite(every).all(axis=1)]
    if len(values) == 0:
        # One side may have none at all, as SAR where nothing was added to the speakers: the other stands alone.
        before, after = [
            float(side[np.isfinite(side)].mean()) if np.isfinite(side).any() else math.nan for side in every.T
        ]
        return Cell(before, after, math.nan, math.nan, math.nan, 0)
    gains = values[:, 1] - values[:, 0]
    before, after = values.mean(0)
    return Cell(float(before), float(after), float(gains.mean()), *bootstrap(gains), len(values))
