"""The kernels that reject nothing: Langevin dynamics with its known bias, and the ascent to the mode."""

from __future__ import annotations

import math

import pytest
import torch
from chains import (
    autoregressive,
    context,
    covariance_off,
    gaussian_of,
    log_gamma,
    normal_chains,
    standard_errors,
    walk,
)
from torch import Tensor

from pyro_minvae.inference.mcmc.adam import MapAdam
from pyro_minvae.inference.mcmc.base import Target, refresh, value_and_gradient
from pyro_minvae.inference.mcmc.langevin import UnadjustedLangevin
from pyro_minvae.inference.mcmc.mala import Mala

WIDTHS = torch.tensor([[0.5, 1.0], [2.0, 4.0]], dtype=torch.float64)


def widths(z: Tensor) -> Tensor:
    return -0.5 * (z / WIDTHS).square().sum(-1)


def test_langevin_dynamics_are_biased_as_theory_says_and_mala_is_not() -> None:
    """On N(0, s^2) the variance is s^2 / (1 - eta / (4 s^2)) (Roberts & Tweedie 1996; derivations, sec. 11)."""
    step, draws = (
        0.7,
        torch.randn(20000, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
    )
    inflated = WIDTHS / (1 - step**2 / (4 * WIDTHS**2)).sqrt()
    biased, _ = walk(UnadjustedLangevin(step), widths, inflated * draws, steps=15)
    assert standard_errors(biased.position / inflated) < 4.5
    assert standard_errors(biased.position / WIDTHS) > 20
    exact, _ = walk(Mala(step), widths, WIDTHS * draws, steps=15)
    assert standard_errors(exact.position / WIDTHS) < 4.5


def test_langevin_bias_goes_with_the_square_of_the_step() -> None:
    """From any start: variance ratio minus 1 is about eta / (4 s^2), so halving the step quarters it."""
    one = torch.zeros(1, 1, dtype=torch.float64)
    bias = []
    for step in (0.8, 0.4):
        start = one.expand(60000, 1, 1).contiguous()
        state, _ = walk(
            UnadjustedLangevin(step), lambda z: -0.5 * z.square().sum(-1), start, steps=int(8 / step**2)
        )
        bias.append(float(state.position.var()) - 1)
    error = 4.5 * math.sqrt(2 / 60000)
    assert abs(bias[0] - 0.16 / 0.84) < 1.2 * error
    assert abs(bias[1] - 0.04 / 0.96) < 1.1 * error
    assert bias[0] > 2.5 * bias[1]


@pytest.mark.parametrize("factors", [autoregressive, context])
def test_coupled_frames_move_by_the_gradient_of_all_factors(factors) -> None:  # type: ignore[no-untyped-def]
    """On N(m, A^-1) the covariance is (A (I - eta A / 4))^-1, whatever couples the frames."""
    step = 0.5
    mean, covariance = gaussian_of(factors, 5, 2)
    precision = covariance.inverse()
    biased = (precision @ (torch.eye(10, dtype=torch.float64) - step**2 / 4 * precision)).inverse()
    start = normal_chains(mean, biased, (5, 2), 15000, seed=1)
    for target in (Target(factors, (1, 2)), factors):
        state, _ = walk(UnadjustedLangevin(step), target, start, steps=12)
        assert covariance_off(state.position, mean, biased) < 4.8
        assert covariance_off(state.position, mean, covariance) > 8


@pytest.mark.parametrize("kernel", [UnadjustedLangevin(0.4), MapAdam(0.4)], ids=["langevin", "map"])
def test_a_coupled_sequence_stays_where_its_density_is_finite(kernel) -> None:  # type: ignore[no-untyped-def]
    def factors(z: Tensor) -> Tensor:
        return torch.where((z > 0.6).any(-1), torch.nan, autoregressive(z) + 3.0 * z.sum(-1))

    target = Target(factors, (0, 1))
    state, infos = walk(kernel, target, torch.full((200, 4, 2), -1.0, dtype=torch.float64), steps=40)
    torch.testing.assert_close(state.log_density, target(state.position))
    assert bool(torch.isfinite(state.log_density).all())
    went = torch.stack([info.accepted for info in infos])
    assert bool((went.all(-1) | ~went.any(-1)).all())  # frames go or stay together
    assert 0 < float(went.double().mean()) < 1


def test_ascent_is_that_of_torch() -> None:
    """Step for step the path of `torch.optim.Adam`, over a change of the target too."""
    shapes = torch.tensor([[0.7, 3.0], [2.0, 40.0]], dtype=torch.float64)
    targets = [log_gamma(shapes), log_gamma(2 * shapes)]
    start = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    leaf = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=0.05, betas=(0.8, 0.95), maximize=True)
    kernel = MapAdam(0.05, betas=(0.8, 0.95))
    state = kernel.init(targets[0], start)
    for target in targets:
        state = refresh(kernel, target, state)
        for _ in range(25):
            optimizer.zero_grad()
            target(leaf).sum().backward()
            optimizer.step()
            state, _ = kernel.step(target, state)
    torch.testing.assert_close(state.position, leaf.detach())


@pytest.mark.parametrize("factors", [autoregressive, context, log_gamma(torch.full((5, 2), 3.0).double())])
def test_ascent_ends_at_the_mode(factors) -> None:  # type: ignore[no-untyped-def]
    start = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state, _ = walk(MapAdam(0.03), Target(factors, (1, 2)), start, steps=800)
    _, gradient = value_and_gradient(factors, state.position)
    assert float(gradient.abs().max()) < 1e-3
    torch.testing.assert_close(state.position, state.position[:1].expand(4, 5, 2), rtol=0, atol=1e-3)


def test_gradient_is_taken_inside_no_grad_and_through_frozen_weights() -> None:
    weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    z = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        value, gradient = value_and_gradient(lambda z: (z @ weight).square().sum(-1), z)
    assert weight.grad is None
    assert not value.requires_grad
    assert not gradient.requires_grad
    torch.testing.assert_close(gradient, 2 * z @ weight.detach() @ weight.detach().T)
    bad = torch.tensor([[1.0, 2.0], [float("nan"), 0.0]])
    _, gradient = value_and_gradient(lambda z: z.square().sum(-1), bad)
    assert gradient.tolist() == [[2.0, 4.0], [0.0, 0.0]]


@pytest.mark.parametrize("kernel", [UnadjustedLangevin, MapAdam])
def test_steps_are_positive(kernel) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="expected step_size > 0"):
        kernel(0.0)
    with pytest.raises(ValueError, match="expected betas"):
        MapAdam(betas=(0.9, 1.0))
