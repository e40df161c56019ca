"""Noise models: the variance of the background, learnt from the one noisy recording."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Statistics = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Noise variance [..., N, F] to (mean_r |x|^2 / V^2, mean_r 1 / V), each [..., N, F]: see `Nmf.update`."""

# Keeps factors positive, far below any audible power at full scale 1.
TINY = 1e-12


class Nmf:
    """b_fn ~ N_c(0, (W H)_fn): non-negative matrix factorisation, W [..., F, K], H = A B [..., K, N].

    With `smooth` frames > 0 the activations are sums of overlapping bumps of that width, H = A B with B [M, N] fixed:
    noise changes more slowly than speech, so it cannot follow (and eat) the speech. B is the identity otherwise.
    """

    def __init__(
        self, power: Tensor, *, rank: int, smooth: float = 0.0, generator: torch.Generator | None = None
    ) -> None:
        """Random factors, F times louder than the mixture's `power` [..., N, F].

        Raises:
            ValueError: if the power is not finite or the rank is not positive.
        """
        if rank < 1:
            raise ValueError(f"expected a rank of at least 1, got {rank}")
        if not bool(torch.isfinite(power).all()):
            raise ValueError("expected finite power, got NaN or infinity")
        *batch, frames, bins = power.shape
        self.bumps = bumps(frames, smooth).to(power) if smooth > 1 else None
        columns = frames if self.bumps is None else self.bumps.shape[0]

        def draw(*shape: int) -> Tensor:
            return 0.5 + torch.rand(shape, generator=generator, dtype=power.dtype, device=power.device)

        self.W = draw(*batch, bins, rank)
        # Loud on purpose: the noise gives way to speech that earns its share, where a start at the mixture's own
        # level lets speech models explain noise (0.5 dB SI-SDR worse with an audio-only model at -5 dB).
        self.A = (
            draw(*batch, rank, columns) * power.mean((-1, -2))[..., None, None].clamp_min(TINY) * bins / rank
        )
        self._normalise()

    @property
    def H(self) -> Tensor:  # noqa: N802 - the papers' letter
        """Activations [..., K, N]."""
        return self.A if self.bumps is None else self.A @ self.bumps

    def variance(self) -> Tensor:
        """(W H)' [..., N, F]."""
        return (self.W @ self.H).mT.clamp_min(TINY)

    def update(self, statistics: Statistics) -> None:
        """One multiplicative step of W, then of A; neither lowers -mean_r sum [log V + |x|^2 / V].

        W <- W sqrt(P H' / Q H'), A <- A sqrt(W' P B' / W' Q B') with P = mean_r |x|^2 V^-2, Q = mean_r V^-1
        (majorise-minimise; Fevotte & Idier 2011, with the other sources as a constant part of V as in
        Leglaive et al. 2018, eqs. 18-19). Columns of W then sum to one.
        """
        p, q = statistics(self.variance())
        H = self.H
        self.W = self.W * _root_ratio(p.mT @ H.mT, q.mT @ H.mT)
        self._normalise()
        p, q = statistics(self.variance())
        up, down = self.W.mT @ p.mT, self.W.mT @ q.mT  # [..., K, N]
        if self.bumps is not None:
            up, down = up @ self.bumps.mT, down @ self.bumps.mT
        self.A = (self.A * _root_ratio(up, down)).clamp_min(TINY)

    def _normalise(self) -> None:
        """Columns of W sum to one; A takes the scale, so that W H stays."""
        self.W = self.W.clamp_min(TINY)
        scale = self.W.sum(-2, keepdim=True)
        self.W = self.W / scale
        self.A = (self.A * scale.mT).clamp_min(TINY)


def bumps(frames: int, width: float) -> Tensor:
    """B [M, N]: raised cosines `width` frames long, half overlapping, that sum to one at every frame."""
    spacing = width / 2
    count = max(1, math.ceil((frames - 1) / spacing) + 1)
    centres = torch.arange(count, dtype=torch.float64) * ((frames - 1) / max(count - 1, 1))
    spacing = float(centres[1]) if count > 1 else 1.0
    distance = (torch.arange(frames, dtype=torch.float64) - centres[:, None]).abs() / spacing
    return torch.where(distance < 1, 0.5 + 0.5 * torch.cos(math.pi * distance), 0.0)


def _root_ratio(up: Tensor, down: Tensor) -> Tensor:
    return (up / down.clamp_min(1e-30)).clamp_min(0).sqrt()
