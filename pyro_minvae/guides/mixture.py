"""MIN-VAE's guide: a mixture of an audio and a visual inference network."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.models.networks import GaussianNetwork
from pyro_minvae.models.priors import Gaussian, at_valid, seen
from pyro_minvae.types import Visual


class MixtureGuide(Guide):
    """q(z, alpha) = prod_n q(alpha_n) N(z_n; m_a(s_n), v_a(s_n))^alpha_n N(z_n; m_v(v_n), v_v(v_n))^(1 - alpha_n).

    Sadeghi & Alameda-Pineda 2021, sec. III-B. alpha is enumerated here, in the guide; z is reparametrised given
    alpha. The encoders run once, before the site "alpha": only what depends on alpha runs twice.
    """

    mixed = True
    visual = True

    def __init__(self, audio: GaussianNetwork, visual_network: GaussianNetwork) -> None:
        super().__init__()
        self.audio = audio
        self.visual_network = visual_network

    def posteriors(
        self, power: Tensor, visual: Visual | None, heard: Tensor | None = None
    ) -> tuple[Gaussian, ...]:
        mean, scale = self.audio(power if heard is None else heard)
        if visual is None:
            return (torch.zeros_like(mean), torch.ones_like(scale)), (mean, scale)
        return seen(self.visual_network, visual), (mean, scale)

    def forward(
        self,
        power: Tensor,
        visual: Visual | None = None,
        *,
        heard: Tensor | None = None,
        responsibility: Tensor | None = None,
    ) -> Tensor:
        """The Pyro guide: sites "alpha" [N] (enumerated) and "z" [N, L]; see `Guide.forward`.

        Any `responsibility` gives a lower bound; the tightest is `inference.elbo.optimal_responsibility`. Without
        one alpha is a fair coin. Frames without valid lips have alpha = 1.
        """
        (mean0, scale0), (mean1, scale1) = self.posteriors(power, visual, heard)
        if responsibility is None:
            responsibility = power.new_full(power.shape[:-1], 0.5)
        with pyro.plate("frames", power.shape[-2], dim=-1):
            switch = dist.Bernoulli(at_valid(responsibility, visual))
            alpha = pyro.sample("alpha", switch, infer={"enumerate": "parallel"})
            audio = alpha[..., None] > 0.5
            posterior = dist.Normal(torch.where(audio, mean1, mean0), torch.where(audio, scale1, scale0))
            return pyro.sample("z", posterior.to_event(1))

    def propose(self, power: Tensor, visual: Visual | None = None) -> dist.Normal:
        """The visual network where there are lips, the audio network on the mixture where there are none."""
        (mean0, scale0), (mean1, scale1) = self.posteriors(power, visual)
        if visual is None:
            return dist.Normal(mean1, scale1)
        lips = visual.valid[..., None]
        return dist.Normal(torch.where(lips, mean0, mean1), torch.where(lips, scale0, scale1))
