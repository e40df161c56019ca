"""The evidence lower bound, term by term: Pyro's for training, closed forms for reporting and responsibilities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pyro.distributions import TorchDistribution
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.infer.elbo import ELBOModule
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.speech import Posterior
from pyro_minvae.models.distributions import MarkovNormal, factors, gaussian_parameters
from pyro_minvae.models.priors import at_valid
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual

# The published code clips the responsibility's logit here; float32 sigmoids saturate at about 17 anyway.
CLIP = 30.0


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


Gaussian = tuple[Tensor, Tensor]
"""(mean, scale), each broadcastable to [..., N, L]."""


def svi_loss(model: SpeechModel, guide: Guide) -> ELBOModule:
    """Minus Pyro's ELBO, a function of (power, visual, heard=, responsibility=): differentiable, summed over frames.

    `TraceEnum_ELBO` sums out the alpha that the guide enumerates; without an alpha the plain `Trace_ELBO` is the
    same estimate (derivations, eqs. 1.5 and 2.4).

    Raises:
        ValueError: if only one of model and guide has an alpha that the other would have to supply.
    """
    elbo = TraceEnum_ELBO(max_plate_nesting=1) if guide.mixed else Trace_ELBO()
    return elbo(model, Posterior(model, guide))


def gaussian_kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) = sum_l [log(p_l / q_l) + (q_l^2 + (m_q - m_p)^2) / (2 p_l^2) - 1/2] for scales q_l, p_l: [..., N].

    (derivations, eqs. 1.7 and 2.7)
    """
    (mean, scale), (prior_mean, prior_scale) = q, p
    ratio = (scale / prior_scale) ** 2
    distance = ((mean - prior_mean) / prior_scale) ** 2
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)


def markov_kl(q: Gaussian, p: MarkovNormal) -> Tensor:
    """E_q[log q(z_n) - log p(z_n | z_(n-1))] of independent Gaussians q (mean, scale) [..., N, L]: [..., N].

    These sum over n to KL(q || p). Frame 1 meets N(0, I); later frames a Gaussian whose mean is random under q:
    E (z_n - c z_(n-1))^2 = v_n + c^2 v_(n-1) + (m_n - c m_(n-1))^2 (derivations, eqs. 3.13 to 3.17).
    """
    mean, scale = q
    c, innovation = p.coefficient, p.innovation
    variance = scale**2
    first = variance[..., :1, :] + mean[..., :1, :] ** 2
    later = (
        variance[..., 1:, :] + c**2 * variance[..., :-1, :] + (mean[..., 1:, :] - c * mean[..., :-1, :]) ** 2
    ) / innovation**2 + 2 * innovation.log()
    return 0.5 * (torch.cat([first, later], -2) - 1 - variance.log()).sum(-1)


def kl(q: TorchDistribution, p: TorchDistribution, z: Tensor) -> Tensor:
    """KL(q || p) as terms that sum to it: closed where a formula is known, else log q(z) - log p(z): [..., N].

    Args:
        q: the guide's, independent over frames.
        p: the prior's.
        z: a draw from q [..., N, L], for pairs without a formula.
    """
    gaussian, prior = gaussian_parameters(q), gaussian_parameters(p)
    if gaussian is not None and prior is not None:
        return gaussian_kl(gaussian, prior)
    if gaussian is not None and isinstance(p, MarkovNormal):
        return markov_kl(gaussian, p)
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return q.log_prob(z) - factors(p, z)


def bernoulli_kl(q: Tensor, p: Tensor) -> Tensor:
    """KL(Bern(q) || Bern(p)), elementwise; both strictly between 0 and 1 (derivations, eq. 2.8)."""
    return q * (q.log() - p.log()) + (1 - q) * (torch.log1p(-q) - torch.log1p(-p))


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
    pairs = branches(model, guide, power, visual, encoder_input=encoder_input)
    return responsibility_of(pairs, model.prior.audio_weight(visual), visual)


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
