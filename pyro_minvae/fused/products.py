"""Products of the M-step with spectra W [..., F, K] or activations H [..., K, N] (`products.c`).

P and Q [..., N, F] are what a step's statistics are (`inference.mcem.statistics`): given, or made of a `Total` on the
way and not written down.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.fused import done, drawn, threads

# Sums of so many columns lie on the stack.
MOST = 256


class Total(NamedTuple):
    """V = sum_j g_j sigma_j + `noise` [..., N, F] of draws `sigma` [J, D, ..., N, F] (None: noise alone).

    `gain` is [J, ..., N]; None: 1.
    """

    noise: Tensor
    sigma: Tensor | None = None
    gain: Tensor | None = None


def product(W: Tensor, H: Tensor, out: Tensor) -> bool:
    """(W H)' + TINY in `out` [..., N, F]; whether it was done."""
    if not (_spectra(W, out) and _activations(H, out) and W.shape[-1] == H.shape[-2]):
        return False
    return _run("product", (W, H, None, None, None, None, None, out), (0, 0), out.shape, W.shape[-1])


def onto_spectra(H: Tensor, p: Tensor, q: Tensor | Total) -> tuple[Tensor, Tensor] | None:
    """P H' and Q H', [..., F, K] each, of P and Q, or of |x|^2 and V; None if it was not done."""
    shape, rank = p.shape, H.shape[-2]
    out = p.new_empty((2, *shape[:-2], shape[-1], rank))
    if not (_activations(H, p) and _project("onto_spectra", None, H, p, q, out, rank)):
        return None
    up, down = out.unbind()
    return up, down


def onto_activations(W: Tensor, p: Tensor, q: Tensor | Total) -> tuple[Tensor, Tensor] | None:
    """W' P and W' Q, [..., K, N] each, of P and Q, or of |x|^2 and V; None if it was not done."""
    shape, rank = p.shape, W.shape[-1]
    out = p.new_empty((*shape[:-1], 2, rank))
    if not (_spectra(W, p) and _project("onto_activations", W, None, p, q, out, rank)):
        return None
    up, down = out.unbind(-2)
    return up.mT, down.mT


def _spectra(W: Tensor, like: Tensor) -> bool:
    """Whether W is of the spectra of an array [..., N, F]."""
    return W.shape[-2] == like.shape[-1] and W.shape[:-2] == like.shape[:-2]


def _activations(H: Tensor, like: Tensor) -> bool:
    """Whether H is of the frames of an array [..., N, F]."""
    return H.shape[-1] == like.shape[-2] and H.shape[:-2] == like.shape[:-2]


def _project(
    name: str, W: Tensor | None, H: Tensor | None, p: Tensor, q: Tensor | Total, out: Tensor, rank: int
) -> bool:
    shape = p.shape
    if isinstance(q, Tensor):
        return q.shape == shape and _run(name, (W, H, q, None, None, None, p, out), (0, 1), shape, rank)
    noise, sigma, gain = q
    if noise.shape != shape or (sigma is not None and not drawn(sigma, gain, shape)):
        return False
    sources, draws = (0, 1) if sigma is None else sigma.shape[:2]
    return _run(name, (W, H, None, sigma, gain, noise, p, out), (sources, draws), shape, rank)


def _run(
    name: str, arrays: tuple[Tensor | None, ...], counts: tuple[int, int], shape: torch.Size, rank: int
) -> bool:
    """A pass over arrays of that shape [..., N, F]; `counts` are of sources and draws."""
    sizes = shape[:-2].numel(), shape[-2], shape[-1], rank, threads()
    return rank <= MOST and bool(done(name, *arrays, *counts, *sizes))
