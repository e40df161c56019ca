"""MIN-VAE's mixture priors, with a switch alpha."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_minvae.models.distributions import normal
from pyro_minvae.models.networks import GaussianNetwork
from pyro_minvae.models.priors.base import Prior, at_valid, seen
from pyro_minvae.types import Visual


class MixturePrior(Prior):
    """alpha ~ Bernoulli(pi), z | alpha ~ N(mu_alpha, s_alpha I), all learned (derivations, eq. 2.1).

    Sadeghi & Alameda-Pineda 2021, sec. III.

    The variances s are exponentials, so they stay positive; means start at 0, variances at 1, pi at 1/2. A frame
    without valid lips has alpha = 1 (up to `CERTAIN`): only the audio network can speak for it (eq. 2.16).
    """

    mixed = True

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.means = nn.Parameter(torch.zeros(2, latent))  # index alpha
        self.log_variances = nn.Parameter(torch.zeros(2))
        self.logit = nn.Parameter(torch.zeros(()))

    def conditionals(self, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        scales = (0.5 * self.log_variances).exp()
        return tuple(normal(self.means[alpha], scales[alpha].expand(self.latent)) for alpha in (0, 1))

    def audio_weight(self, visual: Visual | None) -> Tensor:
        return at_valid(self.logit.sigmoid(), visual)


class VisualMixturePrior(MixturePrior):
    """MIN-VAE's mixture with p(z | alpha = 0, v) = N(mu(v), diag sigma^2(v)): the lips stay in the target.

    (derivations, eq. 3.4)
    """

    visual = True

    def __init__(self, latent: int, network: GaussianNetwork) -> None:
        super().__init__(latent)
        self.network = network

    def conditionals(self, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        base, audio = super().conditionals(visual)
        if visual is None:
            return base, audio
        return seen(self.network, visual), audio
