"""The contract of guides: the inference networks q of a `SpeechModel`."""

from __future__ import annotations

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_minvae.types import Visual


class Guide(nn.Module):
    """The networks of q(alpha, z | s, v); `guides.speech.SpeechGuide` is the Pyro program that they are part of.

    To write a new one, subclass this and return `posteriors`; the Pyro sites follow from it. `mixed` guides have the
    site "alpha", enumerated in the guide; `visual` guides look at lips, and `led` ones propose what the lips say
    where there are any. A guide with `reach` c > 0 looks at c frames on either side: it is given frames in a row,
    [N, F] or several stretches [B, N, F].
    """

    mixed = False
    visual = False
    led = False
    reach = 0

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        """q(z | alpha, s, v) over z [L] with batch shape [..., N], at index alpha; one where there is no alpha.

        Args:
            power: |s|^2 [..., N, F].
            visual: lips of the same frames, or None.
            encoder_input: what encoders of sound get in place of `power`.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks posteriors()")

    def usable(
        self, posteriors: tuple[TorchDistribution, ...], event_dims: tuple[int, ...]
    ) -> tuple[TorchDistribution, ...]:
        """The posteriors, if each has one of these event_dims and can be reparametrised.

        Raises:
            ValueError: if not.
        """
        for posterior in posteriors:
            if posterior.event_dim not in event_dims or not posterior.has_rsample:
                raise ValueError(
                    "expected posteriors over one frame's z (event_dim 1) with rsample, got "
                    f"{type(posterior).__name__} of event_dim {posterior.event_dim} from {type(self).__name__}"
                )
        return posteriors

    def audio_weight(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> Tensor | None:
        """A learned q(alpha = 1 | s, v) [..., N]; None if there is none and the optimal one is to be used."""
        return None

    def propose(self, power: Tensor, visual: Visual | None = None) -> TorchDistribution:
        """Where the chains of a noisy recording start (at its mean): `power` is the mixture's [..., N, F]."""
        return self.posteriors(power, visual)[-1]
