"""Laws of the samplers on independent frames: each leaves its target invariant, frame by frame."""

from __future__ import annotations

import math

import pytest
import torch
from chains import ADAPTIVE, EXACT, acceptance, log_gamma, standard_errors, walk
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_minvae.config.schema import Inference
from pyro_minvae.inference.mcmc import blocked
from pyro_minvae.inference.mcmc.adam import MapAdam
from pyro_minvae.inference.mcmc.base import ChainState, Kernel, LogDensity, Target, refresh
from pyro_minvae.inference.mcmc.hmc import Hmc
from pyro_minvae.inference.mcmc.langevin import UnadjustedLangevin
from pyro_minvae.inference.mcmc.mala import Mala
from pyro_minvae.inference.mcmc.metropolis import Metropolis

MEANS = torch.tensor([[-3.0, 1.0], [0.0, 0.0], [40.0, -2.0]], dtype=torch.float64)
SCALES = torch.tensor([[0.3, 0.6], [1.0, 1.0], [5.0, 2.0]], dtype=torch.float64)
# The exact kernels, and those that keep other laws only.
EVERY = {
    **EXACT,
    "langevin": lambda mean, scale: UnadjustedLangevin(0.2),
    "map": lambda mean, scale: MapAdam(0.2),
}


def gaussians(z: Tensor) -> Tensor:
    """log N(z_n; mean_n, scale_n^2) with other moments in each of the three frames: [..., 3, 2] to [..., 3]."""
    return (-0.5 * ((z - MEANS) / SCALES) ** 2).sum(-1)


def moments_off(z: Tensor) -> float:
    """How many standard errors the worst mean or variance of chains [R, 3, 2] is away from the target's."""
    return standard_errors((z - MEANS) / SCALES)


@pytest.mark.parametrize("name", EXACT)
def test_gaussians_are_left_invariant_frame_by_frame(name: str) -> None:
    """Chains that start in the target stay in it: independent chains give exact standard errors."""
    draws = torch.randn(20000, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    kernel = EXACT[name](MEANS, SCALES)
    state, infos = walk(kernel, gaussians, MEANS + SCALES * draws, steps=12, seed=2)
    assert moments_off(state.position) < 4.5
    rates = acceptance(infos)
    assert bool((rates > 0.05).all())
    assert rates[0] < 0.9  # decisions were made
    if name in ADAPTIVE:
        assert rates[0] < rates[1] < rates[2]  # the wider the target, the more is accepted


@pytest.mark.parametrize("name", EXACT)
def test_chains_find_the_target(name: str) -> None:
    """From one point, with step sizes that adapt on the way where they can."""
    kernel = ADAPTIVE[name](warmup=60) if name in ADAPTIVE else EXACT[name](MEANS, SCALES)
    state, _ = walk(kernel, gaussians, MEANS.expand(4000, 3, 2).contiguous(), steps=130)
    assert moments_off(state.position) < 4.5


@pytest.mark.parametrize("name", [*EXACT, "langevin"])
def test_a_skewed_target_is_left_invariant(name: str) -> None:
    """The logarithm of a Gamma variable: its cumulants are polygamma functions. The unadjusted kernel fails."""
    shape = torch.tensor([[0.6, 1.0], [3.0, 2.0]], dtype=torch.float64)
    mean, variance, third = (torch.polygamma(k, shape) for k in range(3))
    count, generator = 20000, torch.Generator().manual_seed(1)
    start = torch._standard_gamma(shape.repeat(count, 1, 1), generator=generator).log()
    kernel = UnadjustedLangevin(0.6) if name == "langevin" else EXACT[name](mean, 1.2 * variance.sqrt())
    state, infos = walk(kernel, log_gamma(shape), start, steps=20, seed=3)
    centred = state.position - mean
    off = [
        ((centred.pow(k).mean(0) - moment) * math.sqrt(count) / centred.pow(k).std(0)).abs().max()
        for k, moment in ((1, 0 * mean), (2, variance), (3, third))
    ]
    if name == "langevin":
        assert max(off) > 10
        return
    assert max(off) < 4.5
    assert 0.2 < float(acceptance(infos).min()) < 0.99


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


@pytest.mark.parametrize("name", [*EXACT, "langevin"])
def test_flows_between_regions_balance(name: str) -> None:
    """Detailed balance: in equilibrium as many chains go from A to B as from B to A, for each pair of regions.

    The unadjusted kernel does not balance, which shows that the test can tell.
    """

    def target(z: Tensor) -> Tensor:
        two = torch.stack([-0.5 * (z + 1) ** 2 + math.log(0.7), -2.0 * (z - 2) ** 2 + math.log(0.6)])
        return two.logsumexp(0).sum(-1)

    generator = torch.Generator().manual_seed(3)
    grid = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    weights = target(grid[:, None]).exp()
    z = grid[torch.multinomial(weights, 60000, replacement=True, generator=generator)][:, None, None]
    zero = torch.zeros(1, 1, dtype=torch.float64)
    kernel = UnadjustedLangevin(0.9) if name == "langevin" else EXACT[name](zero, zero + 2.0)
    state, infos = walk(kernel, target, z, steps=1, seed=4)
    cuts = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    before, after = torch.bucketize(z, cuts).flatten(), torch.bucketize(state.position, cuts).flatten()
    flow = torch.bincount(3 * before + after, minlength=9).reshape(3, 3).double()
    pairs = [(float(flow[a, b]), float(flow[b, a])) for a, b in ((0, 1), (1, 2), (0, 2))]
    off = [abs(there - back) / math.sqrt(there + back + 1) for there, back in pairs]
    if name == "langevin":
        assert max(off) > 8
        return
    assert max(off) < 4.5
    assert sum(there + back > 200 for there, back in pairs) >= 2
    assert 0.1 < float(acceptance(infos)) < 0.99


@pytest.mark.parametrize("name", EVERY)
def test_frames_do_not_feel_each_other(name: str) -> None:
    """Under the same draws, another target in one frame leaves the other frames' chains as they were, bit by bit."""

    def changed(z: Tensor) -> Tensor:
        return gaussians(z) - torch.tensor([0.0, 5.0, 0.0], dtype=torch.float64) * z.square().sum(-1)

    start, kernel = MEANS.expand(50, 3, 2).contiguous() + 0.1, EVERY[name](MEANS, SCALES)
    one, _ = walk(kernel, gaussians, start, steps=20, seed=5)
    two, _ = walk(kernel, changed, start, steps=20, seed=5)
    assert torch.equal(one.position[:, [0, 2]], two.position[:, [0, 2]])
    assert not torch.equal(one.position[:, 1], two.position[:, 1])


@pytest.mark.parametrize("forbidden", [float("nan"), -float("inf"), float("inf")])
@pytest.mark.parametrize("name", EVERY)
def test_impossible_places_are_not_entered(name: str, forbidden: float) -> None:
    """An infinite density is as impossible as none: both are overflows."""

    def target(z: Tensor) -> Tensor:
        return torch.where(z[..., 0] > 0.5, forbidden, -0.5 * z.square().sum(-1))

    kernel = EVERY[name](torch.zeros(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64))
    state, infos = walk(kernel, target, torch.full((500, 3, 2), -1.0, dtype=torch.float64), steps=30)
    assert float(state.position[..., 0].max()) <= 0.5
    assert bool(torch.isfinite(state.log_density).all())
    assert float(torch.stack([info.accepted for info in infos]).any(0).double().mean()) > 0.99


@pytest.mark.parametrize("forbidden", [float("nan"), -float("inf"), float("inf")])
@pytest.mark.parametrize("name", EXACT)
def test_chains_leave_an_impossible_start(name: str, forbidden: float) -> None:
    """The first possible proposal is accepted; a frame at a possible place is decided as ever."""

    def target(z: Tensor) -> Tensor:
        return torch.where(z[..., 0] > 2.0, forbidden, -0.5 * z.square().sum(-1))

    start = torch.zeros(400, 2, 2, dtype=torch.float64)
    start[:, 0, 0] = 2.2
    kernel = EXACT[name](torch.zeros(2, 2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64))
    state, infos = walk(kernel, target, start, steps=1)
    free, left = state.position[:, 0, 0] <= 2.0, infos[0].accepted[:, 0]
    assert torch.equal(free, left)
    assert float(left.double().mean()) > 0.2
    assert not bool(infos[0].accepted[:, 1].all())
    state, _ = walk(kernel, target, start, steps=40)
    assert bool(torch.isfinite(state.log_density).all())


@pytest.mark.parametrize("name", EVERY)
def test_state_holds_the_density_of_its_position_and_steps_are_pure(name: str) -> None:
    start, kernel = MEANS.expand(10, 3, 2).clone(), EVERY[name](MEANS, SCALES)
    state, _ = walk(kernel, gaussians, start + 0.1, steps=8)
    torch.testing.assert_close(state.log_density, gaussians(state.position))
    if state.gradient is not None:
        torch.testing.assert_close(state.gradient, -(state.position - MEANS) / SCALES**2)
    assert torch.equal(start, MEANS.expand(10, 3, 2))
    again, _ = walk(kernel, gaussians, start + 0.1, steps=8)
    other, _ = walk(kernel, gaussians, start + 0.1, steps=8, seed=9)
    assert torch.equal(state.position, again.position)
    assert torch.equal(state.position, other.position) == (name == "map")


@pytest.mark.parametrize("name", EVERY)
def test_single_precision_follows_double_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same random numbers, on a density whose large constant costs single precision its last digits."""
    random = torch.randn, torch.rand
    for at, draw in zip(("randn", "rand"), random, strict=True):
        monkeypatch.setattr(
            blocked.torch,
            at,
            lambda *a, dtype=None, draw=draw, **k: draw(*a, **k, dtype=torch.float64).to(dtype),
        )
    ends = []
    for dtype in (torch.float64, torch.float32):
        means, scales = MEANS.to(dtype), SCALES.to(dtype)

        def target(z: Tensor, means: Tensor = means, scales: Tensor = scales) -> Tensor:
            return 1000.0 - 0.5 * ((z - means) / scales).square().sum(-1)

        state, infos = walk(EVERY[name](means, scales), target, means.repeat(500, 1, 1), steps=8)
        assert state.position.dtype == state.log_density.dtype == dtype
        ends.append((state.position.double(), torch.stack([info.accepted for info in infos])))
    (double, decided), (single, decided_in_single) = ends
    same = (decided == decided_in_single).all(0)
    assert float(same.double().mean()) > 0.99
    torch.testing.assert_close(single[same], double[same], rtol=1e-4, atol=1e-3)


class NoWaiting(TorchDispatchMode):
    """Refuses whatever brings a number from the device into Python."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def elsewhere(patch: pytest.MonkeyPatch) -> None:
    """Kernels go as on a device whose numbers Python would have to wait for."""
    patch.setattr(blocked, "at_hand", lambda array: False)


@pytest.mark.parametrize("reach", [(0, 0), (1, 0)])
@pytest.mark.parametrize("name", EVERY)
def test_steps_do_not_wait_for_the_device(
    name: str, reach: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch)
    kernel, target = EVERY[name](MEANS, SCALES), Target(gaussians, reach)
    state = kernel.init(target, MEANS.expand(5, 3, 2).contiguous())
    with NoWaiting():
        with pytest.raises(AssertionError):
            bool(state.position.sum() > 0)
        kernel.step(target, state, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("edge", [0.0, 50.0])
@pytest.mark.parametrize("name", EVERY)
def test_steps_are_the_same_whether_numbers_are_at_hand(
    name: str, edge: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where some proposals have no density, as beyond an edge near the chains."""

    def target(z: Tensor) -> Tensor:
        return torch.where((z > MEANS + edge).any(-1), torch.nan, gaussians(z))

    def run() -> list[Tensor]:
        state, infos = walk(EVERY[name](MEANS, SCALES), target, (MEANS - 0.5).repeat(50, 1, 1), steps=4)
        return [state.position, state.log_density, *(info.accepted for info in infos)]

    here = run()
    elsewhere(monkeypatch)
    for one, other in zip(here, run(), strict=True):
        assert torch.equal(one, other)


def test_one_leapfrog_step_is_the_langevin_move() -> None:
    start = (MEANS + 0.1).expand(300, 3, 2).contiguous()
    one, of_one = walk(Mala(0.5), gaussians, start, steps=10)
    two, of_two = walk(Hmc(0.5, leapfrogs=1), gaussians, start, steps=10)
    torch.testing.assert_close(one.position, two.position)
    rates = acceptance(of_one)
    assert torch.equal(rates, acceptance(of_two))
    assert rates[0] < 0.9


def test_correction_is_the_ratio_of_the_proposal_densities() -> None:
    """Of the Langevin move on a skewed density, from torch's own Gaussian densities."""
    target = log_gamma(torch.tensor([[0.7, 2.0]], dtype=torch.float64))
    kernel, generator = Mala(0.8), torch.Generator().manual_seed(0)
    z = torch.randn(50, 1, 2, generator=generator, dtype=torch.float64)
    xi = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    proposal = kernel.propose(target, kernel.init(target, z), xi, None)

    def move(place: Tensor) -> torch.distributions.Normal:
        leaf = place.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(target(leaf).sum(), leaf)
        return torch.distributions.Normal(place + 0.32 * gradient, 0.8)

    expected = move(proposal.position).log_prob(z) - move(z).log_prob(proposal.position)
    torch.testing.assert_close(proposal.correction, expected.sum(-1))
    assert float(expected.abs().max()) > 0.5


def test_refreshed_chains_go_on_where_they_were_under_the_new_target() -> None:
    kernel: Kernel = Mala(0.5, warmup=20)
    state, _ = walk(kernel, gaussians, MEANS.expand(20, 3, 2).contiguous(), steps=10)
    fresh = refresh(kernel, lambda z: 2 * gaussians(z), state)
    assert fresh.scale is not None
    assert fresh.gradient is not None
    assert torch.equal(fresh.position, state.position)
    assert torch.equal(fresh.scale, state.scale)
    assert fresh.age == 10
    torch.testing.assert_close(fresh.log_density, 2 * gaussians(state.position))
    torch.testing.assert_close(fresh.gradient, -2 * (state.position - MEANS) / SCALES**2)


def test_programming_errors_are_told() -> None:
    with pytest.raises(ValueError, match=r"expected a target of shape \(3,\), got \(\)"):
        Metropolis(0.1).init(lambda z: z.sum(), MEANS)
    with pytest.raises(ValueError, match="expected reach"):
        Target(gaussians, (0, -1))
    for change in ({"step_size": 0.0}, {"warmup": -1}, {"target_acceptance": 1.0}):
        with pytest.raises(ValueError, match=f"expected {next(iter(change))}"):
            Mala(**change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected leapfrogs"):
        Hmc(leapfrogs=0)


@pytest.mark.parametrize("name", EVERY)
def test_the_density_of_the_proposal_is_asked_for_last(name: str) -> None:
    """The EM loop keeps what the decoder said of it."""
    asked: list[Tensor] = []

    def target(z: Tensor) -> Tensor:
        asked.append(z.detach())
        return gaussians(z)

    kernel, generator = EVERY[name](MEANS, SCALES), torch.Generator().manual_seed(0)
    state = kernel.init(target, MEANS.expand(40, 3, 2) + 0.1)
    for _ in range(5):
        new, info = kernel.step(target, state, generator)
        expected = torch.where(info.accepted[..., None], asked[-1], state.position)
        assert torch.equal(new.position, expected)
        state = refresh(kernel, target, new)
        assert torch.equal(asked[-1], state.position)


def test_configuration_names_the_kernel_and_its_settings() -> None:
    from laws import make_model

    from pyro_minvae.inference.mcmc.independence import Independence
    from pyro_minvae.inference.mcmc.laplace import Laplace
    from pyro_minvae.inference.mcmc.registry import make_kernel
    from pyro_minvae.models.noisy import Source

    source = Source(make_model("standard"), None, torch.zeros(4, 3), torch.ones(4, 3))
    assert make_kernel(Inference(kernel="metropolis", step_size=0.03, warmup=7), source) == Metropolis(
        0.03, warmup=7
    )
    assert make_kernel(Inference(), source) == UnadjustedLangevin()
    hmc = Inference(kernel="hmc", leapfrogs=3, step_size=0.2)
    assert make_kernel(hmc, source) == Hmc(0.2, leapfrogs=3)
    kinds: dict[str, type] = {"langevin": UnadjustedLangevin, "mala": Mala, "map": MapAdam}
    kinds |= {"independence": Independence, "laplace": Laplace}
    for name, kind in kinds.items():
        assert type(make_kernel(Inference.model_validate({"kernel": name}), source)) is kind
    with pytest.raises(ValueError, match="expected a source with a spread"):
        make_kernel(Inference(kernel="independence"), source._replace(spread=None))
