"""Integrals over the latent vectors of a toy model: nodes, weights, and log p(s) by quadrature."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.checks.subject import Frames, Subject
from pyro_minvae.checks.terms import power_density
from pyro_minvae.models.distributions import as_event, factors

# Nodes on one axis, and how far they reach in u where z = sinh u, for one latent number and for two at once.
FINE, REACH = 3001, 7.0
FINE_PAIR, REACH_PAIR = 281, 4.2


class Grid(NamedTuple):
    """Nodes `z` [Q, N, 1] and their `log_weights` [Q].

    The trapezoidal rule in u with z = sinh u: for smooth densities its error falls exponentially with the number of
    nodes, and the nodes are dense where densities are narrow.

    Independent frames have the same Q nodes each. Two coupled frames have Q = G^2 pairs.
    """

    z: Tensor
    log_weights: Tensor

    def log_integral(self, log_density: Tensor) -> Tensor:
        """log of the integral of exp(log_density [Q, ...]): [...]."""
        return (log_density + _like(self.log_weights, log_density)).logsumexp(0)

    def expectation(self, log_density: Tensor, values: Tensor) -> Tensor:
        """The integral of exp(log_density) values, both [Q, ...]: [...]; 0 where the density vanishes."""
        mass = (log_density + _like(self.log_weights, log_density)).exp()
        return torch.where(mass > 0, mass * values, torch.zeros_like(mass)).sum(0)


def _like(weights: Tensor, other: Tensor) -> Tensor:
    return weights.reshape(-1, *[1] * (other.dim() - 1))


def grid_for(subject: Subject, frames: Frames, *, coarser: int = 1) -> Grid:
    """The grid of a model with L = 1; `coarser` = 2 takes every second node of each axis.

    Raises:
        ValueError: for more than one latent dimension, or more than two coupled frames.
    """
    latent, count = subject.recipe.model.latent, len(frames.power)
    if latent != 1 or (subject.model.coupled and count != 2):
        raise ValueError(f"expected one latent dimension and two coupled frames, got {latent} and {count}")
    nodes, reach = (FINE_PAIR, REACH_PAIR) if subject.model.coupled else (FINE, REACH)
    u = torch.linspace(-reach, reach, nodes, dtype=torch.float64)[::coarser]
    z, log_weights = u.sinh(), (u.cosh() * (u[1] - u[0])).log()
    if not subject.model.coupled:
        return Grid(z[:, None, None].expand(-1, count, 1), log_weights)
    pairs = torch.cartesian_prod(z, z)
    return Grid(pairs[..., None], torch.cartesian_prod(log_weights, log_weights).sum(-1))


class Exact(NamedTuple):
    """What quadrature knows of a toy model, unit by unit (frames, or the one sequence of coupled frames).

    `log_joint` [C, Q, units]: log p(z, s | alpha) at the nodes. `log_conditional` [C, units]: log p(s | alpha).
    `log_evidence` [units]: log p(s). `log_switch` [C, units]: log p(alpha), and `log_posterior` log p(alpha | s).
    """

    grid: Grid
    log_joint: Tensor
    log_conditional: Tensor
    log_evidence: Tensor
    log_switch: Tensor

    @property
    def log_posterior(self) -> Tensor:
        return self.log_switch + self.log_conditional - self.log_evidence


@torch.no_grad()
def exact(subject: Subject, frames: Frames, *, coarser: int = 1) -> Exact:
    """log p(s) = log sum_alpha p(alpha) int p(z | alpha) p(s | z) dz by quadrature (derivations, eq. 10.13)."""
    model = subject.model
    grid = grid_for(subject, frames, coarser=coarser)
    variance = model.variance(grid.z, frames.visual)
    likelihood = power_density(model.likelihood, frames.power, variance).sum(-1)
    joint = torch.stack(
        [
            subject.per_unit((likelihood + factors(p, grid.z)).expand_as(likelihood))
            for p in model.prior.conditionals(frames.visual)
        ]
    )
    conditional = torch.stack([grid.log_integral(part) for part in joint])
    switch = torch.zeros_like(conditional)
    if model.prior.mixed:
        weight = model.prior.audio_weight(frames.visual).expand(conditional.shape[1:])
        switch = torch.stack([torch.log1p(-weight), weight.log()])
    return Exact(grid, joint, conditional, (switch + conditional).logsumexp(0), switch)


@torch.no_grad()
def guide_densities(subject: Subject, frames: Frames, grid: Grid) -> Tensor:
    """log q(z | alpha) at the nodes: [C, Q, units]."""
    shape = frames.power.shape[:-1]
    densities = []
    for q in subject.guide.posteriors(*frames):
        if subject.model.coupled:
            densities.append(as_event(q, shape).log_prob(grid.z))
        else:
            densities.append(q.log_prob(grid.z).expand(grid.z.shape[:-1]))
    return torch.stack(densities)


@torch.no_grad()
def guide_gap(subject: Subject, frames: Frames, truth: Exact, weight: Tensor | None) -> Tensor:
    """KL(q(alpha, z) || p(alpha, z | s)) by quadrature, without the bound: [units] (derivations, eq. 10.11)."""
    q = guide_densities(subject, frames, truth.grid)
    posterior = truth.log_joint - truth.log_conditional[:, None]
    parts = torch.stack([truth.grid.expectation(a, a - b) for a, b in zip(q, posterior, strict=True)])
    if weight is None:
        return parts[0]
    switch = torch.stack([1 - weight, weight])
    return (switch * (switch.log() - truth.log_posterior + parts)).sum(0)
