"""Laws of the samplers: each leaves its target invariant, frame by frame."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_minvae.config import Inference
from pyro_minvae.inference.kernels.base import ChainState, Kernel, LogDensity
from pyro_minvae.inference.kernels.metropolis import Metropolis
from pyro_minvae.inference.mcem import make_kernel

# Every kernel obeys these laws; steps are wide, so that proposals are often refused.
KERNELS = {"metropolis": Metropolis(1.5)}
MEANS = torch.tensor([[-3.0, 1.0], [0.0, 0.0], [40.0, -2.0]], dtype=torch.float64)
SCALES = torch.tensor([[0.3, 0.6], [1.0, 1.0], [5.0, 2.0]], dtype=torch.float64)


def gaussians(z: Tensor) -> Tensor:
    """log N(z_n; mean_n, scale_n^2) with other moments in each of the three frames: [..., 3, 2] to [..., 3]."""
    return (-0.5 * ((z - MEANS) / SCALES) ** 2).sum(-1)


def walk(
    kernel: Kernel, target: LogDensity, start: Tensor, steps: int, seed: int = 0
) -> tuple[ChainState, list[Tensor]]:
    """The state after some steps, and which frames accepted at each."""
    generator, accepted = torch.Generator().manual_seed(seed), []
    state = kernel.init(target, start)
    for _ in range(steps):
        state, info = kernel.step(target, state, generator)
        accepted.append(info.accepted)
    return state, accepted


def moments_off(z: Tensor) -> float:
    """How many standard errors the worst mean or variance of chains [R, 3, 2] is away from the target's."""
    chains = z.shape[0]
    unit = (z - MEANS) / SCALES
    of_mean = unit.mean(0) * math.sqrt(chains)
    of_variance = (unit.var(0) - 1) * math.sqrt(chains / 2)
    return float(torch.stack([of_mean, of_variance]).abs().max())


@pytest.mark.parametrize("name", KERNELS)
def test_gaussians_are_left_invariant_frame_by_frame(name: str) -> None:
    """Chains that start in the target stay in it: independent chains give exact standard errors."""
    chains = 20000
    draws = torch.randn(chains, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    state, accepted = walk(KERNELS[name], gaussians, MEANS + SCALES * draws, steps=15, seed=2)
    assert moments_off(state.position) < 4.5
    rates = torch.stack(accepted).double().mean((0, 1))
    assert bool(((rates > 0.05) & (rates < 0.95)).all())  # decisions were made in every frame
    assert rates[0] < rates[1] < rates[2]  # the wider the target, the more is accepted


@pytest.mark.parametrize("name", KERNELS)
def test_chains_find_the_target(name: str) -> None:
    state, _ = walk(KERNELS[name], gaussians, MEANS.expand(4000, 3, 2).contiguous(), steps=150)
    assert moments_off(state.position) < 4.5


@pytest.mark.parametrize("fault", ["accept all", "accept uphill only", "one decision for all frames"])
def test_planted_faults_are_seen(fault: str) -> None:
    class Faulty(Metropolis):
        def step(self, log_density: LogDensity, state: ChainState, generator: torch.Generator):  # type: ignore[no-untyped-def]
            if fault == "accept all":
                return super().step(
                    lambda z: torch.zeros(z.shape[:-1]),
                    state._replace(log_density=state.log_density * 0),
                    generator,
                )
            if fault == "accept uphill only":
                return super().step(
                    lambda z: 1e6 * log_density(z),
                    state._replace(log_density=1e6 * state.log_density),
                    generator,
                )
            # Frames that share one decision based on the first frame's density do not keep their own target.
            first = state.log_density[..., :1].expand_as(state.log_density)
            new, info = super().step(
                lambda z: log_density(z)[..., :1].expand(z.shape[:-1]),
                state._replace(log_density=first),
                generator,
            )
            return new._replace(log_density=log_density(new.position)), info

    draws = torch.randn(20000, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    state, _ = walk(Faulty(1.5), gaussians, MEANS + SCALES * draws, steps=15, seed=2)
    assert moments_off(state.position) > 10


@pytest.mark.parametrize("name", KERNELS)
def test_flows_between_regions_balance(name: str) -> None:
    """Detailed balance: in equilibrium as many chains go from A to B as from B to A, for each pair of regions."""

    def target(z: Tensor) -> Tensor:
        two = torch.stack([-0.5 * (z + 1) ** 2 + math.log(0.7), -2.0 * (z - 2) ** 2 + math.log(0.6)])
        return two.logsumexp(0).sum(-1)

    generator = torch.Generator().manual_seed(3)
    grid = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    weights = target(grid[:, None]).exp()
    z = grid[torch.multinomial(weights, 60000, replacement=True, generator=generator)][:, None, None]
    state, accepted = walk(KERNELS[name], target, z, steps=1, seed=4)
    cuts = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    before, after = torch.bucketize(z, cuts).flatten(), torch.bucketize(state.position, cuts).flatten()
    flow = torch.bincount(3 * before + after, minlength=9).reshape(3, 3).double()
    for a, b in ((0, 1), (1, 2), (0, 2)):
        there, back = float(flow[a, b]), float(flow[b, a])
        assert there + back > 200
        assert abs(there - back) < 4.5 * math.sqrt(there + back)
    assert 0.2 < float(accepted[0].double().mean()) < 0.95


@pytest.mark.parametrize("name", KERNELS)
def test_frames_do_not_feel_each_other(name: str) -> None:
    """Under the same draws, another target in one frame leaves the other frames' chains as they were, bit by bit."""

    def changed(z: Tensor) -> Tensor:
        return gaussians(z) - torch.tensor([0.0, 5.0, 0.0], dtype=torch.float64) * z.square().sum(-1)

    start = MEANS.expand(50, 3, 2).contiguous()
    one, _ = walk(KERNELS[name], gaussians, start, steps=20, seed=5)
    two, _ = walk(KERNELS[name], changed, start, steps=20, seed=5)
    assert torch.equal(one.position[:, [0, 2]], two.position[:, [0, 2]])
    assert not torch.equal(one.position[:, 1], two.position[:, 1])


@pytest.mark.parametrize("forbidden", [float("nan"), -float("inf")])
@pytest.mark.parametrize("name", KERNELS)
def test_impossible_places_are_not_entered(name: str, forbidden: float) -> None:
    def target(z: Tensor) -> Tensor:
        return torch.where(z[..., 0] > 0.5, forbidden, -0.5 * z.square().sum(-1))

    state, accepted = walk(KERNELS[name], target, torch.zeros(500, 3, 2, dtype=torch.float64), steps=30)
    assert float(state.position[..., 0].max()) <= 0.5
    assert bool(torch.isfinite(state.log_density).all())
    assert float(torch.stack(accepted).any(0).double().mean()) > 0.99


@pytest.mark.parametrize("name", KERNELS)
def test_state_holds_the_density_of_its_position_and_steps_are_pure(name: str) -> None:
    start = MEANS.expand(10, 3, 2).clone()
    state, _ = walk(KERNELS[name], gaussians, start, steps=8)
    torch.testing.assert_close(state.log_density, gaussians(state.position))
    assert torch.equal(start, MEANS.expand(10, 3, 2))
    again, _ = walk(KERNELS[name], gaussians, start, steps=8)
    other, _ = walk(KERNELS[name], gaussians, start, steps=8, seed=9)
    assert torch.equal(state.position, again.position)
    assert not torch.equal(state.position, other.position)


def test_configuration_names_the_kernel_and_its_step() -> None:
    assert make_kernel(Inference(step_size=0.03)) == Metropolis(0.03)
