"""Each term of the bound three times: from Pyro's traces, in closed form, and by Monte Carlo from densities alone."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from pyro_minvae.checks.draws import Draws, Given
from pyro_minvae.checks.subject import Frames, Subject
from pyro_minvae.guides.responsibility import responsibility_of
from pyro_minvae.guides.speech import SpeechGuide
from pyro_minvae.inference.svi.elbo import BoundTerms, bound_terms, svi_loss
from pyro_minvae.models.distributions import as_event
from pyro_minvae.models.likelihoods import ComplexGaussian, Likelihood, StudentT
from pyro_minvae.models.priors import at_valid

# Numbers of one array of Monte-Carlo draws [draws, N, F] that are computed at once.
BLOCK = 2**22

# Field of BoundTerms -> name of the term, without and with a switch alpha.
PLAIN = {"likelihood": "E log p(s|z)", "kl": "KL of z", "total": "ELBO"}
MIXED = {
    "likelihood": "E log p(s|z), alpha = 1",
    "kl": "KL of z, alpha = 1",
    "likelihood_visual": "E log p(s|z), alpha = 0",
    "kl_visual": "KL of z, alpha = 0",
    "kl_alpha": "KL of alpha",
    "total": "ELBO",
}


def names(subject: Subject) -> dict[str, str]:
    """Field of `BoundTerms` -> name of the term."""
    return MIXED if subject.guide.mixed else PLAIN


@torch.no_grad()
def responsibility(subject: Subject, frames: Frames, draws: Draws) -> Tensor | None:
    """The q(alpha_n = 1) [N] that every column uses: the guide's own, or the optimal one; None without alpha.

    The optimum is taken for R averaged over the draws, so that it depends little on them (derivations, eq. 2.21).
    """
    if not subject.guide.mixed:
        return None
    own = subject.guide.audio_weight(*frames)
    if own is not None:
        return own
    prior_weight = subject.model.prior.audio_weight(frames.visual)
    return responsibility_of(branch_bounds(subject, frames, draws), prior_weight, frames.visual)


def branch_bounds(subject: Subject, frames: Frames, draws: Draws) -> list[tuple[Tensor, Tensor]]:
    """(R, K) [N] of each component, index alpha, averaged over the draws."""
    half = frames.power.new_full(frames.power.shape[:-1], 0.5)
    terms = closed_terms(subject, frames, draws, half)
    return [(likelihood.mean(0), kl.mean(0)) for likelihood, kl in branches_of(terms)]


def branches_of(terms: BoundTerms) -> list[tuple[Tensor, Tensor]]:
    """(R, K) of each component, index alpha."""
    audio = (terms.likelihood, terms.kl)
    if terms.likelihood_visual is None or terms.kl_visual is None:
        return [audio]
    return [(terms.likelihood_visual, terms.kl_visual), audio]


def pyro_loss(subject: Subject, frames: Frames, z: list[Tensor], weight: Tensor | None) -> Tensor:
    """Pyro's Trace_ELBO or TraceEnum_ELBO at the draws z [M, N, L]: minus the bound, averaged over the draws."""
    many, flat_z, many_weight = _copies(subject, frames, z, weight)
    with Given(flat_z):
        return svi_loss(subject.model, subject.guide)(*many, responsibility=many_weight) / len(z[0])


def pyro_terms(subject: Subject, frames: Frames, z: list[Tensor], weight: Tensor | None) -> BoundTerms:
    """The terms at the draws z [M, N, L], read off the sites of traces of model and guide: [M, units].

    A unit is a frame, or the whole sequence where frames are coupled. A likelihood's own site "w" counts with
    log p(s | z, w) + log p(w) - log q(w), which is log p(s | z) at every w (derivations, eq. 4.7).
    """
    many, flat_z, many_weight = _copies(subject, frames, z, weight)
    program = SpeechGuide(subject.model, subject.guide)
    guide: Any = program
    if subject.guide.mixed:
        # One plate is in the way at most, so enumeration takes the second dimension from the right.
        guide = poutine.enum(guide, first_available_dim=-2)
    with Given(flat_z), program.given(responsibility=many_weight):
        q = poutine.trace(guide).get_trace(*many)
        p = poutine.trace(poutine.replay(subject.model, trace=q)).get_trace(*many)
    q.compute_log_prob()
    p.compute_log_prob()

    def ratio(site: str) -> Tensor:
        return _log_prob(q, site) - _log_prob(p, site)

    reconstruction = _log_prob(p, "s")
    if subject.model.likelihood.weighted:
        reconstruction = reconstruction - ratio("w")
    shape = (len(z[0]), *frames.power.shape[: 0 if subject.model.coupled else -1])
    if not subject.guide.mixed:
        r, k = reconstruction.reshape(shape), ratio("z").reshape(shape)
        return BoundTerms(r - k, r, k)
    (r0, r1), (k0, k1) = (part.reshape(2, *shape) for part in (reconstruction, ratio("z")))
    off, on = _log_prob(q, "alpha").exp().expand(2, many.power.shape[0]).reshape(2, *shape)
    switch = (off * ratio("alpha")[0].reshape(-1, shape[-1])) + on * ratio("alpha")[1].reshape(-1, shape[-1])
    total = on * (r1 - k1) + off * (r0 - k0) - switch
    return BoundTerms(total, r1, k1, on, r0, k0, switch)


def _log_prob(trace: Trace, site: str) -> Tensor:
    return trace.nodes[site]["log_prob"]


def _copies(
    subject: Subject, frames: Frames, z: list[Tensor], weight: Tensor | None
) -> tuple[Frames, list[Tensor], Tensor | None]:
    """The frames once for each of the M draws: as more frames, or as more sequences where they must be in a row."""
    flat = not (subject.model.coupled or subject.guide.reach)
    many = frames.repeated(len(z[0]), flat=flat)
    if weight is not None:
        weight = weight.expand(len(z[0]), *weight.shape).reshape(-1)
    return many, [part.flatten(0, 1) if flat else part for part in z], weight


def closed_terms(subject: Subject, frames: Frames, draws: Draws, weight: Tensor | None) -> BoundTerms:
    """`bound_terms` at the same draws: [M, units], KL in closed form where there is one."""
    if draws.noise is None:
        many = frames.repeated(draws.size, flat=False)
        terms = bound_terms(subject.model, subject.guide, *many, responsibility=weight)
    else:
        terms = bound_terms(subject.model, subject.guide, *frames, responsibility=weight, noise=draws.noise)
    shape = (draws.size, len(frames.power))
    known = {name: term for name, term in terms._asdict().items() if term is not None}
    return BoundTerms(**{name: subject.per_unit(term.expand(shape)) for name, term in known.items()})


@torch.no_grad()
def monte_carlo_terms(subject: Subject, frames: Frames, count: int, weight: Tensor | None) -> BoundTerms:
    """`count` fresh draws [count, units], from log densities alone: log p(s | z) and log q - log p.

    The density of the power is torch's own, with the decoder's variance; alpha is summed by Bernoulli log densities.
    """
    model, shape = subject.model, frames.power.shape[:-1]
    size = max(1, BLOCK // frames.power.numel())
    priors = model.prior.conditionals(frames.visual)
    pairs = []
    for q, p in zip(subject.guide.posteriors(*frames), priors, strict=True):
        q = as_event(q, shape) if model.coupled else q.expand(shape)
        p = as_event(p, shape) if model.coupled else p
        r, k = [], []
        for start in range(0, count, size):
            z = q.sample((min(size, count - start),))
            variance = model.variance(z, frames.visual)
            r.append(subject.per_unit(power_density(model.likelihood, frames.power, variance).sum(-1)))
            k.append(q.log_prob(z) - p.log_prob(z))
        pairs.append((torch.cat(r), torch.cat(k)))
    if weight is None:
        ((r1, k1),) = pairs
        return BoundTerms(r1 - k1, r1, k1)
    (r0, k0), (r1, k1) = pairs
    switch = dist.Bernoulli(at_valid(weight, frames.visual))
    prior = dist.Bernoulli(model.prior.audio_weight(frames.visual).expand(shape))
    values = torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None].expand(2, *shape)
    logs = switch.log_prob(values)
    kl_alpha = (logs.exp() * (logs - prior.log_prob(values))).sum(0)
    off, on = logs.exp()
    total = on * (r1 - k1) + off * (r0 - k0) - kl_alpha
    return BoundTerms(total, r1, k1, on.expand_as(r1), r0, k0, kl_alpha.expand_as(r1))


def power_density(likelihood: Likelihood, power: Tensor, variance: Tensor) -> Tensor:
    """log p(|s|^2 | sigma), elementwise, by torch's distributions where they have it.

    The complex Gaussian's power is Exponential (derivations, eq. 4.1); the Student-t's divided by sigma is
    Fisher-Snedecor F(2, dof), a ratio of an Exponential and a Gamma (eq. 4.2).
    """
    if type(likelihood) is ComplexGaussian:
        return dist.Exponential(1 / variance, validate_args=False).log_prob(power)
    if type(likelihood) is StudentT:
        two = torch.full_like(variance, 2.0)
        ratio = dist.FisherSnedecor(two, two * likelihood.shape, validate_args=False)
        # At 0 torch multiplies 0 by the logarithm of 0.
        return ratio.log_prob((power / variance).clamp_min(1e-300)) - variance.log()
    return likelihood.log_prob(power, variance.log())
