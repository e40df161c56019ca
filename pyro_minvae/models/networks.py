"""The networks: Gaussian encoders and the spectral decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_minvae.config import AudioEncoder, Decoder, VisualEncoder, VisualMixturePrior, VisualPrior


def layers(sizes: Sequence[int], activation: type[nn.Module], *, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers sizes[0] -> sizes[1] -> ..., each followed by the activation; dropout before each."""
    modules: list[nn.Module] = []
    for left, right in pairwise(sizes):
        if dropout:
            modules.append(nn.Dropout(dropout))
        modules += [nn.Linear(left, right), activation()]
    return nn.Sequential(*modules)


class LogPower(nn.Module):
    """Power spectrum [..., F] to numbers of order one: log(power + floor) / 5."""

    def forward(self, power: Tensor) -> Tensor:
        return (power + 1e-4).log() / 5


class GaussianNetwork(nn.Module):
    """x -> (mean, scale) of N(z; mean, diag scale^2), each [..., L]."""

    def __init__(self, trunk: nn.Module, width: int, latent: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.mean = nn.Linear(width, latent)
        self.log_variance = nn.Linear(width, latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(x)
        # Bounded so that one odd frame cannot make the scale zero or infinite.
        return self.mean(hidden), (0.5 * self.log_variance(hidden).clamp(-14, 8)).exp()


def audio_network(bins: int, latent: int, config: AudioEncoder) -> GaussianNetwork:
    """The network of q(z | s): power [..., F] to a Gaussian over z."""
    trunk = layers((bins, *config.hidden), nn.Tanh)
    if config.input == "log-power":
        trunk = nn.Sequential(LogPower(), trunk)
    return GaussianNetwork(trunk, config.hidden[-1], latent)


def visual_network(
    dimension: int, latent: int, config: VisualEncoder | VisualPrior | VisualMixturePrior
) -> GaussianNetwork:
    """The network of q(z | v) or p(z | v): lip features [..., D] to a Gaussian over z."""
    trunk = layers((dimension, *config.hidden), nn.ReLU, dropout=config.dropout)
    return GaussianNetwork(trunk, config.hidden[-1], latent)


class SpectralDecoder(nn.Module):
    """sigma_f(z) = floor + exp(d_f(z)), the variance of the clean-speech STFT (linear power at full scale 1)."""

    def __init__(self, bins: int, latent: int, config: Decoder) -> None:
        super().__init__()
        self.floor = config.floor
        self.trunk = layers((latent, *config.hidden), nn.Tanh)
        self.output = nn.Linear((latent, *config.hidden)[-1], bins)

    def start_at(self, log_power: Tensor) -> None:
        """Set the output's bias to a mean log power [F], so that training starts from the average spectrum."""
        with torch.no_grad():
            self.output.bias.copy_(log_power)

    def log_variance(self, z: Tensor) -> Tensor:
        """log sigma_f(z): [..., L] to [..., F]."""
        least = math.log(self.floor)
        return least + functional.softplus(self.output(self.trunk(z)) - least)

    def variance(self, z: Tensor) -> Tensor:
        """sigma_f(z): [..., L] to [..., F]."""
        return self.output(self.trunk(z)).clamp(max=80.0).exp() + self.floor
