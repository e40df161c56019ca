"""The responsibilities q(alpha) that make the bound tight: optimal in closed form, or learned by a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from formulas import posterior_moments, prior_weight, switch_weight
from laws import MIXED, MIXED_GUIDES, Frames, make_frames, make_guide, make_model, normal_draws
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.responsibility import branches, optimal_responsibility, responsibility_of
from pyro_minvae.inference.svi.elbo import bound_terms
from pyro_minvae.models.distributions import gaussian_parameters
from pyro_minvae.models.divergences import bernoulli_kl, gaussian_kl
from pyro_minvae.models.speech import SpeechModel

OPTIMAL = [kind for kind in MIXED_GUIDES if "amortised" not in kind]
AMORTISED = [kind for kind in MIXED_GUIDES if "amortised" in kind]


@pytest.mark.parametrize("kind", OPTIMAL)
@pytest.mark.parametrize("prior", MIXED)
@torch.no_grad()
def test_optimal_responsibility_cannot_be_improved(prior: str, kind: str) -> None:
    """For the same draws no other q(alpha) gives a higher bound, frame by frame."""
    model, guide, frames = make_model(prior), make_guide(kind), make_frames(12, valid=1.0)
    noise = normal_draws(2, 12, 3, seed=21)
    best = bound_terms(model, guide, *frames, noise=noise)
    for step in (-0.2, -0.01, -1e-4, 1e-4, 0.01, 0.2):
        moved = (best.responsibility + step).clamp(1e-6, 1 - 1e-6)
        other = bound_terms(model, guide, *frames, noise=noise, responsibility=moved).total
        assert bool((other <= best.total + 1e-12).all())
    assert float((best.responsibility - 0.5).abs().min()) < 0.45  # not all at an end, where this says little


@pytest.mark.parametrize("kind", OPTIMAL)
@pytest.mark.parametrize("prior", MIXED)
@torch.no_grad()
def test_the_best_bound_is_the_weighted_log_sum(prior: str, kind: str) -> None:
    """max L = log[pi e^B1 + (1 - pi) e^B0] (derivations, eq. 2.12), on frames with lips and on those without."""
    model, guide, frames = make_model(prior), make_guide(kind), make_frames(12)
    noise = normal_draws(2, 12, 3, seed=23)
    terms = bound_terms(model, guide, *frames, noise=noise)
    (r0, k0), (r1, k1) = branches(model, guide, *frames, noise=noise)
    pi = prior_weight(model.prior, frames.visual)
    expected = torch.logaddexp(pi.log() + r1 - k1, (1 - pi).log() + r0 - k0)
    # Without lips q(alpha) is held at its prior, and elsewhere it is clipped: there the bound stays below.
    inside = frames.visual.valid & ((terms.responsibility - 0.5).abs() < 0.5 - 2e-6)
    assert int(inside.sum()) > 2
    torch.testing.assert_close(terms.total[inside], expected[inside], rtol=1e-9, atol=1e-9)
    assert bool((terms.total <= expected + 1e-9).all())


@pytest.mark.parametrize("kind", OPTIMAL)
@pytest.mark.parametrize("prior", MIXED)
@torch.no_grad()
def test_optimal_responsibility_follows_the_formula(prior: str, kind: str) -> None:
    """pi_n = sigmoid(logit pi - K_a + K_v) where the decoder ignores z, so that R_a = R_v: K in closed form.

    A known fault of the published code: log s where 1/2 log s belongs in K (derivations, eq. 2.11, 2.15).
    """
    model, guide, frames = make_model(prior), make_guide(kind), make_frames(8)
    model.decoder.output.weight.zero_()
    model.prior.means.mul_(0.3)
    priors = [gaussian_parameters(p) for p in model.prior.conditionals(frames.visual)]
    posteriors = posterior_moments(kind, guide, frames)
    kl = []
    for (mu, prior_scale), (m, scale) in zip(priors, posteriors, strict=True):
        s, v = np.broadcast_to(prior_scale.numpy(), m.shape) ** 2, scale.numpy() ** 2
        kl.append(0.5 * (np.log(s) - np.log(v) + (v + (m - mu).numpy() ** 2) / s - 1).sum(-1))
    pi = 1 / (1 + np.exp(-model.prior.logit.item()))
    expected = 1 / (1 + (1 - pi) / pi * np.exp(kl[1] - kl[0]))
    expected = expected.clip(1e-6, 1 - 1e-6)
    got = optimal_responsibility(model, guide, *frames).numpy()
    valid = frames.visual.valid.numpy()
    np.testing.assert_allclose(got[valid], expected[valid], rtol=1e-10)
    assert np.all(got[~valid] == 1 - 1e-6)
    assert np.abs(expected[valid] - 0.5).min() < 0.4


def test_optimal_responsibility_is_clipped() -> None:
    """The published difference is clipped to +-30; ours stays where logarithms are finite in float32."""
    frames = make_frames(2, valid=1.0)
    prior = torch.full((2,), 0.5)
    pairs = [(torch.tensor([0.0, 1e5]), torch.zeros(2)), (torch.tensor([1e5, 0.0]), torch.zeros(2))]
    weight = responsibility_of(pairs, prior, frames.visual)
    assert bool(torch.isfinite(bernoulli_kl(weight, prior)).all())
    assert weight[0] > 1 - 1e-5
    assert weight[1] < 1e-5


@torch.no_grad()
def test_bound_of_a_corrupted_input_keeps_the_clean_target() -> None:
    """`encoder_input` reaches the audio network alone: R stays log p of the clean power at the z that it proposes."""
    model, guide, (power, visual) = make_model("mixture"), make_guide("mixture"), make_frames(6)
    encoder_input, noise = 5 * power + 1, normal_draws(2, 6, 3, seed=22)
    got = bound_terms(model, guide, power, visual, encoder_input=encoder_input, noise=noise)
    mean, scale = guide.audio(encoder_input)
    sigma = model.variance(mean + scale * noise[1], visual)
    torch.testing.assert_close(got.likelihood, -(sigma.log() + power / sigma).sum(-1))
    clean = bound_terms(model, guide, power, visual, noise=noise)
    assert torch.equal(got.likelihood_visual, clean.likelihood_visual)
    torch.manual_seed(0)
    of_heard = optimal_responsibility(model, guide, power, visual, encoder_input=encoder_input)
    torch.manual_seed(0)
    assert not torch.equal(of_heard, optimal_responsibility(model, guide, power, visual))


def total_and_optimum(
    model: SpeechModel, guide: Guide, frames: Frames, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """The bound with the learned q(alpha), and the optimal q(alpha) for the same draws, both [N]."""
    terms = bound_terms(model, guide, *frames, noise=noise)
    torch.testing.assert_close(terms.responsibility, switch_weight(guide.weight(*frames), frames.visual))
    pairs = branches(model, guide, *frames, noise=noise)
    best = responsibility_of(pairs, model.prior.audio_weight(frames.visual), frames.visual)
    assert optimal_responsibility(model, guide, *frames) is None  # it is the network's to give
    return terms.total, best


@pytest.mark.parametrize("kind", AMORTISED)
@pytest.mark.parametrize("prior", MIXED)
@torch.no_grad()
def test_amortised_bound_falls_short_by_the_divergence_from_the_optimum(prior: str, kind: str) -> None:
    """L(pi*) - L(r) = KL(Bern(r) || Bern(pi*)) (derivations, eq. 2.17)."""
    frames, noise = make_frames(12, valid=1.0), normal_draws(2, 12, 3, seed=24)
    model, guide = make_model(prior), make_guide(kind)
    total, best = total_and_optimum(model, guide, frames, noise)
    top = bound_terms(model, guide, *frames, noise=noise, responsibility=best).total
    # Where the optimum is clipped the identity is off by what the clip takes.
    inside = (best > 2e-6) & (best < 1 - 2e-6)
    assert int(inside.sum()) > 3
    expected = bernoulli_kl(guide.weight(*frames), best)
    torch.testing.assert_close((top - total)[inside], expected[inside], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", AMORTISED)
@pytest.mark.parametrize("prior", MIXED)
def test_gradient_of_the_learned_logit(prior: str, kind: str) -> None:
    """dL / dl = r (1 - r) (logit pi* - l) for l = logit r (derivations, eq. 2.18)."""
    frames, noise = make_frames(12, valid=1.0), normal_draws(2, 12, 3, seed=25)
    model, guide = make_model(prior), make_guide(kind)
    with torch.no_grad():
        _, best = total_and_optimum(model, guide, frames, noise)
    logit = guide.weight.logit(guide.weight.trunk(*frames))[..., 0].detach().requires_grad_()
    total = bound_terms(model, guide, *frames, noise=noise, responsibility=logit.sigmoid()).total
    (got,) = torch.autograd.grad(total.sum(), logit)
    r = logit.detach().sigmoid()
    inside = (best > 2e-6) & (best < 1 - 2e-6)
    expected = r * (1 - r) * (torch.logit(best) - logit.detach())
    torch.testing.assert_close(got[inside], expected[inside], rtol=1e-7, atol=1e-8)


def test_divergences_against_torch() -> None:
    mean, scale = normal_draws(4, 3, seed=1), normal_draws(4, 3, seed=2).exp()
    q, p = (mean, scale), (normal_draws(4, 3, seed=3), normal_draws(4, 3, seed=4).exp())
    normal, bernoulli = torch.distributions.Normal, torch.distributions.Bernoulli
    kl = torch.distributions.kl_divergence
    torch.testing.assert_close(gaussian_kl(q, p), kl(normal(*q), normal(*p)).sum(-1))
    a, b = normal_draws(2, 5, seed=5).sigmoid()
    torch.testing.assert_close(bernoulli_kl(a, b), kl(bernoulli(a), bernoulli(b)))
