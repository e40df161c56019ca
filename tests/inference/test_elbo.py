"""The evidence lower bound: Pyro's estimate against sums over alpha written by hand, and the closed forms."""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext

import pyro
import pyro.poutine as poutine
import pytest
import torch
from formulas import log_gaussian, log_speech, posterior_moments, prior_factors, prior_weight, switch_weight
from laws import (
    COUPLED,
    FAMILY,
    LIKELIHOODS,
    MIXED,
    MIXED_GUIDES,
    PAIRS,
    TYPICAL,
    Frames,
    Kinds,
    make_frames,
    make_pair,
    make_sequences,
)
from pyro.distributions import Bernoulli, Normal
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.speech import SpeechGuide
from pyro_minvae.inference.svi.elbo import bound_terms, svi_loss
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual

RESPONSIBILITY = (0.2, 0.9, 0.5, 0.35)


def responsibilities(count: int) -> Tensor:
    return torch.tensor((RESPONSIBILITY * count)[:count], dtype=torch.float64)


def hand_written_loss(
    kinds: Kinds,
    parts: tuple[SpeechModel, Guide],
    frames: Frames,
    weight: Tensor | None,
    noise: Tensor,
    encoder_input: Tensor | None = None,
) -> Tensor:
    """-sum_n sum_alpha q(alpha) [log p(alpha, z, s) - log q(alpha, z)] for z = m_alpha + scale_alpha noise.

    Written from the formulas, a Student-t's weight summed out; of the package only the networks' outputs are used.
    """
    (model, guide), (power, visual), (prior, kind, _, likelihood) = parts, frames, kinds
    total = torch.zeros((), dtype=torch.float64)
    for alpha, (m, scale) in enumerate(posterior_moments(kind, guide, frames, encoder_input)):
        z = m + scale * noise[alpha]
        log_p = log_speech(likelihood, power, model.variance(z, visual))
        log_p = log_p + prior_factors(prior, model.prior, z, visual, guide, kind)[alpha]
        log_q = log_gaussian(z, m, scale**2)
        if not guide.mixed:
            return -(log_p - log_q).sum()
        amortised = (
            guide.weight(power if encoder_input is None else encoder_input, visual)
            if weight is None
            else weight
        )
        pi, q = prior_weight(model.prior, visual), switch_weight(amortised, visual)
        p_alpha, q_alpha = (pi, q) if alpha else (1 - pi, 1 - q)
        total = total - (q_alpha * (log_p + p_alpha.log() - log_q - q_alpha.log())).sum()
    return total


def draws_of_pyro(guide: Guide, shape: tuple[int, ...], latent: int, seed: int) -> Tensor:
    """The normal draws [C, ..., N, L] that the guide makes after this seed, one for each value of alpha."""
    pyro.set_rng_seed(seed)
    zero = torch.zeros((1 + guide.mixed, *shape, latent), dtype=torch.float64)
    return Normal(zero, zero + 1).rsample()


def pyro_loss(
    parts: tuple[SpeechModel, Guide], frames: Frames, weight: Tensor | None, seed: int, **rest: Tensor
) -> Tensor:
    pyro.set_rng_seed(seed)
    return svi_loss(*parts)(*frames, responsibility=weight, **rest)


def data_for(model: SpeechModel) -> list[Frames]:
    """Frames [N, F], and sequences [B, N, F] where frames are coupled."""
    return [make_frames(4), make_sequences(2, 4, seed=5)] if model.coupled else [make_frames(4)]


def silent_parameters(kinds: Kinds, model: SpeechModel) -> set[int]:
    """Half of a vamp prior's pseudo-inputs, if its guide does not look at it."""
    unseen = {"audio": "lips", "visual": "log_power"}.get(kinds[1]) if kinds[0] == "vamp" else None
    return {id(getattr(model.prior, unseen))} if unseen else set()


def gradients_of(loss: Tensor, parameters: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, parameters, materialize_grads=True)


@pytest.mark.parametrize("kinds", FAMILY, ids="-".join)
def test_loss_and_gradients_equal_the_sum_by_hand(kinds: Kinds) -> None:
    """(derivations, eq. 1.6, 2.5, 3.12, 4.9) at the same draws; the sum has no weight w, which Pyro samples."""
    parts = make_pair(*kinds)
    parameters = [*parts[0].parameters(), *parts[1].parameters()]
    silent = silent_parameters(kinds, parts[0])
    for frames in data_for(parts[0]):
        weight = None if "amortised" in kinds[1] else responsibilities(4)
        noise = draws_of_pyro(parts[1], frames.power.shape[:-1], 3, seed=11)
        by_hand = hand_written_loss(kinds, parts, frames, weight, noise)
        by_pyro = pyro_loss(parts, frames, weight, seed=11)
        torch.testing.assert_close(by_pyro, by_hand, rtol=1e-10, atol=0)
        wanted, got = gradients_of(by_hand, parameters), gradients_of(by_pyro, parameters)
        assert {id(p) for p, g in zip(parameters, wanted, strict=True) if not (g != 0).any()} == silent
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def log_joint(
    part: torch.nn.Module, frames: Frames, weight: Tensor | None, sites: dict[str, Tensor]
) -> Tensor:
    """The log probability of a model's or guide's sites under Pyro, nothing enumerated."""
    given = part.given(responsibility=weight) if isinstance(part, SpeechGuide) else nullcontext()
    with given:
        return poutine.trace(poutine.condition(part, sites)).get_trace(*frames).log_prob_sum()


@pytest.mark.parametrize("kind", MIXED_GUIDES)
@pytest.mark.parametrize("prior", MIXED)
def test_enumeration_equals_brute_force_over_all_assignments(prior: str, kind: str) -> None:
    """sum over the 2^N values of alpha_1..alpha_N of q(alpha) [log p(alpha, z, s) - log q(alpha, z)]."""
    count = 4
    (model, guide), frames = make_pair(prior, kind), make_frames(count)
    weight = None if "amortised" in kind else responsibilities(count)
    noise = draws_of_pyro(guide, (count,), 3, seed=12)
    (mean0, scale0), (mean1, scale1) = posterior_moments(kind, guide, frames)
    z = torch.stack([mean0 + scale0 * noise[0], mean1 + scale1 * noise[1]])
    known = guide.weight(*frames) if weight is None else weight
    q, total = Bernoulli(switch_weight(known, frames.visual)), torch.zeros((), dtype=torch.float64)
    for bits in itertools.product((0.0, 1.0), repeat=count):
        alpha = torch.tensor(bits, dtype=torch.float64)
        sites = {"alpha": alpha, "z": torch.where(alpha[:, None] > 0.5, z[1], z[0])}
        # A site that is not observed counts in the guide: condition, then compare the sums of both traces.
        program = SpeechGuide(model, guide)
        gap = log_joint(model, frames, weight, sites) - log_joint(program, frames, weight, sites)
        total = total - q.log_prob(alpha).sum().exp() * gap
    torch.testing.assert_close(pyro_loss((model, guide), frames, weight, seed=12), total, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("prior", "kind"), [pair for pair in TYPICAL if pair[0] != "vamp"])
def test_single_draws_average_to_the_closed_forms(prior: str, kind: str) -> None:
    """E[log q - log p] is the KL that `bound_terms` has in closed form, within 4.5 standard errors."""
    draws, rounds = 500, 30
    parts = make_pair(prior, kind)
    frame = make_frames(3 if prior in COUPLED else 1, valid=1.0)
    shape = (draws, 3) if prior in COUPLED else (draws,)
    many = Frames(
        frame.power.expand(*shape, -1),
        Visual(frame.visual.features.expand(*shape, -1), frame.visual.valid.expand(shape)),
    )
    weight = torch.full(shape, 0.6, dtype=torch.float64)
    differences = []
    for seed in range(rounds):
        loss = pyro_loss(parts, many, weight, seed).detach()
        noise = draws_of_pyro(parts[1], shape, 3, seed)
        with torch.no_grad():
            terms = bound_terms(*parts, *many, responsibility=weight, noise=noise)
        differences.append(-loss / math.prod(shape) - terms.total.mean())
    kl = float(
        terms.kl.mean() if terms.kl_visual is None else torch.minimum(terms.kl, terms.kl_visual).mean()
    )
    values = torch.stack(differences)
    error = float(values.std() / math.sqrt(rounds))
    assert abs(float(values.mean())) < 4.5 * error
    # Sharp: a KL left out, or one of alpha, would stand out by far more than the error.
    assert 4.5 * error < 0.3 * kl
    if terms.kl_alpha is not None:
        assert float(terms.kl_alpha[0]) > 4.5 * error


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(("prior", "kind"), [pair for pair in PAIRS if pair[1] != "visual"])
def test_heard_replaces_the_input_and_not_the_target(prior: str, kind: str, likelihood: str) -> None:
    """Training corrupts what encoders of sound hear; the likelihood and its weight keep the clean power."""
    kinds: Kinds = (prior, kind, "plain", likelihood)
    parts, frames = make_pair(*kinds), make_frames(4)
    weight, encoder_input = (
        None if "amortised" in kind else responsibilities(4),
        3 * make_frames(4, seed=9).power,
    )
    noise = draws_of_pyro(parts[1], (4,), 3, seed=13)
    loss = pyro_loss(parts, frames, weight, seed=13, encoder_input=encoder_input)
    by_hand = hand_written_loss(kinds, parts, frames, weight, noise, encoder_input)
    torch.testing.assert_close(loss, by_hand, rtol=1e-10, atol=0)
    clean = hand_written_loss(kinds, parts, frames, weight, noise)
    assert abs(float((by_hand - clean).detach())) > 1e-3


@pytest.mark.parametrize("garbage", [1e30, float("inf"), float("nan")])
@pytest.mark.parametrize(("prior", "kind"), PAIRS)
def test_lips_of_invalid_frames_reach_neither_loss_nor_gradients(
    prior: str, kind: str, garbage: float
) -> None:
    parts, (power, visual) = make_pair(prior, kind, "lips"), make_frames(5)
    parameters = [*parts[0].parameters(), *parts[1].parameters()]
    spoilt = torch.where(visual.valid[:, None], visual.features, garbage)
    weight = None if "amortised" in kind else responsibilities(5)
    results = []
    for features in (visual.features, spoilt):
        frames = Frames(power, visual._replace(features=features))
        loss = pyro_loss(parts, frames, weight, seed=14)
        results.append([loss.detach(), *gradients_of(loss, parameters)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert all(bool(torch.isfinite(value).all()) for value in results[1])


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_draws_differ_between_frames_and_calls(likelihood: str) -> None:
    """A known fault of the published code: the same reparametrisation draw in every batch."""
    parts, frame = make_pair("mixture", "mixture", "plain", likelihood), make_frames(1, valid=1.0)
    pyro.set_rng_seed(0)
    loss = svi_loss(*parts)
    weight = responsibilities(1)
    values = {float(loss(*frame, responsibility=weight).detach()) for _ in range(20)}
    assert len(values) == 20
