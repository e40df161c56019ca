"""Guides with a switch alpha: mixtures of inference networks."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.single import product
from pyro_minvae.models.distributions import normal, pick
from pyro_minvae.models.networks import AudioWeight, GaussianNetwork
from pyro_minvae.models.priors import seen
from pyro_minvae.types import Visual


class MixtureGuide(Guide):
    """q(z, alpha) = prod_n q(alpha_n) N(z_n; m_a(s_n), v_a(s_n))^alpha_n N(z_n; m_v(v_n), v_v(v_n))^(1 - alpha_n).

    Sadeghi & Alameda-Pineda 2021, sec. III-B (derivations, eq. 2.3). `weight` is the network of an amortised
    q(alpha) (eq. 2.17); without one the optimal q(alpha) is computed for each batch (eq. 2.11).
    """

    mixed = True
    visual = True
    led = True

    def __init__(
        self, audio: GaussianNetwork, visual_network: GaussianNetwork, weight: AudioWeight | None = None
    ) -> None:
        super().__init__()
        self.audio = audio
        self.visual_network = visual_network
        self.weight = weight

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        audio = self.audio(power if encoder_input is None else encoder_input)
        if visual is None:
            return normal(torch.zeros_like(audio[0]), torch.ones_like(audio[1])), self._on(audio, None)
        return seen(self.visual_network, visual), self._on(audio, visual)

    def _on(self, audio: tuple[Tensor, Tensor], visual: Visual | None) -> TorchDistribution:
        """q(z | alpha = 1, s, v), given the Gaussian of the audio network."""
        return normal(*audio)

    def audio_weight(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> Tensor | None:
        return (
            None
            if self.weight is None
            else self.weight(power if encoder_input is None else encoder_input, visual)
        )

    def propose(self, power: Tensor, visual: Visual | None = None) -> TorchDistribution:
        """The visual network where there are lips, the audio network on the mixture where there are none."""
        lips, audio = self.posteriors(power, visual)
        return audio if visual is None else pick(~visual.valid, lips, audio)


class MixtureOfProductsGuide(MixtureGuide):
    """MIN-VAE's guide whose component alpha = 1 is the product of both experts: trust the sound and the lips, or lips.

    q(z | alpha = 1) = N(0, I) q_a(z | s) q_v(z | v) / Z and q(z | alpha = 0) = q_v(z | v), after the mixtures of
    products of experts of Sutter et al. 2021 (derivations, eq. 3.25).
    """

    def _on(self, audio: tuple[Tensor, Tensor], visual: Visual | None) -> TorchDistribution:
        return product(audio, self.visual_network, visual)
