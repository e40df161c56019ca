"""The guide of a speech model as a Pyro program: inference networks, the best q(alpha), the likelihood's own sites."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_minvae.config.rules import incompatibility
from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.responsibility import optimal_responsibility
from pyro_minvae.models.speech import SpeechModel, frame_plates, register
from pyro_minvae.types import Visual


class SpeechGuide(nn.Module):
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

    def __init__(self, model: SpeechModel, network: Guide | SpeechGuide) -> None:
        super().__init__()
        self.network: Guide = network.network if isinstance(network, SpeechGuide) else network
        fault = incompatibility(prior=model.prior, guide=self.network, decoder=model.decoder)
        if fault:
            raise ValueError(fault)
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

        None leaves either as it is. The bound holds for whatever the guide is given: training corrupts what it hears,
        or mixes other voices into it, while the target stays clean.
        """
        before = self._given
        self._given = (encoder_input, responsibility)
        try:
            yield self
        finally:
            self._given = before

    def forward(self, power: Tensor, visual: Visual | None = None, *, frames: int | None = None) -> Tensor:
        """The Pyro guide; arguments are the model's, and the power has to be there: it is what is inferred from.

        Returns:
            z [..., N, L], of both components where alpha is enumerated.
        """
        register("speech_guide", self.network)
        model = self.model
        encoder_input, responsibility = self._given
        if self.mixed and responsibility is None:
            responsibility = self.responsibility(power, visual)
        with frame_plates(power.shape[:-1], model.coupled) as event_dim:
            z = self.network.sites(
                power, visual, encoder_input=encoder_input, responsibility=responsibility, event_dim=event_dim
            )
            if model.likelihood.weighted:
                model.likelihood.guide(power, model.decoder.log_variance(z, visual), event_dim)
        return z

    def responsibility(self, power: Tensor, visual: Visual | None = None) -> Tensor | None:
        """q(alpha = 1) [N]: the network's own, or else the optimum; None where there is no alpha."""
        if not self.mixed:
            return None
        encoder_input = self._given[0]
        own = self.network.audio_weight(power, visual, encoder_input)
        if own is not None:
            return own
        return optimal_responsibility(self.model, self.network, power, visual, encoder_input=encoder_input)

    # What the networks answer, for those who need no Pyro.
    @property
    def mixed(self) -> bool:
        """Whether there is a mixture indicator alpha."""
        return self.network.mixed

    @property
    def visual(self) -> bool:
        """Whether the networks look at lips."""
        return self.network.visual

    @property
    def led(self) -> bool:
        """Whether lips, where there are any, choose what is proposed."""
        return self.network.led

    @property
    def reach(self) -> int:
        """How many frames on either side the networks look at."""
        return self.network.reach

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        """q(z | alpha, s, v) at index alpha: see `Guide.posteriors`."""
        return self.network.posteriors(power, visual, encoder_input)

    def propose(self, power: Tensor, visual: Visual | None = None) -> TorchDistribution:
        """Where the chains of a noisy recording start: see `Guide.propose`."""
        return self.network.propose(power, visual)
