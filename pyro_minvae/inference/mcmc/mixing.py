"""Can the sampler be trusted at EM's last parameters, and how sure is the estimate there?

Every EM iteration changes the noise and the gains and with them what the chains sample, so draws of different
iterations come from different distributions, and the draws of one E-step are too few to judge. So the sampler runs
once more after the loop, with noise, gains and weights fixed where EM ended, and none of these draws are used for the
output. Two chains go on from EM's last draws, four more start far apart, at draws of the prior p(z | v); all are warmed
up by the same kernel. R-hat and the effective sample size are of all six: near 1, R-hat says that chains end up where
EM's did wherever they start. A larger one says that they do not within this many moves: the estimate then rests on the
guide, which chose where EM's chains began, as well as on the sound. Acceptance and the deviation of the estimate are of
the two chains that are where the estimate was taken from.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_minvae.config.schema import Inference
from pyro_minvae.inference.mcem.loop import EMState
from pyro_minvae.inference.mcem.schedule import is_mean_field, stretches
from pyro_minvae.inference.mcem.targets import marginal_target, mean_field_target
from pyro_minvae.inference.mcem.wiener import second_moment
from pyro_minvae.inference.mcmc.base import Kernel, Target
from pyro_minvae.inference.mcmc.diagnostics import (
    acceptance_rate,
    effective_sample_size,
    posterior_deviation,
    split_rhat,
)
from pyro_minvae.inference.mcmc.registry import make_kernel
from pyro_minvae.models.distributions import as_event
from pyro_minvae.models.noisy import Source

FROM_EM, FROM_PRIOR, WARMUP, STEPS = 2, 4, 200, 200

# Draws of each chain that the map of uncertainty averages over.
DECODED = 16

# Frames whose map of uncertainty is computed at a time.
PART = 256


class Mixing(NamedTuple):
    """How the chains mixed, in each frame [N].

    `rhat` and `ess` are those of the worst latent dimension (NaN where one never moved), `rhat_median` and
    `ess_median` of the middle one; `acceptance` is the share of accepted proposals, `aim` the share that the
    kernel's step size adapts to (None: it does not). `draws` is the number of all chains' draws.
    """

    acceptance: np.ndarray
    rhat: np.ndarray
    ess: np.ndarray
    rhat_median: np.ndarray
    ess_median: np.ndarray
    draws: int
    aim: float | None = None


def judge(
    source: Source, state: EMState, power: Tensor, config: Inference, seed: int
) -> tuple[Mixing | None, Tensor]:
    """How the sampler mixes at EM's last parameters, and the deviation [N, F] of the estimate.

    The kernel "map" draws nothing: its deviation is that of the Wiener filter at its points.
    """
    target, scale = last_target(source, state, power, config)
    if config.kernel == "map":
        variances = state.variances
        mixing = None
    else:
        last = state.draws[0, -FROM_EM:]
        last = last[torch.arange(FROM_EM) % len(last)]
        start = torch.cat([last, dispersed(source, FROM_PRIOR, seed)])
        kernel = make_kernel(config, source)
        warmup = max(WARMUP, config.warmup)
        accepted, draws = sample(kernel, target, start, seed=seed, warmup=warmup, steps=STEPS)
        aim = getattr(kernel, "target_acceptance", None) if config.warmup else None
        mixing = mixed(accepted[:FROM_EM], draws)._replace(aim=aim)
        thinned = draws[:FROM_EM, :: max(1, STEPS // DECODED)].flatten(0, 1)
        variance = source.model.given(source.visual).variance
        variances = torch.stack([scale * variance(z) for z in thinned])[None]
    parts = zip(variances.split(PART, -2), state.noise.split(PART, -2), power.split(PART, -2), strict=True)
    return mixing, torch.cat([posterior_deviation(*part)[0] for part in parts], -2)


def last_target(source: Source, state: EMState, power: Tensor, config: Inference) -> tuple[Target, Tensor]:
    """What the next E-step after `state` would sample, and the factor [N, F] or [N, 1] on sigma(z): g, or g / w.

    (derivations, eqs. 6.7, 6.27 and 6.46)
    """
    speech, variances = source.model.given(source.visual), state.variances[0]
    scale = state.gain[0][..., None]
    if source.model.likelihood.weighted:
        # The weights of heavy tails are in the variances g sigma(z) / w of the kept draws.
        scale = variances[0] / speech.variance(state.draws[0, 0])
    last = stretches(config, is_mean_field(config, [source]))[-1]
    if last.mean_field:
        expected = variances.reciprocal().mean(0).reciprocal()
        expected = second_moment(expected, expected + state.noise, power)
        weight = None if state.responsibility is None else state.responsibility[0]
        return mean_field_target(speech, scale=scale, ratio=expected / scale, weight=weight), scale
    return marginal_target(speech, scale=scale, others=state.noise, power=power, prior=last.prior), scale


def sample(
    kernel: Kernel, target: Target, start: Tensor, *, seed: int, warmup: int, steps: int
) -> tuple[Tensor, Tensor]:
    """What chains do from `start` [R, N, L] on, after a warm-up: decisions [R, S, N] and draws [R, S, N, L]."""
    generator = torch.Generator(start.device).manual_seed(seed)
    state = kernel.init(target, start)
    for _ in range(warmup):
        state, _ = kernel.step(target, state, generator)
    accepted, draws = [], []
    for _ in range(steps):
        state, info = kernel.step(target, state, generator)
        accepted.append(info.accepted)
        draws.append(state.position)
    return torch.stack(accepted, 1), torch.stack(draws, 1)


def dispersed(source: Source, chains: int, seed: int) -> Tensor:
    """Draws [R, N, L] of p(z | v), without a trace in the global random state.

    The prior is wider than what the sound leaves of it, so chains start further apart than they should end.
    """
    prior, shape = source.model.prior, (chains, source.start.shape[-2])
    device = source.start.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        alpha = None
        if prior.mixed:
            alpha = torch.bernoulli(prior.audio_weight(source.visual).to(source.start).expand(shape))
        z = as_event(prior.given(alpha, source.visual, shape[-1]), shape).sample()
    return z.to(source.start)


def mixed(accepted: Tensor, draws: Tensor) -> Mixing:
    """R-hat and effective sample size of draws [R, S, N, L], and the acceptance of decisions [R', S, N]."""
    rhat = split_rhat(draws).cpu().numpy()
    ess = effective_sample_size(draws).cpu().numpy()
    return Mixing(
        acceptance=acceptance_rate(accepted).cpu().numpy(),
        # amax and amin hand NaN on: a dimension that never moved is the worst.
        rhat=rhat.max(-1),
        ess=ess.min(-1),
        rhat_median=np.median(rhat, -1),
        ess_median=np.median(ess, -1),
        draws=draws.shape[0] * draws.shape[1],
    )


def first_frames(state: EMState, count: int) -> EMState:
    """The state of the first `count` frames alone, of the first recording where several went side by side."""
    weights = state.responsibility
    if state.noise.dim() == 3:
        state = state._replace(
            draws=state.draws[:, :, 0],
            sigma=state.sigma[:, :, 0],
            noise=state.noise[0],
            gain=state.gain[:, 0],
        )
        weights = None if weights is None else weights[:, 0]
    return state._replace(
        draws=state.draws[..., :count, :],
        sigma=state.sigma[..., :count, :],
        noise=state.noise[..., :count, :],
        gain=state.gain[..., :count],
        responsibility=None if weights is None else weights[..., :count],
    )
