"""The E-step's passes by Numba: the same names, arguments and results as in `formulas_e_step.py`.

They take single-precision tensors that lie in one piece in this machine's memory, where no graph is wanted, and raise
`UnfitError` for others before anything is written. Powers of two are good to 2e-7; sums are in another order than
torch's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyro_minvae.inference.ops import kernels_e_step as kernels
from pyro_minvae.inference.ops.arrays import NO_FRAMES, NOTHING, narrow, repeated, require, wide
from pyro_minvae.inference.ops.gaussians import Decision, Gaussians, Place
from pyro_minvae.inference.ops.threads import over_rows
from pyro_minvae.inference.ops.workspace import Workspace


def decode_(values: Tensor, bias: Tensor, *, limit: float, floor: float) -> Tensor:
    rows = wide(values)
    require(bias.shape == values.shape[-1:])
    over_rows(kernels.decode, len(rows), rows.size, rows, narrow(bias), min(limit, 126.0), floor)
    return values


def through(sigma: Tensor, outer: Tensor, *, floor: float, most: float, out: Tensor) -> Tensor:
    require(sigma.shape == outer.shape == out.shape)
    rows = wide(sigma)
    over_rows(kernels.through, len(rows), rows.size, rows, wide(outer), floor, most, wide(out))
    return out


def log_likelihood(
    power: Tensor,
    sigma: Tensor,
    *,
    scale: Tensor | None = None,
    others: Tensor | None = None,
    workspace: Workspace | None = None,
) -> Tensor:
    rows = wide(sigma)
    arguments = _of_variance(power, sigma, scale, others)
    out = sigma.new_empty(sigma.shape[:-1])
    over_rows(
        kernels.log_likelihood,
        len(rows),
        rows.size,
        arguments[0],
        rows,
        *arguments[1:],
        narrow(out),
        bins=rows.shape[1],
    )
    return out


def slope(
    power: Tensor,
    sigma: Tensor,
    *,
    scale: Tensor | None = None,
    others: Tensor | None = None,
    out: Tensor,
    workspace: Workspace | None = None,
) -> Tensor:
    require(out.shape == sigma.shape)
    rows = wide(sigma)
    arguments = _of_variance(power, sigma, scale, others)
    over_rows(
        kernels.slope, len(rows), rows.size, arguments[0], rows, *arguments[1:], wide(out), bins=rows.shape[1]
    )
    return out


def _of_variance(
    power: Tensor, sigma: Tensor, scale: Tensor | None, others: Tensor | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """power, scale and others."""
    shape = sigma.shape
    require(repeated(power, shape) and (scale is None) == (others is None))
    if scale is None or others is None:
        return wide(power), NO_FRAMES, NO_FRAMES
    require(repeated(others, shape) and repeated(scale, (*shape[:-1], scale.shape[-1])))
    require(scale.shape[-1] in (1, shape[-1]))
    return wide(power), wide(scale), wide(others)


def log_mixture(z: Tensor, gaussians: Gaussians, weight: Tensor | None = None) -> Tensor:
    rows, parts = wide(z), _parts(gaussians, z.shape)
    out = z.new_empty(z.shape[:-1])
    shares = _shares(gaussians, weight, z.shape)
    over_rows(kernels.log_mixture, len(rows), rows.size, rows, *parts, shares, narrow(out))
    return out


def mixture_gradient(z: Tensor, gaussians: Gaussians, weight: Tensor | None = None) -> Tensor:
    rows, parts = wide(z), _parts(gaussians, z.shape)
    out = torch.empty_like(z)
    shares = _shares(gaussians, weight, z.shape)
    over_rows(kernels.mixture_gradient, len(rows), rows.size, rows, *parts, shares, wide(out))
    return out


def responsibility(draws: Tensor, gaussians: Gaussians, *, of_mean: bool) -> Tensor:
    require(gaussians.log_weights is not None and len(gaussians.parts) == 2)
    parts, out = _parts(gaussians, draws.shape[1:]), draws.new_empty(draws.shape[1:-1])
    rows = wide(draws).reshape(len(draws), -1, draws.shape[-1])
    over_rows(kernels.responsibility, rows.shape[1], rows.size, rows, *parts, of_mean, narrow(out))
    return out


def _parts(gaussians: Gaussians, shape: torch.Size) -> tuple[np.ndarray, ...]:
    """Mean, precision and constant of two components, and log p(alpha)."""
    if gaussians.arrays is None:
        gaussians.arrays = _arrays(gaussians), set()
    arrays, shapes = gaussians.arrays
    if shape not in shapes:
        for part in gaussians.parts:
            require(repeated(part.mean, shape) and repeated(part.precision, shape))
            require(repeated(part.constant, shape[:-1]))
        require(all(repeated(log, shape[:-1]) for log in gaussians.log_weights or ()))
        shapes.add(shape)
    return arrays


def _arrays(gaussians: Gaussians) -> tuple[np.ndarray, ...]:
    found = [array for one in gaussians.parts for array in (wide(one[0]), wide(one[1]), narrow(one.constant))]
    found += [NO_FRAMES, NO_FRAMES, NOTHING] * (2 - len(gaussians.parts))
    logs = [narrow(log) for log in gaussians.log_weights or ()] or [NOTHING] * 2
    return (*found, *logs)


def _shares(gaussians: Gaussians, weight: Tensor | None, shape: torch.Size) -> np.ndarray:
    if weight is None:
        require(len(gaussians.parts) == 1 or gaussians.log_weights is not None)
        return NOTHING
    require(repeated(weight, shape[:-1]))
    return narrow(weight)


def decide(
    uniform: Tensor, there: Place, here: Place, correction: Tensor | None, *, probability: bool
) -> Decision:
    shape = uniform.shape
    for one in (there.log_density, here.log_density, correction):
        require(one is None or one.shape == shape)
    require(there.position.shape == here.position.shape and here.position.shape[:-1] == shape)
    z, new = wide(here.position), torch.empty_like
    steep = there.gradient is not None and here.gradient is not None
    found = Decision(
        new(uniform, dtype=torch.bool),
        Place(new(here.position), new(uniform), new(here.position) if steep else None),
        new(uniform) if probability else None,
    )
    over_rows(
        kernels.decide,
        len(z),
        z.size,
        *(narrow(uniform), wide(there.position), z, narrow(there.log_density), narrow(here.log_density)),
        *((_wide(one.gradient) if steep else NO_FRAMES) for one in (there, here)),
        *(_narrow(correction), found.accepted.numpy().reshape(-1)),
        *(wide(found.place.position), narrow(found.place.log_density), _wide(found.place.gradient)),
        _narrow(found.probability),
    )
    return found


def _wide(tensor: Tensor | None) -> np.ndarray:
    return NO_FRAMES if tensor is None else wide(tensor)


def _narrow(tensor: Tensor | None) -> np.ndarray:
    return NOTHING if tensor is None else narrow(tensor)


def exchange(accepted: Tensor, there: Tensor, here: Tensor) -> bool:
    require(accepted.dtype is torch.bool and accepted.is_contiguous())
    require(accepted.shape == here.shape[:-1] and there.shape == here.shape)
    new, old = wide(there), wide(here)
    chosen = accepted.numpy().reshape(-1)
    went, count = kernels.count_true(chosen), len(chosen)
    most = 2 * went > count
    if 0 < went < count:
        few, many = (old, new) if most else (new, old)
        numbers = min(went, count - went) * old.shape[1]
        over_rows(kernels.copy_rows, count, numbers, chosen, not most, few, many)
    return most
