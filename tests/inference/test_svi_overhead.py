"""The benchmark of Pyro's overhead compares equal losses, and would notice if they were not."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from pyro_minvae.config.load import load_recipe, recipe_names


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "svi_overhead.py"
    spec = importlib.util.spec_from_file_location("svi_overhead", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def frame_by_frame() -> list[str]:
    """Recipes whose guides are written by hand in the benchmark; "mixed-speech" looks around in time."""
    return [name for name in recipe_names() if load_recipe(name).guide.kind != "mixed-speech"]


@pytest.mark.parametrize("recipe", frame_by_frame())
def test_losses_are_equal_at_the_real_sizes(benchmark: ModuleType, recipe: str) -> None:
    for stage in range(len(load_recipe(recipe).training.stages)):
        row = benchmark.measure(recipe, stage, 16, 1, seed=0)
        assert row["ratio"] > 0


def test_guides_that_it_does_not_write_by_hand_are_refused(benchmark: ModuleType) -> None:
    with pytest.raises(
        SystemExit, match=r"av-separation: expected a guide among audio, visual.*found mixed-speech"
    ):
        benchmark.measure("av-separation", 1, 16, 1, seed=0)


def test_planted_difference_is_noticed(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """One percent is enough."""
    right = benchmark.hand_written
    monkeypatch.setattr(benchmark, "hand_written", lambda system, *rest: right(system, *rest) * 1.01)
    with pytest.raises(SystemExit, match="expected equal losses"):
        benchmark.measure("min-vae", 2, 16, 1, seed=0)
