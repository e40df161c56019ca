"""The integrals of a toy model over one grid: exact log p(s), the expected bounds, their gap, masses of densities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.checks.draws import Draws
from pyro_minvae.checks.grid import Exact, exact, guide_densities, guide_gap
from pyro_minvae.checks.subject import Frames, Subject
from pyro_minvae.checks.terms import branches_of, closed_terms, power_density, pyro_terms

# Standard normal noise on one axis, for one latent number and for two at once.
NOISE_REACH, NOISE, NOISE_PAIR = 9.0, 721, 181


class Integrals(NamedTuple):
    """Unit by unit [units]; `pyro` and `closed` are expected bounds (None for guides that are not Gaussian).

    `guide_mass` and `prior_mass` [C, units] are logarithms of the integrals of q(z | alpha) and p(z | alpha), and
    `likelihood_mass` [variances] of p(|s|^2 | sigma): zero for densities.
    """

    evidence: Tensor
    pyro: Tensor
    closed: Tensor | None
    gap: Tensor
    guide_mass: Tensor
    prior_mass: Tensor
    likelihood_mass: Tensor


@torch.no_grad()
def integrals(
    subject: Subject, frames: Frames, draws: Draws, weight: Tensor | None, *, coarser: int = 1
) -> tuple[Integrals, Exact]:
    """All of them on the grid, or on every second node of each axis for `coarser` = 2."""
    truth = exact(subject, frames, coarser=coarser)
    variance = subject.model.variance(truth.grid.z, frames.visual)
    likelihood = power_density(subject.model.likelihood, frames.power, variance).sum(-1)
    priors = truth.log_joint - subject.per_unit(likelihood)
    guides = guide_densities(subject, frames, truth.grid)
    found = Integrals(
        truth.log_evidence,
        pyro_expectation(subject, frames, truth, weight),
        closed_expectation(subject, frames, draws, weight, coarser=coarser),
        guide_gap(subject, frames, truth, weight),
        torch.stack([truth.grid.log_integral(density) for density in guides]),
        torch.stack([truth.grid.log_integral(density) for density in priors]),
        likelihood_mass(subject, coarser=coarser),
    )
    return found, truth


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
    subject: Subject, frames: Frames, draws: Draws, weight: Tensor | None, *, coarser: int = 1
) -> Tensor | None:
    """E over the noise of the closed ELBO [units], by the trapezoidal rule; None for guides that are not Gaussian."""
    if draws.noise is None:
        return None
    pair = subject.model.coupled
    axis = torch.linspace(-NOISE_REACH, NOISE_REACH, NOISE_PAIR if pair else NOISE, dtype=torch.float64)
    axis = axis[::coarser]
    masses = (-0.5 * axis**2).exp()
    nodes = torch.cartesian_prod(axis, axis) if pair else axis[:, None].expand(-1, len(frames.power))
    masses = torch.outer(masses, masses).flatten() if pair else masses
    noise = nodes[None, ..., None].expand(len(draws.noise), -1, -1, -1)
    terms = closed_terms(subject, frames, Draws(noise, draws.seed, len(nodes), True), weight)
    # The bound is affine in what depends on the noise.
    return torch.tensordot(masses / masses.sum(), terms.total, 1)


def likelihood_mass(subject: Subject, *, coarser: int = 1) -> Tensor:
    """log of the integral of the model's p(|s|^2 | sigma) over |s|^2 = sigma exp(t), for several sigma."""
    t = torch.linspace(-40, 600, 12801, dtype=torch.float64)[::coarser, None]
    log_variance = torch.tensor([-6.0, 0.0, 3.0], dtype=torch.float64).expand(len(t), -1)
    log_power = t + log_variance
    density = subject.model.likelihood.log_prob(log_power.exp(), log_variance)
    return (density + log_power).logsumexp(0) + (t[1] - t[0]).log()
