"""From power to filters: which iterations count, and where the chains start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import save_tiny_model

from pyro_minvae.inference.mcem.loop import EMState
from pyro_minvae.inference.mcem.wiener import masks
from pyro_minvae.pipelines.mcem_solver import Block, Denoiser
from pyro_minvae.pipelines.video_guidance import load_trained
from pyro_minvae.types import Visual


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("denoiser") / "model")


def denoiser(model: Path, *settings: str) -> Denoiser:
    trained = load_trained(model, overrides=settings)
    return Denoiser([trained], trained.recipe, torch.device("cpu"))


def piece(frames: int, seed: int, *visuals: Visual | None) -> Block:
    power = torch.rand(frames, 513, generator=torch.Generator().manual_seed(seed))
    return Block(power, visuals or (None,), seed)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("tolerance", "average"), [(0.0, 1), (0.0, 3), (0.0, 9), (1e9, 3)])
def test_the_filter_is_the_mean_of_the_last_ones(
    model: Path, batch: int, tolerance: float, average: int
) -> None:
    settings = f"inference.tolerance={tolerance}", f"inference.average={average}"
    runner = denoiser(model, *settings, "inference.iterations=8", "inference.keep=2", "inference.steps=3")
    pieces = [piece(5 + index, index) for index in range(batch if runner.batches else 1)]
    states: list[EMState] = []
    found = runner(pieces, states.append)
    # With so large a tolerance the loop stops as soon as it may.
    assert len(states) == (8 if tolerance == 0 else 6)
    wanted = torch.stack([masks(state.variances, state.noise) for state in states[-average:]]).mean(0)
    for index, one in enumerate(found):
        assert one.iterations == len(states)
        filters = wanted[:, index, : one.masks.shape[1]] if len(pieces) > 1 else wanted
        torch.testing.assert_close(one.masks, filters)


@pytest.mark.parametrize("seen", [None, [True, False, True, False]])
def test_chains_that_start_at_the_prior_leave_out_lips_that_are_not_there(
    model: Path, seen: list[bool] | None
) -> None:
    """Without lips p(alpha = 1) is one, so the prior's mean is that of the audio component."""
    runner = denoiser(model, "inference.start=prior")
    prior = runner.systems[0].model.prior
    prior.means[1] = 5.0  # type: ignore[index]
    valid = None if seen is None else torch.tensor(seen)
    visual = None if valid is None else Visual(torch.randn(4, 12), valid)
    start = runner.source(piece(4, 0).power, visual).start
    away = torch.ones(4, dtype=torch.bool) if valid is None else ~valid
    torch.testing.assert_close(start[away], torch.full_like(start[away], 5.0))
    if valid is not None:
        lips = prior.conditionals(visual)[0].mean
        torch.testing.assert_close(start[valid], lips[valid])
