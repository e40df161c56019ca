"""The generative model of clean speech."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from pyro_minvae.config.rules import incompatibility
from pyro_minvae.models.decoders import SpectralDecoder, Variance
from pyro_minvae.models.distributions import as_event
from pyro_minvae.models.likelihoods import ComplexGaussian, Likelihood
from pyro_minvae.models.priors import Components, Prior
from pyro_minvae.types import Visual


@contextmanager
def frame_plates(power: Tensor, coupled: bool) -> Iterator[int]:
    """The plates of frames `power` [..., N, F]; yields how many dimensions of z and s are one event.

    Independent frames [N, F] are a plate "frames" with events [L] and [F]. Where frames are coupled a whole sequence
    is one event, [N, L] and [N, F]. Several sequences [B, N, F] are a plate "sequences".
    """
    with ExitStack() as plates:
        if power.dim() > 2:
            plates.enter_context(pyro.plate("sequences", power.shape[-3], dim=-1 if coupled else -2))
        if not coupled:
            plates.enter_context(pyro.plate("frames", power.shape[-2], dim=-1))
        yield 2 if coupled else 1


class Conditioned(NamedTuple):
    """A speech model at given lips, for samplers: the networks of lips have run, only z is open.

    `prior` is p(alpha) p(z | alpha, v), `variance` sigma(z, v) of z [..., N, L] alone, `reach` as in `SpeechModel`.
    """

    prior: Components
    variance: Variance
    reach: tuple[int, int]


class SpeechModel(nn.Module):
    """p(alpha, z, s | v) = prod_n p(alpha_n) p(z_n | alpha_n, v_n) prod_f p(s_fn | sigma_f(z_n)).

    (derivations, eqs. 1.4, 2.1 and 5.1)

    Sites: plate "frames" (N), "alpha" (if the prior is a mixture), "z" [N, L], "s", the observed power [N, F], and
    the likelihood's own. Where the prior or the decoder couples frames see `frame_plates`.

    Raises:
        ValueError: if prior and decoder do not fit together.
    """

    def __init__(self, prior: Prior, decoder: SpectralDecoder, likelihood: Likelihood | None = None) -> None:
        super().__init__()
        fault = incompatibility(prior=prior, decoder=decoder)
        if fault:
            raise ValueError(fault)
        self.prior = prior
        self.decoder = decoder
        self.likelihood = ComplexGaussian() if likelihood is None else likelihood

    @property
    def visual(self) -> bool:
        """Whether prior or decoder look at lips."""
        return self.prior.visual or self.decoder.visual

    @property
    def coupled(self) -> bool:
        """Whether frames depend on each other."""
        return self.prior.coupled or self.decoder.reach > 0

    @property
    def reach(self) -> tuple[int, int]:
        """How many frames before and after n hold terms of the joint density that z_n enters."""
        return self.decoder.reach, max(self.decoder.reach, int(self.prior.coupled))

    def forward(
        self,
        power: Tensor,
        visual: Visual | None = None,
        *,
        encoder_input: Tensor | None = None,
        responsibility: Tensor | None = None,
    ) -> Tensor:
        """The Pyro model of frames of clean speech.

        Args:
            power: |s|^2 [N, F], linear power at full scale 1; [B, N, F] sequences where frames are coupled.
            visual: lips of the same frames, or None.
            encoder_input: only the guide's; Pyro calls model and guide alike.
            responsibility: only the guide's.

        Returns:
            z [..., N, L] (with the enumeration dimension in front where alpha is enumerated).
        """
        with frame_plates(power, self.coupled) as event_dim:
            alpha = None
            if self.prior.mixed:
                alpha = pyro.sample("alpha", dist.Bernoulli(self.prior.audio_weight(visual)))
            prior = self.prior.given(alpha, visual, power.shape[-2])
            z = pyro.sample("z", as_event(prior, power.shape[:-1]) if event_dim == 2 else prior)
            self.likelihood.sample(power, self.decoder.log_variance(z, visual), event_dim)
        return z

    def log_prior(self, z: Tensor, visual: Visual | None = None) -> Tensor:
        """log p(z | v) with alpha summed out exactly, as terms that sum to it: [..., N, L] to [..., N]."""
        return self.prior.log_prob(z, visual)

    def log_likelihood(self, power: Tensor, z: Tensor, visual: Visual | None = None) -> Tensor:
        """log p(s | z, v) with the likelihood's own sites summed out: [..., N]."""
        return self.likelihood.log_prob(power, self.decoder.log_variance(z, visual)).sum(-1)

    def given(self, visual: Visual | None = None) -> Conditioned:
        """The model as a function of z alone."""
        return Conditioned(self.prior.components(visual), self.decoder.given(visual), self.reach)

    def variance(self, z: Tensor, visual: Visual | None = None) -> Tensor:
        """sigma_f(z): [..., N, L] to [..., N, F], linear power."""
        return self.decoder.variance(z, visual)
