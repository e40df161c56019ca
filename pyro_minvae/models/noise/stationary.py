"""Noise of one spectrum: stationary, or with a level that changes slowly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_minvae.models.noise.nmf import Nmf


def stationary(
    power: Tensor,
    *,
    slow: float = 0.0,
    generator: torch.Generator | None = None,
    spectra: Tensor | None = None,
) -> Nmf:
    """Stationary noise, b_fn ~ N_c(0, w_f h_n): one spectrum w times a level h.

    The level is constant, or a sum of bumps `slow` frames wide where `slow` > 1. Arguments as for `Nmf`.
    """
    smooth = slow if slow > 1 else math.inf
    return Nmf(power, rank=1, smooth=smooth, generator=generator, spectra=spectra)
