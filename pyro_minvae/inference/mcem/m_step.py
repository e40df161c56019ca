"""The M-step: noise, gains and the weights of heavy tails, fitted to the kept draws of all sources.

Arrays of [D, ..., N, F] are what this costs, so that each is gone over as few times as can be, mostly in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_minvae.inference import ops
from pyro_minvae.inference.mcem.source import SourceState
from pyro_minvae.inference.mcem.statistics import MixtureStatistics
from pyro_minvae.inference.mcem.wiener import mean_of, second_moment
from pyro_minvae.inference.ops.workspace import Workspace
from pyro_minvae.models.gain import GainPrior, marginal_gain, mean_field_gain
from pyro_minvae.models.noise.nmf import Nmf


def harmonic_mean(kept: Tensor) -> Tensor:
    """1 / mean_r[1 / sigma] of draws [J, D, ..., N, F]: [J, ..., N, F]."""
    return kept[:, 0] if kept.shape[1] == 1 else ops.harmonic_mean(kept)


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
    noise.em_step(MixtureStatistics(power, kept, gain, valid=valid, workspace=workspace))
    if prior is None:
        return gain
    gain, variance, draws = gain.clone(), noise.variance(), kept.shape[1]
    for j in range(len(kept)):
        up, down = ops.gain_statistics(kept, gain, variance, power, j, workspace)
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
    workspace: Workspace,
) -> Tensor:
    """Update the noise and the gains [J, ..., N] at q(s); `harmonic` [J, ..., N, F] is `harmonic_mean` of the draws."""
    before = noise.variance()
    expected = workspace("expected", before)
    ratio = None if prior is None else torch.empty_like(gain)
    ops.noise_moment(harmonic, gain, before, power, out=expected, ratio=ratio, workspace=workspace)
    noise.em_step(MixtureStatistics(expected, valid=valid, workspace=workspace))
    if prior is None or ratio is None:
        return gain
    # g = mean_f E|s|^2 mean_r[1 / sigma], the exact maximiser (derivations, eq. 6.31).
    return mean_field_gain(ratio, power.shape[-1], prior)


def tail_ratio(
    voices: Sequence[SourceState], j: int, *, gain: Tensor, noise: Tensor, power: Tensor, mean_field: bool
) -> Tensor:
    """mean_r E|sqrt(g) s|^2 / (g sigma(z)) [..., N, F] of source j, what its weights of heavy tails depend on."""
    kept, tails = torch.stack([voice.kept for voice in voices]), voices[j].tails
    assert tails is not None
    variances = gain[..., None] * harmonic_mean(kept) if mean_field else gain[:, None, ..., None] * kept
    moment = second_moment(variances[j], variances.sum(0) + noise, power)
    return mean_of(moment / (gain[j][..., None] * kept[j] * tails))
