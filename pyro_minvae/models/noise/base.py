"""The contract of noise models: the variance of the background, learnt from the one noisy recording.

To write a new one, answer the methods of `NoiseModel`, most often by a subclass of `nmf.Nmf`, in a file of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

if TYPE_CHECKING:
    from pyro_minvae.inference.mcem.statistics import Statistics


class NoiseModel(Protocol):
    """b_fn ~ N_c(0, variance_nf) with parameters that have a prior (derivations, sec. 12).

    `sites` defines the prior p(theta) as a Pyro program, the one of `NoisyMixture`; `log_prior` is its log density at
    the parameters as they are, and `em_step` a step of theta that EM takes. The objective of a recording is
    -mean_r sum [log V + |x|^2 / V] + `log_prior()` (derivations, eqs. 6.50 and 12.1).
    """

    def variance(self) -> Tensor:
        """Variance of the noise, linear power [..., N, F], positive."""

    def em_step(self, statistics: Statistics) -> None:
        """One step on all parameters, from P and Q at any noise variance that the step asks for.

        It never lowers the objective, whatever the draws behind `statistics`.
        """

    def log_prior(self) -> Tensor:
        """log p(theta) of each recording in nats, [...]."""

    def sites(self, *, proper: bool = False) -> Tensor:
        """Pyro sites that sample theta from its prior; the variance [..., N, F] that they give.

        The joint log density of these sites at `site_values()` is the sum of `log_prior()`, and the variance is
        `variance()`. With `proper`, improper priors give way to vague ones, so that all can be sampled.
        """

    def site_values(self) -> dict[str, Tensor]:
        """theta as it is, by the names of its sites and as these have it."""


def flat(shape: tuple[int, ...] | torch.Size, support: constraints.Constraint) -> dist.ImproperUniform:
    """Density 1 on [...], one event: a site that can be conditioned on and not sampled."""
    return dist.ImproperUniform(constraints.independent(support, len(shape)), (), tuple(shape))


def all_finite(values: Tensor) -> bool:
    """Whether there is no NaN and no infinity, by the least and the largest number: a tenth of what isfinite takes."""
    return all(math.isfinite(float(one)) for one in values.aminmax())
