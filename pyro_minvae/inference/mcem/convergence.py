"""Early stopping by the objective, which needs no clean speech."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

# Early stopping compares the objective with the one this many iterations ago.
LOOK_BACK = 5


class _Scored(Protocol):
    @property
    def objective(self) -> float: ...


State = TypeVar("State", bound=_Scored)


def until_settled(states: Iterator[State], tolerance: float) -> Iterator[State]:
    """Pass states on until the objective gains less than `tolerance` of its whole gain in `LOOK_BACK` iterations."""
    history: list[float] = []
    for state in states:
        yield state
        history.append(state.objective)
        if tolerance > 0 and len(history) > LOOK_BACK:
            gain = history[-1] - history[-1 - LOOK_BACK]
            if gain < tolerance * max(history[-1] - history[0], 0.0):
                return
