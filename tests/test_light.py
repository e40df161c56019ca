"""Importing the package and asking for help must be quick: heavy libraries load only when used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_S = 0.5
HEAVY = (
    "torch",
    "pyro",
    "numpy",
    "scipy",
    "cv2",
    "av",
    "librosa",
    "matplotlib",
    "pydantic",
    "h5py",
    "joblib",
)
SCRIPT = str(Path(sys.executable).with_name("pyro-minvae"))
IMPORT = [sys.executable, "-c", "import pyro_minvae"]
HELP = [SCRIPT, "--help"]


def cpu_seconds(command: list[str]) -> float:
    """User plus system time of one run: wall time would measure the other tests as well."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("command", [IMPORT, HELP], ids=["import", "help"])
def test_start_costs_less_than_half_a_second(command: list[str]) -> None:
    # The best of several: the first run may have to compile bytecode.
    best = min(cpu_seconds(command) for _ in range(5))
    assert best < LIMIT_S, f"{best:.2f} s of CPU"


@pytest.mark.parametrize(
    "statement",
    [
        "import pyro_minvae",
        "import pyro_minvae.cli.main",
    ],
    ids=["package", "every command"],
)
def test_import_loads_nothing_heavy(statement: str) -> None:
    report = f"{statement}\nimport sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
