"""Laws of the samplers on coupled frames: the blocked sweep keeps what a decision frame by frame would lose."""

from __future__ import annotations

import math

import pytest
import torch
from chains import (
    ADAPTIVE,
    EXACT,
    autoregressive,
    context,
    covariance_off,
    gaussian_of,
    normal_chains,
    walk,
)
from torch import Tensor

from pyro_minvae.inference.mcmc.base import Kernel, LogDensity, Target
from pyro_minvae.inference.mcmc.hmc import Hmc
from pyro_minvae.inference.mcmc.laplace import Laplace
from pyro_minvae.inference.mcmc.mala import Mala
from pyro_minvae.inference.mcmc.metropolis import Metropolis

FRAMES, LATENT = 7, 2
SWEEPS = {"metropolis": 200, "mala": 100, "hmc": 60}
COUPLED = {"ar1": Target(autoregressive, (0, 1)), "context": Target(context, (1, 2))}


def kernel_for(name: str, mean: Tensor, covariance: Tensor) -> Kernel:
    """A kernel with steps as wide as the frames' conditionals, more or less."""
    if name in ADAPTIVE:
        return {"metropolis": Metropolis(0.7), "mala": Mala(0.45), "hmc": Hmc(0.55, leapfrogs=3)}[name]
    scale = covariance.inverse().diagonal().rsqrt().reshape(FRAMES, LATENT)
    return EXACT[name](mean.reshape(FRAMES, LATENT), scale)


def off_after(name: str, target: LogDensity, truth: Target, steps: int = 10) -> tuple[float, float]:
    """Chains start in the truth's Gaussian: how far off are they after sweeps on the target, and the acceptance."""
    mean, covariance = gaussian_of(truth, FRAMES, LATENT)
    start = normal_chains(mean, covariance, (FRAMES, LATENT), 10000, seed=1)
    assert covariance_off(start, mean, covariance) < 4.5
    state, infos = walk(kernel_for(name, mean, covariance), target, start, steps=steps, seed=2)
    if target is truth:
        torch.testing.assert_close(state.log_density, target(state.position))
    rate = torch.stack([info.accepted for info in infos]).double().mean()
    return covariance_off(state.position, mean, covariance), float(rate)


@pytest.mark.parametrize("at", COUPLED)
@pytest.mark.parametrize("name", EXACT)
def test_covariances_between_frames_are_left_invariant(name: str, at: str) -> None:
    off, rate = off_after(name, COUPLED[at], COUPLED[at])
    assert off < 4.8  # the largest of 119 standardised errors
    assert 0.1 < rate < 0.97


@pytest.mark.parametrize("at", COUPLED)
@pytest.mark.parametrize("name", EXACT)
def test_deciding_frame_by_frame_loses_them(name: str, at: str) -> None:
    """The same check sees that the reach is ignored."""
    off, _ = off_after(name, COUPLED[at].factors, COUPLED[at])
    assert off > 12


@pytest.mark.parametrize("reach", [(1, 0), (1, 1)], ids=str)
def test_a_reach_that_is_too_small_or_turned_round_is_seen(reach: tuple[int, int]) -> None:
    off, _ = off_after("metropolis", Target(context, reach), COUPLED["context"])
    assert off > 12


@pytest.mark.parametrize("at", COUPLED)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_covariances_between_frames_are_found(name: str, at: str) -> None:
    target = COUPLED[at]
    mean, covariance = gaussian_of(target, FRAMES, LATENT)
    start = torch.zeros(1000, FRAMES, LATENT, dtype=torch.float64)
    state, _ = walk(ADAPTIVE[name](warmup=40), target, start, steps=SWEEPS[name])
    assert covariance_off(state.position, mean, covariance) < 4.8


@pytest.mark.parametrize("name", EXACT)
def test_a_coupled_skewed_target_is_left_invariant(name: str) -> None:
    """Two frames of one dimension, exp-shaped and pulled together; moments by quadrature."""

    def factors(z: Tensor) -> Tensor:
        first, second = z[..., 0, 0], z[..., 1, 0]
        own, pair = 1.5 * first - first.exp(), 2.5 * second - second.exp() - 1.2 * (second - first).square()
        return torch.stack([own, pair], -1)

    grid = torch.linspace(-7, 4, 1101, dtype=torch.float64)
    places = torch.cartesian_prod(grid, grid)
    weight = factors(places[..., None]).sum(-1).softmax(0)
    index = torch.multinomial(weight, 20000, replacement=True, generator=torch.Generator().manual_seed(0))
    start = places[index][..., None]
    scale = torch.full((2, 1), 0.5, dtype=torch.float64)
    kernel = EXACT[name]((weight @ places)[:, None] - 0.2, scale)
    z = walk(kernel, Target(factors, (0, 1)), start, steps=15, seed=3)[0].position[..., 0]

    def moments(z: Tensor) -> Tensor:
        a, b = (z - weight @ places).T
        return torch.stack([a, b, a * a, a * b, b * b, a**3, a * a * b, a * b * b, b**3])

    exact, found = (moments(places) * weight).sum(-1), moments(z)
    assert float(((found.mean(-1) - exact) * math.sqrt(len(z)) / found.std(-1)).abs().max()) < 4.5


@pytest.mark.parametrize("reach", [(0, 1), (2, 0), (1, 1), (3, 4), (9, 9)], ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_independent_frames_move_the_same_under_any_reach(name: str, reach: tuple[int, int]) -> None:
    """A reach that is larger than needed costs time and changes no draw."""

    def factors(z: Tensor) -> Tensor:
        return -(z - 1).square().sum(-1) - (z[..., 0] - 2 * z[..., 1]).square()

    ones = torch.ones(FRAMES, LATENT, dtype=torch.float64)
    start = torch.randn(60, FRAMES, LATENT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    free, of_free = walk(EXACT[name](ones, ones), factors, start, steps=6)
    swept, of_swept = walk(EXACT[name](ones, ones), Target(factors, reach), start, steps=6)
    torch.testing.assert_close(free.position, swept.position)
    for one, two in zip(of_free, of_swept, strict=True):
        assert torch.equal(one.accepted, two.accepted)
        torch.testing.assert_close(one.probability, two.probability)
    assert 0 < float(torch.stack([info.accepted for info in of_free]).double().mean()) < 1


@pytest.mark.parametrize(
    ("kernel", "reach", "expected"),
    [
        (Metropolis(0.1), (0, 0), 1),
        (Metropolis(0.1), (1, 2), 4),
        (Mala(0.1), (0, 0), 1),
        (EXACT["hmc"](torch.zeros(()), torch.ones(())), (0, 0), 3),
        # The gradient at the current place is another one after each colour.
        (Mala(0.1), (0, 1), 4),
    ],
    ids=["metropolis", "metropolis coupled", "mala", "hmc", "mala coupled"],
)
def test_a_step_costs_as_many_densities_as_it_must(
    kernel: Kernel, reach: tuple[int, int], expected: int
) -> None:
    calls = 0

    def counted(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return -z.square().sum(-1)

    target, generator = Target(counted, reach), torch.Generator().manual_seed(0)
    start = torch.zeros(2, FRAMES, LATENT, dtype=torch.float64)
    state, _ = kernel.step(target, kernel.init(target, start), generator)
    calls = 0
    kernel.step(target, state, generator)
    assert calls == expected


@pytest.mark.parametrize("name", EXACT)
def test_one_impossible_frame_does_not_stop_its_neighbours(name: str) -> None:
    """Its NaN is in the neighbours' factors too; all of them leave or move on, and none ends at a NaN."""

    def factors(z: Tensor) -> Tensor:
        return torch.where((z > 2.0).any(-1), torch.nan, autoregressive(z))

    mean, covariance = gaussian_of(COUPLED["ar1"], FRAMES, LATENT)
    start = normal_chains(mean, covariance, (FRAMES, LATENT), 200, seed=1).clamp(-1.5, 1.5)
    start[:, 2:4] = 2.3
    target = Target(factors, (0, 1))
    state, infos = walk(kernel_for(name, mean, covariance), target, start, steps=60)
    assert bool(torch.isfinite(target(state.position)).all())
    moved = torch.stack([info.accepted for info in infos]).any(0).double().mean(0)
    assert float(moved.min()) > 0.9


def test_curvature_of_coupled_frames_is_that_of_each_given_the_others() -> None:
    target = COUPLED["context"]
    _, covariance = gaussian_of(target, FRAMES, LATENT)
    start = torch.zeros(FRAMES, LATENT, dtype=torch.float64)
    gaussian = Laplace(search=0, inflate=1.0).init(target, start).proposal
    assert gaussian is not None
    assert gaussian.basis is not None
    precision = covariance.inverse().reshape(FRAMES, LATENT, FRAMES, LATENT)
    blocks = torch.stack([precision[n, :, n] for n in range(FRAMES)])
    found = gaussian.basis @ torch.diag_embed(gaussian.scale**-2) @ gaussian.basis.mT
    torch.testing.assert_close(found, blocks)
