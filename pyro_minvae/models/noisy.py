"""The observed sound: speakers plus noise, as a Pyro program and as the density that the engine uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyro
import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_minvae.inference import ops
from pyro_minvae.inference.ops.workspace import Workspace
from pyro_minvae.models.distributions import as_event, marginal
from pyro_minvae.models.gain import FLAT, GainPrior
from pyro_minvae.models.likelihoods import ComplexGaussianPower
from pyro_minvae.models.noise.base import NoiseModel
from pyro_minvae.models.speech import SpeechModel, frame_plates
from pyro_minvae.types import Visual

# The rate of a gain whose prior has to be proper and says little: Gamma(a, VAGUE).
VAGUE = 0.01


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


class NoisyMixture:
    """p(W, H, g, alpha, z, w, x | v): a noisy recording, x_fn ~ N_c(0, sum_j g_jn sigma_f(z_jn) / w_jfn + (W H)_fn).

    (derivations, eqs. 6.2, 6.49 and 7.1)

    Sites: those of the noise model, "W" [K, F] and "H" [K, N] for NMF (see its `sites`); "gain" [J, N]; for each
    speaker j "alpha_j" (mixture priors), "z_j" [N, L] and "w_j" [N, F] (heavy-tailed speech); the deterministic "noise"
    [N, F]; "x" [N, F], the power of the mixture, observed or sampled. One plate "frames", unless frames are coupled.
    The engine (`inference.mcem`) computes the same density without handlers, and a test keeps the two equal.

    Maximum likelihood is a flat prior, an improper site: it can be conditioned on, not sampled. `proper` puts vague
    ones in their place, for NUTS and `Predictive` (eq. 12.35).

    Args:
        sources: the speakers; their `start` is not used.
        noise: the noise model, or a known variance (W H)' [N, F].
        gain_prior: of g_jn; flat if its rate is 0.
        proper: whether flat priors become vague ones.
        summed: whether alpha is summed out of p(z | v) (see `SpeechModel.summed`) in place of a site.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        noise: NoiseModel | Tensor,
        gain_prior: GainPrior = FLAT,
        *,
        proper: bool = False,
        summed: bool = False,
    ) -> None:
        self.sources, self.noise, self.gain_prior = list(sources), noise, gain_prior
        self.proper, self.summed = proper, summed

    def __call__(self, power: Tensor | None = None) -> Tensor:
        """The Pyro model of |x|^2 [N, F], linear power, which is sampled where it is None; returns it.

        Raises:
            ValueError: if the power has another number of frames or bins than the noise.
        """
        known = self.noise if isinstance(self.noise, Tensor) else self.noise.variance()
        if power is not None and power.shape != known.shape:
            raise ValueError(f"expected power of shape {list(known.shape)}, got {list(power.shape)}")
        shape = tuple(known.shape[:-1])
        coupled = any(source.model.coupled for source in self.sources)
        plates = len(shape) - int(coupled)
        noise = known if isinstance(self.noise, Tensor) else self.noise.sites(proper=self.proper)
        noise = _among_frames(noise, known.dim(), plates)
        gain = _among_frames(self._gain(known.new_ones(len(self.sources), *shape)), known.dim(), plates)
        with frame_plates(shape, coupled) as event_dim:
            variance = pyro.deterministic("noise", noise, event_dim=event_dim)
            for index, source in enumerate(self.sources):
                speech = self._speech(source, index, shape, event_dim)
                variance = variance + gain.select(-known.dim(), index)[..., None] * speech
            law = ComplexGaussianPower(variance.log(), validate_args=False)
            return pyro.sample("x", law.to_event(event_dim), obs=power)

    def _gain(self, ones: Tensor) -> Tensor:
        """The site of g [J, ..., N], one event, since the plate of frames has no place for speakers."""
        a, b = self.gain_prior
        if b == 0 and not self.proper:
            prior: TorchDistribution = self.gain_prior.flat(ones.shape)
        else:
            prior = dist.Gamma(a * ones, (b if b > 0 else VAGUE) * ones).to_event(ones.dim())
        return pyro.sample("gain", prior)

    def _speech(self, source: Source, index: int, shape: tuple[int, ...], event_dim: int) -> Tensor:
        """The sites of one speaker; returns its variance sigma(z), or sigma(z) / w, [..., N, F]."""
        model, visual = source.model, source.visual
        alpha = None
        if self.summed and model.prior.mixed:
            prior = marginal(model.prior.audio_weight(visual), *model.prior.conditionals(visual))
        else:
            if model.prior.mixed:
                switch = dist.Bernoulli(model.prior.audio_weight(visual))
                # Where another speaker couples frames there is no plate that would make one alpha of each.
                alpha = pyro.sample(f"alpha_{index}", as_event(switch, shape) if event_dim == 2 else switch)
            prior = model.prior.given(alpha, visual, shape[-1])
        z = pyro.sample(f"z_{index}", as_event(prior, shape) if event_dim == 2 else prior)
        variance = model.variance(z, visual)
        weight = model.likelihood.sample_weight(f"w_{index}", variance, event_dim)
        return variance if weight is None else variance / weight


def _among_frames(value: Tensor, event: int, plates: int) -> Tensor:
    """A site from outside the plates of frames, as what is inside them meets it.

    Where more plates stand around the program (vectorised particles, `Predictive` in parallel) its shape is
    [P, 1, .., 1, *event], with ones for the plates of frames, whose dimensions are among the event's. `Predictive`
    gives draws of a posterior back without these ones.
    """
    outer = value.dim() - event
    ones = plates if outer > plates else 0
    return value.reshape(*value.shape[: outer - ones], *value.shape[outer:])


def log_likelihood(power: Tensor, variance: Tensor, workspace: Workspace | None = None) -> Tensor:
    """-sum_f [log V + |x|^2 / V]: [..., N, F] to [..., N] (derivations, eq. 6.3); loops give it arrays to work in."""
    return ops.log_likelihood(power, variance, workspace=workspace)
