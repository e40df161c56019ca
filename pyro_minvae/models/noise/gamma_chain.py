"""NMF whose activations follow a Markov chain: noise that may change, but seldom at once."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import pad

from pyro_minvae.inference import ops
from pyro_minvae.inference.ops.minimisers import TINY
from pyro_minvae.models.noise.base import flat
from pyro_minvae.models.noise.nmf import Nmf

# Standard deviation of the log level where it has to be proper: a factor of 20 either way.
SPREAD = 3.0


class ChainNmf(Nmf):
    """NMF, V = W A B, with a gamma Markov chain on each row of A (derivations, sec. 12; eq. 12.7).

    a_km = a_k(m-1) / e_km with steps e_km ~ Gamma(s, s), s = `strength`: mean 1 and variance 1/s, so that log A moves
    by about 1 / sqrt(s) from column to column. The first level is flat in log a, and so is the measure of the
    MAP estimate, so that the prior does not depend on the scale of A:

        log p(A) = sum_k sum_m>1 [s log s - log Gamma(s) + s (log e_km - e_km)],   e_km = a_k(m-1) / a_km,

    which is -s sum_m D_IS(a_(m-1) | a_m) up to a constant. Source: Fevotte 2011, "Majorization-minimization algorithm
    for smooth Itakura-Saito nonnegative matrix factorization", there as a penalty and with the noise alone in V.
    """

    # The shape of A, which columns are live, and the links that belong to them.
    _known_links: tuple[torch.Size, Tensor | None, Tensor] | None = None

    def __init__(
        self,
        power: Tensor,
        *,
        rank: int,
        strength: float,
        smooth: float = 0.0,
        sweeps: int = 1,
        generator: torch.Generator | None = None,
        spectra: Tensor | None = None,
    ) -> None:
        """`strength` s > 0 as above, `sweeps` over the columns in each update; the others as for `Nmf`.

        Raises:
            ValueError: as `Nmf`, or if the strength or the number of sweeps is not positive.
        """
        if not strength > 0 or math.isinf(strength):
            raise ValueError(f"expected a positive strength, got {strength}")
        if sweeps < 1:
            raise ValueError(f"expected at least one sweep, got {sweeps}")
        self.strength, self.sweeps = strength, sweeps
        super().__init__(power, rank=rank, smooth=smooth, generator=generator, spectra=spectra)

    def log_prior(self) -> Tensor:
        """log p(W) + log p(A) as in the class's formula [...]."""
        s, log_step = self.strength, self._log_steps()
        terms = s * (log_step - log_step.exp()) + (s * math.log(s) - math.lgamma(s))
        return super().log_prior() + (terms * (self._links()[..., None, 1:-1] > 0)).sum((-1, -2))

    def sites(self, *, proper: bool = False) -> Tensor:
        """Sites "W" [..., K, F], Dirichlet(1), "level" [..., K], log a_1, and "steps" [..., K, M - 1], log e.

        e ~ Gamma(s, s); the level is flat, or normal around that of noise as loud as the mixture (derivations, eqs.
        12.34, 12.35).
        """
        W = self._spectra_site()
        shape = self.A.shape[:-1]
        if proper:
            middle = self.loudness.log()[..., None].expand(shape)
            prior: TorchDistribution = dist.Normal(middle, SPREAD).to_event(len(shape))
        else:
            prior = flat(shape, constraints.real)
        level = pyro.sample("level", prior)
        s = self.A.new_full(self._log_steps().shape, self.strength)
        gamma = dist.TransformedDistribution(dist.Gamma(s, s), dist.transforms.ExpTransform().inv)
        steps = pyro.sample("steps", gamma.to_event(s.dim()))
        log_A = torch.cat([level[..., None], level[..., None] - steps.cumsum(-1)], -1)
        return (W @ self._spread(log_A.exp())).mT + TINY

    def site_values(self) -> dict[str, Tensor]:
        """W', log a_1 and log e."""
        return {"W": self.W.mT, "level": self.A[..., 0].log(), "steps": self._log_steps()}

    def _log_steps(self) -> Tensor:
        """log e_m = log a_(m-1) - log a_m [..., K, M - 1]."""
        return -self.A.log().diff(dim=-1)

    def _move_activations(self, up: Tensor, down: Tensor) -> None:
        """Minimise sum up a~^2 / a + down a + s sum D_IS(a_(m-1) | a_m) over odd columns, then over even ones.

        Given its neighbours a column has a closed minimum (derivations, eq. 12.10; Fevotte 2011, table 1). All columns
        at once would not be monotone.
        """
        self.A = ops.move_chain(self.A, up, down, self._links(), self.sweeps)

    def _links(self) -> Tensor:
        """s between neighbours and 0 at the ends, [M + 1], or [..., M + 1] in a padded batch."""
        shape, live, known = self.A.shape, self.live, self._known_links
        if known is None or known[0] != shape or known[1] is not live:
            inner = self.A.new_full((shape[-1] - 1,), self.strength)
            links = pad(inner if live is None else inner * live[..., 1:], (1, 1))
            known = self._known_links = shape, live, links
        return known[2]
