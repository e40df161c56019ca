"""How many files of the package one command runs through, and how often the road changes from one file to another.

    python benchmarks/files_crossed.py enhance examples/noisy.mkv --out enhanced.wav
    python benchmarks/files_crossed.py train a-vae --data FOLDER --out RUN

Runs the command in this process under `sys.setprofile` and counts the calls of functions that the package defines.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pyro_minvae
from pyro_minvae.cli.main import main as run

PACKAGE = str(Path(pyro_minvae.__file__).parent)


class Road:
    """The files entered, in which order."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.changes, self.last = 0, ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """A profiler's hook."""
        name = frame.f_code.co_filename
        # Bodies of modules and classes run when they are imported, which is no step of the road.
        if event != "call" or not name.startswith(PACKAGE) or frame.f_code.co_name == "<module>":
            return
        if not frame.f_code.co_flags & 0x2:
            return
        self.files.add(name)
        self.changes += name != self.last
        self.last = name


def main(arguments: Sequence[str]) -> None:
    """Print what the command crosses."""
    road = Road()
    sys.setprofile(road)
    try:
        run(arguments)
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.setprofile(None)
    print(f"{len(road.files)} files, {road.changes} changes of file")
    for name in sorted(road.files):
        print("  " + str(Path(name).relative_to(PACKAGE)))


if __name__ == "__main__":
    main(sys.argv[1:])
