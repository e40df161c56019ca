"""The best q(alpha): the bound of either component of a mixture guide, and what they make of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.models.divergences import kl
from pyro_minvae.models.priors import at_valid
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual

# The published code clips the responsibility's logit here; float32 sigmoids saturate at about 17 anyway.
CLIP = 30.0


def branches(
    model: SpeechModel,
    guide: Guide,
    power: Tensor,
    visual: Visual | None = None,
    *,
    encoder_input: Tensor | None = None,
    noise: Tensor | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """(R, K) [N] of each component: R = log p(s | z) at one draw z ~ q(z | alpha), K = KL(q || p) given alpha.

    (derivations, eq. 1.6)

    `noise` [C, N, L] are the standard normal draws (for Gaussian guides); fresh ones without it.

    Raises:
        ValueError: if a posterior is not over single frames, or cannot be reparametrised.
    """
    posteriors = guide.usable(guide.posteriors(power, visual, encoder_input), (1,))
    return bounds_of(model, posteriors, power, visual, noise=noise)


def bounds_of(
    model: SpeechModel,
    posteriors: Sequence[TorchDistribution],
    power: Tensor,
    visual: Visual | None,
    *,
    noise: Tensor | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """`branches` where the networks have run: `posteriors` are q(z | alpha) at index alpha."""
    pairs = []
    for index, (q, p) in enumerate(zip(posteriors, model.prior.conditionals(visual), strict=True)):
        z = q.rsample() if noise is None else q.mean + q.stddev * noise[index]
        pairs.append((model.log_likelihood(power, z, visual), kl(q, p, z)))
    return pairs


def responsibility_of(
    pairs: list[tuple[Tensor, Tensor]], prior_weight: Tensor, visual: Visual | None
) -> Tensor:
    """pi_n = sigmoid(logit pi + (R_a - K_a) - (R_v - K_v)), the q(alpha_n = 1) that maximises the bound: [N].

    (derivations, eqs. 2.10 and 2.11)
    """
    (r0, k0), (r1, k1) = pairs
    logit = torch.logit(prior_weight) + ((r1 - k1) - (r0 - k0))
    return at_valid(logit.clamp(-CLIP, CLIP).sigmoid(), visual)


@torch.no_grad()
def optimal_responsibility(
    model: SpeechModel,
    guide: Guide,
    power: Tensor,
    visual: Visual | None = None,
    *,
    encoder_input: Tensor | None = None,
) -> Tensor | None:
    """The optimal pi_n [N] (method of Sadeghi & Alameda-Pineda 2021, sec. III-C); None where there is no alpha.

    None as well where the guide has a learned one: it is the guide's own to give.
    """
    if not guide.mixed or guide.audio_weight(power, visual, encoder_input) is not None:
        return None
    posteriors = guide.usable(guide.posteriors(power, visual, encoder_input), (1,))
    return best_responsibility(model, posteriors, power, visual)


@torch.no_grad()
def best_responsibility(
    model: SpeechModel, posteriors: Sequence[TorchDistribution], power: Tensor, visual: Visual | None
) -> Tensor:
    """The optimal pi_n [N] where the networks have run, for one draw of each posterior (derivations, eq. 2.11)."""
    pairs = bounds_of(model, posteriors, power, visual)
    return responsibility_of(pairs, model.prior.audio_weight(visual), visual)
