"""The evidence lower bound: Pyro's estimate against sums over alpha written by hand, and the closed forms."""

from __future__ import annotations

import itertools
import math

import pyro
import pyro.poutine as poutine
import pytest
import torch
from laws import MIXED, PAIRS, Frames, make_frames, make_guide, make_model
from pyro.distributions import Bernoulli, Normal
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.inference.elbo import bound_terms, svi_loss
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual

RESPONSIBILITY = (0.2, 0.9, 0.5, 0.35)


def responsibilities(count: int) -> Tensor:
    return torch.tensor((RESPONSIBILITY * count)[:count], dtype=torch.float64)


def log_gaussian(z: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return -0.5 * (((z - mean) ** 2 / variance) + variance.log() + math.log(2 * math.pi)).sum(-1)


def q_of_alpha(weight: Tensor, visual: Visual) -> Tensor:
    """q(alpha = 1): certain (up to 1e-6) where there are no lips."""
    return torch.where(visual.valid, weight, 1 - 1e-6)


def hand_written_loss(
    model: SpeechModel, guide: Guide, frames: Frames, weight: Tensor, noise: Tensor
) -> Tensor:
    """-sum_n sum_alpha q(alpha) [log p(alpha, z, s) - log q(alpha, z)] for z = m_alpha + scale_alpha noise.

    Written from the formulas; of the package only the networks' outputs are used.
    """
    power, visual = frames
    priors, posteriors = model.prior.conditionals(visual), guide.posteriors(power, visual)
    total = torch.zeros((), dtype=torch.float64)
    for alpha, ((m, scale), (mu, prior_scale)) in enumerate(zip(posteriors, priors, strict=True)):
        z = m + scale * noise[alpha]
        sigma = model.variance(z, visual)
        log_p = log_gaussian(z, mu, prior_scale**2) - (sigma.log() + power / sigma).sum(-1)
        log_q = log_gaussian(z, m, scale**2)
        if not guide.mixed:
            return -(log_p - log_q).sum()
        pi, q = model.prior.audio_weight(visual), q_of_alpha(weight, visual)
        p_alpha, q_alpha = (pi, q) if alpha else (1 - pi, 1 - q)
        total = total - (q_alpha * (log_p + p_alpha.log() - log_q - q_alpha.log())).sum()
    return total


def draws_of_pyro(guide: Guide, count: int, latent: int, seed: int) -> Tensor:
    """The normal draws [C, N, L] that the guide makes after this seed, one for each value of alpha."""
    pyro.set_rng_seed(seed)
    shape = (2, count, latent) if guide.mixed else (1, count, latent)
    zero = torch.zeros(shape, dtype=torch.float64)
    return Normal(zero, zero + 1).rsample()


def pyro_loss(model: SpeechModel, guide: Guide, frames: Frames, weight: Tensor, seed: int) -> Tensor:
    pyro.set_rng_seed(seed)
    return svi_loss(model, guide)(*frames, responsibility=weight)


@pytest.mark.parametrize(("prior", "kind"), PAIRS)
def test_loss_and_gradients_equal_the_sum_by_hand(prior: str, kind: str) -> None:
    model, guide, frames = make_model(prior), make_guide(kind), make_frames(4)
    weight = responsibilities(4)
    parameters = [*model.parameters(), *guide.parameters()]
    noise = draws_of_pyro(guide, 4, 3, seed=11)
    by_hand = hand_written_loss(model, guide, frames, weight, noise)
    by_pyro = pyro_loss(model, guide, frames, weight, seed=11)
    torch.testing.assert_close(by_pyro, by_hand, rtol=1e-11, atol=0)
    wanted = torch.autograd.grad(by_hand, parameters)
    got = torch.autograd.grad(by_pyro, parameters)
    assert all(bool((g != 0).any()) for g in wanted)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def log_joint(part: torch.nn.Module, frames: Frames, weight: Tensor, sites: dict[str, Tensor]) -> Tensor:
    """The log probability of a model's or guide's sites under Pyro, nothing enumerated."""
    trace = poutine.trace(poutine.condition(part, sites)).get_trace(*frames, responsibility=weight)
    return trace.log_prob_sum()


@pytest.mark.parametrize("prior", MIXED)
def test_enumeration_equals_brute_force_over_all_assignments(prior: str) -> None:
    """sum over the 2^N values of alpha_1..alpha_N of q(alpha) [log p(alpha, z, s) - log q(alpha, z)]."""
    count = 4
    model, guide, frames = make_model(prior), make_guide("mixture"), make_frames(count)
    weight = responsibilities(count)
    noise = draws_of_pyro(guide, count, 3, seed=12)
    (mean0, scale0), (mean1, scale1) = guide.posteriors(*frames)
    z = torch.stack([mean0 + scale0 * noise[0], mean1 + scale1 * noise[1]])
    q, total = Bernoulli(q_of_alpha(weight, frames.visual)), torch.zeros((), dtype=torch.float64)
    for bits in itertools.product((0.0, 1.0), repeat=count):
        alpha = torch.tensor(bits, dtype=torch.float64)
        sites = {"alpha": alpha, "z": torch.where(alpha[:, None] > 0.5, z[1], z[0])}
        # A site that is not observed counts in the guide: condition, then compare the sums of both traces.
        gap = log_joint(model, frames, weight, sites) - log_joint(guide, frames, weight, sites)
        total = total - q.log_prob(alpha).sum().exp() * gap
    torch.testing.assert_close(pyro_loss(model, guide, frames, weight, seed=12), total, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("prior", "kind"), PAIRS)
def test_single_draws_average_to_the_closed_forms(prior: str, kind: str) -> None:
    """E[log q - log p] is the KL that `bound_terms` has in closed form, within 4.5 standard errors."""
    draws, rounds = 400, 50
    model, guide, frame = make_model(prior), make_guide(kind), make_frames(1, valid=1.0)
    many = Frames(
        frame.power.expand(draws, -1),
        Visual(frame.visual.features.expand(draws, -1), frame.visual.valid.expand(draws)),
    )
    weight = torch.full((draws,), 0.6, dtype=torch.float64)
    differences = []
    for seed in range(rounds):
        loss = pyro_loss(model, guide, many, weight, seed).detach()
        noise = draws_of_pyro(guide, draws, 3, seed)
        with torch.no_grad():
            terms = bound_terms(model, guide, *many, responsibility=weight, noise=noise)
        differences.append(-loss / draws - terms.total.mean())
    kl = float(terms.kl[0] if terms.kl_visual is None else torch.minimum(terms.kl, terms.kl_visual)[0])
    values = torch.stack(differences)
    error = float(values.std() / math.sqrt(rounds))
    assert abs(float(values.mean())) < 4.5 * error
    # Sharp: a KL left out, or one of alpha, would stand out by far more than the error.
    assert 4.5 * error < 0.3 * kl
    if terms.kl_alpha is not None:
        assert float(terms.kl_alpha[0]) > 4.5 * error


@pytest.mark.parametrize(("prior", "kind"), PAIRS)
def test_heard_replaces_the_input_and_not_the_target(prior: str, kind: str) -> None:
    """Training corrupts what the audio encoder hears; the likelihood keeps the clean power."""
    model, guide, (power, visual) = make_model(prior), make_guide(kind), make_frames(4)
    weight, heard = responsibilities(4), 3 * make_frames(4, seed=9).power
    noise = draws_of_pyro(guide, 4, 3, seed=13)
    pyro.set_rng_seed(13)
    loss = svi_loss(model, guide)(power, visual, heard=heard, responsibility=weight)
    # The audio network is the only one that sees the sound: feeding it `heard` by hand is the whole change.
    network = guide.audio.forward
    guide.audio.forward = lambda _: network(heard)
    by_hand = hand_written_loss(model, guide, Frames(power, visual), weight, noise)
    torch.testing.assert_close(loss, by_hand, rtol=1e-11, atol=0)


@pytest.mark.parametrize("garbage", [1e30, float("inf"), float("nan")])
@pytest.mark.parametrize("prior", MIXED)
def test_lips_of_invalid_frames_reach_neither_loss_nor_gradients(prior: str, garbage: float) -> None:
    model, guide, (power, visual) = make_model(prior), make_guide("mixture"), make_frames(5)
    parameters = [*model.parameters(), *guide.parameters()]
    spoilt = torch.where(visual.valid[:, None], visual.features, garbage)
    results = []
    for features in (visual.features, spoilt):
        frames = Frames(power, visual._replace(features=features))
        loss = pyro_loss(model, guide, frames, responsibilities(5), seed=14)
        results.append([loss.detach(), *torch.autograd.grad(loss, parameters)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert all(bool(torch.isfinite(value).all()) for value in results[1])


def test_mixed_and_plain_parts_do_not_meet() -> None:
    for prior, guide in (("mixture", "audio"), ("standard", "mixture")):
        with pytest.raises(ValueError, match="expected a mixture prior and a mixture guide together"):
            svi_loss(make_model(prior), make_guide(guide))


def test_draws_differ_between_frames_and_calls() -> None:
    """A known fault of the published code: the same reparametrisation draw in every batch."""
    model, guide, frame = make_model("mixture"), make_guide("mixture"), make_frames(1, valid=1.0)
    pyro.set_rng_seed(0)
    loss = svi_loss(model, guide)
    weight = responsibilities(1)
    values = {float(loss(*frame, responsibility=weight).detach()) for _ in range(20)}
    assert len(values) == 20
