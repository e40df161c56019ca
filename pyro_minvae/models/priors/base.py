"""The contract of priors p(alpha) p(z | alpha, v).

To write a new one, subclass `Prior` and answer `conditionals` (and `audio_weight` if alpha exists); everything
else, the Pyro sites included, follows from these.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_minvae.inference import ops
from pyro_minvae.inference.ops.formulas_e_step import mixed, shared
from pyro_minvae.inference.ops.gaussians import Gaussians
from pyro_minvae.models.distributions import Gaussian, density, gradient_of, normal, pick
from pyro_minvae.models.networks import GaussianNetwork
from pyro_minvae.types import Visual

# Without lips alpha is 1 up to this, so that log probabilities stay finite.
CERTAIN = 1e-6


class Components:
    """p(alpha) p(z | alpha, v) at given lips, for samplers: the networks have run, only z is open.

    `conditionals` are p(z | alpha, v) at index alpha (a single one where there is no alpha), `densities` their log
    densities as functions of z, `weight` is p(alpha = 1) and `logit` its logit (None where there is no alpha).
    """

    def __init__(self, conditionals: Sequence[TorchDistribution], weight: Tensor | None) -> None:
        self.conditionals, self.weight = tuple(conditionals), weight
        self.densities = [density(conditional) for conditional in conditionals]
        gaussians = [one for one in self.densities if isinstance(one, Gaussian)]
        self._log_weights = None if weight is None else (torch.log1p(-weight), weight.log())
        all_are = len(gaussians) == len(self.densities)
        normals = [one.normal for one in gaussians]
        self._gaussians = Gaussians(normals, self._log_weights) if all_are else None
        self.logit = None if weight is None else torch.logit(weight)

    def log_prob(self, z: Tensor) -> Tensor:
        """log sum_alpha p(alpha) p(z | alpha, v), exactly: [..., N, L] to [..., N].

        Where frames are coupled these are the factors log p(z_n | z_(n-1)), which sum to the joint log density.
        (derivations, eqs. 2.2 and 3.12)
        """
        if self._gaussians is not None:
            return ops.log_mixture(z, self._gaussians)
        return mixed([of_z(z) for of_z in self.densities], self._log_weights)

    def expected_log_prob(self, z: Tensor, weight: Tensor | None) -> Tensor:
        """E_q(alpha)[log p(z | alpha, v)] for q(alpha = 1) = `weight` [..., N]: [..., N, L] to [..., N].

        (derivations, eq. 6.28)
        """
        if weight is None:
            return self.densities[0](z)
        if self._gaussians is not None:
            return ops.log_mixture(z, self._gaussians, weight)
        return mixed([of_z(z) for of_z in self.densities], self._log_weights, weight)

    def log_ratio(self, z: Tensor) -> Tensor:
        """log p(z | alpha = 1, v) - log p(z | alpha = 0, v): [..., N, L] to [..., N]."""
        lips, audio = self.densities
        return audio(z) - lips(z)

    def responsibility(self, draws: Tensor, *, mean_field: bool) -> Tensor | None:
        """Probability of alpha = 1 given draws [D, ..., N, L]: [..., N]; None where there is no alpha.

        Mean-field: sigmoid(logit pi + E[log N_a - log N_v]), the optimal q(alpha) (derivations, eq. 6.29). Otherwise
        E[p(alpha = 1 | z)] (eq. 6.10).
        """
        if self.logit is None:
            return None
        if self._gaussians is not None:
            return ops.responsibility(draws, self._gaussians, of_mean=mean_field)
        return shared(self.log_ratio(draws), self.logit, of_mean=mean_field)

    def gradient(self, z: Tensor) -> Tensor:
        """Of the sum of `log_prob` [..., N, L]: sum_alpha p(alpha | z, v) grad log p(z | alpha, v).

        (derivations, eq. 11.24)
        """
        if self._gaussians is None:
            return gradient_of(self.log_prob, z)[1]
        return ops.mixture_gradient(z, self._gaussians)

    def expected_gradient(self, z: Tensor, weight: Tensor | None) -> Tensor:
        """Of the sum of `expected_log_prob` [..., N, L]."""
        if self._gaussians is None:
            return gradient_of(lambda z: self.expected_log_prob(z, weight), z)[1]
        return ops.mixture_gradient(z, self._gaussians, weight)


class Prior(nn.Module):
    """p(alpha) p(z | alpha, v).

    `mixed` priors have the switch alpha, the others a single component; `visual` ones look at lips; `coupled` ones
    are over all frames of a sequence at once (their conditional has `factors` and `over`, as `MarkovNormal`).
    """

    mixed = False
    visual = False
    coupled = False

    def conditionals(self, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        """p(z | alpha, v) over z [L], batch broadcastable to [..., N], at index alpha; one where there is no alpha."""
        raise NotImplementedError(f"{type(self).__name__} lacks conditionals()")

    def audio_weight(self, visual: Visual | None) -> Tensor:
        """p(alpha = 1), a scalar or [..., N]."""
        raise TypeError(f"{type(self).__name__} has no alpha")

    def given(self, alpha: Tensor | None, visual: Visual | None, frames: int) -> TorchDistribution:
        """p(z | alpha, v) of N = `frames` frames, for alpha of any shape [..., N] (None where there is no alpha)."""
        conditionals = self.conditionals(visual)
        if alpha is None:
            return conditionals[0].over(frames) if self.coupled else conditionals[0]
        return pick(alpha, *conditionals)

    def start_at(self, log_power: Tensor) -> None:
        """Prepare for speech whose mean log power is [F], before training; most priors need not."""

    def components(self, visual: Visual | None) -> Components:
        """The prior at given lips, a function of z alone."""
        return Components(self.conditionals(visual), self.audio_weight(visual) if self.mixed else None)

    def log_prob(self, z: Tensor, visual: Visual | None) -> Tensor:
        """log p(z | v) = log sum_alpha p(alpha) p(z | alpha, v), exactly: [..., N, L] to [..., N]."""
        return self.components(visual).log_prob(z)


def seen(network: GaussianNetwork, visual: Visual) -> TorchDistribution:
    """The Gaussian of a visual network, and N(0, I) on frames without valid lips."""
    valid = visual.valid[..., None]
    # Features of invalid frames may be anything; a NaN among them would reach the weights' gradients.
    mean, scale = network(torch.where(valid, visual.features, 0.0))
    return normal(
        torch.where(valid, mean, torch.zeros_like(mean)), torch.where(valid, scale, torch.ones_like(scale))
    )


def at_valid(audio_weight: Tensor, visual: Visual | None) -> Tensor:
    """A probability of alpha = 1 that is (almost) certain on frames without valid lips (derivations, eq. 2.16)."""
    audio_weight = audio_weight.clamp(CERTAIN, 1 - CERTAIN)
    if visual is None:
        return torch.full_like(audio_weight, 1 - CERTAIN)
    return torch.where(visual.valid, audio_weight, torch.full_like(audio_weight, 1 - CERTAIN))
