"""Step sizes follow the acceptance while a kernel warms up, and stay where they are afterwards."""

from __future__ import annotations

import pytest
import torch
from chains import ADAPTIVE, autoregressive, walk
from torch import Tensor

from pyro_minvae.inference.mcmc.base import Target, refresh
from pyro_minvae.inference.mcmc.metropolis import Metropolis

WIDTHS = torch.tensor([0.02, 0.3, 1.0, 20.0], dtype=torch.float64)


def widths(z: Tensor) -> Tensor:
    """N(0, width_n^2) in frame n, in six dimensions."""
    return -0.5 * (z / WIDTHS[:, None]).square().sum(-1)


def stationary(chains: int) -> Tensor:
    xi = torch.randn(chains, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return xi * WIDTHS[:, None]


@pytest.mark.parametrize("wanted", [None, 0.4, 0.8])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_wanted_share_is_accepted_in_each_frame(name: str, wanted: float | None) -> None:
    """From one step size that is far too large for some frames and far too small for others."""
    target = {} if wanted is None else {"target_acceptance": wanted}
    kernel = ADAPTIVE[name](step_size=1.0, warmup=150, **target)
    state, infos = walk(kernel, widths, stationary(300), steps=200)
    rates = torch.stack([info.accepted for info in infos[150:]]).double().mean((0, 1))
    torch.testing.assert_close(rates, torch.full_like(rates, kernel.target_acceptance), rtol=0.0, atol=0.06)
    assert state.scale is not None
    # Frames differ by their widths only, and so do their step sizes.
    ratio = state.scale.log().mean(0) - WIDTHS.log()
    assert float(ratio.max() - ratio.min()) < 0.15


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptation_stops_after_the_warm_up(name: str) -> None:
    kernel, generator = ADAPTIVE[name](warmup=5), torch.Generator().manual_seed(0)
    state, scales = kernel.init(widths, stationary(3)), []
    for _ in range(9):
        state, _ = kernel.step(widths, state, generator)
        scales.append(state.scale)
    for step in range(1, 5):
        assert not torch.equal(scales[step], scales[step - 1])
    for step in range(5, 9):
        assert torch.equal(scales[step], scales[4])
    state, _ = walk(ADAPTIVE[name](step_size=0.3), widths, stationary(3), steps=4)
    assert bool((state.scale == 0.3).all())  # without warm-up nothing adapts


def test_warm_up_goes_on_over_targets_and_ends_once() -> None:
    kernel = Metropolis(warmup=6)
    state, _ = walk(kernel, widths, stationary(3), steps=4)
    scales, generator = [state.scale], torch.Generator().manual_seed(1)
    for _ in range(4):
        state, _ = kernel.step(widths, refresh(kernel, widths, state), generator)
        scales.append(state.scale)
    same = [torch.equal(one, two) for one, two in zip(scales[1:], scales[:-1], strict=True)]  # type: ignore[arg-type]
    assert same == [False, False, True, True]


def test_coupled_frames_adapt_each_to_its_share() -> None:
    target = Target(autoregressive, (0, 1))
    start = torch.zeros(300, 6, 4, dtype=torch.float64)
    _, infos = walk(Metropolis(step_size=3.0, warmup=150), target, start, steps=200)
    rates = torch.stack([info.accepted for info in infos[150:]]).double().mean((0, 1))
    torch.testing.assert_close(rates, torch.full_like(rates, 0.234), rtol=0.0, atol=0.06)


def test_a_frame_that_refuses_everything_shrinks_its_step_without_end() -> None:
    """And harms no other: nothing overflows where every proposal is NaN."""

    def target(z: Tensor) -> Tensor:
        forbidden = torch.tensor([True, False])
        inside = (z == 0).all(-1)
        return torch.where(forbidden & ~inside, torch.nan, -0.5 * z.square().sum(-1))

    state, _ = walk(Metropolis(1.0, warmup=200), target, torch.zeros(5, 2, 3, dtype=torch.float64), steps=200)
    assert state.scale is not None
    assert bool(torch.isfinite(state.scale).all())
    assert bool((state.position[:, 0] == 0).all())
    assert float(state.scale[:, 0].max()) < 1e-2 < 0.3 < float(state.scale[:, 1].min())
