"""The networks of priors and guides: Gaussian encoders of sound, of lips and of both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from pyro_minvae.config.components import (
    AudioEncoderConfig,
    ContextEncoderConfig,
    JointEncoderConfig,
    ResponsibilityNetworkConfig,
    VisualEncoderConfig,
    VisualMixturePriorConfig,
    VisualPriorConfig,
)
from pyro_minvae.types import Visual


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
    """What the trunk takes -> (mean, scale) of N(z; mean, diag scale^2), each [..., L]."""

    def __init__(self, trunk: nn.Module, width: int, latent: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.mean = nn.Linear(width, latent)
        self.log_variance = nn.Linear(width, latent)

    def forward(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(*inputs)
        # Bounded so that one odd frame cannot make the scale zero or infinite.
        return self.mean(hidden), (0.5 * self.log_variance(hidden).clamp(-14, 8)).exp()


def audio_network(bins: int, latent: int, config: AudioEncoderConfig) -> GaussianNetwork:
    """The network of q(z | s): power [..., F] to a Gaussian over z."""
    trunk = layers((bins, *config.hidden), nn.Tanh)
    if config.input == "log-power":
        trunk = nn.Sequential(LogPower(), trunk)
    return GaussianNetwork(trunk, config.hidden[-1], latent)


def visual_network(
    dimension: int, latent: int, config: VisualEncoderConfig | VisualPriorConfig | VisualMixturePriorConfig
) -> GaussianNetwork:
    """The network of q(z | v) or p(z | v): lip features [..., D] to a Gaussian over z."""
    trunk = layers((dimension, *config.hidden), nn.ReLU, dropout=config.dropout)
    return GaussianNetwork(trunk, config.hidden[-1], latent)


class JointTrunk(nn.Module):
    """Sound and lips side by side: log power, lip features (zero on frames without) and whether there are any.

    `dropout` is the share of the features and of each layer that training leaves out.
    """

    def __init__(self, bins: int, dimension: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.dimension = dimension
        self.log_power = LogPower()
        self.layers = layers((bins + dimension + 1, *hidden), nn.Tanh, dropout=dropout)

    def forward(self, power: Tensor, visual: Visual | None) -> Tensor:
        features, valid = lips_of(power, visual, self.dimension)
        return self.layers(torch.cat([self.log_power(power), features, valid], -1))


def lips_of(power: Tensor, visual: Visual | None, dimension: int) -> tuple[Tensor, Tensor]:
    """The lips of the frames of `power` [..., N, F]: features [..., N, D], 0 without lips, and 1 or 0 [..., N, 1]."""
    shape = power.shape[:-1]
    if visual is None:
        return power.new_zeros(*shape, dimension), power.new_zeros(*shape, 1)
    valid = visual.valid[..., None]
    # Features of invalid frames may be anything; a NaN among them would reach the weights' gradients.
    features = torch.where(valid, visual.features, 0.0)
    return features.expand(*shape, -1), valid.to(power).expand(*shape, -1)


class JointNetwork(nn.Module):
    """The network of q(z | s, v): power [..., F] and lips to (mean, scale), each [..., L]."""

    def __init__(self, bins: int, dimension: int, latent: int, config: JointEncoderConfig) -> None:
        super().__init__()
        trunk = JointTrunk(bins, dimension, config.hidden, config.dropout)
        self.network = GaussianNetwork(trunk, config.hidden[-1], latent)

    def forward(self, power: Tensor, visual: Visual | None) -> tuple[Tensor, Tensor]:
        return self.network(power, visual)


# Frames that a layer sees on either side, in units of its dilation.
TAPS = 2


class ContextLayer(nn.Module):
    """h_n + P gelu(sum_k c_k * norm(h)_(n + k d) + b), |k| <= 2, one number c_k a channel: [..., N, W] to the same.

    Frames beyond the ends count as zero.
    """

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        count = 2 * TAPS + 1
        self.taps = nn.Parameter(torch.randn(count, width) * count**-0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.mix = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        # Shifted copies: a grouped convolution takes more than twice as long on a processor.
        frames, edge = hidden.shape[-2], TAPS * self.dilation
        padded = pad(self.norm(hidden), (0, 0, edge, edge))
        around = self.bias
        for k, tap in enumerate(self.taps):
            around = around + tap * padded[..., k * self.dilation : k * self.dilation + frames, :]
        return hidden + self.dropout(self.mix(gelu(around)))


class ContextTrunk(nn.Module):
    """Sound and lips around each frame: log power, lip features and whether there are any, then layers of context."""

    def __init__(self, bins: int, dimension: int, config: ContextEncoderConfig) -> None:
        super().__init__()
        self.dimension = dimension
        self.log_power = LogPower()
        self.dropout = nn.Dropout(config.dropout)
        self.start = nn.Linear(bins + dimension + 1, config.width)
        self.layers = nn.ModuleList(ContextLayer(config.width, d, config.dropout) for d in config.dilations)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, power: Tensor, visual: Visual | None) -> Tensor:
        features, valid = lips_of(power, visual, self.dimension)
        hidden = self.start(torch.cat([self.log_power(power), self.dropout(features), valid], -1))
        for layer in self.layers:
            hidden = layer(hidden)
        return self.norm(hidden)


class ContextNetwork(nn.Module):
    """The network of q(z_n | x, v): power [..., N, F] and lips of a stretch to (mean, scale), each [..., N, L]."""

    def __init__(self, bins: int, dimension: int, latent: int, config: ContextEncoderConfig) -> None:
        super().__init__()
        self.reach = TAPS * sum(config.dilations)
        trunk = ContextTrunk(bins, dimension, config)
        self.network = GaussianNetwork(trunk, config.width, latent)

    def forward(self, power: Tensor, visual: Visual | None) -> tuple[Tensor, Tensor]:
        return self.network(power, visual)


class AudioWeight(nn.Module):
    """The network of r(s, v) = q(alpha = 1 | s, v): power [..., F] and lips to a probability [...]."""

    def __init__(self, bins: int, dimension: int, config: ResponsibilityNetworkConfig) -> None:
        super().__init__()
        self.trunk = JointTrunk(bins, dimension, config.hidden, config.dropout)
        self.logit = nn.Linear(config.hidden[-1], 1)

    def forward(self, power: Tensor, visual: Visual | None) -> Tensor:
        return self.logit(self.trunk(power, visual))[..., 0].sigmoid()
