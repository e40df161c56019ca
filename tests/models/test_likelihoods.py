"""The heavy-tailed likelihood: its weight summed out, its posterior, its tails, and the complex Gaussian at its end."""

from __future__ import annotations

import math

import numpy as np
import pyro.poutine as poutine
import pytest
import torch
from laws import DOF, MODELS, make_frames, make_model, normal_draws
from scipy import integrate, optimize, stats
from torch import Tensor

from pyro_minvae.models.likelihoods import ComplexGaussian, ComplexGaussianPower, Likelihood, StudentT
from pyro_minvae.models.speech import SpeechModel

DOFS = (0.7, 2.0, 5.0)
POWERS, SIGMAS = (0.0, 0.3, 4.0, 1e3), (0.05, 2.0)


def f64(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("dof", DOFS)
def test_density_is_the_mixture_over_the_weights(dof: float) -> None:
    """int p(P | w) p(w) dw by quadrature, and scipy's Lomax (derivations, eq. 4.3)."""
    a, likelihood = dof / 2, StudentT(dof)
    for power in POWERS:
        for sigma in SIGMAS:
            got = float(likelihood.log_prob(f64(power), f64(math.log(sigma))))
            t = power / sigma

            # Substituted u = log w, where the integrand is smooth and narrow around its peak.
            def integrand(u: float, t: float = t) -> float:
                w = math.exp(u)
                return stats.gamma.pdf(w, a, scale=1 / a) * w * math.exp(-w * t) * w

            peak = math.log((a + 1) / (a + t))
            value, _ = integrate.quad(integrand, peak - 40, peak + 12, points=[peak], limit=400, epsabs=0)
            assert got == pytest.approx(math.log(value / sigma), abs=1e-7)
            assert got == pytest.approx(stats.lomax.logpdf(power, a, scale=a * sigma), rel=1e-12, abs=1e-12)


def test_density_becomes_the_complex_gaussian() -> None:
    """(derivations, eq. 4.5): the distance falls like 1 / dof."""
    power, log_variance = make_frames(6).power, normal_draws(6, 5, seed=1)
    wanted = ComplexGaussian().log_prob(power, log_variance)
    gaps = [
        float((StudentT(dof).log_prob(power, log_variance) - wanted).abs().max()) for dof in (1e2, 1e4, 1e6)
    ]
    assert gaps[0] > 50 * gaps[1] > 2500 * gaps[2]
    assert gaps[2] < 1e-3


@pytest.mark.parametrize("dof", DOFS)
def test_weights_cancel_draw_by_draw(dof: float) -> None:
    """log p(s | w) + log p(w) - log q(w | s) = log p(s) for every w > 0 (derivations, eq. 4.7)."""
    likelihood = StudentT(dof)
    power, log_variance = make_frames(6).power, normal_draws(6, 5, seed=2)
    ratio = power / log_variance.exp()
    for seed in range(3):
        w = (2 * normal_draws(6, 5, seed=3 + seed)).exp()
        of_s = ComplexGaussianPower(log_variance - w.log()).log_prob(power)
        prior = likelihood.weight_prior(w).log_prob(w)
        total = of_s + prior - likelihood.weight_posterior(ratio).log_prob(w)
        torch.testing.assert_close(total, likelihood.log_prob(power, log_variance), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(likelihood.log_weight_density(w), prior)
        expected = stats.gamma.logpdf(w.numpy(), dof / 2, scale=2 / dof)
        np.testing.assert_allclose(prior.numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dof", DOFS)
@pytest.mark.parametrize("ratio", [0.0, 0.3, 7.0])
def test_point_estimates_of_the_weight(dof: float, ratio: float) -> None:
    """The mean of q(w) by quadrature, and the maximum of p(w) p(s | w) by search."""
    a, likelihood = dof / 2, StudentT(dof)

    def joint(w: float) -> float:
        return float(stats.gamma.pdf(w, a, scale=1 / a) * w * math.exp(-w * ratio))

    mean = likelihood.weight(f64(ratio), mode=False).item()
    mode = likelihood.weight(f64(ratio), mode=True).item()
    end = 60 * mean
    mass = integrate.quad(joint, 0, end, points=[mean], limit=200)[0]
    first = integrate.quad(lambda w: w * joint(w), 0, end, points=[mean], limit=200)[0]
    assert mean == pytest.approx(first / mass, rel=1e-6)
    assert mean == pytest.approx(likelihood.weight_posterior(f64(ratio)).mean.item())
    found = optimize.minimize_scalar(
        lambda u: -math.log(joint(math.exp(u))) if joint(math.exp(u)) > 0 else math.inf,
        bounds=(math.log(mode) - 3, math.log(mode) + 3),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert mode == pytest.approx(math.exp(found.x), rel=1e-5)
    assert mode < mean


@pytest.mark.parametrize("dof", [1.0, 6.0])
@torch.no_grad()
def test_samples_of_the_model_have_its_tails(dof: float) -> None:
    """s / sigma of ancestral samples is Lomax; far more of them are large than an exponential's."""
    model = make_model("standard")
    model = SpeechModel(model.prior, model.decoder, StudentT(dof))
    _, visual = make_frames(3000)
    torch.manual_seed(0)
    trace = poutine.trace(model).get_trace(None, visual)
    ratio = (trace.nodes["s"]["value"] / model.variance(trace.nodes["z"]["value"], visual)).numpy()
    a = dof / 2
    assert ratio.shape == (3000, 5)
    assert stats.kstest(ratio.ravel(), stats.lomax(a, scale=a).cdf).pvalue > 1e-3
    share, expected = float((ratio > 20).mean()), float(stats.lomax(a, scale=a).sf(20))
    assert abs(share - expected) < 4.5 * math.sqrt(expected / ratio.size)
    assert expected > 1e5 * math.exp(-20)
    weights = trace.nodes["w"]["value"].numpy()
    assert stats.kstest(weights.ravel(), stats.gamma(a, scale=1 / a).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("prior", "decoder", "likelihood"), MODELS, ids=lambda kind: kind)
@torch.no_grad()
def test_log_likelihood_of_a_model_sums_over_the_bins(prior: str, decoder: str, likelihood: str) -> None:
    model, (power, visual) = make_model(prior, decoder, likelihood), make_frames(6)
    z = normal_draws(6, 3, seed=9)
    sigma = model.variance(z, visual).numpy()
    law = stats.expon(scale=sigma)
    if likelihood == "student-t":
        law = stats.lomax(DOF / 2, scale=DOF / 2 * sigma)
    got = model.log_likelihood(power, z, visual)
    np.testing.assert_allclose(got.numpy(), law.logpdf(power.numpy()).sum(-1), rtol=1e-10)


@pytest.mark.parametrize("dof", DOFS)
def test_one_loud_bin_pulls_less_than_under_a_gaussian(dof: float) -> None:
    """The slope of -log p in log sigma lies in (-a, 1], however loud the bin (derivations, eq. 4.10)."""
    likelihood = StudentT(dof)
    log_variance = torch.linspace(-30, 30, 121, dtype=torch.float64).requires_grad_()
    value = -likelihood.log_prob(torch.ones_like(log_variance), log_variance)
    (slope,) = torch.autograd.grad(value.sum(), log_variance)
    assert -dof / 2 < float(slope.min()) < -0.9 * dof / 2
    assert 0.9 < float(slope.max()) <= 1


@pytest.mark.parametrize("dof", [0.0, -1.0])
def test_degrees_of_freedom_are_positive(dof: float) -> None:
    with pytest.raises(ValueError, match="expected a positive number of degrees of freedom"):
        StudentT(dof)


def test_a_complex_gaussian_has_no_weight() -> None:
    likelihood, x = ComplexGaussian(), f64(1.0)
    assert not likelihood.weighted
    assert likelihood.sample_weight("w", x, 0) is None
    for ask in (
        lambda: likelihood.weight_prior(x),
        lambda: likelihood.weight_posterior(x),
        lambda: likelihood.weight(x, mode=True),
        lambda: likelihood.log_weight_density(x),
    ):
        with pytest.raises(TypeError, match="ComplexGaussian has no weight"):
            ask()
    with pytest.raises(NotImplementedError, match="Likelihood lacks log_prob"):
        Likelihood().log_prob(x, x)
