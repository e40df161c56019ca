"""The M-step's passes and the filters by Numba: the same names, arguments and results as in `formulas_m_step.py`.

See `fast_e_step.py`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyro_minvae.inference.ops import kernels_m_step as kernels
from pyro_minvae.inference.ops.arrays import NO_FRAMES, array_of, narrow, require, wide
from pyro_minvae.inference.ops.threads import over_rows
from pyro_minvae.inference.ops.workspace import Workspace


def move_chain(A: Tensor, up: Tensor, down: Tensor, links: Tensor, sweeps: int) -> Tensor:
    shape = (-1, *A.shape[-2:])
    require(up.shape == down.shape == A.shape and links.shape[-1] == A.shape[-1] + 1)
    require(links.dim() == 1 or links.shape[:-1] == A.shape[:-2])
    # Products of matrices come transposed.
    old, *both = (array_of(one.contiguous()).reshape(shape) for one in (A, up, down))
    out = A.new_empty(A.shape)
    moved = array_of(out).reshape(shape)
    count = moved.shape[0] * moved.shape[1]
    over_rows(kernels.move_chain, count, 8 * moved.size, old, *both, wide(links), sweeps, moved)
    return out


def harmonic_mean(sigma: Tensor) -> Tensor:
    draws, out = _draws(sigma), torch.empty_like(sigma[:, 0])
    rows = wide(out)
    over_rows(kernels.harmonic_mean, len(rows), draws.size, draws, rows, bins=rows.shape[1])
    return out


def statistics(
    power: Tensor,
    noise: Tensor,
    sigma: Tensor | None,
    gain: Tensor | None,
    *,
    out: tuple[Tensor, Tensor],
    workspace: Workspace,
) -> tuple[Tensor, Tensor]:
    require(out[0].shape == out[1].shape == noise.shape)
    rest, x = _spectra(power, noise)
    if sigma is None:
        draws, level = np.empty((0, 1, *rest.shape), np.float32), NO_FRAMES
    else:
        draws, level = _scene(sigma, gain, noise)
    over_rows(
        kernels.statistics,
        len(rest),
        rest.size * (1 + draws.size // rest.size),
        x,
        rest,
        draws,
        level,
        wide(out[0]),
        wide(out[1]),
        bins=rest.shape[1],
    )
    return out


def gain_statistics(
    sigma: Tensor, gain: Tensor, noise: Tensor, power: Tensor, source: int, workspace: Workspace
) -> tuple[Tensor, Tensor]:
    rest, x = _spectra(power, noise)
    draws, level = _scene(sigma, gain, noise)
    up, down = torch.empty_like(gain[source]), torch.empty_like(gain[source])
    over_rows(
        kernels.gain_statistics,
        len(rest),
        draws.size,
        draws,
        level,
        rest,
        x,
        source,
        narrow(up),
        narrow(down),
        bins=rest.shape[1],
    )
    return up, down


def noise_moment(
    harmonic: Tensor,
    gain: Tensor,
    noise: Tensor,
    power: Tensor,
    *,
    out: Tensor,
    ratio: Tensor | None,
    workspace: Workspace,
) -> None:
    rest, x = _spectra(power, noise)
    draws, level = _scene(harmonic[:, None], gain, noise)
    require(out.shape == noise.shape and (ratio is None or ratio.shape == gain.shape))
    sums = NO_FRAMES if ratio is None else array_of(ratio).reshape(level.shape)
    over_rows(
        kernels.noise_moment,
        len(rest),
        2 * rest.size,
        draws,
        level,
        rest,
        x,
        wide(out),
        sums,
        bins=rest.shape[1],
    )


def speech_moment(
    harmonic: Tensor,
    gain: Tensor,
    noise: Tensor,
    power: Tensor,
    source: int,
    *,
    out: Tensor,
    workspace: Workspace,
) -> Tensor:
    rest, x = _spectra(power, noise)
    draws, level = _scene(harmonic[:, None], gain, noise)
    require(out.shape == noise.shape)
    over_rows(
        kernels.speech_moment,
        len(rest),
        rest.size,
        draws,
        level,
        rest,
        x,
        source,
        wide(out),
        bins=rest.shape[1],
    )
    return out


def filters(sigma: Tensor, noise: Tensor, gain: Tensor | None) -> Tensor:
    draws, level = _scene(sigma, gain, noise)
    out, rest = torch.empty_like(sigma[:, 0]), wide(noise)
    shares = array_of(out).reshape(len(draws), *rest.shape)
    over_rows(kernels.filters, len(rest), draws.size, draws, level, rest, shares, bins=rest.shape[1])
    return out


def _spectra(power: Tensor, noise: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Noise and power as rows."""
    require(power.shape == noise.shape)
    return wide(noise), wide(power)


def _draws(sigma: Tensor) -> np.ndarray:
    """[J, D, R, F]."""
    return array_of(sigma).reshape(*sigma.shape[:2], -1, sigma.shape[-1])


def _scene(sigma: Tensor, gain: Tensor | None, noise: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Draws [J, D, R, F] and gains [J, R]."""
    require(sigma.shape[2:] == noise.shape)
    draws = _draws(sigma)
    sources, _, rows, _ = draws.shape
    if gain is None:
        return draws, np.ones((sources, rows), np.float32)
    require(gain.shape == (sources, *noise.shape[:-1]))
    return draws, array_of(gain).reshape(sources, rows)
