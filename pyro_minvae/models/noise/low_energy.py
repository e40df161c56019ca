"""Where a noise model starts: the frames in which the lips, or the speech model, call for the least speech."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_minvae.inference.ops.minimisers import TINY
from pyro_minvae.models.noise.base import all_finite

# Share of the mean spectrum of the whole recording in each column, so that no bin starts (and stays) dead.
FLOOR = 0.01


def low_energy_frames(speech: Tensor, *, share: float = 0.25) -> Tensor:
    """Weights [..., N], 1 for the `share` of frames with the least speech and 0 for the others.

    `speech` [..., N, F] is the variance g sigma(z) where the chains start (the sum over the speakers), at any scale:
    frames are ranked by its sum over F. At least one frame has weight 1, and ties share it.

    Raises:
        ValueError: for a share outside (0, 1], or speech that is not finite.
    """
    if not 0 < share <= 1:
        raise ValueError(f"expected a share in (0, 1], got {share}")
    if not all_finite(speech):
        raise ValueError("expected finite speech variance, got NaN or infinity")
    loudness = speech.sum(-1)
    count = max(1, round(share * loudness.shape[-1]))
    limit = loudness.kthvalue(count, dim=-1, keepdim=True).values
    return (loudness <= limit).to(speech.dtype)


def low_energy_spectra(
    power: Tensor, weights: Tensor, *, rank: int, generator: torch.Generator | None = None
) -> Tensor:
    """Spectra [..., F, K] to start W from: random averages of the weighted frames of the mixture; columns sum to one.

    w_fk = sum_n c_n e_nk |x_fn|^2 + floor with c = `weights` [..., N] and e_nk the cube of an exponential variable: few
    frames make up each column, others in each, so that the columns differ. The floor is 1 % of the mean spectrum of
    all frames. Silent recordings give flat spectra.

    Raises:
        ValueError: if the weights are negative, all zero, or do not fit the power [..., N, F].
    """
    if weights.shape != power.shape[:-1]:
        raise ValueError(f"expected weights of shape {list(power.shape[:-1])}, got {list(weights.shape)}")
    if bool((weights < 0).any()) or not bool((weights.sum(-1) > 0).all()):
        raise ValueError("expected weights of at least 0, some of them positive")
    uniform = torch.rand((*weights.shape, rank), generator=generator, dtype=power.dtype, device=power.device)
    parts = weights[..., None] * (-torch.log1p(-uniform)) ** 3  # [..., N, K]
    parts = parts / parts.sum(-2, keepdim=True).clamp_min(TINY)
    spectra = power.mT @ parts + (FLOOR * power.mean(-2)[..., None] + TINY)
    return spectra / spectra.sum(-2, keepdim=True)
