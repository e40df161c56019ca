"""Laws of the priors: densities, positivity, and the mask of frames without lips."""

from __future__ import annotations

import numpy as np
import pyro.poutine as poutine
import pytest
import torch
from formulas import EPSILON, markov_parameters, prior_factors
from hypothesis import given
from hypothesis import strategies as st
from laws import (
    COUPLED,
    INDEPENDENT,
    MIXED,
    PRIORS,
    VISUAL,
    make_frames,
    make_guide,
    make_model,
    make_prior,
    make_sequences,
    normal_draws,
)
from scipy import stats
from torch import Tensor

from pyro_minvae.models.distributions import gaussian_parameters
from pyro_minvae.models.priors import CERTAIN, MixturePrior, Prior
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual


def traced_prior(
    model: SpeechModel, power: Tensor, visual: Visual | None, z: Tensor
) -> list[tuple[Tensor, ...]]:
    """(log p(alpha), log p(z | alpha)) of the Pyro model's sites, for each value of alpha: [N], [] where coupled."""
    terms = []
    for value in (0.0, 1.0) if model.prior.mixed else (None,):
        data = {"z": z}
        if value is not None:
            data["alpha"] = torch.full(power.shape[:-1], value, dtype=power.dtype)
        trace = poutine.trace(poutine.condition(model, data)).get_trace(power, visual)
        trace.compute_log_prob()
        of_alpha = trace.nodes["alpha"]["log_prob"] if value is not None else torch.zeros(())
        terms.append((of_alpha, trace.nodes["z"]["log_prob"]))
    return terms


@pytest.mark.parametrize("lips", [True, False])
@pytest.mark.parametrize("kind", PRIORS)
def test_log_prior_is_the_pyro_model_with_alpha_summed_out(kind: str, lips: bool) -> None:
    model, (power, visual) = make_model(kind), make_frames(6)
    seen = visual if lips else None
    z = 2 * normal_draws(6, 3, seed=4)
    sites = traced_prior(model, power, seen, z)
    by_hand = torch.stack([of_alpha + of_z for of_alpha, of_z in sites]).logsumexp(0)
    got = model.log_prior(z, seen)
    assert got.shape == (6,)
    # Factors of coupled frames sum to the log density of the one site.
    torch.testing.assert_close(got.sum() if kind in COUPLED else got, by_hand, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", INDEPENDENT)
def test_expected_log_prob_averages_over_alpha(kind: str) -> None:
    model, (power, visual) = make_model(kind), make_frames(6)
    z, weight = normal_draws(6, 3, seed=4), torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    sites = [of_z for _, of_z in traced_prior(model, power, visual, z)]
    by_hand = sites[0] if len(sites) == 1 else weight * sites[1] + (1 - weight) * sites[0]
    components = model.prior.components(visual)
    got = components.expected_log_prob(z, weight if model.prior.mixed else None)
    torch.testing.assert_close(got, by_hand, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lips", [True, False])
@pytest.mark.parametrize("kind", PRIORS)
def test_density_follows_the_formula(kind: str, lips: bool) -> None:
    """log sum_alpha p(alpha) p(z | alpha, v) or its factors; alpha = 1 is audio, alpha = 0 the lips."""
    guide = make_guide("concatenation")
    prior, (_, visual) = make_prior(kind, guide=guide), make_frames(5)
    seen = visual if lips else visual._replace(valid=torch.zeros(5, dtype=torch.bool))
    z = normal_draws(5, 3, seed=5)
    parts = prior_factors(kind, prior, z, seen, guide, "concatenation")
    expected = parts[0]
    if kind in MIXED:
        pi = torch.where(seen.valid, 1 / (1 + torch.exp(-prior.logit)), 1 - EPSILON)
        expected = ((1 - pi) * parts[0].exp() + pi * parts[1].exp()).log()
    torch.testing.assert_close(prior.log_prob(z, seen), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", INDEPENDENT)
def test_density_integrates_to_one(kind: str) -> None:
    prior, (_, visual) = make_prior(kind, latent=1), make_frames(4)
    grid = torch.linspace(-8, 8, 20001, dtype=torch.float64).sinh()
    with torch.no_grad():
        density = prior.log_prob(grid[:, None, None].expand(-1, 4, 1), visual).exp()
    np.testing.assert_allclose(torch.trapezoid(density, grid, dim=0).numpy(), 1.0, rtol=1e-6)


def gaussians(prior: Prior, visual: Visual | None = None) -> list[tuple[Tensor, Tensor]]:
    """(mean, scale) of each component of a prior whose components are Gaussian."""
    found = [gaussian_parameters(conditional) for conditional in prior.conditionals(visual)]
    assert all(parameters is not None for parameters in found)
    return [parameters for parameters in found if parameters is not None]


def test_learned_prior_starts_as_the_paper_says() -> None:
    prior = MixturePrior(4)
    for mean, scale in gaussians(prior):
        assert torch.equal(mean, torch.zeros(4))
        assert torch.equal(scale, torch.ones(4))
    assert prior.logit.sigmoid().item() == 0.5


@given(st.tuples(*[st.floats(-80, 80)] * 2), st.floats(-1e6, 1e6))
def test_variances_and_weights_are_proper_whatever_the_parameters(
    log_variances: tuple[float, float], logit: float
) -> None:
    prior = MixturePrior(2)
    with torch.no_grad():
        prior.log_variances.copy_(torch.tensor(log_variances))
        prior.logit.fill_(logit)
    assert all(bool((scale > 0).all()) for _, scale in gaussians(prior))
    visual = Visual(torch.zeros(2, 1), torch.tensor([True, False]))
    weight = prior.audio_weight(visual)
    assert bool(((weight > 0) & (weight < 1)).all())
    assert bool(torch.isfinite(prior.log_prob(torch.zeros(2, 2), visual)).all())


def test_no_optimiser_can_make_the_variances_negative() -> None:
    """A known fault of the published code: unconstrained variances."""
    prior = MixturePrior(2)
    optimiser = torch.optim.SGD([prior.log_variances], lr=1.0)
    for _ in range(20):
        optimiser.zero_grad()
        sum(scale.log().sum() for _, scale in gaussians(prior)).backward()
        optimiser.step()
    scales = torch.stack([scale for _, scale in gaussians(prior)]).detach()
    assert float(scales.max()) < 1e-4  # the steps did what they could
    assert float(scales.min()) > 0


def test_gradient_of_the_standard_prior_is_minus_z() -> None:
    """A known fault of the published code: samplers that drop the 1/2 of the quadratic term."""
    z = normal_draws(4, 3, seed=6).requires_grad_()
    (gradient,) = torch.autograd.grad(make_prior("standard").log_prob(z, None).sum(), z)
    torch.testing.assert_close(gradient, -z.detach())


@pytest.mark.parametrize("kind", PRIORS)
def test_only_visual_priors_keep_the_lips(kind: str) -> None:
    """The structural fault of the base model, which the visual priors repair: its target forgets v."""
    prior, (_, visual) = make_prior(kind), make_frames(6)
    z = normal_draws(6, 3, seed=7)
    moved = (
        prior.log_prob(z, visual) != prior.log_prob(z, visual._replace(features=-visual.features))
    ).detach()
    assert torch.equal(moved, visual.valid if kind in VISUAL else torch.zeros_like(moved))


@pytest.mark.parametrize("garbage", [1e30, float("inf"), float("nan")])
@pytest.mark.parametrize("kind", VISUAL)
def test_features_of_frames_without_lips_count_for_nothing(kind: str, garbage: float) -> None:
    prior, (_, visual) = make_prior(kind), make_frames(6)
    z = normal_draws(6, 3, seed=8)

    def value_and_gradients(lips: Visual) -> list[Tensor]:
        value = prior.log_prob(z, lips)
        return [value.detach(), *torch.autograd.grad(value.sum(), list(prior.parameters()))]

    spoilt = torch.where(visual.valid[:, None], visual.features, garbage)
    clean, bad = value_and_gradients(visual), value_and_gradients(visual._replace(features=spoilt))
    assert all(torch.equal(a, b) for a, b in zip(clean, bad, strict=True))
    assert any(bool((g != 0).any()) for g in bad[1:])


@pytest.mark.parametrize("kind", ["standard", "visual", *MIXED])
def test_without_lips_the_audio_component_speaks(kind: str) -> None:
    prior, (_, visual) = make_prior(kind), make_frames(6)
    nobody = visual._replace(valid=torch.zeros(6, dtype=torch.bool))
    z = normal_draws(6, 3, seed=9)
    mean, scale = torch.zeros(3), torch.ones(3)
    if kind in MIXED:
        assert float(prior.audio_weight(nobody).detach().min()) == 1 - CERTAIN
        mean, scale = gaussians(prior, nobody)[1]
    alone = torch.distributions.Normal(mean, scale).log_prob(z).sum(-1)
    # The other component keeps a millionth, which counts only where the audio component is nearly zero.
    for lips in (nobody, None):
        torch.testing.assert_close(prior.log_prob(z, lips), alone, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", PRIORS)
def test_chains_and_recordings_are_axes_of_the_density(kind: str) -> None:
    """z [R, B, N, L] with lips [B, N, D] gives [R, B, N], each entry as if it stood alone."""
    prior, visual = make_prior(kind), make_sequences(2, 4).visual
    z = normal_draws(3, 2, 4, 3, seed=10)
    whole = prior.log_prob(z, visual)
    assert whole.shape == (3, 2, 4)
    for b in range(2):
        alone = Visual(visual.features[b], visual.valid[b])
        for r in range(3):
            torch.testing.assert_close(prior.log_prob(z[r, b], alone), whole[r, b])


@pytest.mark.parametrize("kind", PRIORS)
@torch.no_grad()
def test_draws_of_the_model_follow_the_density(kind: str) -> None:
    """Ancestral samples of one frame (the last of three where frames are coupled), against its distribution."""
    draws = 4000
    model, frame = make_model(kind, latent=1), make_frames(3 if kind in COUPLED else 1, valid=1.0)
    shape = (draws, 3) if kind in COUPLED else (draws,)
    lips = Visual(frame.visual.features.expand(*shape, -1), frame.visual.valid.expand(shape))
    torch.manual_seed(0)
    z = poutine.trace(model).get_trace(frame.power.expand(*shape, -1), lips).nodes["z"]["value"]
    if kind in COUPLED:
        c, tau = (float(x) for x in markov_parameters(kind, model.prior))
        spread = np.sqrt(c**4 + c**2 * tau**2 + tau**2)
        assert stats.kstest(z[:, -1, 0].numpy(), stats.norm(scale=spread).cdf).pvalue > 1e-3
        return
    grid = torch.linspace(-8, 8, 20001, dtype=torch.float64).sinh()
    density = model.log_prior(grid[:, None, None], frame.visual)[:, 0].exp()
    cdf = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(density, grid)]).numpy()
    assert stats.kstest(z[:, 0].numpy(), lambda x: np.interp(x, grid.numpy(), cdf)).pvalue > 1e-3


def test_planted_weight_fault_is_seen() -> None:
    """The comparison with the trace is sharp: with pi and 1 - pi swapped it fails."""
    model, visual = make_model("mixture"), make_frames(6).visual
    z = normal_draws(6, 3, seed=4)
    with torch.no_grad():
        right = model.log_prior(z, visual)
        model.prior.logit.neg_()
        wrong = model.log_prior(z, visual)
    assert float((right - wrong)[visual.valid].abs().min()) > 1e-3
