"""What all commands share: the console (standard error, so that output can be piped) and progress bars."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def console() -> Console:
    """A console on today's standard error (tests replace the stream)."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One plain line of result on standard output."""
    print(printable(line, sys.stdout), flush=True)


def complain(line: str) -> None:
    """One plain line on standard error."""
    print(printable(line, sys.stderr), file=sys.stderr, flush=True)


def warn(line: str) -> None:
    """One line of warning on standard error."""
    console().print(printable(f"warning: {line}", sys.stderr), markup=False)


def printable(line: str, stream: TextIO) -> str:
    """The line with `?` for what the stream cannot show: letters of names that its encoding lacks, or no letters."""
    encoding = stream.encoding or "utf-8"
    return line.encode(encoding, "replace").decode(encoding)


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
