"""Laws of the chains' diagnostics: theory of AR(1) chains, closed forms, and ArviZ."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from pyro_minvae.inference.mcmc import diagnostics
from pyro_minvae.inference.mcmc.diagnostics import (
    acceptance_rate,
    effective_sample_size,
    posterior_deviation,
    rank_normalised,
    split_rhat,
)


def chains(rho: Tensor, *, count: int, steps: int, seed: int = 0) -> Tensor:
    """Stationary AR(1) chains [R, S, *rho.shape] of unit variance."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, steps, *rho.shape, generator=generator, dtype=torch.float64)
    for step in range(1, steps):
        z[:, step] = rho * z[:, step - 1] + (1 - rho**2).sqrt() * z[:, step]
    return z


@pytest.mark.parametrize("rank", [False, True])
def test_effective_size_of_autoregressive_chains(rank: bool) -> None:
    """R S (1 - rho) / (1 + rho), in each frame and dimension by itself; alternating chains are worth more."""
    rho = torch.tensor([[0.0, 0.5], [0.9, 0.7], [0.3, -0.4]], dtype=torch.float64)
    found = effective_sample_size(chains(rho, count=8, steps=5000), rank=rank)
    expected = 40000 * (1 - rho) / (1 + rho)
    assert found.shape == (3, 2)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.0)


def test_effective_size_predicts_the_error_of_the_mean() -> None:
    rho = torch.full((400, 1), 0.8, dtype=torch.float64)
    draws = chains(rho, count=4, steps=300)
    predicted = draws.var((0, 1)) / effective_sample_size(draws, rank=False)
    found = float(draws.mean((0, 1)).square().mean())
    assert found == pytest.approx(float(predicted.mean()), rel=4.5 * math.sqrt(2 / 400))


@pytest.mark.parametrize("rank", [False, True])
def test_chains_that_disagree_are_seen(rank: bool) -> None:
    """Of k chains at other places, and of chains that drift, which only halves can tell."""
    rho = torch.zeros(4, 1, dtype=torch.float64)
    draws = chains(rho, count=4, steps=2000)
    draws[:2, :, 1] += 1.0
    draws[:, :, 2] += torch.linspace(0, 2, 2000, dtype=torch.float64)[:, None]
    draws[:2, :, 3] *= 3.0
    rhat = split_rhat(draws, rank=rank)[:, 0]
    assert rhat[0] < 1.002
    # Means 0 and 1 in equal parts: variance 1/4 of eight half chains, unbiased 2/7.
    assert rank or float(rhat[1]) == pytest.approx(math.sqrt(1 + 2 / 7), rel=0.01)
    assert rhat[1] > 1.05
    assert rhat[2] > 1.05
    # Equal means with other widths: only the folded ranks see it.
    assert (rhat[3] > 1.05) == rank


@pytest.mark.parametrize("statistic", [split_rhat, effective_sample_size])
def test_ranks_see_order_only(statistic) -> None:  # type: ignore[no-untyped-def]
    """Bulk ESS does not change under any rising map; R-hat's folded half may, its plain one does a lot."""
    draws = chains(torch.full((5, 2), 0.6, dtype=torch.float64), count=3, steps=200)
    torch.testing.assert_close(rank_normalised((3 * draws).exp()), rank_normalised(draws))
    heavy = (8 * draws).exp()
    if statistic is effective_sample_size:
        torch.testing.assert_close(statistic(heavy), statistic(draws))
    plain = (statistic(heavy, rank=False) / statistic(draws, rank=False) - 1).abs()
    assert float(plain.max()) > 1e-3


def test_equal_draws_share_their_rank() -> None:
    draws = torch.tensor([[1.0, 1.0, 3.0], [0.0, 1.0, 9.0]], dtype=torch.float64)[..., None]
    rank = torch.tensor([[3.0, 3.0, 5.0], [1.0, 3.0, 6.0]], dtype=torch.float64)[..., None]
    expected = torch.distributions.Normal(0.0, 1.0).icdf((rank - 0.375) / 6.25)
    torch.testing.assert_close(rank_normalised(draws), expected)


def test_numbers_are_those_of_arviz() -> None:
    """On chains as Metropolis leaves them: they repeat themselves, and some drift."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arviz = pytest.importorskip("arviz", reason="ArviZ is not installed")
    rho = torch.linspace(-0.6, 0.9, 16, dtype=torch.float64).reshape(2, 8)
    draws = chains(rho, count=3, steps=401)
    for step in range(1, 401):
        if step % 3 == 1:
            draws[:, step] = draws[:, step - 1]
    draws[0, :, 1, 2] += torch.linspace(-2, 2, 401, dtype=torch.float64)
    for rank, size, factor in ((True, "bulk", "rank"), (False, "mean", "split")):
        found = effective_sample_size(draws, rank=rank), split_rhat(draws, rank=rank)
        for n in range(2):
            for dim in range(8):
                one = draws[:, :, n, dim].numpy()
                assert float(found[0][n, dim]) == pytest.approx(float(arviz.ess(one, method=size)), rel=1e-9)
                assert float(found[1][n, dim]) == pytest.approx(
                    float(arviz.rhat(one, method=factor)), rel=1e-9
                )


@pytest.mark.parametrize("statistic", [split_rhat, effective_sample_size])
def test_parts_and_leading_dimensions_change_nothing(statistic, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    draws = chains(torch.full((2, 5, 3), 0.5, dtype=torch.float64), count=2, steps=60)
    whole = statistic(draws)
    assert whole.shape == (2, 5, 3)
    torch.testing.assert_close(statistic(draws[:, :, 1, 2:4]), whole[1, 2:4])
    # Draws as far from the median on either side are equal: rounding decides which comes first.
    torch.testing.assert_close(statistic(draws.float()), whole, rtol=5e-3, atol=0.0)
    monkeypatch.setattr(diagnostics, "PART", 7)
    torch.testing.assert_close(statistic(draws), whole)


def test_draws_that_say_nothing_are_not_numbers() -> None:
    draws = chains(torch.zeros(3, 1, dtype=torch.float64), count=2, steps=50)
    draws[:, :, 1] = 0.1
    draws[0, 7, 2] = torch.nan
    for rank in (False, True):
        size = effective_sample_size(draws, rank=rank)[:, 0]
        assert size.isnan().tolist() == [False, True, True]
        assert split_rhat(draws, rank=rank)[1:, 0].isnan().all()
    stuck = torch.tensor([1.0, 2.0])[:, None, None, None].expand(2, 100, 1, 1)
    assert float(split_rhat(stuck, rank=False)) == math.inf
    assert float(effective_sample_size(stuck)) < 3
    for statistic in (split_rhat, effective_sample_size):
        with pytest.raises(ValueError, match="expected at least 4 steps"):
            statistic(draws[:, :3])


def test_acceptance_is_a_share_in_each_frame() -> None:
    accepted = torch.tensor([[[1, 0, 1], [1, 0, 0]], [[1, 0, 0], [1, 0, 0]]], dtype=torch.bool)
    assert acceptance_rate(accepted).tolist() == [1.0, 0.0, 0.25]


def test_deviation_is_that_of_draws_from_the_posterior() -> None:
    """Draw r, then each source's complex coefficient given x and z^r; two sources and noise."""
    generator = torch.Generator().manual_seed(0)
    variances = torch.empty(2, 3, 4, 5, dtype=torch.float64).exponential_(generator=generator)
    noise = torch.empty(4, 5, dtype=torch.float64).exponential_(generator=generator)
    x = torch.complex(*torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)) * 2
    found = posterior_deviation(variances, noise, x.abs() ** 2)
    mask = variances / (variances.sum(0) + noise)
    which = torch.randint(3, (40000,), generator=generator)
    parts = torch.randn(2, 40000, 4, 5, generator=generator, dtype=torch.float64)
    for j in range(2):
        deviation = (variances[j] * (1 - mask[j]) / 2).sqrt()[which]
        draws = mask[j][which] * x + deviation * torch.complex(*parts)
        spread = (draws - draws.mean(0)).abs().square()
        error = spread.std(0) / math.sqrt(40000)
        assert float(((spread.mean(0) - found[j] ** 2) / error).abs().max()) < 4.5
