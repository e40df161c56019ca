"""One speaker inside the EM loop: its model at its lips, its chains, and the variances that are known of them."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_minvae.inference.kernels.base import ChainInfo, ChainState, Kernel, Target, refresh
from pyro_minvae.inference.kernels.draws import Randomness
from pyro_minvae.models.distributions import factors
from pyro_minvae.models.mixture import Source


class Voice:
    """The chains of one source and everything that follows from where they are.

    `draws` [D, ..., N, L] are those kept of the last E-step, `kept` [D, ..., N, F] their sigma(z) / w, `sigma`
    [R, ..., N, F] that of where the R chains are now. `tails` are the weights w [..., N, F] of heavy-tailed speech,
    None for complex Gaussians. The decoder is the costly part, so no sigma is computed twice.
    """

    def __init__(self, source: Source, kernel: Kernel, chains: int, power: Tensor) -> None:
        self.kernel = kernel
        self.likelihood = source.model.likelihood
        speech = source.model.given(source.visual)
        self.speech = speech._replace(variance=self._decode)
        self._variance = speech.variance
        self.last = power  # what the decoder said last
        # Chains start together: they part with the first proposals.
        self.z = source.start.expand(chains, *source.start.shape).contiguous()
        self.state: ChainState | None = None
        self.tails = torch.ones_like(power) if self.likelihood.weighted else None
        self._known: Tensor | None = None
        self.sigma = self._variance(self.z)
        self.draws, self.kept = self.z, self.sigma

    def _decode(self, z: Tensor) -> Tensor:
        """sigma(z), remembered; where the chains are now it is known."""
        self.last = self.raw if z is self._known else self._variance(z)
        return self.last

    @property
    def raw(self) -> Tensor:
        """sigma(z), without the weights, of where the chains are."""
        return self.sigma if self.tails is None else self.sigma * self.tails

    def move(self, target: Target, generator: Randomness, *, steps: int, keep: int) -> Tensor:
        """An E-step's `steps` moves, of which the last `keep` are kept; the share of accepted proposals [..., N]."""
        self._known, sigma = self.z, self.raw
        old = self.state
        state = self.kernel.init(target, self.z) if old is None else refresh(self.kernel, target, old)
        draws, kept, accepted = [], [], []
        for step in range(steps):
            state, info = self.kernel.step(target, state, generator)
            sigma = self._after(target, state, info, sigma)
            accepted.append(info.accepted.float().mean(0))
            if step >= steps - keep:
                draws.append(state.position)
                kept.append(sigma)
        self.state, self.z = state, state.position
        self.draws, self.kept, self.sigma = torch.cat(draws), torch.cat(kept), sigma
        if self.tails is not None:
            self.kept, self.sigma = self.kept / self.tails, self.sigma / self.tails
        return torch.stack(accepted).mean(0)

    def _after(self, target: Target, state: ChainState, info: ChainInfo, sigma: Tensor) -> Tensor:
        """sigma(z) after a step. Kernels ask for the density of their proposal last, so it is known by then."""
        if target.reach != (0, 0):
            # A step is several proposals, and a frame's sigma may depend on neighbours that moved later.
            return self._variance(state.position)
        return torch.where(info.accepted[..., None], self.last.detach(), sigma)

    def reweight(self, ratio: Tensor, *, mode: bool) -> None:
        """New weights of heavy-tailed speech, given E|sqrt(g) s|^2 / (g sigma) [..., N, F] (eqs. 6.34 and 6.38)."""
        assert self.tails is not None
        weight = self.likelihood.weight(ratio, mode=mode)
        change = self.tails / weight
        self.kept, self.sigma, self.tails = self.kept * change, self.sigma * change, weight

    def log_tails(self) -> Tensor | float:
        """log p(w) [..., N], which EM steps of w climb together with the likelihood."""
        return 0.0 if self.tails is None else self.likelihood.log_weight_density(self.tails).sum(-1)

    def responsibility(self, *, mean_field: bool) -> Tensor | None:
        """Probability of alpha = 1 given the draws: [..., N]; None for priors without alpha.

        Mean-field: sigmoid(logit pi + E[log N_a - log N_v]), the optimal q(alpha) (derivations, eq. 6.29). Marginal:
        E[p(alpha = 1 | z)] (eq. 6.10).
        """
        prior = self.speech.prior
        if prior.weight is None:
            return None
        lips, audio = prior.conditionals
        ratio = factors(audio, self.draws) - factors(lips, self.draws)
        logit = torch.logit(prior.weight)
        if mean_field:
            return (logit + ratio.mean(0)).sigmoid()
        return (logit + ratio).sigmoid().mean(0)
