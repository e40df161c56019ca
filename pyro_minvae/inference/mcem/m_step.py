"""The M-step: noise, gains and the weights of heavy tails, fitted to the kept draws of all sources.

Arrays of [D, ..., N, F] are what this costs, so that each is gone over as few times as can be, mostly in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_minvae.fused import noise as fused
from pyro_minvae.inference.mcem.source import SourceState
from pyro_minvae.inference.mcem.statistics import MixtureStatistics, draws_of, total_variance
from pyro_minvae.inference.mcem.wiener import mean_of, second_moment
from pyro_minvae.inference.ops.workspace import Workspace, cut, tiles
from pyro_minvae.models.gain import GainPrior, gain_statistics, marginal_gain, mean_field_gain
from pyro_minvae.models.noise.base import Nmf


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


def maximise_marginal(
    noise: Nmf,
    gain: Tensor,
    kept: Tensor,
    power: Tensor,
    *,
    prior: GainPrior | None,
    valid: Tensor | None,
    workspace: Workspace,
) -> Tensor:
    """Update the noise, then the gains [J, ..., N] one source after another (as they are without a prior)."""
    noise.update(MixtureStatistics(power, kept, gain, valid=valid, workspace=workspace))
    if prior is None:
        return gain
    gain, variance, draws = gain.clone(), noise.variance(), kept.shape[1]
    for j in range(len(kept)):
        found = fused.marginal_gain(kept, gain, variance, power, j)
        up, down = _gain_sums(kept, gain, variance, power, j, workspace) if found is None else found
        gain[j] = marginal_gain(gain[j], up / draws, down / draws, prior=prior)
    return gain


def _gain_sums(
    kept: Tensor, gain: Tensor, variance: Tensor, power: Tensor, j: int, workspace: Workspace
) -> tuple[Tensor, Tensor]:
    """sum_r of the `gain_statistics` of source j, [..., N] each."""
    up, down = torch.zeros_like(gain[j]), torch.zeros_like(gain[j])
    for part in tiles(variance):
        rest, level = cut(variance, part), cut(gain[..., None], part)
        for draw in draws_of(kept, part):
            q = total_variance(rest, level, draw, workspace("q", rest)).reciprocal_()
            p = torch.square(q, out=workspace("p", rest)).mul_(cut(power, part))
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
    workspace: Workspace,
) -> Tensor:
    """Update the noise and the gains [J, ..., N] at q(s); `harmonic` [J, ..., N, F] is `harmonic_mean` of the draws."""
    before = noise.variance()
    expected, level = workspace("expected", before), torch.empty_like(gain)
    wanted = None if prior is None else level
    done = fused.noise_moment(harmonic, gain, before, power, expected, wanted)
    for part in [] if done else tiles(before):
        speech, total, x = *mean_field_variances(gain, harmonic, before, part, workspace), cut(power, part)
        second_moment(cut(before, part), total, x, workspace=workspace, out=cut(expected, part))
        if prior is not None:
            # g = mean_f E|s|^2 mean_r[1 / sigma], the exact maximiser (derivations, eq. 6.31).
            moment = second_moment(speech, total, x, workspace=workspace, out=workspace("moment", speech))
            cut(level[..., None], part)[..., 0] = moment.div_(cut(harmonic, part)).sum(-1)
    noise.update(MixtureStatistics(expected, valid=valid, workspace=workspace))
    return gain if prior is None else mean_field_gain(level, power.shape[-1], prior)


def mean_field_variances(
    gain: Tensor, harmonic: Tensor, noise: Tensor, part: slice | None, workspace: Workspace
) -> tuple[Tensor, Tensor]:
    """gamma_j [J, ..., N, F], the variances of q(s)'s prior factors, and V = sum_j gamma_j + noise.

    (derivations, eq. 6.25)

    Of one part of the frames; both lie in `scratch`.
    """
    own, rest = cut(harmonic, part), cut(noise, part)
    speech = torch.mul(cut(gain[..., None], part), own, out=workspace("speech", own))
    together = speech.sum(0) if len(speech) > 1 else speech[0]
    return speech, torch.add(together, rest, out=workspace("total", rest))


def tail_ratio(
    voices: Sequence[SourceState], j: int, *, gain: Tensor, noise: Tensor, power: Tensor, mean_field: bool
) -> Tensor:
    """mean_r E|sqrt(g) s|^2 / (g sigma(z)) [..., N, F] of source j, what its weights of heavy tails depend on."""
    kept, tails = torch.stack([voice.kept for voice in voices]), voices[j].tails
    assert tails is not None
    variances = gain[..., None] * harmonic_mean(kept) if mean_field else gain[:, None, ..., None] * kept
    moment = second_moment(variances[j], variances.sum(0) + noise, power)
    return mean_of(moment / (gain[j][..., None] * kept[j] * tails))
