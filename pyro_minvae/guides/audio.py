"""The audio-only guide of the A-VAE."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.models.networks import GaussianNetwork
from pyro_minvae.models.priors import Gaussian
from pyro_minvae.types import Visual


class AudioGuide(Guide):
    """q(z | s) = prod_n N(z_n; m(s_n), diag v(s_n)) (Leglaive et al. 2018, eq. 5)."""

    def __init__(self, audio: GaussianNetwork) -> None:
        super().__init__()
        self.audio = audio

    def posteriors(
        self, power: Tensor, visual: Visual | None, heard: Tensor | None = None
    ) -> tuple[Gaussian, ...]:
        return (self.audio(power if heard is None else heard),)

    def forward(
        self,
        power: Tensor,
        visual: Visual | None = None,
        *,
        heard: Tensor | None = None,
        responsibility: Tensor | None = None,
    ) -> Tensor:
        """The Pyro guide: site "z" [N, L]; see `Guide.forward`."""
        ((mean, scale),) = self.posteriors(power, visual, heard)
        with pyro.plate("frames", power.shape[-2], dim=-1):
            return pyro.sample("z", dist.Normal(mean, scale).to_event(1))

    def propose(self, power: Tensor, visual: Visual | None = None) -> dist.Normal:
        return dist.Normal(*self.audio(power))
