"""One speaker inside the EM loop: its model at its lips, its draws, and the variances that are known of them."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_minvae.inference.ops.workspace import Workspace
from pyro_minvae.models.noisy import Source


class SourceState:
    """What the loop knows of one source; `inference.mcem.e_step` moves it.

    `z` [R, ..., N, L] is where the R chains are and `sigma` [R, ..., N, F] their sigma(z) / w; `draws` [D, ..., N, L]
    are those kept of the last E-step, `kept` [D, ..., N, F] their sigma(z) / w. `tails` are the weights w [..., N, F]
    of heavy-tailed speech, None for complex Gaussians. The decoder is the costly part: no sigma is computed twice.
    """

    def __init__(self, source: Source, chains: int, power: Tensor) -> None:
        self.likelihood = source.model.likelihood
        self.speech = source.model.given(source.visual)
        # Chains start together: they part with the first proposals.
        self.z = source.start.expand(chains, *source.start.shape).contiguous()
        self.tails = torch.ones_like(power) if self.likelihood.weighted else None
        self.sigma = self.speech.variance(self.z)
        self.draws, self.kept = self.z, self.sigma
        self._scratch = Workspace()

    @property
    def raw(self) -> Tensor:
        """sigma(z), without the weights, of where the chains are."""
        return self.sigma if self.tails is None else self.sigma * self.tails

    def keep(self, place: int, count: int) -> None:
        """Where the chains are now is number `place` of the `count` draws that are kept of an E-step."""
        if count == 1:
            self.draws, self.kept = self.z, self.sigma
            return
        chains = len(self.z)
        shapes = [(count * chains, *one.shape[1:]) for one in (self.z, self.sigma)]
        if place == 0:
            self.draws = self.z.new_empty(shapes[0])
            self.kept = self._scratch("kept", self.sigma, shapes[1])
        rows = slice(place * chains, (place + 1) * chains)
        self.draws[rows] = self.z
        self.kept[rows] = self.sigma

    def settle(self, z: Tensor, raw: Tensor) -> None:
        """Where the chains are now, and sigma(z) there."""
        self.z, self.sigma = z, raw if self.tails is None else raw / self.tails

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
        """Probability of alpha = 1 given the draws: [..., N]; None for priors without alpha."""
        return self.speech.prior.responsibility(self.draws, mean_field=mean_field)
