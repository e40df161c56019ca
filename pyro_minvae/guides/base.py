"""The contract of guides: the inference networks q of a `SpeechModel`, with its signature and its sites."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_minvae.models.distributions import as_event, pick
from pyro_minvae.models.priors import at_valid
from pyro_minvae.types import Visual


class Guide(nn.Module):
    """The networks of q(alpha, z | s, v); `guides.speech.SpeechGuide` is the Pyro program that they are part of.

    To write a new one, subclass this and answer `posteriors`; the Pyro sites follow from it. `mixed` guides have the
    site "alpha", enumerated here, in the guide; `visual` guides look at lips, and `led` ones propose what the lips say
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

    def sites(
        self,
        power: Tensor,
        visual: Visual | None,
        *,
        encoder_input: Tensor | None,
        responsibility: Tensor | None,
        event_dim: int,
    ) -> Tensor:
        """Sample "alpha" [N] (mixed guides, enumerated) and "z" [N, L] inside the plates of `frame_plates`.

        The encoders run once, before the site "alpha": only what depends on alpha runs twice. Frames without valid
        lips have alpha = 1.

        Args:
            power: |s|^2 [N, F], linear power at full scale 1; [B, N, F] sequences where frames are coupled.
            visual: lips of the same frames, or None.
            encoder_input: what the audio encoder gets in place of `power` (training corrupts that, not the target).
            responsibility: q(alpha_n = 1) [N] of a mixed guide; any value gives a lower bound.
            event_dim: 2 where all frames of a sequence are one event, else 1.

        Raises:
            ValueError: if a posterior is over more than a frame where frames are independent, or less, or cannot be
                reparametrised.
        """
        # Where frames are coupled a posterior may be over all of them, as the exact one is.
        posteriors = self.usable(self.posteriors(power, visual, encoder_input), (1, event_dim))
        if not self.mixed:
            (posterior,) = posteriors
            return pyro.sample("z", as_event(posterior, power.shape[:-1]) if event_dim == 2 else posterior)
        assert responsibility is not None
        switch = dist.Bernoulli(at_valid(responsibility, visual))
        alpha = pyro.sample("alpha", switch, infer={"enumerate": "parallel"})
        return pyro.sample("z", pick(alpha, *posteriors))

    def propose(self, power: Tensor, visual: Visual | None = None) -> TorchDistribution:
        """Where the chains of a noisy recording start (at its mean): `power` is the mixture's [..., N, F]."""
        return self.posteriors(power, visual)[-1]
