"""MAP updates of the speech gain: monotone, exact where they claim to be, and the published ones without a prior."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_minvae.inference import ops
from pyro_minvae.inference.ops.workspace import Workspace
from pyro_minvae.models.gain import GainPrior, marginal_gain, mean_field_gain

PRIORS = [
    GainPrior(1.0, 0.0),
    GainPrior(1.0, 1.0),
    GainPrior(0.3, 2.0),
    GainPrior(4.0, 4.0),
    GainPrior(200.0, 150.0),
]
every_prior = pytest.mark.parametrize("prior", PRIORS)


def scene(seed: int, batch: tuple[int, ...] = ()) -> tuple[Tensor, Tensor, Tensor]:
    """Speech variances of two sources [2, R, ..., N, F], a noise variance and the mixture's power [..., N, F]."""
    generator = torch.Generator().manual_seed(seed)

    def values(*shape: int) -> Tensor:
        return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).exp()

    return values(2, 3, *batch, 7, 5), 0.1 * values(*batch, 7, 5), values(*batch, 7, 5)


def marginal_objective(
    gains: Tensor, sigma: Tensor, noise: Tensor, power: Tensor, prior: GainPrior
) -> Tensor:
    """-mean_r sum_f [log V + |x|^2 / V] + sum_j log p(g_j): [..., N]."""
    total = (gains[:, None, ..., None] * sigma).sum(0) + noise
    return -(total.log() + power / total).mean(0).sum(-1) + prior.log_prob(gains).sum(0)


def step(gains: Tensor, j: int, sigma: Tensor, noise: Tensor, power: Tensor, prior: GainPrior) -> Tensor:
    up, down = (
        one / sigma.shape[1] for one in ops.gain_statistics(sigma, gains, noise, power, j, Workspace())
    )
    moved = gains.clone()
    moved[j] = marginal_gain(gains[j], up, down, prior)
    return moved


@every_prior
@pytest.mark.parametrize("batch", [(), (2,)])
def test_marginal_steps_are_monotone_to_a_point_without_gradient(
    prior: GainPrior, batch: tuple[int, ...]
) -> None:
    """Two speakers, three draws, 2000 steps; every frame by itself."""
    sigma, noise, power = scene(0, batch)
    gains = torch.ones(2, *power.shape[:-1], dtype=torch.float64)
    before = first = marginal_objective(gains, sigma, noise, power, prior)
    for number in range(2000):
        gains = step(gains, number % 2, sigma, noise, power, prior)
        after = marginal_objective(gains, sigma, noise, power, prior)
        assert float((after - before).min()) > -1e-10 * float(before.abs().max())
        before = after
    assert bool((after > first).all())
    logs = gains.log().requires_grad_()
    marginal_objective(logs.exp(), sigma, noise, power, prior).sum().backward()
    assert logs.grad is not None
    assert float(logs.grad[gains > 1e-9].abs().max()) < 1e-3


def test_a_flat_prior_gives_the_published_step() -> None:
    gain, up, down = torch.rand(3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    flat = GainPrior(1.0, 0.0)
    torch.testing.assert_close(marginal_gain(gain, up, down, flat), gain * (up / down).sqrt())
    torch.testing.assert_close(mean_field_gain(up, 8, flat), up / 8)
    # Gamma(1, 1) is one more in the denominator (derivations, eq. 12.30).
    torch.testing.assert_close(marginal_gain(gain, up, down, GainPrior()), gain * (up / (down + 1)).sqrt())


@every_prior
def test_the_mean_field_gain_is_the_maximum(prior: GainPrior) -> None:
    """Of -mean_r sum_f [log g sigma + E|sqrt(g) s|^2 / g sigma] + log p(g): no better point on a fine grid."""
    sigma, _, expected = scene(1)
    gain = mean_field_gain((expected * sigma[0].reciprocal().mean(0)).sum(-1), 5, prior)

    def objective(g: Tensor) -> Tensor:
        variance = g[..., None] * sigma[0]
        return -(variance.log() + expected / variance).mean(0).sum(-1) + prior.log_prob(g)

    best = objective(gain)
    for factor in (torch.linspace(-8, 8, 4001, dtype=torch.float64)).exp():
        assert float((objective(gain * factor) - best).max()) <= 1e-9
    logs = gain.log().requires_grad_()
    objective(logs.exp()).sum().backward()
    assert logs.grad is not None
    assert float(logs.grad.abs().max()) < 1e-8


@pytest.mark.parametrize("prior", PRIORS[1:])
def test_log_prob_is_the_gamma_density(prior: GainPrior) -> None:
    gain = torch.rand(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    gamma = torch.distributions.Gamma(*torch.tensor(prior, dtype=torch.float64))
    torch.testing.assert_close(prior.log_prob(gain), gamma.log_prob(gain))
    assert bool((PRIORS[0].log_prob(gain) == 0).all())


def test_a_strong_prior_holds_the_gain() -> None:
    sigma, noise, power = scene(2)
    gains = torch.ones(2, 7, dtype=torch.float64)
    for number in range(400):
        gains = step(gains, number % 2, sigma, noise, power, GainPrior(3e5, 1e5))
    assert float((gains - 3).abs().max()) < 0.01


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes_stay_finite_and_positive(prior: GainPrior, dtype: torch.dtype) -> None:
    """Silence, speech without power, and loud frames."""
    up = torch.tensor([0.0, 0.0, 1e-20, 1e12, 1e6], dtype=dtype)
    down = torch.tensor([0.0, 1.0, 1e-20, 1e-8, 1e6], dtype=dtype)
    gain = torch.ones(5, dtype=dtype)
    for _ in range(4000):
        gain = marginal_gain(gain, up.clamp(max=1e3) / gain, down, prior)
        assert bool(torch.isfinite(gain).all())
        assert float(gain.min()) > 0
    exact = mean_field_gain(up, 513, prior)
    assert bool(torch.isfinite(exact).all())
    assert float(exact.min()) > 0


def test_a_prior_without_a_maximum_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a shape below 6 where the rate is 0, got 6"):
        mean_field_gain(torch.ones(3), 5, GainPrior(6.0, 0.0))
    assert math.isfinite(float(mean_field_gain(torch.ones(()), 5, GainPrior(60.0, 1.0))))
