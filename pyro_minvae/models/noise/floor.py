"""No background noise but a floor: what keeps mixtures of speakers alone from dividing by nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from pyro_minvae.inference.ops.minimisers import TINY
from pyro_minvae.models.noise.nmf import Nmf, raised_cosine_basis

if TYPE_CHECKING:
    from pyro_minvae.inference.mcem.statistics import Statistics


class Floor(Nmf):
    """b_fn ~ N_c(0, 10^(d/10) mean_n |x_fn|^2): the mixture's own mean spectrum, d = `level` dB below it, and fixed.

    It takes the part of (W H)_fn in V (derivations, eq. 7.2) where there is no background. Below it the speakers'
    variances do not matter, so that bins in which all of them are silent decide nothing. There are no parameters and so
    no prior.
    """

    def __init__(self, power: Tensor, *, level: float) -> None:
        """A floor for the mixture's `power` [..., N, F], `level` < 0 in dB.

        Raises:
            ValueError: if the level is not negative.
        """
        if not level < 0:
            raise ValueError(f"expected a level below 0 dB, got {level}")
        self.loudness = power.mean((-1, -2))
        # An Nmf of one column and one level, so that floors stack as other noise does; nothing is drawn.
        self.bumps = raised_cosine_basis(power.shape[-2], math.inf).to(power)
        self.W = power.mean(-2)[..., None] + TINY
        self.A = (10 ** (level / 10) * self.W.sum(-2, keepdim=True)).clamp_min(TINY)
        self.W = self.W / self.W.sum(-2, keepdim=True)

    def em_step(self, statistics: Statistics) -> None:
        """Nothing: the floor is fixed."""

    def log_prior(self) -> Tensor:
        """0 [...]: nothing is fitted."""
        return self.W.new_zeros(self.W.shape[:-2])

    def sites(self, *, proper: bool = False) -> Tensor:
        """No sites; the variance itself."""
        return self.variance()

    def site_values(self) -> dict[str, Tensor]:
        """None."""
        return {}
