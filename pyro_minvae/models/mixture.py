"""The observed sound: speakers plus noise, as a Pyro model and as the density that the engine uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_minvae.models.likelihood import ComplexGaussianPower
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual


class Source(NamedTuple):
    """One speaker of a recording: the model, lips on the STFT clock or None, and where chains start, [..., N, L]."""

    model: SpeechModel
    visual: Visual | None
    start: Tensor


def noisy_speech(sources: Sequence[Source], noise: Tensor, gain: Tensor, power: Tensor) -> None:
    """The Pyro model of a noisy recording: x_fn ~ N_c(0, sum_j g_jn sigma_f(z_jn) + (W H)_fn).

    Sites: "alpha_j" (mixture priors) and "z_j" for each source j, the deterministic "noise", and "x", the observed
    power of the mixture. The engine (`inference.mcem`) computes the same density without handlers.

    Args:
        sources: the speakers; their `start` is not used.
        noise: (W H)' [N, F], linear power.
        gain: g [J, N].
        power: |x|^2 [N, F].
    """
    with pyro.plate("frames", power.shape[-2], dim=-1):
        variance = pyro.deterministic("noise", noise, event_dim=1)
        for index, source in enumerate(sources):
            prior = source.model.prior
            alpha = None
            if prior.mixed:
                alpha = pyro.sample(f"alpha_{index}", dist.Bernoulli(prior.audio_weight(source.visual)))
            mean, scale = prior.given(alpha, source.visual)
            mean, scale = torch.broadcast_tensors(mean, scale)
            z = pyro.sample(f"z_{index}", dist.Normal(mean, scale).to_event(1))
            variance = variance + gain[index][..., None] * source.model.variance(z, source.visual)
        pyro.sample("x", ComplexGaussianPower(variance.log()).to_event(1), obs=power)


def log_likelihood(power: Tensor, variance: Tensor) -> Tensor:
    """-sum_f [log V + |x|^2 / V]: [..., N, F] to [..., N]."""
    return -(variance.log() + power / variance).sum(-1)
