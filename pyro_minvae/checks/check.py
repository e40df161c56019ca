"""The whole check of one system: figures for a table, and a list of comparisons that must all agree."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.checks.compare import Comparison, Estimate, equal, estimate, within_error
from pyro_minvae.checks.draws import Draws, closed, draws_for
from pyro_minvae.checks.encoder_input import hears_mixtures, in_a_mixture
from pyro_minvae.checks.gradients import GradientFigures, check_gradients
from pyro_minvae.checks.importance import check_order, importance_bounds
from pyro_minvae.checks.subject import Frames, Subject, toy
from pyro_minvae.checks.terms import (
    branch_bounds,
    closed_terms,
    monte_carlo_terms,
    names,
    power_density,
    pyro_loss,
    pyro_terms,
    responsibility,
)
from pyro_minvae.checks.toy import ToyFigures, check_toy
from pyro_minvae.guides.responsibility import CLIP, responsibility_of
from pyro_minvae.inference.svi.elbo import BoundTerms
from pyro_minvae.models.divergences import bernoulli_kl
from pyro_minvae.models.priors import at_valid

# Draws that Pyro's and the closed column share; gradients need fewer.
SHARED, SHARED_GRADIENT = 64, 16


class TermRow(NamedTuple):
    """One term in nats per frame: by Pyro's traces, in closed form, by Monte Carlo."""

    term: str
    pyro: Estimate
    closed: Estimate
    monte_carlo: Estimate


class Report(NamedTuple):
    """What a check found. `notes` say where a column is not what its title says."""

    rows: list[TermRow]
    responsibility: float | None
    bounds: dict[int, Estimate]
    toy: ToyFigures
    gradients: GradientFigures
    notes: list[str]
    comparisons: list[Comparison]

    @property
    def disagreements(self) -> list[Comparison]:
        """The comparisons that failed."""
        return [comparison for comparison in self.comparisons if not comparison.agrees]


def check(subject: Subject, frames: Frames, *, draws: int = 1000, seed: int = 0) -> Report:
    """Compare every term, bound and gradient of a system on some frames, and of a toy of its kinds.

    A guide that learns from mixed speech hears the frames mixed (derivations, eq. 7.9).

    Args:
        draws: of the Monte-Carlo column.
        seed: of all draws, and of the toy's parameters and frames.
    """
    count = len(frames.power)
    subject = in_a_mixture(subject, frames, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shared = draws_for(subject, frames, SHARED, seed)
        weight = responsibility(subject, frames, shared)
        rows, found = check_terms(subject, frames, shared, weight, draws)
        bounds = importance_bounds(subject, frames)
        found += check_order(subject, bounds, rows[-1].monte_carlo)
        if weight is not None:
            found += check_responsibility(subject, frames, shared, weight)
        few = draws_for(subject, frames, SHARED_GRADIENT, seed + 1)
        gradients, more = check_gradients(subject, frames, few, seed)
        small, most = check_toy(toy(subject.recipe, seed), seed)
    mean = None if weight is None else float(at_valid(weight, frames.visual).mean())
    found = [*found, *more, *most]
    notes = [] if count == 0 else notes_on(subject, frames, shared)
    return Report(rows, mean, bounds, small, gradients, notes, found)


def check_terms(
    subject: Subject, frames: Frames, draws: Draws, weight: Tensor | None, many: int
) -> tuple[list[TermRow], list[Comparison]]:
    """Every term by Pyro, in closed form and by Monte Carlo, in nats per frame."""
    count = len(frames.power)
    with torch.enable_grad():
        # TraceEnum_ELBO refuses a loss that cannot be differentiated.
        z = draws.place(subject, frames)
        loss = pyro_loss(subject, frames, z, weight).detach()
    with torch.no_grad():
        by_pyro = pyro_terms(subject, frames, z, weight)
        by_hand = closed_terms(subject, frames, draws, weight)
        drawn = monte_carlo_terms(subject, frames, many, weight)
    rows, found = [], []
    for field, name in names(subject).items():
        columns = [getattr(terms, field) for terms in (by_pyro, by_hand, drawn)]
        row = TermRow(name, *(estimate(column, count) for column in columns))
        if draws.matched or field == "kl_alpha":
            means = [column.mean(0) for column in columns[:2]]
            found.append(equal(name, ("Pyro's", means[0]), ("closed form", means[1])))
        else:
            found.append(within_error(name, ("Pyro's", row.pyro), ("closed form", row.closed)))
        found.append(within_error(name, ("closed form", row.closed), ("Monte Carlo", row.monte_carlo)))
        rows.append(row)
    found += _likelihoods(subject, frames, z)
    total = by_pyro.total.mean(0).sum()
    found.append(
        equal("ELBO", ("Pyro's loss, negated", -loss / count), ("sum of Pyro's terms", total / count))
    )
    rows[-1] = rows[-1]._replace(pyro=rows[-1].pyro._replace(value=float(-loss) / count))
    return _exact(rows, draws, drawn), found


@torch.no_grad()
def _likelihoods(subject: Subject, frames: Frames, z: list[Tensor]) -> list[Comparison]:
    """log p(s | z) of the model and of torch's own densities, draw by draw."""
    fields = ["likelihood"] if len(z) == 1 else ["likelihood_visual", "likelihood"]
    found = []
    for field, part in zip(fields, z, strict=True):
        variance = subject.model.variance(part, frames.visual)
        torchs = power_density(subject.model.likelihood, frames.power, variance).sum(-1)
        own = subject.model.log_likelihood(frames.power, part, frames.visual)
        found.append(equal(names(subject)[field], ("closed form", own), ("torch's density", torchs)))
    return found


def _exact(rows: list[TermRow], draws: Draws, drawn: BoundTerms) -> list[TermRow]:
    """Divergences whose average over matched draws is their expectation have no standard error."""
    if not draws.matched:
        return rows
    return [
        row._replace(pyro=Estimate(row.pyro.value)) if row.closed.error == 0 and row.term != "ELBO" else row
        for row in rows
    ]


@torch.no_grad()
def check_responsibility(subject: Subject, frames: Frames, draws: Draws, weight: Tensor) -> list[Comparison]:
    """The optimal q(alpha) is Bayes' rule, and any other loses its divergence from it (derivations, eq. 2.10, 2.11)."""
    pairs = branch_bounds(subject, frames, draws)
    prior = subject.model.prior.audio_weight(frames.visual)
    (off, on) = (r - k for r, k in pairs)
    logit = torch.logit(prior) + on - off
    bayes = at_valid(logit.clamp(-CLIP, CLIP).sigmoid(), frames.visual)
    got = responsibility_of(pairs, prior, frames.visual)
    best = torch.logaddexp(prior.log() + on, torch.log1p(-prior) + off)
    share = at_valid(weight, frames.visual)
    # log sigmoid, because the optimum itself may be 0 or 1 in double precision.
    lost = share * (share.log() - torch.nn.functional.logsigmoid(logit)) + (1 - share) * (
        torch.log1p(-share) - torch.nn.functional.logsigmoid(-logit)
    )
    total = share * on + (1 - share) * off - bernoulli_kl(share, prior)
    reported = closed_terms(subject, frames, draws, weight).total.mean(0)
    term = "q(alpha = 1)"
    return [
        equal(term, ("optimal", got), ("sigmoid of the log odds", bayes)),
        equal(term, ("bound", total), ("best bound less KL(q(alpha) || optimum)", best - lost)),
        equal("ELBO", ("closed form", reported), ("sum of its branches", total)),
    ]


def notes_on(subject: Subject, frames: Frames, draws: Draws) -> list[str]:
    """Where a column is not what its title says."""
    notes = []
    pairs = zip(
        subject.guide.posteriors(*frames), subject.model.prior.conditionals(frames.visual), strict=True
    )
    if not all(closed(q, p) for q, p in pairs):
        notes.append("KL of z has no closed form here: that column holds log q - log p at Pyro's draws")
    if not draws.matched:
        notes.append(
            "z is not Gaussian everywhere: sampled and closed divergences agree within standard errors only"
        )
    if subject.model.likelihood.weighted:
        notes.append("log p(s|z) of Pyro's column is log p(s|z,w) + log p(w) - log q(w), the same at every w")
    if hears_mixtures(subject):
        notes.append(
            "the guide hears each frame mixed with another, as in training: a bound whatever it hears"
        )
    if subject.model.coupled:
        notes.append("frames are coupled: they are one event, and IWAE bounds are of the whole sequence")
    return notes
