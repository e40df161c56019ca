"""What all commands share: the console (standard error, so that output can be piped) and progress bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def console() -> Console:
    """A console on today's standard error (tests replace the stream)."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One plain line of result on standard output."""
    print(line, flush=True)


def warn(line: str) -> None:
    """One line of warning on standard error."""
    console().print(f"warning: {line}", markup=False)


def progress(*fields: str) -> Progress:
    """A progress bar with elapsed and remaining time, and the named task fields at its end."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        # Names of files may hold brackets, which are no markup.
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *(TextColumn(f"{{task.fields[{field}]}}", markup=False) for field in fields),
        console=console(),
        transient=True,
    )
