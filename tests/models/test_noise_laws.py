"""Laws of every noise model: monotone EM, fixed points, finite numbers, sites that agree with the prior."""

from __future__ import annotations

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_problems import MODELS, Problem, make_model, make_problem, problems
from pyro import poutine
from torch import Tensor

from pyro_minvae.inference.mcem.statistics import Statistics
from pyro_minvae.models.noise.ard import ArdNmf
from pyro_minvae.models.noise.gamma_chain import SPREAD
from pyro_minvae.models.noise.nmf import Nmf, stack

NAMES = sorted(MODELS)
every_model = pytest.mark.parametrize("name", NAMES)


def factors(model: Nmf) -> dict[str, Tensor]:
    """All parameters by their attribute."""
    names = ["W", "A", "relevance"] if isinstance(model, ArdNmf) else ["W", "A"]
    return {name: getattr(model, name) for name in names}


def assert_factors_are_proper(model: Nmf) -> None:
    for factor in (*factors(model).values(), model.variance()):
        assert bool(torch.isfinite(factor).all())
        assert float(factor.min()) > 0
    assert bool(torch.isfinite(model.log_prior()).all())


@given(problems(), st.sampled_from(NAMES), st.integers(1, 5))
@settings(max_examples=120)
def test_an_update_never_lowers_the_map_objective(problem: Problem, name: str, rank: int) -> None:
    model = make_model(name, problem.power, rank=rank)
    before = first = problem.objective(model)
    assert before.shape == problem.power.shape[:-2]
    for _ in range(4):
        model.em_step(problem.statistics())
        after = problem.objective(model)
        assert bool((after >= before - 1e-9 * (before.abs() + problem.power[0].numel())).all())
        assert_factors_are_proper(model)
        before = after
    # Not vacuous: random factors are never the optimum.
    assert bool((after > first).all())


@every_model
def test_the_objective_never_falls_over_thousands_of_updates(name: str) -> None:
    problem = make_problem(7, batch=(2,), dead=0.1)
    model = make_model(name, problem.power)
    values = [problem.objective(model)]
    for _ in range(2000):
        model.em_step(problem.statistics())
        values.append(problem.objective(model))
    curve = torch.stack(values)
    assert float((curve[1:] - curve[:-1]).min()) > -1e-9 * float(curve.abs().max())


@every_model
def test_fixed_points_have_no_gradient(name: str) -> None:
    """The gradient of likelihood + log prior with respect to the logarithms of all factors."""
    problem = make_problem(1, frames=7, bins=5, spread=1.0)
    model = make_model(name, problem.power, rank=2)

    def steepest() -> float:
        logs = {key: value.log().requires_grad_() for key, value in factors(model).items()}
        for key, value in logs.items():
            setattr(model, key, value.exp())
        problem.objective(model).backward()
        for key, value in logs.items():
            setattr(model, key, value.detach().exp())
        return max(float(value.grad.abs().max()) for value in logs.values() if value.grad is not None)

    assert steepest() > 0.5
    for _ in range(6000):
        model.em_step(problem.statistics())
    assert steepest() < 1e-3


@every_model
def test_float32_stays_finite_for_4000_updates(name: str) -> None:
    problem = make_problem(3, frames=20, bins=12, level=1e-4, spread=4.0, dead=0.2).to(torch.float32)
    model = make_model(name, problem.power, rank=6)
    first = problem.objective(model)
    for _ in range(4000):
        model.em_step(problem.statistics())
    assert_factors_are_proper(model)
    assert model.variance().dtype == torch.float32
    assert float(problem.objective(model)) > float(first)


DEGENERATE = {
    "silence": lambda: Problem(torch.full((1, 2, 6, 4), 1e-4), torch.zeros(6, 4)),
    "silence without speech": lambda: Problem(torch.zeros(1, 1, 6, 4), torch.zeros(6, 4)),
    "one frame": lambda: make_problem(0, frames=1),
    "two frames": lambda: make_problem(0, frames=2),
    "one bin": lambda: make_problem(0, bins=1),
    "one cell": lambda: make_problem(0, frames=1, bins=1),
    "rank above frames and bins": lambda: make_problem(0, frames=2, bins=2),
    "a silent recording among others": lambda: _half_silent(),
    "full scale": lambda: make_problem(0, level=1e8),
}


def _half_silent() -> Problem:
    problem = make_problem(0, batch=(2,))
    problem.power[1] = 0
    return problem


@every_model
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_recordings_stay_finite(name: str, case: str, dtype: torch.dtype) -> None:
    problem = DEGENERATE[case]().to(dtype)
    model = make_model(name, problem.power, rank=7)
    for _ in range(100):
        model.em_step(problem.statistics())
    assert_factors_are_proper(model)
    assert model.variance().shape == problem.power.shape


@every_model
def test_recordings_of_a_batch_do_not_meet(name: str) -> None:
    problem = make_problem(5, batch=(3,))
    whole = make_model(name, problem.power)
    parts = [make_model(name, problem.power[index]) for index in range(3)]
    for index, part in enumerate(parts):
        for key, value in factors(whole).items():
            setattr(part, key, value[index])
    for _ in range(5):
        whole.em_step(problem.statistics())
    for index, part in enumerate(parts):
        own = Problem(problem.speech[:, :, index], problem.power[index])
        for _ in range(5):
            part.em_step(own.statistics())
        torch.testing.assert_close(part.variance(), whole.variance()[index])
        torch.testing.assert_close(part.log_prior(), whole.log_prior()[index])


@every_model
def test_a_padded_batch_updates_each_recording_as_if_alone(name: str) -> None:
    """Recordings of nine and six frames; beyond the end of the second, statistics are zero."""
    problem = make_problem(6, batch=(2,))
    lengths = (9, 6)
    parts = [make_model(name, problem.power[b, :frames], seed=b) for b, frames in enumerate(lengths)]
    whole = stack([make_model(name, problem.power[b, :n], seed=b) for b, n in enumerate(lengths)], 9)
    inside = torch.ones(2, 9, dtype=torch.float64)
    inside[1, 6:] = 0

    statistics = Statistics(problem.statistics(), valid=inside)
    for _ in range(20):
        whole.em_step(statistics)
        assert_factors_are_proper(whole)
    for b, (part, frames) in enumerate(zip(parts, lengths, strict=True)):
        own = Problem(problem.speech[:, :, b, :frames], problem.power[b, :frames])
        for _ in range(20):
            part.em_step(own.statistics())
        torch.testing.assert_close(part.variance(), whole.variance()[b, :frames], rtol=1e-6, atol=0)
        torch.testing.assert_close(part.log_prior(), whole.log_prior()[b])


def test_unequal_models_are_not_stacked() -> None:
    power = make_problem(0).power
    for models in ([], [Nmf(power, rank=1), Nmf(power, rank=2)], [Nmf(power, rank=1), ArdNmf(power, rank=1)]):
        with pytest.raises(ValueError, match="expected models of one class, rank and number of bins"):
            stack(models, 9)


@every_model
@pytest.mark.parametrize("batch", [(), (2,)])
def test_log_prior_is_that_of_the_pyro_sites(name: str, batch: tuple[int, ...]) -> None:
    problem = make_problem(11, batch=batch)
    model = make_model(name, problem.power)
    for _ in range(3):
        model.em_step(problem.statistics())
    trace = poutine.trace(poutine.condition(model.sites, data=model.site_values())).get_trace()
    torch.testing.assert_close(trace.log_prob_sum(), model.log_prior().sum())
    torch.testing.assert_close(trace.nodes["_RETURN"]["value"], model.variance())


@pytest.mark.parametrize("name", [name for name in NAMES if "ard" not in name])
def test_proper_priors_expect_noise_as_loud_as_the_mixture(name: str) -> None:
    """The mean power is that of the mixture; of chains, the middle of the level (derivations, eq. 12.35)."""
    problem = make_problem(2, spread=0.5)
    model, drawn = make_model(name, problem.power), []
    pyro.set_rng_seed(0)
    for _ in range(1500):
        trace = poutine.trace(lambda: model.sites(proper=True)).get_trace()
        level = trace.nodes.get("level")
        drawn.append(trace.nodes["_RETURN"]["value"].mean() if level is None else level["value"])
    values = torch.stack(drawn)
    if "chain" in name:
        away = values - model.loudness.log()
        assert abs(float(away.mean())) < 0.3
        assert float(away.std()) == pytest.approx(SPREAD, rel=0.1)
    else:
        assert float(values.mean()) == pytest.approx(float(problem.power.mean()), rel=0.1)


@every_model
def test_spectra_to_start_from_are_kept(name: str) -> None:
    """Any scale will do; the noise is as loud as with random spectra."""
    if name in ("stationary", "slow level"):
        pytest.skip("made by a function with the same argument")
    power = make_problem(2).power
    spectra = torch.rand(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = MODELS[name](power, rank=3, spectra=1e-5 * spectra)
    torch.testing.assert_close(model.W / model.W.sum(-2), spectra / spectra.sum(-2))
    assert 0.25 < float(model.variance().mean() / power.mean() / 6) < 2.25
    with pytest.raises(ValueError, match=r"expected spectra of shape \[6, 3\], got \[6, 2\]"):
        MODELS[name](power, rank=3, spectra=spectra[:, :2])
