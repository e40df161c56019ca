"""The joint density of clean speech and its power's distribution, against scipy and against each other."""

from __future__ import annotations

import math

import numpy as np
import pyro.poutine as poutine
import pytest
import torch
from formulas import prior_factors, prior_weight
from laws import (
    BINS,
    COUPLED,
    DOF,
    INDEPENDENT,
    MODELS,
    VISUAL,
    make_frames,
    make_guide,
    make_model,
    make_sequences,
    normal_draws,
)
from scipy import stats
from torch import Tensor

from pyro_minvae.models.likelihoods import ComplexGaussianPower, log_power_density
from pyro_minvae.models.noisy import log_likelihood
from pyro_minvae.types import Visual


def test_power_of_a_complex_gaussian_is_exponential() -> None:
    power, variance = make_frames(6).power, normal_draws(6, BINS, seed=1).exp()
    expected = stats.expon.logpdf(power.numpy(), scale=variance.numpy())
    np.testing.assert_allclose(log_power_density(power, variance.log()).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(log_likelihood(power, variance).numpy(), expected.sum(-1), rtol=1e-12)


def test_power_of_a_complex_gaussian_is_its_squared_modulus() -> None:
    """|s|^2 of s ~ N_c(0, v) has the density of `log_power_density`: -log v - |s|^2 / v is that of s up to log pi."""
    v, s = 0.7, np.array([0.3 - 0.2j, 1.1 + 0.4j])
    planar = stats.multivariate_normal([0, 0], np.eye(2) * v / 2).logpdf(np.stack([s.real, s.imag], -1))
    got = log_power_density(torch.as_tensor(np.abs(s) ** 2), torch.tensor(math.log(v), dtype=torch.float64))
    np.testing.assert_allclose(got.numpy(), planar + math.log(math.pi), rtol=1e-12)


def test_samples_have_the_moments_of_the_distribution() -> None:
    torch.manual_seed(0)
    log_variance = torch.tensor([-3.0, 0.0, 2.0])
    draws = ComplexGaussianPower(log_variance).sample((40000,)) / log_variance.exp()
    assert draws.shape == (40000, 3)
    # Exponential: mean 1, variance 1, fourth central moment 9.
    torch.testing.assert_close(draws.mean(0), torch.ones(3), atol=4.5 * 0.005, rtol=0)
    torch.testing.assert_close(draws.var(0), torch.ones(3), atol=4.5 * math.sqrt(8 / 40000), rtol=0)


@pytest.mark.parametrize(("prior", "decoder", "likelihood"), MODELS)
def test_joint_density_of_the_model_is_the_product_of_its_factors(
    prior: str, decoder: str, likelihood: str
) -> None:
    """p(alpha) p(z | alpha, v) prod_f p(w_f) N_c(s_f; 0, sigma_f(z) / w_f) over all frames: a sum, not a mean."""
    guide = make_guide("concatenation")
    model, (power, visual) = make_model(prior, decoder, likelihood, guide=guide), make_frames(6)
    z, alpha = normal_draws(6, 3, seed=3), torch.tensor([0.0, 1, 1, 0, 1, 0], dtype=torch.float64)
    sites, sigma = {"z": z}, model.variance(z, visual).detach()
    of_z = prior_factors(prior, model.prior, z, visual, guide, "concatenation")
    expected = of_z[0].sum()
    if model.prior.mixed:
        sites["alpha"] = alpha
        pi = prior_weight(model.prior, visual)
        expected = torch.where(alpha > 0.5, of_z[1] + pi.log(), of_z[0] + (1 - pi).log()).sum()
    if model.likelihood.weighted:
        sites["w"] = w = normal_draws(6, BINS, seed=4).exp()
        sigma = sigma / w
        expected = expected + stats.gamma.logpdf(w.numpy(), DOF / 2, scale=2 / DOF).sum()
    joint = poutine.trace(poutine.condition(model, sites)).get_trace(power, visual).log_prob_sum()
    expected = expected + stats.expon.logpdf(power.numpy(), scale=sigma.numpy()).sum()
    assert float(joint.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)


@pytest.mark.parametrize(("prior", "decoder", "likelihood"), MODELS)
def test_sequences_are_as_each_alone(prior: str, decoder: str, likelihood: str) -> None:
    """Priors and likelihoods of z [R, B, N, L] are those of each chain and recording."""
    model, (power, visual) = make_model(prior, decoder, likelihood), make_sequences(2, 4)
    z = normal_draws(3, 2, 4, 3, seed=5)
    whole = model.log_prior(z, visual), model.log_likelihood(power, z, visual)
    for b in range(2):
        lips = Visual(visual.features[b], visual.valid[b])
        torch.testing.assert_close(model.log_prior(z[1, b], lips), whole[0][1, b])
        torch.testing.assert_close(model.log_likelihood(power[b], z[1, b], lips), whole[1][1, b])
    given = model.given(visual)
    torch.testing.assert_close(given.prior.log_prob(z), whole[0])
    torch.testing.assert_close(given.variance(z), model.variance(z, visual))
    assert given.reach == model.reach


@pytest.mark.parametrize(("prior", "decoder", "likelihood"), MODELS)
def test_lips_are_looked_at_by_models_that_say_so(prior: str, decoder: str, likelihood: str) -> None:
    model, (power, visual) = make_model(prior, decoder, likelihood), make_frames(5, valid=1.0)
    z, other = normal_draws(5, 3, seed=6), visual._replace(features=-visual.features)

    def density(lips: Visual) -> Tensor:
        return model.log_prior(z, lips) + model.log_likelihood(power, z, lips)

    assert model.visual == bool((density(visual) != density(other)).any())
    assert model.visual == (prior in VISUAL or decoder == "lips")
    assert model.coupled == (prior in COUPLED or decoder == "context")


@pytest.mark.parametrize("kind", INDEPENDENT)
def test_frames_are_independent(kind: str) -> None:
    """One frame's density does not depend on its neighbours, so a permutation of frames permutes the densities."""
    model, visual = make_model(kind), make_frames(6).visual
    z, order = normal_draws(6, 3, seed=3), torch.tensor([3, 1, 5, 0, 2, 4])
    moved = visual._replace(features=visual.features[order], valid=visual.valid[order])
    torch.testing.assert_close(model.log_prior(z, visual)[order], model.log_prior(z[order], moved))
    torch.testing.assert_close(model.variance(z, visual)[order], model.variance(z[order], moved))
