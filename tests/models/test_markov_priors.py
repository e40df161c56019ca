"""Priors over time against multivariate normals: covariances, factors, samples, divergences, and Pyro's own loop."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from formulas import log_gaussian, markov_parameters
from hypothesis import given
from hypothesis import strategies as st
from laws import COUPLED, make_prior, make_sequences, normal_draws
from scipy import stats
from torch import Tensor

from pyro_minvae.models.distributions import MarkovNormal, as_event, normal
from pyro_minvae.models.divergences import gaussian_kl, kl, markov_kl
from pyro_minvae.models.priors import Ar1Prior, Prior, RandomWalkPrior

FRAMES, LATENT = 6, 3


def chain_of(prior: Prior, frames: int = FRAMES) -> MarkovNormal:
    chain = prior.given(None, None, frames)
    assert isinstance(chain, MarkovNormal)
    return chain


@torch.no_grad()
def covariances(kind: str, prior: Prior, frames: int = FRAMES) -> np.ndarray:
    """cov(z_n, z_m) of each dimension, [L, N, N]: rho^|n - m|, or 1 + tau^2 min(n, m) for n, m = 0, 1, ..."""
    c, tau = (x.numpy()[:, None, None] for x in markov_parameters(kind, prior))
    n, m = np.meshgrid(np.arange(frames), np.arange(frames))
    return c ** np.abs(n - m) if kind == "ar1" else 1 + tau**2 * np.minimum(n, m)


@pytest.mark.parametrize("kind", COUPLED)
@torch.no_grad()
def test_joint_density_is_that_of_the_multivariate_normal(kind: str) -> None:
    """(derivations, eq. 3.10, 3.11), and every factor is what one more frame adds (eq. 3.12)."""
    prior, z = make_prior(kind), normal_draws(FRAMES, LATENT, seed=1)
    covariance, factors = covariances(kind, prior), prior.log_prob(z, None)
    prefixes = [
        sum(
            stats.multivariate_normal(cov=covariance[dim, :n, :n]).logpdf(z[:n, dim].numpy())
            for dim in range(LATENT)
        )
        for n in range(1, FRAMES + 1)
    ]
    np.testing.assert_allclose(chain_of(prior).log_prob(z).item(), prefixes[-1], rtol=1e-10)
    np.testing.assert_allclose(factors.cumsum(0).numpy(), prefixes, rtol=1e-10)


@pytest.mark.parametrize("kind", COUPLED)
def test_density_is_that_of_a_sequential_model_with_pyro_markov(kind: str) -> None:
    """The same prior as a loop over frames, each of which remembers the one before."""
    prior, z = make_prior(kind), normal_draws(FRAMES, LATENT, seed=2)
    coefficient, innovation = markov_parameters(kind, prior)

    def sequential() -> None:
        before = None
        for n in pyro.markov(range(FRAMES)):
            mean = torch.zeros(LATENT).double() if before is None else coefficient * before
            scale = torch.ones(LATENT).double() if before is None else innovation
            before = pyro.sample(f"z_{n}", dist.Normal(mean, scale).to_event(1))

    trace = poutine.trace(poutine.condition(sequential, {f"z_{n}": z[n] for n in range(FRAMES)})).get_trace()
    trace.compute_log_prob()
    of_frames = torch.stack([trace.nodes[f"z_{n}"]["log_prob"] for n in range(FRAMES)])
    torch.testing.assert_close(prior.log_prob(z, None), of_frames)
    torch.testing.assert_close(chain_of(prior).log_prob(z), trace.log_prob_sum())
    # The gradients with respect to what is learned agree too.
    (parameter,) = prior.parameters()
    wanted, got = (
        torch.autograd.grad(x, parameter)[0] for x in (trace.log_prob_sum(), prior.log_prob(z, None).sum())
    )
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("kind", COUPLED)
@torch.no_grad()
def test_samples_have_the_covariance(kind: str) -> None:
    torch.manual_seed(0)
    prior, draws = make_prior(kind), 20000
    z = chain_of(prior).sample((draws,))
    assert z.shape == (draws, FRAMES, LATENT)
    wanted = torch.as_tensor(covariances(kind, prior))
    got = torch.einsum("rnl,rml->lnm", z, z) / draws
    variances = wanted.diagonal(dim1=1, dim2=2)
    # The variance of a product of two jointly normal variables is v_n v_m + cov^2.
    error = ((variances[:, :, None] * variances[:, None, :] + wanted**2) / draws).sqrt()
    assert float(((got - wanted) / error).abs().max()) < 4.5
    assert float((z.mean(0) / (variances.T / draws).sqrt()).abs().max()) < 4.5
    torch.testing.assert_close(chain_of(prior).mean, torch.zeros(FRAMES, LATENT).double())
    torch.testing.assert_close(chain_of(prior).variance, variances.T.contiguous())
    # Dimensions are independent of each other.
    across = torch.einsum("rn,rm->nm", z[..., 0], z[..., 1]) / draws
    assert float((across / (variances[0, :, None] * variances[1] / draws).sqrt()).abs().max()) < 4.5


@torch.no_grad()
def test_ar1_is_stationary() -> None:
    """Every frame alone is N(0, I), however late."""
    torch.manual_seed(1)
    z = chain_of(make_prior("ar1"), 40).sample((4000,))
    for frame in (0, 1, 20, 39):
        assert stats.kstest(z[:, frame, 0].numpy(), stats.norm().cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", COUPLED)
def test_samples_carry_the_gradient(kind: str) -> None:
    """d z_n / d parameter of the recursion at fixed noise, against finite differences."""
    prior = make_prior(kind)
    (parameter,) = prior.parameters()

    def last(shift: float) -> Tensor:
        with torch.no_grad():
            parameter.add_(shift)
        torch.manual_seed(3)
        value = chain_of(prior).rsample()[-1]
        with torch.no_grad():
            parameter.sub_(shift)
        return value

    (gradient,) = torch.autograd.grad(last(0.0).sum(), parameter)
    numeric = (last(1e-5) - last(-1e-5)) / 2e-5
    torch.testing.assert_close(gradient, numeric.detach(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", COUPLED)
@torch.no_grad()
def test_divergence_is_that_of_multivariate_normals(kind: str) -> None:
    """sum_n k_n = KL(N(m, diag v) || N(0, C)) = 1/2 [tr C^-1 v + m' C^-1 m - N - log|v| / |C|] (eq. 3.17)."""
    prior = make_prior(kind)
    mean, scale = normal_draws(FRAMES, LATENT, seed=4), normal_draws(FRAMES, LATENT, seed=5).exp()
    terms = markov_kl((mean, scale), chain_of(prior))
    expected = 0.0
    for dim, covariance in enumerate(covariances(kind, prior)):
        m, v, inverse = mean[:, dim].numpy(), scale[:, dim].numpy() ** 2, np.linalg.inv(covariance)
        quadratic = np.trace(inverse @ np.diag(v)) + m @ inverse @ m - FRAMES
        expected += 0.5 * (quadratic + np.linalg.slogdet(covariance)[1] - np.log(v).sum())
    assert terms.shape == (FRAMES,)
    np.testing.assert_allclose(terms.sum().item(), expected, rtol=1e-10)
    # The closed form is what the bound takes.
    torch.testing.assert_close(kl(normal(mean, scale), chain_of(prior), mean), terms)
    # k_n is the divergence from a Gaussian around the mean of the frame before, and what its spread adds.
    c, tau = markov_parameters(kind, prior)
    ahead = gaussian_kl((mean[1:], scale[1:]), (c * mean[:-1], tau.expand(FRAMES - 1, -1)))
    torch.testing.assert_close(terms[1:], ahead + 0.5 * (c * scale[:-1] / tau).square().sum(-1))
    torch.testing.assert_close(terms[0], gaussian_kl((mean[0], scale[0]), (torch.zeros(3), torch.ones(3))))


@pytest.mark.parametrize("kind", COUPLED)
@torch.no_grad()
def test_sequences_are_leading_dimensions(kind: str) -> None:
    prior, z = make_prior(kind), normal_draws(5, 2, FRAMES, LATENT, seed=6)
    chain = as_event(prior.given(None, None, FRAMES), (2, FRAMES))
    assert chain.batch_shape == (2,)
    assert chain.event_shape == (FRAMES, LATENT)
    assert chain.sample((5,)).shape == z.shape
    joint, factors = chain.log_prob(z), prior.log_prob(z, make_sequences(2, FRAMES).visual)
    assert joint.shape == (5, 2)
    torch.testing.assert_close(factors.sum(-1), joint)
    torch.testing.assert_close(joint[3, 1], chain_of(prior).log_prob(z[3, 1]))
    torch.manual_seed(7)
    one, other = chain.sample()
    assert bool((one != other).all())


@given(st.floats(-1e4, 1e4))
def test_coefficients_stay_where_the_chain_is_proper(logit: float) -> None:
    prior = Ar1Prior(2)
    with torch.no_grad():
        prior.logit.fill_(logit)
        rho, density = prior.coefficient, prior.log_prob(torch.ones(4, 2), None)
    assert bool(((rho >= 0) & (rho < 1)).all())
    assert bool(torch.isfinite(density).all())


def test_priors_start_as_they_are_told() -> None:
    torch.testing.assert_close(Ar1Prior(3, 0.7).coefficient, torch.full((3,), 0.7))
    torch.testing.assert_close(chain_of(Ar1Prior(3, 0.6)).innovation, torch.full((3,), 0.8))
    walk = chain_of(RandomWalkPrior(3, 0.25))
    torch.testing.assert_close((walk.coefficient, walk.innovation), (torch.ones(3), torch.full((3,), 0.25)))


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 1.5, math.nan])
def test_a_coefficient_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=f"expected a coefficient between 0 and 1, got {value}"):
        Ar1Prior(2, value)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_step_that_is_not_positive_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=f"expected a positive step, got {value}"):
        RandomWalkPrior(2, value)


@torch.no_grad()
def test_planted_innovation_fault_is_seen() -> None:
    """The comparison with the multivariate normal is sharp: tau = 1 - rho^2 in place of its root fails it."""
    prior, z = make_prior("ar1"), normal_draws(FRAMES, LATENT, seed=8)
    rho = prior.coefficient
    wrong = MarkovNormal(rho, 1 - rho**2).log_prob(z)
    assert abs(float(wrong - chain_of(prior).log_prob(z))) > 0.1
    frames = log_gaussian(z, torch.zeros(3), torch.ones(3)).sum()
    assert abs(float(frames - chain_of(prior).log_prob(z))) > 0.1
