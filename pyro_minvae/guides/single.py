"""Guides without a switch: sound alone, lips alone, both at once, and the product of both."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.models.distributions import normal
from pyro_minvae.models.networks import GaussianNetwork, JointNetwork
from pyro_minvae.models.priors import seen
from pyro_minvae.types import Visual


class AudioGuide(Guide):
    """q(z | s) = prod_n N(z_n; m(s_n), diag v(s_n)) (Leglaive et al. 2018, eq. 5)."""

    def __init__(self, audio: GaussianNetwork) -> None:
        super().__init__()
        self.audio = audio

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        return (normal(*self.audio(power if encoder_input is None else encoder_input)),)


class VisualGuide(Guide):
    """q(z | v) = prod_n N(z_n; m(v_n), diag v(v_n)); N(0, I) on frames without lips (V-VAE)."""

    visual = True
    led = True

    def __init__(self, visual_network: GaussianNetwork) -> None:
        super().__init__()
        self.visual_network = visual_network

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        if visual is not None:
            return (seen(self.visual_network, visual),)
        latent = self.visual_network.mean.out_features
        return (
            normal(power.new_zeros(*power.shape[:-1], latent), power.new_ones(*power.shape[:-1], latent)),
        )


class ConcatenationGuide(Guide):
    """q(z | s, v) from one network of the power spectrum and the lips side by side (AV-VAE).

    (derivations, eq. 3.20)
    """

    visual = True

    def __init__(self, joint: JointNetwork) -> None:
        super().__init__()
        self.joint = joint

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        return (normal(*self.joint(power if encoder_input is None else encoder_input, visual)),)


class ProductGuide(Guide):
    """q(z | s, v) = N(0, I) q_a(z | s) q_v(z | v) / Z: a product of experts.

    Wu & Goodman 2018 (derivations, eqs. 3.22 to 3.24).

    Precisions add up and means are weighted by them. A frame without lips leaves out the visual expert.
    """

    visual = True

    def __init__(self, audio: GaussianNetwork, visual_network: GaussianNetwork) -> None:
        super().__init__()
        self.audio = audio
        self.visual_network = visual_network

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        return (
            product(
                self.audio(power if encoder_input is None else encoder_input), self.visual_network, visual
            ),
        )


def product(
    audio: tuple[Tensor, Tensor], visual_network: GaussianNetwork, visual: Visual | None
) -> TorchDistribution:
    """N(0, I) q_a q_v / Z of an audio Gaussian (mean, scale) [..., N, L] and that of the lips.

    (derivations, eq. 3.22)
    """
    mean, scale = audio
    precision = 1 + scale**-2
    weighted = mean * scale**-2
    if visual is not None:
        valid = visual.valid[..., None]
        lips, spread = visual_network(torch.where(valid, visual.features, 0.0))
        precision = precision + torch.where(valid, spread**-2, 0.0)
        weighted = weighted + torch.where(valid, lips * spread**-2, 0.0)
    return normal(weighted / precision, precision.rsqrt())
