"""The E-step's passes over spectra [R, F] and latent vectors [R, L] as Numba compiles them; `fast.py` calls them.

What is absent has no rows. An operand with fewer rows than there are is repeated. `torch.py` has the formulas.
"""

# mypy: disable-error-code=no-untyped-def
from __future__ import annotations

import math

import numpy as np

from pyro_minvae.inference.ops.vector import (
    BIAS,
    HALF,
    MANTISSA,
    MANTISSA_SIZE,
    ONE,
    ONE_BITS,
    ZERO,
    bits_of,
    kernel,
    number_of,
    place_of,
    power_of_two,
)

LN_2 = math.log(2)
LOWEST, HIGHEST = np.int32(255), np.int32(0)
# So many numbers between 1 and 2 multiply to one that single precision holds.
RUN = 64
LARGEST = np.float32(np.finfo(np.float32).max)
INFINITY = np.float32(np.inf)


@kernel
def decode(start, stop, values, bias, limit, floor):
    most, least = np.float32(limit), np.float32(floor)
    for i in range(start, stop):
        row = values[i]
        for f in range(row.shape[0]):
            x = row[f] + bias[f]
            x = most if x > most else x
            row[f] = power_of_two(x) + least


@kernel
def through(start, stop, sigma, outer, floor, most, out):
    least, bound = np.float32(floor), np.float32(most)
    bounded = math.isinf(most)
    for i in range(start, stop):
        own, back, row = sigma[i], outer[i], out[i]
        if bounded:
            for f in range(row.shape[0]):
                row[f] = (own[f] - least) * back[f]
        else:
            for f in range(row.shape[0]):
                exponential = own[f] - least
                change = exponential * back[f]
                row[f] = change if exponential < bound else ZERO


@kernel
def variance_of(v, row, sigma, scale, others):
    """V = scale sigma + others of a row; sigma where there are no others."""
    own = sigma[row]
    if others.shape[0] == 0:
        for f in range(v.shape[0]):
            v[f] = own[f]
        return
    rest, factor = others[place_of(row, others.shape[0])], scale[place_of(row, scale.shape[0])]
    if factor.shape[0] == 1:
        level = factor[0]
        for f in range(v.shape[0]):
            v[f] = level * own[f] + rest[f]
    else:
        for f in range(v.shape[0]):
            v[f] = factor[f] * own[f] + rest[f]


@kernel
def log_likelihood(start, stop, power, sigma, scale, others, out, variance):
    """A logarithm of a product costs one logarithm: that of the mantissas' product, beside the exponents' sum."""
    bins = sigma.shape[1]
    for i in range(start, stop):
        variance_of(variance, i, sigma, scale, others)
        x = power[place_of(i, power.shape[0])]
        sums, exponents, product = 0.0, -BIAS * bins, ONE
        lowest, highest = LOWEST, HIGHEST
        for first in range(0, bins, RUN):
            v, p = variance[first : first + RUN], x[first : first + RUN]
            mantissas, ratios, exponent = ONE, ZERO, np.int32(0)
            for f in range(v.shape[0]):
                bits = bits_of(v[f])
                own = bits >> MANTISSA_SIZE
                lowest, highest = min(lowest, own), max(highest, own)
                exponent += own
                mantissas *= number_of((bits & MANTISSA) | ONE_BITS)
                ratios += p[f] / v[f]
            bits = bits_of(mantissas)
            exponents += exponent + (bits >> MANTISSA_SIZE) - BIAS
            product *= number_of((bits & MANTISSA) | ONE_BITS)
            if product > 1e30:
                bits = bits_of(product)
                exponents += (bits >> MANTISSA_SIZE) - BIAS
                product = number_of((bits & MANTISSA) | ONE_BITS)
            sums += float(ratios)
        sums += exponents * LN_2 + math.log(float(product))
        if lowest < 1 or highest > 254:  # zero, subnormal, negative, infinite or not a number
            sums = 0.0
            for f in range(bins):
                sums += math.log(float(variance[f])) + float(x[f] / variance[f])
        out[i] = -sums


@kernel
def slope(start, stop, power, sigma, scale, others, out, variance):
    for i in range(start, stop):
        variance_of(variance, i, sigma, scale, others)
        x, row = power[place_of(i, power.shape[0])], out[i]
        for f in range(row.shape[0]):
            inverse = ONE / variance[f]
            row[f] = (x[f] * inverse - ONE) * inverse
        if others.shape[0] == 0:
            continue
        factor = scale[place_of(i, scale.shape[0])]
        if factor.shape[0] == 1:
            level = factor[0]
            for f in range(row.shape[0]):
                row[f] *= level
        else:
            for f in range(row.shape[0]):
                row[f] *= factor[f]


@kernel
def log_normal(z, mean, precision, constant, row):
    """constant - |(z - mean) precision|^2 / 2 of a row."""
    centre, sharp = mean[place_of(row, mean.shape[0])], precision[place_of(row, precision.shape[0])]
    total = ZERO
    for k in range(z.shape[0]):
        away = (z[k] - centre[k]) * sharp[k]
        total += away * away
    return constant[place_of(row, constant.shape[0])] - HALF * total


@kernel
def between(a, b, weight):
    """a + weight (b - a), exactly a or b at the ends, as torch has it."""
    if weight < HALF:
        return a + weight * (b - a)
    return b - (b - a) * (ONE - weight)


@kernel
def log_add(a, b):
    """log(exp a + exp b)."""
    most, least = (a, b) if a > b else (b, a)
    if most == -INFINITY:
        return most
    return most + math.log1p(math.exp(least - most))


@kernel
def log_mixture(start, stop, z, m0, p0, c0, m1, p1, c1, log0, log1, weight, out):
    for i in range(start, stop):
        found = log_normal(z[i], m0, p0, c0, i)
        if m1.shape[0] > 0:
            other = log_normal(z[i], m1, p1, c1, i)
            if weight.shape[0] > 0:
                found = between(found, other, weight[place_of(i, weight.shape[0])])
            else:
                found = log_add(
                    found + log0[place_of(i, log0.shape[0])], other + log1[place_of(i, log1.shape[0])]
                )
        out[i] = found


@kernel
def mixture_gradient(start, stop, z, m0, p0, c0, m1, p1, c1, log0, log1, weight, out):
    for i in range(start, stop):
        own, row = z[i], out[i]
        mean, precision = m0[place_of(i, m0.shape[0])], p0[place_of(i, p0.shape[0])]
        for k in range(row.shape[0]):
            row[k] = (mean[k] - own[k]) * (precision[k] * precision[k])
        if m1.shape[0] == 0:
            continue
        if weight.shape[0] > 0:
            share = weight[place_of(i, weight.shape[0])]
        else:
            first = log_normal(own, m0, p0, c0, i) + log0[place_of(i, log0.shape[0])]
            second = log_normal(own, m1, p1, c1, i) + log1[place_of(i, log1.shape[0])]
            share = ONE / (ONE + np.float32(math.exp(first - second)))
        mean, precision = m1[place_of(i, m1.shape[0])], p1[place_of(i, p1.shape[0])]
        for k in range(row.shape[0]):
            other = (mean[k] - own[k]) * (precision[k] * precision[k])
            row[k] = between(row[k], other, share)


@kernel
def responsibility(start, stop, draws, m0, p0, c0, m1, p1, c1, log0, log1, of_mean, out):
    count = draws.shape[0]
    for i in range(start, stop):
        logit = log1[place_of(i, log1.shape[0])] - log0[place_of(i, log0.shape[0])]
        ratios, shares = ZERO, ZERO
        for d in range(count):
            z = draws[d, i]
            ratio = log_normal(z, m1, p1, c1, i) - log_normal(z, m0, p0, c0, i)
            ratios += ratio
            if not of_mean:
                shares += ONE / (ONE + np.float32(math.exp(-(logit + ratio))))
        if of_mean:
            out[i] = ONE / (ONE + np.float32(math.exp(-(logit + ratios / np.float32(count)))))
        else:
            out[i] = shares / np.float32(count)


@kernel
def decide(start, stop, uniform, there, here, p1, p0, g1, g0, correction, accepted, z, p, g, probability):
    """Of proposals at `there` with densities p1 and gradients g1, and chains at `here`."""
    for i in range(start, stop):
        new = p1[i] if math.isfinite(p1[i]) else -INFINITY
        ratio = new - (p0[i] if math.isfinite(p0[i]) else -LARGEST)
        if correction.shape[0] > 0:
            ratio += correction[i]
        if math.isnan(ratio):
            ratio = -INFINITY
        went = math.log(uniform[i]) < ratio
        accepted[i] = went
        p[i] = p1[i] if went else p0[i]
        row, place = (there[i] if went else here[i]), z[i]
        for k in range(place.shape[0]):
            place[k] = row[k]
        if g.shape[0] > 0:
            row, place = (g1[i] if went else g0[i]), g[i]
            for k in range(place.shape[0]):
                place[k] = row[k]
        if probability.shape[0] > 0:
            probability[i] = math.exp(min(ratio, ZERO))


@kernel
def count_true(chosen):
    count = 0
    for i in range(chosen.shape[0]):
        count += chosen[i]
    return count


@kernel
def copy_rows(start, stop, chosen, wanted, source, into):
    """Rows of `source` where `chosen` [R] is what is `wanted`."""
    for i in range(start, stop):
        if chosen[i] == wanted:
            row, place = source[i], into[i]
            for f in range(place.shape[0]):
                place[f] = row[f]
