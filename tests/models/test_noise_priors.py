"""What each noise prior promises beyond the laws of all: smooth activations, automatic rank, one spectrum."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pytest
import scipy.optimize
import scipy.stats
import torch
from noise_problems import make_problem
from pyro import poutine
from torch import Tensor

from pyro_minvae.inference.mcem.statistics import Statistics
from pyro_minvae.inference.ops.minimisers import minimiser, slopes
from pyro_minvae.models.noise.ard import ArdNmf
from pyro_minvae.models.noise.gamma_chain import ChainNmf
from pyro_minvae.models.noise.nmf import Nmf
from pyro_minvae.models.noise.stationary import stationary


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_noise(power: Tensor) -> Statistics:
    """Statistics of a recording without speech."""
    return Statistics(lambda noise: (power / noise**2, 1 / noise))


def noise_of_rank(rank: int, *, frames: int = 60, bins: int = 50) -> Tensor:
    """Exponential power whose variance is a sum of `rank` distinct spectra that come and go."""
    generator = seeded(4)
    W = torch.rand(bins, rank, generator=generator, dtype=torch.float64) ** 4 + 0.01
    H = torch.rand(rank, frames, generator=generator, dtype=torch.float64) ** 4 + 0.01
    uniform = torch.rand(frames, bins, generator=generator, dtype=torch.float64)
    return 1e-3 * (W @ H).mT * -torch.log1p(-uniform)


@pytest.mark.parametrize("a", [1e-6, 0.3, 40.0])
@pytest.mark.parametrize("b", [1e-6, 0.3, 40.0])
@pytest.mark.parametrize("slope", [-30.0, -0.5, 0.0, 0.5, 30.0])
def test_minimiser_is_where_the_slope_vanishes(a: float, b: float, slope: float) -> None:
    """a - b / h^2 + slope / h = 0, also where two nearly equal numbers would be subtracted."""
    h = float(minimiser(*torch.tensor([a, b], dtype=torch.float64), slope))
    assert abs(a * h - b / h + slope) < 1e-9 * (a * h + b / h + abs(slope))
    single = float(minimiser(*torch.tensor([a, b]), slope))
    assert single == pytest.approx(h, rel=1e-5)
    # Different slopes at different places.
    among = torch.tensor([7.0, slope, -7.0], dtype=torch.float64)
    several = minimiser(*(torch.full((3,), one, dtype=torch.float64) for one in (a, b)), slopes(among))
    assert float(several[1]) == pytest.approx(h, rel=1e-12)
    assert float(several[0]) < float(several[1]) < float(several[2]) or abs(slope) > 7


def test_a_sweep_reaches_the_minimum_of_the_majoriser() -> None:
    """Many sweeps of the chain find what a general optimiser finds for all columns at once."""
    power = make_problem(0, frames=8).power
    model = ChainNmf(power, rank=2, strength=20.0, sweeps=400, generator=seeded())
    up, down = (torch.rand(2, 8, generator=seeded(seed), dtype=torch.float64) + 0.1 for seed in (1, 2))
    before = model.A.numpy().copy()

    def cost(logs: np.ndarray) -> float:
        A = np.exp(logs.reshape(2, 8))
        ratio = A[:, :-1] / A[:, 1:]
        likelihood = (up.numpy() * before**2 / A + down.numpy() * A).sum()
        return float(likelihood + 20.0 * (ratio - np.log(ratio) - 1).sum())

    best = scipy.optimize.minimize(cost, np.log(before).ravel(), method="BFGS", options={"gtol": 1e-6})
    model._move_activations(up, down)
    assert cost(model.A.log().numpy()) <= best.fun + 1e-9 * abs(best.fun)
    np.testing.assert_allclose(model.A.numpy(), np.exp(best.x.reshape(2, 8)), rtol=1e-4)


def test_a_weak_chain_is_plain_nmf_and_a_strong_one_constant() -> None:
    power = make_problem(1, frames=20, spread=1.0).power
    models = [ChainNmf(power, rank=2, strength=s, generator=seeded()) for s in (1e-9, 1.0, 1e6)]
    plain = Nmf(power, rank=2, generator=seeded())
    for model in (*models, plain):
        for _ in range(300):
            model.em_step(of_noise(power))
    torch.testing.assert_close(models[0].variance(), plain.variance(), rtol=1e-5, atol=0)
    moves = [float(model.H.log().diff().abs().mean()) for model in models]
    assert moves[0] > 2 * moves[1] > 0.01
    assert moves[2] < 1e-2


def test_a_chain_does_not_follow_a_click() -> None:
    power = torch.full((60, 4), 0.01, dtype=torch.float64)
    power[30] = 100.0

    def of_click(model: Nmf) -> float:
        for _ in range(50):
            model.em_step(of_noise(power))
        return float(model.variance()[30].mean())

    assert of_click(Nmf(power, rank=2, generator=seeded())) > 50
    assert of_click(ChainNmf(power, rank=2, strength=100.0, generator=seeded())) < 5


def test_the_chain_does_not_mind_the_scale_of_activations() -> None:
    """So that moving scale between W and A is no step of the objective (derivations, eq. 12.8)."""
    model = ChainNmf(make_problem(0).power, rank=3, strength=5.0, generator=seeded())
    before = model.log_prior()
    model.A = model.A * torch.tensor([[1e-6], [3.0], [1e5]])
    torch.testing.assert_close(model.log_prior(), before)


def test_steps_of_sampled_chains_are_gamma() -> None:
    power = torch.rand(200, 2, generator=seeded(), dtype=torch.float64)
    model = ChainNmf(power, rank=3, strength=6.0, generator=seeded())
    pyro.set_rng_seed(0)
    level = {"level": torch.zeros(3, dtype=torch.float64)}
    trace = poutine.trace(poutine.condition(model.sites, data=level)).get_trace()
    steps = trace.nodes["steps"]["value"].exp().flatten().numpy()
    assert scipy.stats.kstest(steps, scipy.stats.gamma(6.0, scale=1 / 6.0).cdf).pvalue > 1e-3
    torch.testing.assert_close(
        trace.nodes["W"]["value"].sum(-1), torch.ones(3, dtype=torch.float64), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("true", [1, 3])
@pytest.mark.parametrize("smooth", [0.0, 2.0])
def test_ard_finds_the_rank(true: int, smooth: float) -> None:
    power = noise_of_rank(true)
    model = ArdNmf(power, rank=10, smooth=smooth, generator=seeded())
    for _ in range(1500):
        model.em_step(of_noise(power))
    # lambda_k comes down to its least value where a component dies (derivations, eq. 12.22).
    least = model.rate / (model.W.shape[0] + model.A.shape[-1] + model.shape + 1)
    assert int((model.relevance / least - 1 > 1e-3).sum()) == true


def test_ard_relevance_is_the_maximum() -> None:
    """lambda_k maximises the prior at the present factors (derivations, eq. 12.20)."""
    model = ArdNmf(make_problem(0).power, rank=3, shape=4.0, generator=seeded())
    for _ in range(5):
        model.em_step(make_problem(0).statistics())
    best, found = model.log_prior(), model.relevance
    for factor in (0.9, 1.1):
        model.relevance = found * factor
        assert float(model.log_prior()) < float(best)


def test_ard_expects_noise_as_loud_as_the_mixture() -> None:
    """E[v] under the prior is the mean power (derivations, eq. 12.23), and the sites draw that."""
    power = 0.02 * torch.rand(60, 50, generator=seeded(), dtype=torch.float64)
    model = ArdNmf(power, rank=5, shape=30.0, generator=seeded())
    pyro.set_rng_seed(0)
    mean = np.mean([float(model.sites().mean()) for _ in range(300)])
    assert mean == pytest.approx(float(power.mean()), rel=0.1)


def test_stationary_noise_has_one_spectrum() -> None:
    """Without speech it is the mean power of each bin, exactly (derivations, eq. 12.27)."""
    power = make_problem(3, batch=(2,), frames=30).power
    model = stationary(power, generator=seeded())
    for _ in range(100):
        model.em_step(of_noise(power))
    expected = power.mean(-2, keepdim=True).expand_as(power)
    torch.testing.assert_close(model.variance(), expected, rtol=1e-6, atol=0)


def test_a_slow_level_is_shared_by_all_bins() -> None:
    envelope = torch.linspace(1.0, 5.0, 40, dtype=torch.float64)
    power = envelope[:, None] * torch.tensor([0.5, 0.1, 2.0], dtype=torch.float64)
    model = stationary(power, slow=20.0, generator=seeded())
    for _ in range(200):
        model.em_step(of_noise(power))
    variance = model.variance()
    torch.testing.assert_close(variance / variance[:1], (variance / variance[:1])[:, :1].expand_as(variance))
    assert float((variance / power).log().abs().max()) < 0.1
    clicks = power.clone()
    clicks[20] *= 100
    for _ in range(200):
        model.em_step(of_noise(clicks))
    assert float((model.variance() / power)[20].max()) < 20


def test_bad_arguments_are_refused() -> None:
    power = torch.ones(3, 2)
    for strength in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"expected a positive strength, got {strength}"):
            ChainNmf(power, rank=1, strength=strength)
    with pytest.raises(ValueError, match="expected at least one sweep, got 0"):
        ChainNmf(power, rank=1, strength=1.0, sweeps=0)
    with pytest.raises(ValueError, match="expected a shape above 2, got 2"):
        ArdNmf(power, rank=1, shape=2.0)
