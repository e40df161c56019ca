"""Passes of the E-step over spectra [..., N, F]: the decoder's nonlinearities, densities and gradients (`speech.c`)."""

from __future__ import annotations

from torch import Tensor

from pyro_minvae.fused import done, repeats, row_count, rows, threads


def power_of_two_(values: Tensor, *, limit: float, floor: float) -> bool:
    """2^min(x, limit) + floor in place of x [..., F]; whether it was done. `limit` is below 127."""
    return bool(done("decode", values, *row_count(values), limit, floor, threads()))


def logistic_(values: Tensor) -> bool:
    """1 / (1 + exp(-x)) in place of x [..., F]; whether it was done."""
    return bool(done("logistic", values, *row_count(values), threads()))


def back_through_logistic_(back: Tensor, activations: Tensor) -> bool:
    """back a (1 - a) in its place, of a = 1 / (1 + exp(-x)), both [..., F]; whether it was done."""
    if back.shape != activations.shape:
        return False
    return bool(done("bend", activations, back, *row_count(back), threads()))


def density(
    power: Tensor, sigma: Tensor, *, scale: Tensor | None = None, others: Tensor | None = None
) -> Tensor | None:
    """-sum_f [log V + |x|^2 / V] [..., N] with V = scale sigma + others, all [..., N, F] or scale [..., N, 1].

    What is not given counts as 1 and 0; a scale needs others. None if it was not done.
    """
    return _of_variance("density", power, sigma, scale, others, sigma.new_empty(sigma.shape[:-1]))


def slope(
    power: Tensor, sigma: Tensor, out: Tensor, *, scale: Tensor | None = None, others: Tensor | None = None
) -> Tensor | None:
    """(|x|^2 / V - 1) / V, times the scale, in `out` [..., N, F]; arguments and V as for `density`."""
    return _of_variance("slope", power, sigma, scale, others, out) if out.shape == sigma.shape else None


def _of_variance(
    name: str, power: Tensor, sigma: Tensor, scale: Tensor | None, others: Tensor | None, out: Tensor
) -> Tensor | None:
    shape, width = sigma.shape, 1 if scale is None else scale.shape[-1]
    if not repeats(power, shape) or (others is not None and not repeats(others, shape)):
        return None
    if scale is not None and (others is None or not repeats(scale, shape if width > 1 else (*shape[:-1], 1))):
        return None
    count, bins = row_count(sigma)
    operands = (*rows(power, bins), sigma, count, *rows(scale, width), *rows(others, bins))
    return out if done(name, *operands, out, count, bins, width, threads()) else None


def through(sigma: Tensor, outer: Tensor, out: Tensor, *, floor: float, most: float) -> Tensor | None:
    """outer (sigma - floor), 0 where sigma - floor >= `most`, in `out`, all [..., F]; None if it was not done."""
    if not sigma.shape == outer.shape == out.shape:
        return None
    return out if done("through", sigma, outer, out, *row_count(sigma), floor, most, threads()) else None


def sums(z: Tensor, sigma: Tensor) -> Tensor | None:
    """sum_l z^2 + sum_f sigma [..., N] of z [..., N, L] and sigma [..., N, F]; None if it was not done."""
    if z.shape[:-1] != sigma.shape[:-1]:
        return None
    out, (count, bins) = z.new_empty(z.shape[:-1]), row_count(sigma)
    return out if done("sums", z, sigma, out, count, z.shape[-1], bins, threads()) else None
