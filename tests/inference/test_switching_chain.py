"""The chain of modes against every path by itself, against Pyro's hidden Markov model, and against its derivative."""

from __future__ import annotations

import itertools
import math

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_minvae.inference.switching.hmm import forward_backward, maximise_transition, viterbi

SIZES = [(1, 2), (2, 3), (4, 2), (5, 3), (6, 3)]


def problem(frames: int, modes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """log b [N, M], log T [M, M] and log initial [M]."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return 3 * draw(frames, modes), draw(modes, modes).log_softmax(-1), draw(modes).log_softmax(-1)


def paths(log_b: Tensor, log_t: Tensor, log_i: Tensor) -> dict[tuple[int, ...], float]:
    """log p(m) prod b of every path."""
    frames, modes = log_b.shape
    return {
        path: float(
            log_i[path[0]]
            + sum(log_b[n, k] for n, k in enumerate(path))
            + sum(log_t[j, k] for j, k in itertools.pairwise(path))
        )
        for path in itertools.product(range(modes), repeat=frames)
    }


@pytest.mark.parametrize(("frames", "modes"), SIZES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_posterior_is_that_of_all_paths(frames: int, modes: int, seed: int) -> None:
    made = problem(frames, modes, seed)
    found = forward_backward(*made)
    each = paths(*made)
    log_z = math.log(sum(math.exp(value) for value in each.values()))
    posterior, pairwise = torch.zeros(frames, modes).double(), torch.zeros(frames - 1, modes, modes).double()
    for path, value in each.items():
        share = math.exp(value - log_z)
        for n, k in enumerate(path):
            posterior[n, k] += share
        for n, (j, k) in enumerate(itertools.pairwise(path)):
            pairwise[n, j, k] += share
    assert float(found.log_evidence) == pytest.approx(log_z, abs=1e-10)
    torch.testing.assert_close(found.posterior, posterior)
    torch.testing.assert_close(found.pairwise, pairwise)


@pytest.mark.parametrize(("frames", "modes"), SIZES)
def test_every_step_may_have_transitions_of_its_own(frames: int, modes: int) -> None:
    log_b, _, log_i = problem(frames, modes)
    generator = torch.Generator().manual_seed(5)
    log_t = torch.randn(frames - 1, modes, modes, generator=generator).double().log_softmax(-1)
    found = forward_backward(log_b, log_t, log_i, stepwise=True)
    weights = torch.zeros(frames, modes).double()
    for path in itertools.product(range(modes), repeat=frames):
        value = log_i[path[0]] + sum(log_b[n, k] for n, k in enumerate(path))
        value = value + sum(log_t[n, j, k] for n, (j, k) in enumerate(itertools.pairwise(path)))
        for n, k in enumerate(path):
            weights[n, k] += value.exp()
    torch.testing.assert_close(found.posterior, weights / weights.sum(-1, keepdim=True))
    same = forward_backward(log_b, log_t[:1].expand_as(log_t), log_i, stepwise=True)
    if frames > 1:
        torch.testing.assert_close(same.posterior, forward_backward(log_b, log_t[0], log_i).posterior)


@pytest.mark.parametrize(("frames", "modes"), SIZES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_viterbi_finds_the_best_of_all_paths(frames: int, modes: int, seed: int) -> None:
    made = problem(frames, modes, seed)
    each = paths(*made)
    assert tuple(viterbi(*made).tolist()) == max(each, key=lambda path: each[path])


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_the_evidence_is_that_of_pyros_hidden_markov_model(frames: int) -> None:
    _, log_t, log_before = problem(frames, 3)
    observed = dist.Normal(torch.tensor([-1.0, 0.0, 2.0]).double(), 1.0)
    data = torch.randn(frames, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # Pyro's chain takes one step before the first observation.
    log_i = (log_before.exp() @ log_t.exp()).log()
    found = forward_backward(observed.log_prob(data[:, None]), log_t, log_i)
    theirs = dist.DiscreteHMM(log_before, log_t, observed).log_prob(data)
    torch.testing.assert_close(found.log_evidence, theirs)


def test_the_derivative_of_the_evidence_is_the_posterior() -> None:
    log_b, log_t, log_i = problem(7, 3)
    log_b.requires_grad_()
    found = forward_backward(log_b, log_t, log_i)
    (gradient,) = torch.autograd.grad(found.log_evidence, log_b)
    torch.testing.assert_close(gradient, found.posterior.detach())


def test_marginals_of_pairs_are_the_posterior() -> None:
    found = forward_backward(*problem(40, 3))
    torch.testing.assert_close(found.pairwise.sum(-1), found.posterior[:-1])
    torch.testing.assert_close(found.pairwise.sum(-2), found.posterior[1:])


def test_padding_changes_nothing_and_recordings_do_not_mix() -> None:
    lengths, (log_b, log_t, log_i) = [5, 3, 1], problem(15, 3)
    batch = log_b.reshape(3, 5, 3)
    valid = torch.arange(5) < torch.tensor(lengths)[:, None]
    # What stands in the padding must not matter, even if it is no number.
    batch = torch.where(valid[..., None], batch, math.nan)
    found, path = forward_backward(batch, log_t, log_i, valid), viterbi(batch, log_t, log_i, valid)
    for one, length in enumerate(lengths):
        alone = forward_backward(batch[one, :length], log_t, log_i)
        torch.testing.assert_close(found.posterior[one, :length], alone.posterior)
        torch.testing.assert_close(found.pairwise[one, : length - 1], alone.pairwise)
        torch.testing.assert_close(found.log_evidence[one], alone.log_evidence)
        assert (found.pairwise[one, length - 1 :] == 0).all()
        assert path[one, :length].equal(viterbi(batch[one, :length], log_t, log_i))


def test_long_recordings_neither_underflow_nor_lose_digits() -> None:
    log_b, log_t, log_i = problem(4000, 2)
    found = forward_backward(log_b.float() - 3000, log_t.float(), log_i.float())
    exact = forward_backward(log_b - 3000, log_t, log_i)
    assert torch.isfinite(found.log_evidence)
    torch.testing.assert_close(found.posterior, exact.posterior.float(), rtol=0, atol=0.01)
    torch.testing.assert_close(exact.posterior.sum(-1), torch.ones(4000).double())


def test_impossible_modes_stay_impossible() -> None:
    log_b, log_t, log_i = problem(6, 3)
    log_t = torch.where(torch.eye(3, dtype=torch.bool).roll(1, 0), -math.inf, log_t).log_softmax(-1)
    log_b[2, 1] = -math.inf
    found = forward_backward(log_b, log_t, log_i)
    assert found.posterior[2, 1] == 0
    assert (found.pairwise[:, log_t == -math.inf] == 0).all()
    assert torch.isfinite(found.posterior).all()


@pytest.mark.parametrize("independent", [False, True])
def test_transitions_maximise_what_they_are_expected_to_say(independent: bool) -> None:
    """No other matrix has a higher E_r[log p(m)] + log p(T)."""
    found = forward_backward(*problem(30, 3))
    kappa = 1 + torch.rand(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value(log_t: Tensor, log_i: Tensor) -> Tensor:
        said = (found.pairwise * log_t).sum() + (found.posterior[0] * log_i).sum()
        return said + ((kappa - 1) * log_t).sum()

    best = maximise_transition(found.pairwise, found.posterior, kappa, independent=independent)
    torch.testing.assert_close(best[0].exp().sum(-1), torch.ones(3).double())
    for seed in range(50):
        _, log_t, log_i = problem(1, 3, seed)
        if independent:
            log_t = log_i.expand(3, 3)
        mixed = [
            0.9 * mine.exp() + 0.1 * other.exp() for mine, other in zip(best, (log_t, log_i), strict=True)
        ]
        assert value(*best) >= value(mixed[0].log(), mixed[1].log()) - 1e-9


@pytest.mark.parametrize("shapes", [((3, 2), (3, 3), (2,)), ((3, 2), (2, 2), (3,)), ((0, 2), (2, 2), (2,))])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        forward_backward(*(torch.zeros(shape) for shape in shapes))
