"""The decoder and the likelihood of the power, against scipy and against each other."""

from __future__ import annotations

import math

import numpy as np
import pyro.poutine as poutine
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from formulas import prior_factors
from laws import BINS, INDEPENDENT, PRIORS, make_frames, make_guide, make_model, normal_draws
from scipy import stats

from pyro_minvae.models.decoders import SpectralDecoder
from pyro_minvae.models.likelihood import ComplexGaussianPower, log_power_density
from pyro_minvae.models.mixture import log_likelihood


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


@given(st.integers(0, 1000), st.floats(0.1, 30.0), st.sampled_from([1e-8, 1e-4, 1.0]))
def test_variance_and_its_logarithm_agree_and_stay_above_the_floor(
    seed: int, size: float, floor: float
) -> None:
    decoder = SpectralDecoder(BINS, 3, (7,), floor)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
        z = 3 * torch.randn(4, 3, generator=generator)
        variance, log_variance = decoder.variance(z), decoder.log_variance(z)
    assert bool(torch.isfinite(variance).all())
    assert float(variance.min()) >= floor * (1 - 1e-6)
    tame = log_variance < 79
    torch.testing.assert_close(variance[tame].log(), log_variance[tame], rtol=1e-5, atol=1e-5)


def test_decoder_starts_at_the_average_spectrum() -> None:
    decoder = SpectralDecoder(BINS, 3, (7,), 1e-4)
    average = torch.tensor([-6.0, -3.0, 0.0, 1.0, 2.0])
    decoder.start_at(average)
    with torch.no_grad():
        decoder.output.weight.zero_()
        got = decoder.variance(torch.zeros(1, 3))[0]
    torch.testing.assert_close(got, average.exp() + 1e-4)


@pytest.mark.parametrize("kind", PRIORS)
def test_joint_density_of_the_model_is_the_product_of_its_factors(kind: str) -> None:
    """p(alpha) p(z | alpha, v) prod_f N_c(s_f; 0, sigma_f(z)), summed over all frames: a sum, not a mean."""
    guide = make_guide("concatenation")
    model, (power, visual) = make_model(kind, guide=guide), make_frames(6)
    z, alpha = normal_draws(6, 3, seed=3), torch.tensor([0.0, 1, 1, 0, 1, 0], dtype=torch.float64)
    sites = {"z": z, "alpha": alpha} if model.prior.mixed else {"z": z}
    joint = poutine.trace(poutine.condition(model, sites)).get_trace(power, visual).log_prob_sum()
    speech = stats.expon.logpdf(power.numpy(), scale=model.variance(z, visual).detach().numpy()).sum()
    of_z = prior_factors(kind, model.prior, z, visual, guide, "concatenation")
    prior = of_z[0].sum()
    if model.prior.mixed:
        pi = model.prior.audio_weight(visual)
        prior = torch.where(alpha > 0.5, of_z[1] + pi.log(), of_z[0] + torch.log1p(-pi)).sum()
    assert float(joint.detach()) == pytest.approx(speech + float(prior.detach()), rel=1e-12)


@pytest.mark.parametrize("kind", INDEPENDENT)
def test_frames_are_independent(kind: str) -> None:
    """One frame's density does not depend on its neighbours, so a permutation of frames permutes the densities."""
    model, visual = make_model(kind), make_frames(6).visual
    z, order = normal_draws(6, 3, seed=3), torch.tensor([3, 1, 5, 0, 2, 4])
    moved = visual._replace(features=visual.features[order], valid=visual.valid[order])
    torch.testing.assert_close(model.log_prior(z, visual)[order], model.log_prior(z[order], moved))
    torch.testing.assert_close(model.variance(z, visual)[order], model.variance(z[order], moved))
