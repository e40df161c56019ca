"""Importance-weighted bounds: tighter than the ELBO, from the same guide, without training it anew."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.models.distributions import as_event
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual

# Numbers of one array [k, N, F] that are computed at once; 2^23 in double precision are 64 MiB.
BLOCK = 2**23


@torch.no_grad()
def iwae(
    model: SpeechModel,
    guide: Guide,
    power: Tensor,
    visual: Visual | None = None,
    k: int = 100,
    *,
    encoder_input: Tensor | None = None,
    block: int = BLOCK,
) -> Tensor:
    """One estimate of L_k = E log 1/k sum_i w_i <= log p(s | v), in nats (Burda, Grosse & Salakhutdinov 2016, eq. 8).

    The weights are w = p(s, z | v) / q(z | s, v) at draws z ~ q. A switch alpha is summed out exactly: each weight
    is sum_alpha p(alpha) p(s, z^alpha | alpha) / q(z^alpha | alpha) with a draw z^alpha of each component, so it does
    not depend on q(alpha). A likelihood's own sites are summed out too. L_1 is at least the ELBO, L_k never falls with
    k, and it tends to log p(s | v) (derivations, eq. 10.3, 10.4, 10.9).

    Draws come from torch's global generator; networks are to be in evaluation mode.

    Args:
        power: |s|^2 [N, F]; sequences [..., N, F] where frames are coupled.
        visual: lips of the same frames, or None.
        k: draws of each bound.
        encoder_input: what encoders of sound get in place of `power`.
        block: the largest array, in numbers; draws and frames are taken in pieces of that size.

    Returns:
        The bound of each frame [N]. Where frames are coupled, the bound of each sequence [...] (divide by N for
        nats per frame).

    Raises:
        ValueError: for k < 1.
    """
    if k < 1:
        raise ValueError(f"expected at least one draw, got {k}")
    if model.coupled or guide.reach > 0:
        return _bound(model, guide, power, visual, encoder_input, k, block)
    size = max(1, block // power.shape[-1])
    pieces = []
    for start in range(0, len(power), size):
        part = slice(start, start + size)
        lips = None if visual is None else Visual(visual.features[part], visual.valid[part])
        given = None if encoder_input is None else encoder_input[part]
        pieces.append(_bound(model, guide, power[part], lips, given, k, block))
    return torch.cat(pieces)


def _bound(
    model: SpeechModel,
    guide: Guide,
    power: Tensor,
    visual: Visual | None,
    encoder_input: Tensor | None,
    k: int,
    block: int,
) -> Tensor:
    """The bound of frames or sequences of which at least one draw fits into a block."""
    size = max(1, block // power.numel())
    total: Tensor | None = None
    for start in range(0, k, size):
        logs = log_weights(
            model, guide, power, visual, min(size, k - start), encoder_input=encoder_input
        ).logsumexp(0)
        total = logs if total is None else torch.logaddexp(total, logs)
    assert total is not None
    return total - math.log(k)


def log_weights(
    model: SpeechModel,
    guide: Guide,
    power: Tensor,
    visual: Visual | None,
    count: int,
    *,
    encoder_input: Tensor | None = None,
) -> Tensor:
    """log w of `count` draws: [count, N], or [count, ...] of sequences [..., N, F] where frames are coupled.

    exp(log w) is an unbiased estimate of p(s | v), frame by frame, or sequence by sequence (derivations, eq. 10.9
    and 10.16).
    """
    frames = power.shape[:-1]
    logs = []
    posteriors = guide.posteriors(power, visual, encoder_input)
    for posterior, prior in zip(posteriors, model.prior.conditionals(visual), strict=True):
        if model.coupled:
            # One event is a whole sequence: its weight is the product of those of its frames.
            q, p = as_event(posterior, frames), as_event(prior, frames)
            z = q.sample((count,))
            likelihood = model.log_likelihood(power, z, visual).sum(-1)
        else:
            q, p = posterior.expand(frames), prior
            z = q.sample((count,))
            likelihood = model.log_likelihood(power, z, visual)
        logs.append(likelihood + p.log_prob(z) - q.log_prob(z))
    if not guide.mixed:
        return logs[0]
    weight = model.prior.audio_weight(visual)
    return torch.logaddexp(logs[0] + torch.log1p(-weight), logs[1] + weight.log())
