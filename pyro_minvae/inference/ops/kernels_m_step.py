"""The passes of the M-step and of the filters as Numba compiles them; `fast.py` calls them.

Here J sources have D draws of sigma [J, D, R, F] and gains [J, R]; the noise's variance and the mixture's power are
[R, F]. `torch.py` has the formulas.
"""

# mypy: disable-error-code=no-untyped-def
from __future__ import annotations

import numpy as np

from pyro_minvae.inference.ops.vector import ONE, ZERO, kernel, moment_of, total_of

TINY = np.float32(1e-12)
LEAST = np.float32(np.finfo(np.float32).tiny)
TWO, FOUR = np.float32(2), np.float32(4)


@kernel
def statistics(start, stop, power, noise, sigma, gain, p, q, v):
    bins, draws = noise.shape[1], sigma.shape[1]
    each = ONE / np.float32(draws)
    for i in range(start, stop):
        x, up, down = power[i], p[i], q[i]
        for d in range(draws):
            total_of(v, noise, sigma, gain, d, i)
            if d == 0:
                for f in range(bins):
                    inverse = ONE / v[f]
                    down[f] = inverse
                    up[f] = inverse * inverse
            else:
                for f in range(bins):
                    inverse = ONE / v[f]
                    down[f] += inverse
                    up[f] += inverse * inverse
        for f in range(bins):
            up[f] *= each * x[f]
        if draws > 1:
            for f in range(bins):
                down[f] *= each


@kernel
def gain_statistics(start, stop, sigma, gain, noise, power, source, up, down, v):
    bins = noise.shape[1]
    for i in range(start, stop):
        x, numerator, denominator = power[i], ZERO, ZERO
        for d in range(sigma.shape[1]):
            total_of(v, noise, sigma, gain, d, i)
            own = sigma[source, d, i]
            for f in range(bins):
                inverse = ONE / v[f]
                share = own[f] * inverse
                denominator += share
                numerator += x[f] * inverse * share
        up[i], down[i] = numerator, denominator


@kernel
def noise_moment(start, stop, sigma, gain, noise, power, out, ratio, v):
    bins = noise.shape[1]
    for i in range(start, stop):
        total_of(v, noise, sigma, gain, 0, i)
        x, rest, row = power[i], noise[i], out[i]
        for f in range(bins):
            row[f] = moment_of(rest[f], v[f], x[f])
        for j in range(ratio.shape[0]):
            own, level, total = sigma[j, 0, i], gain[j, i], ZERO
            for f in range(bins):
                total += moment_of(level * own[f], v[f], x[f]) / own[f]
            ratio[j, i] = total


@kernel
def speech_moment(start, stop, sigma, gain, noise, power, source, out, v):
    bins = noise.shape[1]
    for i in range(start, stop):
        total_of(v, noise, sigma, gain, 0, i)
        x, own, row, level = power[i], sigma[source, 0, i], out[i], gain[source, i]
        inverse = ONE / level
        for f in range(bins):
            row[f] = inverse * moment_of(level * own[f], v[f], x[f])


@kernel
def harmonic_mean(start, stop, sigma, out, total):
    """Rows are those of all sources."""
    bins, draws, rows = sigma.shape[3], sigma.shape[1], sigma.shape[2]
    count = np.float32(draws)
    for at in range(start, stop):
        source, i = at // rows, at % rows
        for d in range(draws):
            own = sigma[source, d, i]
            if d == 0:
                for f in range(bins):
                    total[f] = ONE / own[f]
            else:
                for f in range(bins):
                    total[f] += ONE / own[f]
        row = out[at]
        for f in range(bins):
            row[f] = count / total[f]


@kernel
def filters(start, stop, sigma, gain, noise, out, v):
    bins, draws = noise.shape[1], sigma.shape[1]
    each = ONE / np.float32(draws)
    for i in range(start, stop):
        for d in range(draws):
            total_of(v, noise, sigma, gain, d, i)
            for j in range(sigma.shape[0]):
                own, row, level = sigma[j, d, i], out[j, i], each * gain[j, i]
                if d == 0:
                    for f in range(bins):
                        row[f] = level * own[f] / v[f]
                else:
                    for f in range(bins):
                        row[f] += level * own[f] / v[f]


@kernel
def minimiser(a, b, slope):
    """The h that minimises a h + b / h + slope log h (`minimisers.py`)."""
    wide = np.sqrt(slope * slope + FOUR * a * b) + abs(slope)
    rising = TWO * a
    if slope > ZERO:
        return TWO * b / (LEAST if wide < LEAST else wide)
    return wide / (LEAST if rising < LEAST else rising)


@kernel
def move_chain(start, stop, old, up, down, links, sweeps, out):
    """Rows are those of all recordings: [B, K, M], statistics too, links [B or 1, M + 1]."""
    rank, last = old.shape[1], old.shape[2] - 1
    for at in range(start, stop):
        of, k = at // rank, at % rank
        link = links[of % links.shape[0]]
        before, numerator, denominator, a = old[of, k], up[of, k], down[of, k], out[of, k]
        for m in range(last + 1):
            a[m] = before[m]
        for turn in range(2 * sweeps):
            for m in range(turn % 2, last + 1, 2):
                left = a[m - 1] if m > 0 else ONE
                right = a[m + 1] if m < last else ONE
                rise = link[m + 1] / right + denominator[m]
                fall = link[m] * left + before[m] * before[m] * numerator[m]
                moved = minimiser(rise, fall, link[m] - link[m + 1])
                a[m] = TINY if moved < TINY else moved
