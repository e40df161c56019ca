"""The generative model of clean speech."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

import pyro
import pyro.distributions as dist
from pyro.params import param_with_module_name
from torch import Tensor, nn

from pyro_minvae.config.rules import incompatibility
from pyro_minvae.models.decoders import SpectralDecoder, Variance
from pyro_minvae.models.distributions import as_event, marginal
from pyro_minvae.models.likelihoods import ComplexGaussian, Likelihood
from pyro_minvae.models.priors import Components, Prior
from pyro_minvae.types import Visual


@contextmanager
def frame_plates(shape: Sequence[int], coupled: bool) -> Iterator[int]:
    """The plates of frames of `shape` [..., N]; yields how many dimensions of z and s are one event.

    Independent frames [N] are a plate "frames" with events [L] and [F]. Where frames are coupled a whole sequence
    is one event, [N, L] and [N, F]. Several sequences [B, N] are a plate "sequences".
    """
    with ExitStack() as plates:
        if len(shape) > 1:
            plates.enter_context(pyro.plate("sequences", shape[-2], dim=-1 if coupled else -2))
        if not coupled:
            plates.enter_context(pyro.plate("frames", shape[-1], dim=-1))
        yield 2 if coupled else 1


def frames_of(power: Tensor | None, visual: Visual | None, frames: int | None) -> tuple[int, ...]:
    """The shape [..., N] of the frames that a program is about: of the power, else of the lips, else `frames`.

    Raises:
        ValueError: if none of them tells, or `frames` says otherwise than the rest.
    """
    known = None if visual is None else visual.valid.shape
    if power is not None:
        known = power.shape[:-1]
    if known is None:
        if frames is None:
            raise ValueError("expected power, visual or a number of frames, got none of them")
        return (frames,)
    if frames not in (None, known[-1]):
        raise ValueError(f"expected {known[-1]} frames, as power or visual have, got frames={frames}")
    return tuple(known)


def register(name: str, module: nn.Module) -> None:
    """`pyro.module` for modules that come and go: what learns in this one stands in Pyro's parameter store.

    The store keeps the first tensor of a name for good, so that the parameters of a second model in the same process
    would never be trained. Here the store holds those of the module that was called last.
    """
    store = pyro.get_param_store()
    for key, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        full = param_with_module_name(name, key)
        if full in store and store[full] is not parameter:
            # The store knows a tensor of several names by the last of them alone.
            with suppress(KeyError):
                del store[full]
        if store.param_name(parameter) != full:
            store[full] = parameter
        pyro.param(full, parameter)


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
        self._summed = False

    def summed(self) -> SpeechModel:
        """The same model, of the same networks, without the site "alpha": z ~ sum_alpha p(alpha) p(z | alpha, v).

        For samplers of continuous sites, NUTS among them: Pyro enumerates a discrete site that observations depend on,
        but would give each value of alpha a z of its own (derivations, eq. 2.2).
        """
        other = SpeechModel(self.prior, self.decoder, self.likelihood)
        other._summed = self.prior.mixed
        return other

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
        self, power: Tensor | None = None, visual: Visual | None = None, *, frames: int | None = None
    ) -> Tensor:
        """The Pyro model of frames of clean speech; its parameters that learn are registered with Pyro.

        Args:
            power: |s|^2 [N, F], linear power at full scale 1; [B, N, F] sequences. None samples it.
            visual: lips of the same frames, or None.
            frames: N, where neither power nor lips tell.

        Returns:
            z [..., N, L] (with the enumeration dimension in front where alpha is enumerated).

        Raises:
            ValueError: if nothing tells how many frames there are.
        """
        register("speech_model", self)
        shape = frames_of(power, visual, frames)
        with frame_plates(shape, self.coupled) as event_dim:
            alpha = None
            if self._summed:
                prior = marginal(self.prior.audio_weight(visual), *self.prior.conditionals(visual))
            else:
                if self.prior.mixed:
                    alpha = pyro.sample("alpha", dist.Bernoulli(self.prior.audio_weight(visual)))
                prior = self.prior.given(alpha, visual, shape[-1])
            z = pyro.sample("z", as_event(prior, shape) if event_dim == 2 else prior)
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
