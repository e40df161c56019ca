"""The check must fail: every planted error is found, and named by the term that it is in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from plants import PLANTS, Plant
from small import arguments

Run = Callable[..., object]
IDS = [f"{plant.__name__}-{' '.join(recipe)}" for plant, recipe, _ in PLANTS]


@pytest.mark.parametrize(("plant", "recipe", "expected"), PLANTS, ids=IDS)
def test_a_planted_error_is_named(
    plant: Plant, recipe: tuple[str, ...], expected: list[str], run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    result = run_cli(*arguments(*recipe))
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 1
    assert all(line.startswith("disagrees: ") for line in lines)
    named = {line.removeprefix("disagrees: ").rpartition(": ")[0].split(": ")[0] for line in lines}
    assert set(expected) <= named


@pytest.mark.parametrize("recipe", sorted({recipe for _, recipe, _ in PLANTS}), ids=" ".join)
def test_the_same_command_agrees_without_the_error(recipe: tuple[str, ...], run_cli: Run) -> None:
    result = run_cli(*arguments(*recipe))
    assert result.exit_code == 0, result.stderr
