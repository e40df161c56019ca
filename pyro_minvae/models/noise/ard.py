"""NMF with automatic relevance determination: components that the noise does not need die."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_minvae.inference.ops.minimisers import TINY, root_ratio
from pyro_minvae.models.noise.nmf import Nmf


class ArdNmf(Nmf):
    """NMF, V = W A B, of automatic rank (derivations, sec. 12; eqs. 12.16, 12.17).

        lambda_k ~ InverseGamma(c, r)        w_fk, a_km | lambda_k ~ Exponential(mean lambda_k)

    with c = `shape` and r = `rate` [...], set so that the noise is as loud as the mixture a priori. A spectrum and its
    activations share the relevance lambda_k, so that they fade together, down to lambda = r / (F + M + c + 1).
    Columns of W do not sum to one here: the prior fixes the scale of each. Source: Tan & Fevotte 2013, "Automatic
    relevance determination in nonnegative matrix factorization with the beta-divergence", L1-ARD at beta = 0.
    """

    per_recording = ("loudness", "rate", "relevance")
    relevance: Tensor  # lambda [..., K]

    def __init__(
        self,
        power: Tensor,
        *,
        rank: int,
        shape: float = 3.0,
        smooth: float = 0.0,
        generator: torch.Generator | None = None,
        spectra: Tensor | None = None,
    ) -> None:
        """At most `rank` components, `shape` > 2; the others as for `Nmf`.

        Raises:
            ValueError: as `Nmf`, or for a shape of 2 or less (the expected noise is infinite).
        """
        if not shape > 2:
            raise ValueError(f"expected a shape above 2, got {shape}")
        self.shape = shape
        # E[v] = K E[lambda^2] = K r^2 / ((c - 1)(c - 2)) (derivations, eq. 12.23).
        level = power.mean((-1, -2)).clamp_min(TINY)
        self.rate = (level * ((shape - 1) * (shape - 2) / rank)).sqrt()
        super().__init__(power, rank=rank, smooth=smooth, generator=generator, spectra=spectra)

    def log_prior(self) -> Tensor:
        """log p(lambda) + log p(W | lambda) + log p(A | lambda) [...]."""
        scale = self.relevance
        factors = -self._size()[..., None] * scale.log() - (self.W.sum(-2) + self.A.sum(-1)) / scale
        relevance = dist.InverseGamma(self.shape, self.rate[..., None]).log_prob(scale)
        return (factors + relevance).sum(-1)

    def sites(self, *, proper: bool = False) -> Tensor:
        """Sites "relevance" [..., K], "W" [..., K, F] and "H" [..., K, N] (or "A" [..., K, M]), all of them proper."""
        *_, bins, rank = self.W.shape
        rate = self.rate[..., None].expand(*self.rate.shape, rank)
        inverse = dist.InverseGamma(torch.full_like(rate, self.shape), rate)
        scale = pyro.sample("relevance", inverse.to_event(rate.dim()))

        def factor(name: str, size: int) -> Tensor:
            mean = scale[..., None].expand(*scale.shape, size)
            # Plates around the program stand in front.
            return pyro.sample(name, dist.Exponential(1 / mean).to_event(self.W.dim()))

        W, A = factor("W", bins), factor(self._activations, self.A.shape[-1])
        return (W.mT @ self._spread(A)).mT + TINY

    def site_values(self) -> dict[str, Tensor]:
        """lambda, W' and the activations."""
        return {"relevance": self.relevance, **super().site_values()}

    def _size(self) -> Tensor:
        """F + M, the number of factors that share a relevance, scalar or [...]."""
        columns = self.A.shape[-1] if self.live is None else self.live.sum(-1)
        return torch.as_tensor(self.W.shape[-2] + columns, dtype=self.W.dtype, device=self.W.device)

    def _move_spectra(self, up: Tensor, down: Tensor) -> None:
        """W <- W sqrt(up / (down + 1 / lambda)) (derivations, eq. 12.18)."""
        self.W = self.W * root_ratio(up, down + 1 / self.relevance[..., None, :])
        self._normalise()

    def _move_activations(self, up: Tensor, down: Tensor) -> None:
        """A <- A sqrt(up / (down + 1 / lambda)) (derivations, eq. 12.19)."""
        self.A = self.A * root_ratio(up, down + 1 / self.relevance[..., :, None])
        self._normalise()

    def _normalise(self) -> None:
        """The best scale at the same W A, sum_f w = sum_m a, then the best lambda (derivations, eqs. 12.21, 12.20)."""
        self.W, self.A = self.W.clamp_min(TINY), self.A.clamp_min(TINY)
        scale = (self.A.sum(-1) / self.W.sum(-2)).sqrt()
        self.W, self.A = self.W * scale[..., None, :], self.A / scale[..., :, None]
        total = self.W.sum(-2) + self.A.sum(-1) + self.rate[..., None]
        self.relevance = total / (self._size()[..., None] + self.shape + 1)
