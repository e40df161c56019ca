"""Shared fixtures. One torch thread per test process: the suite runs beside others on small machines."""

# ruff: noqa: E402
from __future__ import annotations

import os

# The thread pools read these once, when their library loads: they come before every other import.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
# What Numba compiles is kept from one run to the next, also where the package's own folder may not be written.
os.environ.setdefault(
    "NUMBA_CACHE_DIR", os.path.join(os.path.dirname(os.path.dirname(__file__)), ".pytest_cache", "numba")
)
# Rich wraps at the terminal's width: a wide one keeps every message on its one line.
os.environ["COLUMNS"] = "300"
os.environ["NO_COLOR"] = "1"
os.environ.pop("FORCE_COLOR", None)

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")
torch.set_num_threads(1)

DATA = "PYRO_MINVAE_DATA"
REQUIRE_DATA = "PYRO_MINVAE_REQUIRE_DATA"


class Result(NamedTuple):
    """What a command left behind: its exit code and everything it wrote."""

    exit_code: int
    stdout: str
    stderr: str


def find_data() -> tuple[Path | None, str]:
    """The folder of corpora named by PYRO_MINVAE_DATA, or None and the reason why there is none."""
    named = os.environ.get(DATA)
    if not named:
        return None, f"{DATA} is not set: the tests on real recordings need it"
    root = Path(named)
    if not root.is_dir():
        return None, f"{DATA} names {named}, which is not a folder"
    # Absolute: tests change their working directory.
    return root.resolve(), ""


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of corpora; skips with the reason where there is none."""
    root, reason = find_data()
    if root is None:
        pytest.skip(reason)
    return root


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prepared data goes to a temporary folder, never to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRO_MINVAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the command line in this process: `run_cli("enhance", path, "--seed", 1)`.

    A traceback is a failure of the test, as it would be for a user: only SystemExit is turned into a code.
    """

    def run(*arguments: object) -> Result:
        from pyro_minvae.cli.main import main

        capfd.readouterr()
        code: object = 0
        try:
            code = main([str(argument) for argument in arguments]) or 0
        except SystemExit as stop:
            code = stop.code
        output = capfd.readouterr()
        exit_code = code if isinstance(code, int) else int(code is not None)
        return Result(exit_code, output.out, output.err)

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """With PYRO_MINVAE_REQUIRE_DATA=1 a real-data test that skips fails: nobody looks at a green skip."""
    report = yield
    if report.skipped and os.environ.get(REQUIRE_DATA) == "1" and item.get_closest_marker("real_data"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{REQUIRE_DATA}=1 and this test was skipped: {reason}"
    return report
