"""The modes of a switching system over time, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.report import write_records
from pyro_minvae.types import Switches


def check_switches(path: Path) -> None:
    """Raise `InputError` unless the name is that of a table."""
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path}: expected the name of a table, .csv, found {path.suffix or 'no suffix'}")


def write_switches(path: Path, switches: Switches) -> None:
    """A CSV with a line for each frame: `time_s`, the `mode` of the path, the probability of each mode, and `trust`.

    `trust` is the probability that the lips of the frame are right; the column is missing where no mode looks at lips.

    Raises:
        InputError: if the file cannot be written.
    """
    write_records(path, records(switches))


def records(switches: Switches) -> list[dict[str, Any]]:
    """One flat row for each frame."""
    rows = []
    for n, time in enumerate(switches.times):
        row: dict[str, Any] = {"time_s": f"{time:.3f}", "mode": switches.names[int(switches.path[n])]}
        row |= {
            f"p_{name}": f"{share:.4f}"
            for name, share in zip(switches.names, switches.probabilities[n], strict=True)
        }
        if switches.trust is not None:
            row["trust"] = f"{switches.trust[n]:.4f}"
        rows.append(row)
    return rows
