"""The evidence lower bound, term by term: Pyro's for training, closed forms for reporting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.responsibility import branches, responsibility_of
from pyro_minvae.guides.speech import SpeechGuide
from pyro_minvae.models.divergences import bernoulli_kl
from pyro_minvae.models.priors import at_valid
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual


class BoundTerms(NamedTuple):
    """The bound's terms for each frame, each [N] in nats; the visual ones are None where there is no alpha.

    ELBO_n = pi_n (R_a - K_a) + (1 - pi_n) (R_v - K_v) - KL(Bern(pi_n) || Bern(pi)).
    """

    total: Tensor
    likelihood: Tensor
    kl: Tensor
    responsibility: Tensor | None = None
    likelihood_visual: Tensor | None = None
    kl_visual: Tensor | None = None
    kl_alpha: Tensor | None = None

    def means(self) -> dict[str, float]:
        """Each term's mean over the frames."""
        return {name: float(value.mean()) for name, value in self._asdict().items() if value is not None}


def elbo_of(guide: SpeechGuide) -> ELBO:
    """Pyro's bound for a guide: `TraceEnum_ELBO` sums out the alpha that it enumerates.

    Without an alpha the plain `Trace_ELBO` is the same estimate (derivations, eqs. 1.5 and 2.4).
    """
    return TraceEnum_ELBO(max_plate_nesting=1) if guide.mixed else Trace_ELBO()


def svi_loss(model: SpeechModel, guide: Guide) -> Callable[..., Tensor]:
    """Minus Pyro's ELBO, a function of (power, visual, encoder_input=, responsibility=): differentiable, summed.

    The last two arguments are those of `SpeechGuide.given`.

    Raises:
        ValueError: if only one of model and guide has an alpha that the other would have to supply.
    """
    program = SpeechGuide(model, guide)
    elbo: Any = elbo_of(program)

    def loss(
        power: Tensor,
        visual: Visual | None = None,
        *,
        encoder_input: Tensor | None = None,
        responsibility: Tensor | None = None,
    ) -> Tensor:
        with program.given(encoder_input, responsibility):
            return elbo.differentiable_loss(model, program, power, visual)

    return loss


def bound_terms(
    model: SpeechModel,
    guide: Guide,
    power: Tensor,
    visual: Visual | None = None,
    *,
    encoder_input: Tensor | None = None,
    responsibility: Tensor | None = None,
    noise: Tensor | None = None,
) -> BoundTerms:
    """The bound with closed-form KL terms and one draw of z per component (derivations, eq. 2.5).

    Arguments are those of the model and guide; without a `responsibility` the guide's own is taken, or else the
    optimal one for these draws.
    """
    pairs = branches(model, guide, power, visual, encoder_input=encoder_input, noise=noise)
    if not guide.mixed:
        ((r, k),) = pairs
        return BoundTerms(r - k, r, k)
    (r0, k0), (r1, k1) = pairs
    prior_weight = model.prior.audio_weight(visual)
    if responsibility is None:
        responsibility = guide.audio_weight(power, visual, encoder_input)
    if responsibility is None:
        responsibility = responsibility_of(pairs, prior_weight, visual).detach()
    weight = at_valid(responsibility, visual)
    kl_alpha = bernoulli_kl(weight, prior_weight)
    total = weight * (r1 - k1) + (1 - weight) * (r0 - k0) - kl_alpha
    return BoundTerms(total, r1, k1, weight, r0, k0, kl_alpha)
