"""The held-out part: whole speakers where it can be, the same on every run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_minvae.data.split import hold_out
from pyro_minvae.errors import InputError
from pyro_minvae.types import Utterance


def utterances(counts: dict[str, int]) -> list[Utterance]:
    return [
        Utterance(f"{speaker}/{n}", speaker, Path("a.wav"), None, "train")
        for speaker, count in counts.items()
        for n in range(count)
    ]


def test_small_speakers_are_held_out_whole() -> None:
    items = utterances({f"v{n}": 20 for n in range(50)})
    fit, held = hold_out(items, 0.1, seed=0)
    assert len(held) == 100
    assert not {item.speaker for item in fit} & {item.speaker for item in held}


def test_a_large_speaker_is_parted() -> None:
    items = utterances({"s1": 800} | {f"v{n}": 1 for n in range(220)})
    fit, held = hold_out(items, 0.05, seed=0)
    assert sum(item.speaker == "s1" for item in held) == 40
    assert sum(item.speaker != "s1" for item in held) == 11
    assert len(fit) + len(held) == len(items)


def test_seed_and_order() -> None:
    items = utterances({"s1": 100})
    fit, held = hold_out(items, 0.2, seed=1)
    assert hold_out(items, 0.2, seed=1) == (fit, held)
    assert set(hold_out(items[::-1], 0.2, seed=1)[1]) == set(held)
    assert set(hold_out(items, 0.2, seed=2)[1]) != set(held)
    assert held == [item for item in items if item in held]


def test_the_choice_never_changes() -> None:
    # A resumed run on another machine or version must hold out the same utterances.
    held = hold_out(utterances({"s1": 40}), 0.1, seed=0)[1]
    assert [item.id for item in held] == ["s1/8", "s1/15", "s1/25", "s1/26"]


@given(
    counts=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 30), min_size=1),
    share=st.floats(0.001, 0.999),
    seed=st.integers(0, 5),
)
def test_both_sides_hold_something(counts: dict[str, int], share: float, seed: int) -> None:
    items = utterances(counts)
    if len(items) < 2:
        return
    fit, held = hold_out(items, share, seed)
    assert fit
    assert held
    assert sorted(fit + held) == sorted(items)
    assert abs(len(held) - share * len(items)) <= share * len(items) + 1


def test_refusals() -> None:
    with pytest.raises(InputError, match="expected at least two utterances to hold one out, found 1"):
        hold_out(utterances({"a": 1}), 0.1, seed=0)
    with pytest.raises(ValueError, match="expected 0 < share < 1, got 1"):
        hold_out(utterances({"a": 3}), 1.0, seed=0)
