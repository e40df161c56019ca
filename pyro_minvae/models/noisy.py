"""The observed sound: speakers plus noise, as a Pyro model and as the density that the engine uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_minvae.fused import speech as fused
from pyro_minvae.inference.ops.workspace import Workspace, cut, joined, tiles
from pyro_minvae.models.distributions import as_event
from pyro_minvae.models.likelihoods import ComplexGaussianPower
from pyro_minvae.models.speech import SpeechModel, frame_plates
from pyro_minvae.types import Visual


class Source(NamedTuple):
    """One speaker of a recording: the model, lips on the STFT clock or None, and where chains start, [..., N, L].

    `spread` [..., N, L] is the guide's standard deviation there, for samplers that propose from the guide. `led` tells
    whether the lips, not the noisy sound, chose the start: see `Inference.e_step`.
    """

    model: SpeechModel
    visual: Visual | None
    start: Tensor
    spread: Tensor | None = None
    led: bool = True


def noisy_speech(sources: Sequence[Source], noise: Tensor, gain: Tensor, power: Tensor) -> None:
    """The Pyro model of a noisy recording: x_fn ~ N_c(0, sum_j g_jn sigma_f(z_jn) + (W H)_fn).

    (derivations, eqs. 6.1, 6.2 and 7.1)

    Sites: "alpha_j" (mixture priors), "z_j" and "w_j" (heavy-tailed speech: variance g sigma / w) for each source j,
    the deterministic "noise", and "x", the observed power of the mixture; one plate "frames", unless a source couples
    them. The engine (`inference.mcem.loop`) computes the same density without handlers.

    Args:
        sources: the speakers; their `start` is not used.
        noise: (W H)' [N, F], linear power.
        gain: g [J, N].
        power: |x|^2 [N, F].
    """
    with frame_plates(power.shape[:-1], any(source.model.coupled for source in sources)) as event_dim:
        variance = pyro.deterministic("noise", noise, event_dim=event_dim)
        for index, source in enumerate(sources):
            variance = variance + gain[index][..., None] * _speech(source, index, power, event_dim)
        pyro.sample("x", ComplexGaussianPower(variance.log()).to_event(event_dim), obs=power)


def _speech(source: Source, index: int, power: Tensor, event_dim: int) -> Tensor:
    """The sites of one speaker; returns its variance sigma(z), or sigma(z) / w, [..., N, F]."""
    model, visual = source.model, source.visual
    alpha = None
    if model.prior.mixed:
        switch = dist.Bernoulli(model.prior.audio_weight(visual))
        # Where another speaker couples frames there is no plate that would make one alpha of each.
        alpha = pyro.sample(
            f"alpha_{index}", as_event(switch, power.shape[:-1]) if event_dim == 2 else switch
        )
    prior = model.prior.given(alpha, visual, power.shape[-2])
    z = pyro.sample(f"z_{index}", as_event(prior, power.shape[:-1]) if event_dim == 2 else prior)
    variance = model.variance(z, visual)
    weight = model.likelihood.sample_weight(f"w_{index}", variance, event_dim)
    return variance if weight is None else variance / weight


def log_likelihood(power: Tensor, variance: Tensor, workspace: Workspace | None = None) -> Tensor:
    """-sum_f [log V + |x|^2 / V]: [..., N, F] to [..., N] (derivations, eq. 6.3).

    Logarithms cost most, so that bins are multiplied in pairs before: V should lie within 1e-19 and 1e19 (in single
    precision). Loops give it arrays to work in.
    """
    if variance.requires_grad:
        return _LogLikelihood.apply(power, variance)
    whole = fused.density(power, variance)
    if whole is not None:
        return whole
    workspace, found = workspace or Workspace(), []
    for part in tiles(variance):
        own = cut(variance, part)
        ratio = torch.div(cut(power, part), own, out=workspace("ratio", own))
        found.append(_summed(ratio, own, workspace))
    return joined(found, -1)


def _summed(ratio: Tensor, variance: Tensor, workspace: Workspace) -> Tensor:
    """-sum_f [log V + `ratio`]."""
    bins = variance.shape[-1]
    half = bins // 2
    pairs = workspace("pairs", variance, (*variance.shape[:-1], half))
    torch.mul(variance[..., :half], variance[..., bins - half :], out=pairs)
    log_total = pairs.log_().sum(-1)
    if bins % 2:
        log_total += variance[..., half].log()
    return log_total.add_(ratio.sum(-1)).neg_()


class _LogLikelihood(torch.autograd.Function):
    """The same with its gradient (|x|^2 / V - 1) / V in few passes; nothing is learnt through `power`."""

    @staticmethod
    def forward(ctx: Any, power: Tensor, variance: Tensor) -> Tensor:
        ratio = power / variance
        ctx.save_for_backward(power, variance)
        ctx.ratio = ratio
        return _summed(ratio, variance, Workspace())

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[None, Tensor]:
        power, variance = ctx.saved_tensors
        (weight,) = outer
        if torch.is_grad_enabled():  # somebody wants curvature
            return None, (power / variance - 1) / variance * weight[..., None]
        return None, (ctx.ratio - 1).div_(variance).mul_(weight[..., None])
