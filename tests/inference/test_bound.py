"""The bound against the exact likelihood where z is a number: the gap is KL(q || p(. | s)), computed on its own."""

from __future__ import annotations

import pytest
import torch
from formulas import log_gaussian, log_speech, posterior_moments, prior_factors, prior_weight, switch_weight
from laws import FAMILY, INDEPENDENT, MIXED, Frames, Kinds, make_frames, make_guide, make_model, make_pair
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.responsibility import branches, responsibility_of
from pyro_minvae.inference.svi.elbo import bound_terms
from pyro_minvae.models.distributions import normal
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual

COUNT = 4
GRID = torch.linspace(-7, 7, 8001, dtype=torch.float64).sinh()
SINGLE = [kinds for kinds in FAMILY if kinds[0] in INDEPENDENT and kinds[2] != "context"]


class FixedGuide(Guide):
    """A guide that holds its Gaussians [N, L] instead of networks."""

    def __init__(self, moments: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.moments, self.mixed = moments, len(moments) > 1

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        return tuple(normal(*moments) for moments in self.moments)


def standard_normal(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of E[f(eps)] for eps ~ N(0, 1): the trapezoidal rule, which is spectrally exact here."""
    nodes = torch.linspace(-9, 9, count, dtype=torch.float64)
    return nodes, (-0.5 * nodes**2).softmax(0)


def repeated(frames: Frames, count: int) -> Frames:
    """The same frames [N, F] many times, [count, N, F]."""
    power, visual = frames
    lips = Visual(visual.features.expand(count, -1, -1), visual.valid.expand(count, -1))
    return Frames(power.expand(count, -1, -1), lips)


def expected_bound(model: SpeechModel, guide: Guide, frames: Frames, weight: Tensor | None) -> Tensor:
    """The bound [N] with its expectation over a one-dimensional z by quadrature instead of one draw."""
    nodes, weights = standard_normal(361)
    noise = nodes[:, None, None].expand(2, -1, len(frames.power), 1)
    terms = bound_terms(model, guide, *repeated(frames, 361), responsibility=weight, noise=noise)
    return (weights[:, None] * terms.total).sum(0)


def log_joint(kinds: Kinds, model: SpeechModel, guide: Guide, frames: Frames) -> list[Tensor]:
    """log p(alpha, z, s) [grid, N] for each alpha, by the formulas of the model, z on the grid."""
    prior, kind, _, likelihood = kinds
    z = GRID[:, None, None].expand(-1, len(frames.power), 1)
    log_s = log_speech(likelihood, frames.power, model.variance(z, frames.visual))
    parts = [log_s + p for p in prior_factors(prior, model.prior, z, frames.visual, guide, kind)]
    if model.prior.mixed:
        pi = prior_weight(model.prior, frames.visual)
        parts = [parts[0] + (1 - pi).log(), parts[1] + pi.log()]
    return parts


def log_guide(kinds: Kinds, guide: Guide, frames: Frames, weight: Tensor | None) -> list[Tensor]:
    """log q(alpha, z) [grid, N] for each alpha."""
    z = GRID[:, None, None].expand(-1, len(frames.power), 1)
    parts = [log_gaussian(z, m, scale**2) for m, scale in posterior_moments(kinds[1], guide, frames)]
    if guide.mixed:
        q = switch_weight(guide.weight(*frames) if weight is None else weight, frames.visual)
        parts = [parts[0] + (1 - q).log(), parts[1] + q.log()]
    return parts


def log_integral(log_density: Tensor) -> Tensor:
    """log of the integral over the grid: [grid, N] to [N]."""
    peak = log_density.max(0).values
    return torch.trapezoid((log_density - peak).exp(), GRID, dim=0).log() + peak


def log_evidence(joint: list[Tensor]) -> Tensor:
    """log p(s) [N]."""
    return torch.stack([log_integral(part) for part in joint]).logsumexp(0)


@pytest.mark.parametrize("kinds", SINGLE, ids="-".join)
@torch.no_grad()
def test_gap_is_the_divergence_from_the_true_posterior(kinds: Kinds) -> None:
    """log p(s) - ELBO = KL(q(alpha, z) || p(alpha, z | s)) >= 0, frame by frame (derivations, eq. 1.5)."""
    (model, guide), frames = make_pair(*kinds, latent=1), make_frames(COUNT)
    weight = None if "amortised" in kinds[1] else torch.full((COUNT,), 0.3, dtype=torch.float64)
    joint, posterior = log_joint(kinds, model, guide, frames), log_guide(kinds, guide, frames, weight)
    evidence = log_evidence(joint)
    gap = evidence - expected_bound(model, guide, frames, weight)
    divergence = sum(
        torch.trapezoid(q.exp() * (q - (p - evidence)), GRID, dim=0)
        for q, p in zip(posterior, joint, strict=True)
    )
    torch.testing.assert_close(gap, divergence, rtol=1e-5, atol=1e-6)
    assert float(gap.min()) > 1e-6


def nearly_linear(kind: str, likelihood: str) -> SpeechModel:
    """A model whose posterior is nearly Gaussian, because its decoder hardly bends where the prior is."""
    model = make_model(kind, "plain", likelihood, latent=1)
    with torch.no_grad():
        model.decoder.trunk[0].weight.mul_(0.2)
        model.decoder.output.weight.mul_(0.6)
        for parameter in model.prior.parameters():
            parameter.mul_(0.5)
    return model


def true_posterior(joint: list[Tensor]) -> tuple[FixedGuide, Tensor | None]:
    """Gaussians with the moments of p(z | alpha, s), and p(alpha = 1 | s)."""
    moments, masses = [], []
    for part in joint:
        mass = log_integral(part)
        density = (part - mass).exp()
        mean = torch.trapezoid(density * GRID[:, None], GRID, dim=0)
        variance = torch.trapezoid(density * (GRID[:, None] - mean) ** 2, GRID, dim=0)
        moments.append((mean[:, None], variance.sqrt()[:, None]))
        masses.append(mass)
    weight = (masses[1] - torch.stack(masses).logsumexp(0)).exp() if len(masses) > 1 else None
    return FixedGuide(moments), weight


@pytest.mark.parametrize("likelihood", ["complex-gaussian", "student-t"])
@pytest.mark.parametrize("kind", [kind for kind in INDEPENDENT if kind != "vamp"])
@torch.no_grad()
def test_bound_reaches_the_evidence_at_the_true_posterior(kind: str, likelihood: str) -> None:
    model, frames = nearly_linear(kind, likelihood), make_frames(COUNT, valid=1.0)
    joint = log_joint((kind, "", "plain", likelihood), model, make_guide("audio"), frames)
    guide, weight = true_posterior(joint)
    gap = log_evidence(joint) - expected_bound(model, guide, frames, weight)
    assert float(gap.min()) > -1e-9
    assert float(gap.max()) < 5e-3
    # The same gap is wide as soon as the guide is off, so a wrong constant would show.
    off = FixedGuide([(mean + 0.5 * scale, scale) for mean, scale in guide.moments])
    wide = log_evidence(joint) - expected_bound(model, off, frames, weight)
    assert float(wide.min()) > 0.1


@pytest.mark.parametrize("kind", MIXED)
@torch.no_grad()
def test_optimal_responsibility_is_the_posterior_of_alpha(kind: str) -> None:
    """With q(z | alpha) = p(z | alpha, s) the optimum of q(alpha) is p(alpha | s) (derivations, eq. 2.14)."""
    model, frames = nearly_linear(kind, "complex-gaussian"), make_frames(COUNT, valid=1.0)
    guide, weight = true_posterior(
        log_joint((kind, "", "plain", "complex-gaussian"), model, make_guide("audio"), frames)
    )
    nodes, weights = standard_normal(361)
    noise = nodes[:, None, None].expand(2, -1, COUNT, 1)
    pairs = branches(model, guide, *repeated(frames, 361), noise=noise)
    mean = [((weights[:, None] * r).sum(0), (weights[:, None] * k.expand(361, -1)).sum(0)) for r, k in pairs]
    got = responsibility_of(mean, model.prior.audio_weight(frames.visual), frames.visual)
    assert weight is not None
    torch.testing.assert_close(got, weight, rtol=0, atol=5e-3)
    assert float((weight - model.prior.audio_weight(frames.visual)).abs().max()) > 0.02


SIDE = torch.linspace(-4.5, 4.5, 501, dtype=torch.float64)
JOINED = [
    kinds
    for kinds in FAMILY
    if kinds[1] == "product" and (kinds[0] not in INDEPENDENT or kinds[2] == "context")
]


@pytest.mark.parametrize("kinds", JOINED, ids="-".join)
@torch.no_grad()
def test_gap_of_coupled_frames_is_the_divergence_of_the_whole_sequence(kinds: Kinds) -> None:
    """The same for two frames that depend on each other: one number for both, on a grid over the plane."""
    (model, guide), frames = make_pair(*kinds, latent=1), make_frames(2)
    (mean, scale), power = posterior_moments(kinds[1], guide, frames)[0], frames.power
    side = torch.cartesian_prod(SIDE, SIDE)
    z, cell = side.sinh()[..., None], side.cosh().prod(-1) * (SIDE[1] - SIDE[0]) ** 2  # [grid, N, 1], [grid]
    lips = repeated(frames, len(z)).visual
    joint = prior_factors(kinds[0], model.prior, z, lips, guide, kinds[1])[0]
    joint = (joint + log_speech(kinds[3], power, model.variance(z, lips))).sum(-1)
    evidence = (joint + cell.log()).logsumexp(0)
    q = log_gaussian(z, mean, scale**2).sum(-1)
    divergence = (cell * q.exp() * (q - (joint - evidence))).sum()

    nodes, weights = standard_normal(91)
    noise, weight = torch.cartesian_prod(nodes, nodes), torch.cartesian_prod(weights, weights).prod(-1)
    many = repeated(frames, len(noise))
    total = bound_terms(model, guide, *many, noise=noise[None, ..., None]).total
    gap = evidence - (weight * total.sum(-1)).sum()
    torch.testing.assert_close(gap, divergence, rtol=1e-5, atol=1e-6)
    assert float(gap) > 1e-6


def test_posteriors_that_the_closed_form_cannot_use_are_refused() -> None:
    """Terms by frames need a posterior of each frame, and gradients one that can be reparametrised."""
    model, frames = make_model("standard"), make_frames(COUNT)

    class Whole(FixedGuide):
        def posteriors(
            self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
        ) -> tuple[TorchDistribution, ...]:
            (posterior,) = super().posteriors(power, visual, encoder_input)
            return (posterior.to_event(1),)

    moments = torch.zeros(COUNT, 3, dtype=torch.float64), torch.ones(COUNT, 3, dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"expected posteriors over one frame's z .* got Independent of event_dim 2"
    ):
        branches(model, Whole([moments]), *frames)
    assert len(branches(model, FixedGuide([moments]), *frames)) == 1
