"""The M-step: noise, gains and the weights of heavy tails, fitted to the kept draws of all sources.

Arrays of [D, ..., N, F] are what this costs, so that each is gone over as few times as can be, mostly in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pyro_minvae.fused import noise as fused
from pyro_minvae.inference.voice import Voice
from pyro_minvae.inference.wiener import mean_of, second_moment
from pyro_minvae.models.gain import GainPrior, gain_statistics, marginal_gain, mean_field_gain
from pyro_minvae.models.noise import Nmf, Statistics
from pyro_minvae.models.scratch import Scratch, cut, halves, tiles


def total_variance(noise: Tensor, gain: Tensor, sigma: Sequence[Tensor], out: Tensor) -> Tensor:
    """sum_j g_j sigma_j + noise of gains [J, ..., N, 1] and one draw of each source, J of [..., N, F], in `out`."""
    total = torch.addcmul(noise, gain[0], sigma[0], out=out)
    for own, other in zip(gain[1:], sigma[1:], strict=True):
        total.addcmul_(own, other)
    return total


def _draws(sigma: Tensor, part: slice | None) -> Iterator[tuple[Tensor, ...]]:
    """Draw by draw of [J, D, ..., N, F], that of every source in one part of the frames."""
    return zip(*(cut(draws, part).unbind() for draws in sigma), strict=True)


def harmonic_mean(kept: Tensor) -> Tensor:
    """1 / mean_r[1 / sigma] of draws [J, D, ..., N, F]: [J, ..., N, F]."""
    if kept.shape[1] == 1:
        return kept[:, 0]
    found = fused.harmonic_mean(kept)
    if found is not None:
        return found
    first, *others = kept.unbind(1)
    mean = first.reciprocal()
    inverse = torch.empty_like(mean)
    for one in others:  # draw by draw, which stays in the processor's cache
        mean += torch.reciprocal(one, out=inverse)
    return mean.div_(kept.shape[1]).reciprocal_()


def marginal_statistics(
    sigma: Tensor, power: Tensor, gain: Tensor | None = None, scratch: Scratch | None = None
) -> Statistics:
    """The M-step's P = mean_r |x|^2 V^-2 and Q = mean_r V^-1 for V = sum_j g_j sigma_j [J, D, ..., N, F] + noise.

    (derivations, eq. 6.18) `gain` is [J, ..., N]; None: 1. Both lie in `scratch`.
    """
    gains = sigma.new_ones(len(sigma), *power.shape[:-1]) if gain is None else gain
    scratch = scratch or Scratch()

    def statistics(noise: Tensor) -> tuple[Tensor, Tensor]:
        whole = _statistics_in(scratch, noise)
        if fused.marginal_statistics(sigma, gain, noise, power, whole):
            return whole
        for part in tiles(noise):
            rest, level = cut(noise, part), cut(gains[..., None], part)
            p, q = (cut(one, part) for one in whole)
            first, *others = _draws(sigma, part)
            torch.square(total_variance(rest, level, first, q).reciprocal_(), out=p)
            for one in others:
                inverse = total_variance(rest, level, one, scratch("inverse", rest)).reciprocal_()
                q += inverse
                p.addcmul_(inverse, inverse)
            if others:
                q /= 1 + len(others)
                p /= 1 + len(others)
            p.mul_(cut(power, part))
        return whole

    return statistics


def mean_field_statistics(expected: Tensor, scratch: Scratch | None = None) -> Statistics:
    """P and Q of NMF on the expected noise power E|b|^2 [..., N, F] (derivations, eq. 6.30). Both lie in `scratch`."""
    scratch = scratch or Scratch()

    def statistics(noise: Tensor) -> tuple[Tensor, Tensor]:
        p, q = _statistics_in(scratch, noise)
        if fused.inverses(expected, noise, (p, q)):
            return p, q
        for part in tiles(noise):
            inverse = torch.reciprocal(cut(noise, part), out=cut(q, part))
            torch.mul(cut(expected, part), inverse, out=cut(p, part)).mul_(inverse)
        return p, q

    return statistics


def _statistics_in(scratch: Scratch, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Arrays for P and Q [..., N, F], side by side, so that one product of matrices is over both."""
    return halves(scratch("statistics", noise, (*noise.shape[:-1], 2 * noise.shape[-1])))


def within(statistics: Statistics, valid: Tensor | None) -> Statistics:
    """The same statistics, zero in padded frames, so that these count for nothing in the noise's update.

    `valid` [..., N] is 1 in the frames that exist and 0 in the others, None where all do.
    """
    if valid is None:
        return statistics
    exists = valid[..., None]

    def masked(noise: Tensor) -> tuple[Tensor, Tensor]:
        p, q = statistics(noise)
        return p.mul_(exists), q.mul_(exists)

    return masked


def maximise_marginal(
    noise: Nmf,
    gain: Tensor,
    kept: Tensor,
    power: Tensor,
    *,
    prior: GainPrior | None,
    valid: Tensor | None,
    scratch: Scratch,
) -> Tensor:
    """Update the noise, then the gains [J, ..., N] one source after another (as they are without a prior)."""
    noise.update(within(marginal_statistics(kept, power, gain, scratch), valid))
    if prior is None:
        return gain
    gain, variance, draws = gain.clone(), noise.variance(), kept.shape[1]
    for j in range(len(kept)):
        found = fused.marginal_gain(kept, gain, variance, power, j)
        up, down = _gain_sums(kept, gain, variance, power, j, scratch) if found is None else found
        gain[j] = marginal_gain(gain[j], up / draws, down / draws, prior=prior)
    return gain


def _gain_sums(
    kept: Tensor, gain: Tensor, variance: Tensor, power: Tensor, j: int, scratch: Scratch
) -> tuple[Tensor, Tensor]:
    """sum_r of the `gain_statistics` of source j, [..., N] each."""
    up, down = torch.zeros_like(gain[j]), torch.zeros_like(gain[j])
    for part in tiles(variance):
        rest, level = cut(variance, part), cut(gain[..., None], part)
        for draw in _draws(kept, part):
            q = total_variance(rest, level, draw, scratch("q", rest)).reciprocal_()
            p = torch.square(q, out=scratch("p", rest)).mul_(cut(power, part))
            own = gain_statistics(draw[j][None], p[None], q[None])
            for whole, one in zip((up, down), own, strict=True):
                cut(whole[..., None], part)[..., 0] += one
    return up, down


def maximise_mean_field(
    noise: Nmf,
    gain: Tensor,
    harmonic: Tensor,
    power: Tensor,
    *,
    prior: GainPrior | None,
    valid: Tensor | None,
    scratch: Scratch,
) -> Tensor:
    """Update the noise and the gains [J, ..., N] at q(s); `harmonic` [J, ..., N, F] is `harmonic_mean` of the draws."""
    before = noise.variance()
    expected, level = scratch("expected", before), torch.empty_like(gain)
    wanted = None if prior is None else level
    done = fused.noise_moment(harmonic, gain, before, power, expected, wanted)
    for part in [] if done else tiles(before):
        speech, total, x = *mean_field_variances(gain, harmonic, before, part, scratch), cut(power, part)
        second_moment(cut(before, part), total, x, scratch=scratch, out=cut(expected, part))
        if prior is not None:
            # g = mean_f E|s|^2 mean_r[1 / sigma], the exact maximiser (derivations, eq. 6.31).
            moment = second_moment(speech, total, x, scratch=scratch, out=scratch("moment", speech))
            cut(level[..., None], part)[..., 0] = moment.div_(cut(harmonic, part)).sum(-1)
    noise.update(within(mean_field_statistics(expected, scratch), valid))
    return gain if prior is None else mean_field_gain(level, power.shape[-1], prior)


def mean_field_variances(
    gain: Tensor, harmonic: Tensor, noise: Tensor, part: slice | None, scratch: Scratch
) -> tuple[Tensor, Tensor]:
    """gamma_j [J, ..., N, F], the variances of q(s)'s prior factors, and V = sum_j gamma_j + noise.

    (derivations, eq. 6.25)

    Of one part of the frames; both lie in `scratch`.
    """
    own, rest = cut(harmonic, part), cut(noise, part)
    speech = torch.mul(cut(gain[..., None], part), own, out=scratch("speech", own))
    together = speech.sum(0) if len(speech) > 1 else speech[0]
    return speech, torch.add(together, rest, out=scratch("total", rest))


def tail_ratio(
    voices: Sequence[Voice], j: int, *, gain: Tensor, noise: Tensor, power: Tensor, mean_field: bool
) -> Tensor:
    """mean_r E|sqrt(g) s|^2 / (g sigma(z)) [..., N, F] of source j, what its weights of heavy tails depend on."""
    kept, tails = torch.stack([voice.kept for voice in voices]), voices[j].tails
    assert tails is not None
    variances = gain[..., None] * harmonic_mean(kept) if mean_field else gain[:, None, ..., None] * kept
    moment = second_moment(variances[j], variances.sum(0) + noise, power)
    return mean_of(moment / (gain[j][..., None] * kept[j] * tails))
