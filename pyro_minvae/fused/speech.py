"""Passes of the E-step over spectra [..., N, F]: the decoder's nonlinearities, densities and gradients (`speech.c`)."""

from __future__ import annotations

from torch import Tensor

from pyro_minvae.fused import at, fit, passes, repeats, row_count, rows, threads


def power_of_two_(values: Tensor, *, limit: float, floor: float) -> bool:
    """2^min(x, limit) + floor in place of x [..., F]; whether it was done. `limit` is below 127."""
    if not fit(values):
        return False
    passes().decode(values.data_ptr(), *row_count(values), limit, floor, threads())
    return True


def logistic_(values: Tensor) -> bool:
    """1 / (1 + exp(-x)) in place of x [..., F]; whether it was done."""
    if not fit(values):
        return False
    passes().logistic(values.data_ptr(), *row_count(values), threads())
    return True


def density(
    power: Tensor, sigma: Tensor, *, scale: Tensor | None = None, others: Tensor | None = None
) -> Tensor | None:
    """-sum_f [log V + |x|^2 / V] [..., N] with V = scale sigma + others, all [..., N, F] or scale [..., N, 1].

    What is not given counts as 1 and 0; a scale needs others. None if it was not done.
    """
    return _of_variance("density", power, sigma, scale, others, None)


def slope(
    power: Tensor, sigma: Tensor, out: Tensor, *, scale: Tensor | None = None, others: Tensor | None = None
) -> Tensor | None:
    """(|x|^2 / V - 1) / V, times the scale, in `out` [..., N, F]; arguments and V as for `density`."""
    return _of_variance("slope", power, sigma, scale, others, out)


def _of_variance(
    name: str,
    power: Tensor,
    sigma: Tensor,
    scale: Tensor | None,
    others: Tensor | None,
    out: Tensor | None,
) -> Tensor | None:
    if not (fit(power, sigma, scale, others, out) and repeats(power, sigma)):
        return None
    if others is not None and not repeats(others, sigma):
        return None
    width = 1 if scale is None else scale.shape[-1]
    if scale is not None and not repeats(scale, sigma if width > 1 else sigma[..., :1]):
        return None
    if out is None:
        out = sigma.new_empty(sigma.shape[:-1])
    elif out.shape != sigma.shape:
        return None
    count, bins = row_count(sigma)
    operands = (*rows(power, bins), *rows(sigma, bins), *rows(scale, width), *rows(others, bins))
    getattr(passes(), name)(*operands, out.data_ptr(), count, bins, width, threads())
    return out


def through(sigma: Tensor, outer: Tensor, out: Tensor, *, floor: float, most: float) -> Tensor | None:
    """outer (sigma - floor), 0 where sigma - floor >= `most`, in `out`, all [..., F]; None if it was not done."""
    if not fit(sigma, outer, out) or not sigma.shape == outer.shape == out.shape:
        return None
    passes().through(*at((sigma, outer, out)), *row_count(sigma), floor, most, threads())
    return out


def sums(z: Tensor, sigma: Tensor) -> Tensor | None:
    """sum_l z^2 + sum_f sigma [..., N] of z [..., N, L] and sigma [..., N, F]; None if it was not done."""
    if not fit(z, sigma) or z.shape[:-1] != sigma.shape[:-1]:
        return None
    out = z.new_empty(z.shape[:-1])
    count, bins = row_count(sigma)
    passes().sums(*at((z, sigma, out)), count, z.shape[-1], bins, threads())
    return out
