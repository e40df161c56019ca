"""The bound against the exact log-likelihood, where quadrature can have it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.checks.compare import QUADRATURE, Comparison, equal, estimate, not_above, within_error
from pyro_minvae.checks.draws import draws_for
from pyro_minvae.checks.encoder_input import in_a_mixture
from pyro_minvae.checks.grid import Exact
from pyro_minvae.checks.importance import importance_bounds
from pyro_minvae.checks.integrals import Integrals, integrals
from pyro_minvae.checks.posterior import ExactGuide
from pyro_minvae.checks.subject import Frames, Subject, synthetic
from pyro_minvae.checks.terms import responsibility
from pyro_minvae.guides.responsibility import optimal_responsibility
from pyro_minvae.inference.svi.elbo import bound_terms, svi_loss
from pyro_minvae.inference.svi.importance import iwae
from pyro_minvae.models.divergences import bernoulli_kl
from pyro_minvae.models.priors import at_valid

# Frames of a toy: few, and two where they are coupled, as their integral is over all at once.
FRAMES, COUPLED_FRAMES = 4, 2
POSTERIOR_DRAWS = 4
# The least that quadrature must do, and how many times the change on every second node its error may be.
CONVERGED, SLACK = 1e-2, 4.0
EVIDENCE = "exact log p(s)"


class ToyFigures(NamedTuple):
    """Sums over the toy's frames, in nats; `closed` is None for guides that are not Gaussian."""

    frames: int
    evidence: float
    pyro: float
    closed: float | None
    gap: float
    kl: float
    at_posterior: float


@torch.no_grad()
def check_toy(subject: Subject, seed: int) -> tuple[ToyFigures, list[Comparison]]:
    """Everything that quadrature can say of a toy model (derivations, eq. 10.3, 10.5, 10.10)."""
    frames = synthetic(subject, COUPLED_FRAMES if subject.model.coupled else FRAMES, seed)
    subject = in_a_mixture(subject, frames, seed)
    draws = draws_for(subject, frames, 32, seed)
    weight = responsibility(subject, frames, draws)
    weight = None if weight is None else at_valid(weight, frames.visual)
    fine, truth = integrals(subject, frames, draws, weight)
    coarse, _ = integrals(subject, frames, draws, weight, coarser=2)
    at_posterior, found = _at_posterior(subject, frames, truth, seed)
    figures = ToyFigures(
        len(frames.power),
        float(fine.evidence.sum()),
        float(fine.pyro.sum()),
        None if fine.closed is None else float(fine.closed.sum()),
        float((fine.evidence - fine.pyro).sum()),
        float(fine.gap.sum()),
        at_posterior,
    )
    found = [*_quadrature(fine, coarse), *found, *_importance(subject, frames, truth, seed)]
    return figures, found


def _quadrature(fine: Integrals, coarse: Integrals) -> list[Comparison]:
    """What must hold of the integrals, up to their own error: a few times the change on every second node.

    It is rounding error for smooth densities. Kinks (a Laplace prior, a decoder with ReLU) cost some digits.
    """
    found = [
        equal(
            "quadrature of the toy",
            ("log p(s) on the grid", fine.evidence),
            ("on every second node", coarse.evidence),
            CONVERGED,
        )
    ]
    for name, bound, other in (
        ("Pyro's ELBO", fine.pyro, coarse.pyro),
        ("the closed ELBO", fine.closed, coarse.closed),
    ):
        if bound is None or other is None:
            continue
        slack = _slack((fine.evidence, coarse.evidence), (bound, other), (fine.gap, coarse.gap))
        found += [
            not_above("ELBO of the toy", (name, bound), (EVIDENCE, fine.evidence), QUADRATURE, slack),
            equal(
                "gap of the toy",
                (f"{EVIDENCE} less {name}", fine.evidence - bound),
                ("KL(q || p(.|s))", fine.gap),
                QUADRATURE,
                slack,
            ),
        ]
    densities = {
        "density q(z)": (fine.guide_mass, coarse.guide_mass),
        "density p(z)": (fine.prior_mass, coarse.prior_mass),
        "density p(s|z)": (fine.likelihood_mass, coarse.likelihood_mass),
    }
    for name, pair in densities.items():
        mass = ("log of its integral", pair[0])
        found.append(equal(name, mass, ("zero", torch.zeros_like(pair[0])), QUADRATURE, _slack(pair)))
    return found


def _slack(*pairs: tuple[Tensor, Tensor]) -> float:
    """Several times the error that halving the nodes makes."""
    return SLACK * sum(float((fine - coarse).abs().max()) for fine, coarse in pairs)


def _at_posterior(
    subject: Subject, frames: Frames, truth: Exact, seed: int
) -> tuple[float, list[Comparison]]:
    """With the true posterior as guide every draw of every bound is log p(s), up to the clipping of q(alpha)
    (derivations, eq. 10.5; 2.14 for q(alpha))."""
    guide = ExactGuide(subject, frames, truth)
    expected, weight, found = truth.log_evidence, None, []
    torch.manual_seed(seed)
    if guide.mixed:
        weight = truth.log_posterior[1].exp()
        clipped = at_valid(weight, frames.visual)
        expected = expected - bernoulli_kl(clipped, weight)
        best = optimal_responsibility(subject.model, guide, *frames)
        assert best is not None
        found.append(
            equal(
                "q(alpha) of the toy",
                ("optimal q(alpha = 1)", best),
                ("p(alpha = 1 | s)", clipped),
                QUADRATURE,
            )
        )
    at, values = "at the true posterior", []
    for _ in range(POSTERIOR_DRAWS):
        with torch.enable_grad():
            # TraceEnum_ELBO refuses a loss that cannot be differentiated.
            loss = svi_loss(subject.model, guide)(*frames, responsibility=weight)
        values.append(-loss.detach())
    losses = torch.stack(values)
    found.append(
        equal(f"ELBO {at}", ("Pyro's", losses), (EVIDENCE, expected.sum().expand_as(losses)), QUADRATURE)
    )
    if not subject.model.coupled:
        closed = bound_terms(subject.model, guide, *frames, responsibility=weight).total
        found.append(equal(f"ELBO {at}", ("bound_terms", closed), (EVIDENCE, expected), QUADRATURE))
    for k in (1, 10):
        bound = iwae(subject.model, guide, *frames, k)
        found.append(
            equal(f"IWAE bound, K = {k}, {at}", ("iwae", bound), (EVIDENCE, truth.log_evidence), QUADRATURE)
        )
    return float(losses.mean()), found


def _importance(subject: Subject, frames: Frames, truth: Exact, seed: int) -> list[Comparison]:
    """No importance-weighted bound exceeds log p(s) on average."""
    torch.manual_seed(seed)
    total = estimate(truth.log_evidence[None], 1)
    return [
        within_error(f"IWAE bound of the toy, K = {k}", ("iwae", bound), (EVIDENCE, total), ordered=True)
        for k, bound in importance_bounds(subject, frames, per_frame=False).items()
    ]
