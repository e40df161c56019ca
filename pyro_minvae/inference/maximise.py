"""The M-step: noise, gains and the weights of heavy tails, fitted to the kept draws of all sources.

Arrays of [D, ..., N, F] are what this costs, so that each is gone over as few times as can be, mostly in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_minvae.inference.voice import Voice
from pyro_minvae.inference.wiener import mean_of, second_moment
from pyro_minvae.models.gain import GainPrior, gain_statistics, marginal_gain, mean_field_gain
from pyro_minvae.models.noise import Nmf, Statistics


def total_variance(noise: Tensor, gain: Tensor, sigma: Sequence[Tensor]) -> Tensor:
    """sum_j g_j sigma_j + noise of gains [J, ..., N] and one draw of each source, J of [..., N, F]."""
    total = torch.addcmul(noise, gain[0][..., None], sigma[0])
    for own, other in zip(gain[1:], sigma[1:], strict=True):
        total.addcmul_(own[..., None], other)
    return total


def harmonic_mean(kept: Tensor) -> Tensor:
    """1 / mean_r[1 / sigma] of draws [J, D, ..., N, F]: [J, ..., N, F]."""
    if kept.shape[1] == 1:
        return kept[:, 0]
    first, *others = kept.unbind(1)
    mean = first.reciprocal()
    for one in others:  # draw by draw, which stays in the processor's cache
        mean += one.reciprocal()
    return mean.div_(kept.shape[1]).reciprocal_()


def marginal_statistics(sigma: Tensor, power: Tensor, gain: Tensor | None = None) -> Statistics:
    """The M-step's P = mean_r |x|^2 V^-2 and Q = mean_r V^-1 for V = sum_j g_j sigma_j [J, D, ..., N, F] + noise.

    (derivations, eq. 6.18) `gain` is [J, ..., N]; None: 1.
    """
    gains = sigma.new_ones(len(sigma), *power.shape[:-1]) if gain is None else gain

    def statistics(noise: Tensor) -> tuple[Tensor, Tensor]:
        first, *others = zip(*(draws.unbind() for draws in sigma), strict=True)
        q = total_variance(noise, gains, first).reciprocal_()
        p = q.square()
        for one in others:  # draw by draw, which stays in the processor's cache
            inverse = total_variance(noise, gains, one).reciprocal_()
            q += inverse
            p.addcmul_(inverse, inverse)
        if others:
            q /= 1 + len(others)
            p /= 1 + len(others)
        return p.mul_(power), q

    return statistics


def mean_field_statistics(expected: Tensor) -> Statistics:
    """P and Q of NMF on the expected noise power E|b|^2 [..., N, F] (derivations, eq. 6.30)."""

    def statistics(noise: Tensor) -> tuple[Tensor, Tensor]:
        inverse = noise.reciprocal()
        return (expected * inverse).mul_(inverse), inverse

    return statistics


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
    noise: Nmf, gain: Tensor, kept: Tensor, power: Tensor, *, prior: GainPrior | None, valid: Tensor | None
) -> Tensor:
    """Update the noise, then the gains [J, ..., N] one source after another (as they are without a prior)."""
    noise.update(within(marginal_statistics(kept, power, gain), valid))
    if prior is None:
        return gain
    gain = gain.clone()
    for j in range(len(kept)):
        up, down = torch.zeros_like(gain[j]), torch.zeros_like(gain[j])
        for draw in zip(*(draws.unbind() for draws in kept), strict=True):
            q = total_variance(noise.variance(), gain, draw).reciprocal_()
            own = gain_statistics(draw[j][None], q.square().mul_(power)[None], q[None])
            up += own[0]
            down += own[1]
        draws = kept.shape[1]
        gain[j] = marginal_gain(gain[j], up / draws, down / draws, prior=prior)
    return gain


def maximise_mean_field(
    noise: Nmf,
    gain: Tensor,
    harmonic: Tensor,
    power: Tensor,
    *,
    prior: GainPrior | None,
    valid: Tensor | None,
) -> Tensor:
    """Update the noise and the gains [J, ..., N] at q(s); `harmonic` [J, ..., N, F] is `harmonic_mean` of the draws."""
    speech, before = gain[..., None] * harmonic, noise.variance()
    total = speech.sum(0) + before if len(speech) > 1 else speech[0] + before
    noise.update(within(mean_field_statistics(second_moment(before, total, power)), valid))
    if prior is None:
        return gain
    # g = mean_f E|s|^2 mean_r[1 / sigma], the exact maximiser (derivations, eq. 6.31).
    level = second_moment(speech, total, power).div_(harmonic).sum(-1)
    return mean_field_gain(level, power.shape[-1], prior)


def tail_ratio(
    voices: Sequence[Voice], j: int, *, gain: Tensor, noise: Tensor, power: Tensor, mean_field: bool
) -> Tensor:
    """mean_r E|sqrt(g) s|^2 / (g sigma(z)) [..., N, F] of source j, what its weights of heavy tails depend on."""
    kept, tails = torch.stack([voice.kept for voice in voices]), voices[j].tails
    assert tails is not None
    variances = gain[..., None] * harmonic_mean(kept) if mean_field else gain[:, None, ..., None] * kept
    moment = second_moment(variances[j], variances.sum(0) + noise, power)
    return mean_of(moment / (gain[j][..., None] * kept[j] * tails))
