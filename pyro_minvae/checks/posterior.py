"""A guide that is the true posterior: with it every single draw of the bound is log p(s) (derivations, eq. 10.5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_minvae.checks.grid import Exact
from pyro_minvae.checks.subject import Frames, Subject
from pyro_minvae.guides.base import Guide
from pyro_minvae.models.distributions import as_event
from pyro_minvae.types import Visual


class GridPosterior(TorchDistribution):
    """p(z | s, alpha) of a toy model.

    `log_prob` is exact at every z by Bayes' rule, log p(z | alpha) + log p(s | z) - log p(s | alpha) with the last
    term by quadrature; samples are nodes of the grid, drawn by their masses.

    Args:
        density: z to its log density, batched as the units.
        nodes: [Q, units..., 1], or [Q, N, 1] for whole sequences.
        log_mass: [Q, units...].
        event_dim: 1 for frames, 2 for sequences.
    """

    arg_constraints = {}  # noqa: RUF012 - the base class's own type
    # Its draws are constants; only values are asked of it, no gradients.
    has_rsample = True

    def __init__(
        self,
        density: Callable[[Tensor], Tensor],
        nodes: Tensor,
        log_mass: Tensor,
        event_dim: int,
        batch_shape: Sequence[int] | None = None,
    ) -> None:
        self.density, self.nodes, self.log_mass = density, nodes, log_mass
        own = log_mass.shape[1:] if batch_shape is None else torch.Size(batch_shape)
        super().__init__(own, nodes.shape[nodes.dim() - event_dim :], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, self.event_dim)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> GridPosterior:
        return GridPosterior(self.density, self.nodes, self.log_mass, self.event_dim, batch_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        masses = self.log_mass.movedim(0, -1).exp().expand(*shape, -1)
        index = torch.multinomial(masses.reshape(-1, masses.shape[-1]), 1).reshape(shape)
        if self.event_dim == 2:
            return self.nodes[index]
        # All frames have the same nodes.
        return self.nodes[:, 0][index]

    def log_prob(self, value: Tensor) -> Tensor:
        return self.density(value)


class ExactGuide(Guide):
    """q = p(z | alpha, s) p(alpha | s) of a toy model at the frames it was made for; q(alpha) is given from outside."""

    def __init__(self, subject: Subject, frames: Frames, truth: Exact) -> None:
        super().__init__()
        self.mixed, self.visual = subject.guide.mixed, subject.guide.visual
        self.distributions = tuple(
            posterior(subject, frames, truth, alpha) for alpha in range(len(truth.log_conditional))
        )

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        return self.distributions


def posterior(subject: Subject, frames: Frames, truth: Exact, alpha: int) -> GridPosterior:
    """p(z | s, alpha) of `frames`."""
    model, (power, visual) = subject.model, frames
    prior = model.prior.conditionals(visual)[alpha]
    if model.coupled:
        prior = as_event(prior, power.shape[:-1])

    def density(z: Tensor) -> Tensor:
        likelihood = subject.per_unit(model.log_likelihood(power, z, visual))
        return prior.log_prob(z) + likelihood - truth.log_conditional[alpha]

    log_mass = truth.log_joint[alpha] + truth.grid.log_weights.reshape(
        -1, *[1] * (truth.log_joint[alpha].dim() - 1)
    )
    log_mass = log_mass - log_mass.logsumexp(0)
    return GridPosterior(density, truth.grid.z, log_mass, 2 if model.coupled else 1)
