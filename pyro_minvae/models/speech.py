"""The generative model of clean speech."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from pyro_minvae.models.likelihood import ComplexGaussianPower
from pyro_minvae.models.networks import SpectralDecoder
from pyro_minvae.models.priors import Prior
from pyro_minvae.types import Visual


class SpeechModel(nn.Module):
    """p(alpha, z, s | v) = prod_n p(alpha_n) p(z_n | alpha_n, v_n) prod_f N_c(s_fn; 0, sigma_f(z_n)).

    Sites: plate "frames" (N), "alpha" (if the prior is a mixture), "z" [N, L] and "s", the observed power [N, F].
    """

    def __init__(self, prior: Prior, decoder: SpectralDecoder) -> None:
        super().__init__()
        self.prior = prior
        self.decoder = decoder

    def forward(
        self,
        power: Tensor,
        visual: Visual | None = None,
        *,
        heard: Tensor | None = None,
        responsibility: Tensor | None = None,
    ) -> Tensor:
        """The Pyro model of frames of clean speech.

        Args:
            power: |s|^2 [N, F], linear power at full scale 1.
            visual: lips of the same frames, or None.
            heard: only the guide's; Pyro calls model and guide alike.
            responsibility: only the guide's.

        Returns:
            z [..., N, L] (with the enumeration dimension in front where alpha is enumerated).
        """
        with pyro.plate("frames", power.shape[-2], dim=-1):
            alpha = None
            if self.prior.mixed:
                alpha = pyro.sample("alpha", dist.Bernoulli(self.prior.audio_weight(visual)))
            mean, scale = self.prior.given(alpha, visual)
            z = pyro.sample("z", dist.Normal(mean, scale).to_event(1))
            likelihood = ComplexGaussianPower(self.decoder.log_variance(z), validate_args=False)
            pyro.sample("s", likelihood.to_event(1), obs=power)
        return z

    def log_prior(self, z: Tensor, visual: Visual | None = None) -> Tensor:
        """log p(z | v) with alpha summed out exactly: [..., N, L] to [..., N]."""
        return self.prior.log_prob(z, visual)

    def variance(self, z: Tensor, visual: Visual | None = None) -> Tensor:
        """sigma_f(z): [..., N, L] to [..., N, F], linear power."""
        return self.decoder.variance(z)
