"""The whole guide of a speech model: a `Guide` and the guide's side of the likelihood's own sites."""

from __future__ import annotations

from torch import Tensor, nn

from pyro_minvae.config.rules import incompatibility
from pyro_minvae.guides.base import Guide
from pyro_minvae.models.speech import SpeechModel, frame_plates
from pyro_minvae.types import Visual


class Posterior(nn.Module):
    """q(alpha, z | s, v) as coupled as the model's frames, then q(w | s, z) where the likelihood has weights.

    (derivations, eq. 4.9)

    Raises:
        ValueError: if only one of model and guide has an alpha that the other would have to supply.
    """

    def __init__(self, model: SpeechModel, guide: Guide) -> None:
        super().__init__()
        fault = incompatibility(prior=model.prior, guide=guide, decoder=model.decoder)
        if fault:
            raise ValueError(fault)
        self.model = model
        self.guide = guide

    def forward(
        self,
        power: Tensor,
        visual: Visual | None = None,
        *,
        encoder_input: Tensor | None = None,
        responsibility: Tensor | None = None,
    ) -> Tensor:
        """The Pyro guide with every site of the model; arguments as in `Guide.sites`."""
        model = self.model
        with frame_plates(power, model.coupled) as event_dim:
            z = self.guide.sites(
                power, visual, encoder_input=encoder_input, responsibility=responsibility, event_dim=event_dim
            )
            if model.likelihood.weighted:
                model.likelihood.guide(power, model.decoder.log_variance(z, visual), event_dim)
        return z
