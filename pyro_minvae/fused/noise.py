"""Passes of the M-step and of the filters (`noise.c`).

Here J sources have D draws of sigma [J, D, ..., N, F] and gains [J, ..., N] (None: 1); the noise's variance and the
mixture's power are [..., N, F].
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_minvae.fused import done, drawn, threads


def marginal_gain(
    sigma: Tensor, gain: Tensor, noise: Tensor, power: Tensor, source: int
) -> tuple[Tensor, Tensor] | None:
    """sum_r sum_f |x|^2 sigma_j V^-2 and sum_r sum_f sigma_j V^-1 [..., N] of one source j; None if not done."""
    up, down = torch.empty_like(gain[source]), torch.empty_like(gain[source])
    fit = _fit("marginal_gains", sigma, gain, noise, power, up=up, down=down, source=source)
    return (up, down) if fit else None


def noise_moment(
    harmonic: Tensor, gain: Tensor, noise: Tensor, power: Tensor, out: Tensor, level: Tensor | None
) -> bool:
    """E|b|^2 in `out` [..., N, F] and sum_f E|sqrt(g) s_j|^2 / sigma_j in `level` [J, ..., N], if it is wanted.

    `harmonic` [J, ..., N, F] takes the place of sigma. Whether it was done.
    """
    return _fit("noise_moment", harmonic[:, None], gain, noise, power, p=out, up=level)


def speech_moment(
    harmonic: Tensor, gain: Tensor, noise: Tensor, power: Tensor, source: int, out: Tensor
) -> bool:
    """E|s_j|^2 of one source in `out` [..., N, F]; whether it was done."""
    return _fit("speech_moment", harmonic[:, None], gain, noise, power, p=out, source=source)


def harmonic_mean(sigma: Tensor) -> Tensor | None:
    """1 / mean_r[1 / sigma] [J, ..., N, F]; None if it was not done."""
    out = torch.empty_like(sigma[:, 0])
    return out if _fit("harmonic", sigma, None, None, None, p=out) else None


def shares(sigma: Tensor, noise: Tensor, gain: Tensor | None) -> Tensor | None:
    """mean_r[g_j sigma_j / (sum_i g_i sigma_i + noise)] [J, ..., N, F]; None if it was not done."""
    out = torch.empty_like(sigma[:, 0])
    return out if _fit("shares", sigma, gain, noise, None, p=out) else None


def _fit(
    name: str,
    sigma: Tensor,
    gain: Tensor | None,
    noise: Tensor | None,
    power: Tensor | None,
    *,
    p: Tensor | None = None,
    up: Tensor | None = None,
    down: Tensor | None = None,
    source: int = 0,
) -> bool:
    shape, bins = sigma.shape[2:], sigma.shape[-1]
    if not drawn(sigma, gain, shape) or any(one is not None and one.shape != shape for one in (noise, power)):
        return False
    arrays = sigma, gain, noise, power, p, up, down
    return bool(done(name, *arrays, *sigma.shape[:2], shape.numel() // bins, bins, source, threads()))


def minimise(a: Tensor | float, b: Tensor, slope: float) -> Tensor | None:
    """The h >= 0 that minimise a h + b / h + slope log h, of the shape of b; None if it was not done."""
    out, (many, same) = torch.empty_like(b), (a, 0.0) if isinstance(a, Tensor) else (None, a)
    if many is not None and many.shape != b.shape:
        return None
    return out if done("minimise", many, b, out, b.numel(), same, slope, threads()) else None


def move_chain(A: Tensor, up: Tensor, down: Tensor, links: Tensor, sweeps: int) -> Tensor | None:
    """New activations [..., K, M] of a Markov chain, odd columns after even ones; see `noise_chain.ChainNmf`.

    `links` [M + 1] or [..., M + 1] join a column and the one before. None if it was not done.
    """
    lie = _strides(up, down, A.shape)
    if lie is None:
        return None
    sizes = A.shape[:-2].numel(), *A.shape[-2:], *lie, links.shape[-1] if links.dim() > 1 else 0, sweeps
    out = torch.empty_like(A)
    return out if done("move_chain", A, up, down, links, out, *sizes, threads()) else None


def move_spectra(W: Tensor, up: Tensor, down: Tensor, A: Tensor) -> tuple[Tensor, Tensor] | None:
    """W sqrt(up / down) [..., F, K] with columns that sum to one, and A [..., K, M] that takes over their sums.

    None if it was not done.
    """
    lie = _strides(up, down, W.shape)
    if lie is None:
        return None
    sizes = W.shape[:-2].numel(), *W.shape[-2:], A.shape[-1], *lie
    out = torch.empty_like(W), torch.empty_like(A)
    return out if done("move_spectra", W, up, down, A, *out, *sizes, threads()) else None


def _strides(up: Tensor, down: Tensor, shape: torch.Size) -> tuple[int, int, int] | None:
    """How far apart recordings, rows and columns of both arrays lie; None where they lie differently."""
    if up.shape != shape or down.shape != shape or up.stride() != down.stride() or up.dim() > 3:
        return None
    return (up.stride(0) if up.dim() == 3 else 0), up.stride(-2), up.stride(-1)
