"""The guide of a speech model as a Pyro program: inference networks, the best q(alpha), the likelihood's own sites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_minvae.config.rules import incompatibility
from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.responsibility import best_responsibility
from pyro_minvae.models.distributions import as_event, pick
from pyro_minvae.models.priors import at_valid
from pyro_minvae.models.speech import SpeechModel, frame_plates, register
from pyro_minvae.types import Visual


class SpeechGuide(Guide):
    """q(alpha, z, w | s, v) = q(alpha) q(z | alpha, s, v) q(w | s, z): THE guide of a `SpeechModel`, of its signature.

    (derivations, eqs. 2.3 and 4.9)

    q(alpha) is the network's own where it has one (amortised), else the optimum of the bound for the present networks
    (eq. 2.11), computed without gradients at each call. Sites and plates are the model's, as coupled as it is.

    The model is only looked at: its parameters are not the guide's.

    Args:
        model: the speech model.
        network: the inference networks (a `SpeechGuide` gives its own).

    Raises:
        ValueError: if only one of model and guide has an alpha that the other would have to supply.
    """

    def __init__(self, model: SpeechModel, network: Guide) -> None:
        super().__init__()
        self.network: Guide = network.network if isinstance(network, SpeechGuide) else network
        fault = incompatibility(prior=model.prior, guide=self.network, decoder=model.decoder)
        if fault:
            raise ValueError(fault)
        self.mixed, self.visual = self.network.mixed, self.network.visual
        self.led, self.reach = self.network.led, self.network.reach
        # In a tuple, so that it is no submodule.
        self._model = (model,)
        self._given: tuple[Tensor | None, Tensor | None] = (None, None)

    @property
    def model(self) -> SpeechModel:
        """The model that this is the guide of."""
        return self._model[0]

    @contextmanager
    def given(
        self, encoder_input: Tensor | None = None, responsibility: Tensor | None = None
    ) -> Iterator[SpeechGuide]:
        """Inside, encoders of sound get `encoder_input` [..., N, F] in place of the power, and q(alpha = 1) is [N].

        None stands for the power itself and for the guide's own q(alpha). The bound holds for whatever the guide is
        given: training corrupts what it hears, or mixes other voices into it, while the target stays clean.
        """
        before = self._given
        self._given = (encoder_input, responsibility)
        try:
            yield self
        finally:
            self._given = before

    def forward(
        self, power: Tensor | None = None, visual: Visual | None = None, *, frames: int | None = None
    ) -> Tensor:
        """The Pyro guide: sites "alpha" [N] (mixed guides, enumerated), "z" [N, L] and the likelihood's own.

        Arguments are the model's, but the power has to be there. The encoders run once, before the site "alpha": only
        what depends on alpha runs twice. Frames without valid lips have alpha = 1.

        Returns:
            z [..., N, L], of both components where alpha is enumerated.

        Raises:
            ValueError: if there is no power, or if a posterior is over more than a frame where frames are
                independent, or less, or cannot be reparametrised.
        """
        if power is None:
            raise ValueError("expected power, of which the guide infers z, got None")
        register("speech_guide", self.network)
        model, shape = self.model, power.shape[:-1]
        with frame_plates(shape, model.coupled) as event_dim:
            answers = self.network.posteriors(power, visual, self._given[0])
            # Where frames are coupled a posterior may be over all of them, as the exact one is.
            posteriors = self.network.usable(answers, (1, event_dim))
            if self.mixed:
                weight = self._weight(posteriors, power, visual)
                switch = dist.Bernoulli(at_valid(weight, visual))
                alpha = pyro.sample("alpha", switch, infer={"enumerate": "parallel"})
                posterior = pick(alpha, *posteriors)
            else:
                (posterior,) = posteriors
            z = pyro.sample("z", as_event(posterior, shape) if event_dim == 2 else posterior)
            if model.likelihood.weighted:
                model.likelihood.guide(power, model.decoder.log_variance(z, visual), event_dim)
        return z

    def _weight(
        self, posteriors: Sequence[TorchDistribution], power: Tensor, visual: Visual | None
    ) -> Tensor:
        """q(alpha = 1) [N]: what was given, the network's own, or else the optimum at one draw of the posteriors."""
        encoder_input, given = self._given
        if given is not None:
            return given
        own = self.network.audio_weight(power, visual, encoder_input)
        return best_responsibility(self.model, posteriors, power, visual) if own is None else own

    # A guide itself, for those who need no Pyro: its networks answer.
    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        return self.network.posteriors(power, visual, encoder_input)

    def audio_weight(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> Tensor | None:
        return self.network.audio_weight(power, visual, encoder_input)

    def propose(self, power: Tensor, visual: Visual | None = None) -> TorchDistribution:
        return self.network.propose(power, visual)
