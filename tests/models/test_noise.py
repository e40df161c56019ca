"""Laws of the noise model: factors stay positive and an update never lowers the objective for fixed draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyro_minvae.inference.mcem.statistics import Statistics
from pyro_minvae.models.noise.nmf import Nmf, published, raised_cosine_basis

BATCHES = st.sampled_from([(), (2,), (2, 3)])


def marginal_statistics(speech: Tensor, power: Tensor) -> Statistics:
    """mean_r |x|^2 V^-2 and mean_r V^-1 for V = sum_j speech_j + noise."""

    def means(noise: Tensor) -> tuple[Tensor, Tensor]:
        total = speech.sum(0) + noise
        return power * (total**-2).mean(0), (1 / total).mean(0)

    return Statistics(means)


def mean_field_statistics(expected: Tensor) -> Statistics:
    return Statistics(lambda noise: (expected / noise**2, 1 / noise))


class Problem(NamedTuple):
    """Fixed draws: `speech` variances [J, R, ..., N, F], the mixture's `power` [..., N, F], and a noise model."""

    speech: Tensor
    power: Tensor
    nmf: Nmf

    def objective(self) -> float:
        """-mean_r sum_nf [log V + |x|^2 / V]."""
        total = self.speech.sum(0) + self.nmf.variance()
        return float(-(total.log() + self.power / total).mean(0).sum())


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Shapes, ranks, smooth widths and levels of all sorts; some power and some speech is zero."""
    frames, bins = draw(st.integers(1, 12)), draw(st.integers(1, 8))
    batch, sources = draw(BATCHES), draw(st.integers(1, 2))
    level = 10.0 ** draw(st.integers(-8, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))

    def spread(*shape: int) -> Tensor:
        draws = (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).exp()
        return draws * (torch.rand(shape, generator=generator) < 0.9) * level

    power = spread(*batch, frames, bins) + 1e-3 * level
    speech = spread(sources, draw(st.integers(1, 3)), *batch, frames, bins)
    rank, smooth = draw(st.integers(1, 5)), draw(st.sampled_from([0.0, 1.5, 4.0, 30.0]))
    return Problem(speech, power, Nmf(power, rank=rank, smooth=smooth, generator=generator))


def assert_factors_are_proper(nmf: Nmf) -> None:
    for factor in (nmf.W, nmf.A, nmf.variance()):
        assert bool(torch.isfinite(factor).all())
        assert float(factor.min()) > 0
    torch.testing.assert_close(nmf.W.sum(-2), torch.ones_like(nmf.W.sum(-2)))


@given(problems())
@settings(max_examples=60)
def test_updates_never_lower_the_marginal_objective(problem: Problem) -> None:
    before = first = problem.objective()
    for _ in range(4):
        problem.nmf.em_step(marginal_statistics(problem.speech, problem.power))
        after = problem.objective()
        assert after >= before - 1e-9 * abs(before)
        assert_factors_are_proper(problem.nmf)
        before = after
    # Not vacuous: random factors are never the optimum.
    assert after > first


@given(problems())
@settings(max_examples=30)
def test_updates_never_lower_the_mean_field_objective(problem: Problem) -> None:
    """-sum [log WH + E|b|^2 / WH], the speech being no part of it."""
    alone = problem._replace(speech=torch.zeros_like(problem.speech[:1, :1]))
    before = alone.objective()
    for _ in range(4):
        alone.nmf.em_step(mean_field_statistics(alone.power))
        after = alone.objective()
        assert after >= before - 1e-9 * abs(before)
        assert_factors_are_proper(alone.nmf)
        before = after


@pytest.mark.parametrize("smooth", [0.0, 4.0])
def test_an_update_is_the_published_one(smooth: float) -> None:
    """W <- W sqrt([|x|^2 V^-2] H' / [V^-1] H'), columns to sum one, then H likewise (through its bumps B)."""
    generator = torch.Generator().manual_seed(3)
    speech = torch.rand(1, 4, 9, 5, generator=generator, dtype=torch.float64)
    power = 3 * torch.rand(9, 5, generator=generator, dtype=torch.float64)
    nmf = Nmf(power, rank=2, smooth=smooth, generator=generator)
    W, A = nmf.W.numpy(), nmf.A.numpy()
    B = np.eye(9) if nmf.bumps is None else nmf.bumps.numpy()
    assert (nmf.bumps is None) == (smooth == 0)

    def means(W: np.ndarray, A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        V = speech[0].numpy().transpose(0, 2, 1) + W @ A @ B  # [R, F, N]
        return power.numpy().T * (V**-2.0).mean(0), (1 / V).mean(0)

    P, Q = means(W, A)
    H = A @ B
    W = W * np.sqrt((P @ H.T) / (Q @ H.T))
    A, W = A * W.sum(0)[:, None], W / W.sum(0)
    P, Q = means(W, A)
    A = A * np.sqrt((W.T @ P @ B.T) / (W.T @ Q @ B.T))
    nmf.em_step(marginal_statistics(speech, power))
    np.testing.assert_allclose(nmf.W.numpy(), W, rtol=1e-12)
    np.testing.assert_allclose(nmf.A.numpy(), A, rtol=1e-12)
    np.testing.assert_allclose(nmf.variance().numpy(), (W @ A @ B).T, rtol=1e-12)


@pytest.mark.parametrize("fault", ["sum over draws", "power in both", "no square of V"])
def test_planted_statistics_lower_the_objective(fault: str) -> None:
    """The law above is sharp: with wrong statistics some update makes things worse."""
    generator, lowered = torch.Generator().manual_seed(0), 0
    for _ in range(10):
        speech = torch.rand(1, 3, 6, 5, generator=generator, dtype=torch.float64)
        power = 4 * torch.rand(6, 5, generator=generator, dtype=torch.float64)
        problem = Problem(speech, power, Nmf(power, rank=2, generator=generator))
        for _ in range(20):
            problem.nmf.em_step(marginal_statistics(speech, power))
        right = marginal_statistics(speech, power)

        def wrong(noise: Tensor, right=right, power=power) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
            p, q = right(noise)
            faulty = {
                "sum over draws": (3 * p, q),
                "power in both": (p, q * power),
                "no square of V": (power * q, q),
            }
            return faulty[fault]

        before = problem.objective()
        problem.nmf.em_step(Statistics(wrong))
        lowered += problem.objective() < before - 1e-6
    assert lowered > 5


def test_columns_sum_to_one_and_the_product_stays() -> None:
    power = torch.rand(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    nmf = Nmf(power, rank=3, smooth=3.0)
    nmf.W = nmf.W * torch.tensor([0.1, 3.0, 50.0], dtype=torch.float64)
    before = nmf.variance()
    # P = Q asks for no change, so that only the normalisation acts.
    nmf.em_step(Statistics(lambda noise: (torch.ones_like(noise), torch.ones_like(noise))))
    assert_factors_are_proper(nmf)
    torch.testing.assert_close(nmf.variance(), before)


def test_noise_alone_is_learnt() -> None:
    """Data of rank 1 without speech: W H converges to the variance it was made with."""
    generator = torch.Generator().manual_seed(0)
    spectrum, envelope = torch.rand(2, 40, generator=generator, dtype=torch.float64) + 0.1
    variance = envelope[:, None] * spectrum
    nmf = Nmf(variance, rank=1, generator=generator)
    for _ in range(60):
        nmf.em_step(mean_field_statistics(variance))
    torch.testing.assert_close(nmf.variance(), variance, rtol=1e-6, atol=0)


@given(problems())
@settings(max_examples=30)
def test_noise_starts_above_the_mixture_and_in_proportion_to_it(problem: Problem) -> None:
    """Each recording of a batch has its own level; the start is F times louder, up to the random factors."""
    ratio = problem.nmf.variance().mean((-1, -2)) / problem.power.mean((-1, -2)) / problem.power.shape[-1]
    assert float(ratio.min()) > 0.25
    assert float(ratio.max()) < 2.25


def test_the_published_start_does_not_listen() -> None:
    """W H of uniform factors: mean K / 4, whatever the mixture's level."""
    start = [
        published(level * torch.ones(300, 200), rank=8, generator=torch.Generator().manual_seed(0)).variance()
        for level in (1e-3, 10.0)
    ]
    assert torch.equal(*start)
    assert float(start[0].mean()) == pytest.approx(8 / 4, rel=0.05)
    assert 0.3 < float(start[0].std()) < 0.7  # sqrt(K (1/9 - 1/16)) = 0.62 and less, since rows share factors


@given(st.integers(1, 200), st.floats(1.01, 80.0))
def test_bumps_sum_to_one(frames: int, width: float) -> None:
    basis = raised_cosine_basis(frames, width)
    assert basis.shape[1] == frames
    assert float(basis.min()) >= 0
    torch.testing.assert_close(basis.sum(0), torch.ones(frames, dtype=torch.float64))
    # About as wide as was asked, so that noise cannot change faster, and not slower either.
    widest = float((basis > 1e-9).sum(1).max())
    assert widest <= width + 1
    if frames > 3 * width and width > 4:
        assert widest > 0.6 * width


def test_smooth_activations_cannot_follow_a_click() -> None:
    power = torch.full((60, 4), 0.01, dtype=torch.float64)
    power[30] = 100.0

    def of_click(smooth: float) -> float:
        nmf = Nmf(power, rank=2, smooth=smooth, generator=torch.Generator().manual_seed(0))
        for _ in range(50):
            nmf.em_step(mean_field_statistics(power))
        return float(nmf.variance()[30].mean())

    assert of_click(0.0) > 50
    assert of_click(20.0) < 20


@pytest.mark.parametrize("smooth", [0.0, 4.0])
def test_rank_and_seed_are_honoured(smooth: float) -> None:
    power = torch.rand(2, 9, 5, generator=torch.Generator().manual_seed(0))

    def make(seed: int, rank: int = 3) -> Nmf:
        return Nmf(power, rank=rank, smooth=smooth, generator=torch.Generator().manual_seed(seed))

    nmf = make(1, rank=4)
    assert nmf.W.shape == (2, 5, 4)
    assert nmf.H.shape == (2, 4, 9)
    assert nmf.variance().shape == power.shape
    assert torch.equal(make(1).W, make(1).W)
    assert torch.equal(make(1).A, make(1).A)
    assert not torch.equal(make(1).W, make(2).W)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a rank of at least 1, got 0"):
        Nmf(torch.ones(3, 2), rank=0)
    with pytest.raises(ValueError, match="finite power"):
        Nmf(torch.tensor([[1.0, float("nan")]]), rank=1)


def test_silence_stays_finite() -> None:
    nmf = Nmf(torch.zeros(5, 4), rank=2)
    for _ in range(5):
        nmf.em_step(marginal_statistics(torch.full((1, 1, 5, 4), 1e-4), torch.zeros(5, 4)))
        assert_factors_are_proper(nmf)
