"""The bound against the exact log-likelihood, where quadrature can have it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.checks.compare import QUADRATURE, Comparison, equal, estimate, not_above, within_error
from pyro_minvae.checks.draws import Draws, draws_for
from pyro_minvae.checks.grid import Exact, exact, guide_densities, guide_gap
from pyro_minvae.checks.importance import importance_bounds
from pyro_minvae.checks.posterior import ExactGuide
from pyro_minvae.checks.subject import Frames, Subject, synthetic
from pyro_minvae.checks.terms import branches_of, closed_terms, power_density, pyro_terms, responsibility
from pyro_minvae.inference.elbo import bernoulli_kl, bound_terms, optimal_responsibility, svi_loss
from pyro_minvae.inference.importance import iwae
from pyro_minvae.models.priors import at_valid

# Frames of a toy: few, and two where they are coupled, as their integral is over all at once.
FRAMES, COUPLED_FRAMES = 4, 2
POSTERIOR_DRAWS = 4
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
    truth = exact(subject, frames)
    draws = draws_for(subject, frames, 32, seed)
    weight = responsibility(subject, frames, draws)
    weight = None if weight is None else at_valid(weight, frames.visual)
    pyro_bound = pyro_expectation(subject, frames, truth, weight)
    closed_bound = closed_expectation(subject, frames, draws, weight)
    gap = guide_gap(subject, frames, truth, weight)
    found = [
        *_densities(subject, frames, truth),
        *_against(truth, "Pyro's ELBO", pyro_bound, gap),
        *([] if closed_bound is None else _against(truth, "the closed ELBO", closed_bound, gap)),
    ]
    at_posterior, more = _at_posterior(subject, frames, truth, seed)
    figures = ToyFigures(
        len(frames.power),
        float(truth.log_evidence.sum()),
        float(pyro_bound.sum()),
        None if closed_bound is None else float(closed_bound.sum()),
        float((truth.log_evidence - pyro_bound).sum()),
        float(gap.sum()),
        at_posterior,
    )
    return figures, [*found, *more, *_importance(subject, frames, truth, seed)]


def _against(truth: Exact, name: str, bound: Tensor, gap: Tensor) -> list[Comparison]:
    """The bound is below log p(s), and by exactly KL(q || p(.|s))."""
    evidence = truth.log_evidence
    return [
        not_above("ELBO of the toy", (name, bound), (EVIDENCE, evidence), QUADRATURE),
        equal(
            "gap of the toy",
            (f"{EVIDENCE} less {name}", evidence - bound),
            ("KL(q || p(.|s))", gap),
            QUADRATURE,
        ),
    ]


def pyro_expectation(subject: Subject, frames: Frames, truth: Exact, weight: Tensor | None) -> Tensor:
    """E_q of Pyro's terms at the nodes of the grid: the exact ELBO [units], with nothing random."""
    z = [truth.grid.z] * (2 if subject.guide.mixed else 1)
    terms = pyro_terms(subject, frames, z, weight)
    density = guide_densities(subject, frames, truth.grid)
    pairs = zip(density, branches_of(terms), strict=True)
    parts = [truth.grid.expectation(q, likelihood - kl) for q, (likelihood, kl) in pairs]
    if terms.responsibility is None or terms.kl_alpha is None:
        return parts[0]
    share = terms.responsibility[0]
    return share * parts[1] + (1 - share) * parts[0] - terms.kl_alpha[0]


def closed_expectation(
    subject: Subject, frames: Frames, draws: Draws, weight: Tensor | None
) -> Tensor | None:
    """E over the noise of the closed ELBO [units], by the trapezoidal rule; None for guides that are not Gaussian."""
    if draws.noise is None:
        return None
    count = len(frames.power)
    axis = torch.linspace(-9, 9, 181 if subject.model.coupled else 721, dtype=torch.float64)
    masses = (-0.5 * axis**2).exp()
    nodes = torch.cartesian_prod(axis, axis) if subject.model.coupled else axis[:, None].expand(-1, count)
    masses = torch.outer(masses, masses).flatten() if subject.model.coupled else masses
    noise = nodes[None, ..., None].expand(len(draws.noise), -1, -1, -1)
    terms = closed_terms(subject, frames, Draws(noise, draws.seed, len(nodes), True), weight)
    # The bound is affine in what depends on the noise.
    return torch.tensordot(masses / masses.sum(), terms.total, 1)


def _densities(subject: Subject, frames: Frames, truth: Exact) -> list[Comparison]:
    """The grid is fine enough, and what calls itself a density integrates to one."""
    coarse = exact(subject, frames, coarser=2)
    zero = torch.zeros((), dtype=torch.float64)
    found = [
        equal(
            "quadrature of the toy",
            ("log p(s) on the grid", truth.log_evidence),
            ("on every second node", coarse.log_evidence),
            QUADRATURE,
        )
    ]
    for alpha, density in enumerate(guide_densities(subject, frames, truth.grid)):
        mass = truth.grid.log_integral(density)
        found.append(
            equal(
                f"density q(z), component {alpha}", ("log of its integral", mass), ("zero", zero), QUADRATURE
            )
        )
    one = truth.log_joint - _log_likelihood(subject, frames, truth)
    for alpha, density in enumerate(one):
        mass = truth.grid.log_integral(density)
        found.append(
            equal(
                f"density p(z), component {alpha}", ("log of its integral", mass), ("zero", zero), QUADRATURE
            )
        )
    mass = likelihood_mass(subject)
    found.append(equal("density p(s|z)", ("log of its integral", mass), ("zero", zero), QUADRATURE))
    return found


def _log_likelihood(subject: Subject, frames: Frames, truth: Exact) -> Tensor:
    """log p(s | z) at the nodes [Q, units], by torch's own densities."""
    variance = subject.model.variance(truth.grid.z, frames.visual)
    return subject.per_unit(power_density(subject.model.likelihood, frames.power, variance).sum(-1))


def likelihood_mass(subject: Subject) -> Tensor:
    """log of the integral of the model's p(|s|^2 | sigma) over |s|^2 = sigma exp(t), for several sigma."""
    t = torch.linspace(-40, 600, 12801, dtype=torch.float64)[:, None]
    log_variance = torch.tensor([-6.0, 0.0, 3.0], dtype=torch.float64).expand(len(t), -1)
    log_power = t + log_variance
    density = subject.model.likelihood.log_prob(log_power.exp(), log_variance)
    return (density + log_power).logsumexp(0) + (t[1] - t[0]).log()


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
