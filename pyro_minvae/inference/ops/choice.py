"""Torch or Numba: by which of the two the passes of the table (`ops`) run.

Loading the compiled passes takes a third of a second, and compiling them, once after an installation, some ten seconds.
So a loop says how much it is about to do (`expect`), and the passes serve it if that is enough. What decides is the
recording and the settings alone, so that the same recording gets the same passes whatever came before it.
PYRO_MINVAE_PASSES=torch or =numba decides it for all, `using` for a while.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

from pyro_minvae.errors import InputError
from pyro_minvae.inference.ops.arrays import UnfitError

VARIABLE = "PYRO_MINVAE_PASSES"
CHOICES = ("auto", "numba", "torch")
# Frames x bins x moves of a loop for which the compiled passes are loaded. They save some 2.5 ns each, a third of what
# it takes to load them; a process that does one such loop mostly does several. Ten seconds of sound by "fast".
WORTHWHILE = 40e6
# What an M-step goes over is as much as so many moves.
M_STEP = 5

P = ParamSpec("P")
R = TypeVar("R")
Passes = Mapping[str, Callable[..., Any]]

_in_use: Passes | None = None
# What `using` says.
_forced: str | None = None


def chosen_by_size(formula: Callable[P, R]) -> Callable[P, R]:
    """The formula, or its compiled namesake while that is in use and takes the arrays."""
    name = formula.__name__

    @wraps(formula)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        if _in_use is not None:
            try:
                found: R = _in_use[name](*arguments, **named)
            except UnfitError:
                pass
            else:
                return found
        return formula(*arguments, **named)

    return run


def expect(numbers: float, *, moves: int, iterations: int) -> None:
    """A loop is about to go over `numbers` (frames x bins of a recording), `moves` times in each of its iterations.

    Until the next one says so.

    Raises:
        InputError: if PYRO_MINVAE_PASSES is none of its words, or asks for Numba and it cannot be loaded.
    """
    global _in_use
    choice = _forced or _choice()
    enough = numbers * (moves + M_STEP) * iterations >= WORTHWHILE
    _in_use = _loaded() if choice == "numba" or (choice == "auto" and enough) else None
    if _in_use is None and choice == "numba":
        raise InputError(f"{VARIABLE}: expected Numba to be installed, found that it cannot be loaded")


@contextmanager
def using(choice: str) -> Iterator[None]:
    """Passes by "torch" or "numba" (torch, if it cannot be loaded), whatever the work."""
    global _in_use, _forced
    before, _forced, _in_use = (_in_use, _forced), choice, _loaded() if choice == "numba" else None
    try:
        yield
    finally:
        _in_use, _forced = before


def compiled() -> bool:
    """Whether the compiled passes are in use."""
    return _in_use is not None


def _choice() -> str:
    choice = os.environ.get(VARIABLE, "auto")
    if choice not in CHOICES:
        raise InputError(f"{VARIABLE}: expected {', '.join(CHOICES)}, found {choice}")
    return choice


@cache
def _loaded() -> Passes | None:
    """The compiled passes by name; None without Numba, or where it finds no place for what it compiles."""
    try:
        modules = [import_module(f"pyro_minvae.inference.ops.fast_{step}") for step in ("e_step", "m_step")]
    except (ImportError, RuntimeError, KeyError):
        return None
    return {name: found for module in modules for name, found in vars(module).items() if callable(found)}
