"""What an M-step asks for: P, Q and their products, of draws, of the noise alone, and of functions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_minvae.inference.mcem.statistics import MixtureStatistics, Statistics
from pyro_minvae.inference.ops import workspace

FRAMES, BINS, RANK = 7, 5, 3


def positive(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1


def wanted(
    power: Tensor, noise: Tensor, sigma: Tensor | None, gain: Tensor | None, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """mean_r |x|^2 V^-2 and mean_r V^-1, zero where there is no frame."""
    total = noise[None]
    if sigma is not None:
        total = (sigma if gain is None else sigma * gain[:, None, ..., None]).sum(0) + noise
    exists = 1.0 if valid is None else valid[..., None]
    return exists * (power / total**2).mean(0), exists * (1 / total).mean(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("draws", [0, 1, 4])
@pytest.mark.parametrize("gained", [False, True])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_statistics_and_their_products(
    batch: tuple[int, ...],
    gained: bool,
    draws: int,
    padded: bool,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the formula, in single precision (where passes do it) and in double, in one tile and in several."""
    monkeypatch.setattr(workspace, "TILE", 2)
    shape = *batch, FRAMES, BINS
    power, noise = positive(*shape, seed=0), positive(*shape, seed=1)
    sigma = positive(2, draws, *shape, seed=2) if draws else None
    gain = positive(2, *batch, FRAMES, seed=3) if gained and draws else None
    valid = (torch.arange(FRAMES) < 4).double().expand(*batch, FRAMES).contiguous() if padded else None
    W, H = positive(*batch, BINS, RANK, seed=4), positive(*batch, RANK, FRAMES, seed=5)
    P, Q = wanted(power, noise, sigma, gain, valid)
    power, noise, W, H = (one.to(dtype) for one in (power, noise, W, H))
    sigma, gain, valid = (None if one is None else one.to(dtype) for one in (sigma, gain, valid))
    statistics = MixtureStatistics(power, sigma, gain, valid=valid)
    asked = Statistics(MixtureStatistics(power, sigma, gain), valid=valid)
    tolerance = 1e-12 if dtype is torch.float64 else 1e-5
    for one in (statistics, asked):
        pairs = [one(noise), one.onto_spectra(noise, H), one.onto_activations(noise, W)]
        answers = [
            (P, Q),
            (P.mT @ H.double().mT, Q.mT @ H.double().mT),
            (W.double().mT @ P.mT, W.double().mT @ Q.mT),
        ]
        for pair, answer in zip(pairs, answers, strict=True):
            for found, known in zip(pair, answer, strict=True):
                torch.testing.assert_close(found.double(), known, rtol=tolerance, atol=tolerance)
