"""Decoders sigma_f(z): from a latent vector to the variance of the clean-speech STFT.

To write a new one, subclass `SpectralDecoder` and answer `inputs`, or replace `trunk` and `output`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_minvae.inference.ops.fused_decoder import LARGEST, FusedDecoder, folded
from pyro_minvae.models.networks import layers
from pyro_minvae.types import Visual


class Variance(Protocol):
    """sigma(z) [..., N, F] of z [..., N, L] alone."""

    def __call__(self, z: Tensor, known: Tensor | None = None, room: Tensor | None = None, /) -> Tensor:
        """`known` is sigma(z), if somebody remembers it: then it may be the answer, or make gradients cheaper.

        `room` may be written into: the answer may be it, if it has its shape.
        """

    def back(self, z: Tensor, sigma: Tensor, outer: Tensor, /) -> Tensor:
        """The gradient of sum(outer sigma(z)) [..., N, L], where `sigma` is sigma(z) and no graph is wanted.

        `outer` may be written into.
        """


Network = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


class Decoding:
    """`Variance` by a `network`, asked as `Variance` is, of inputs that are made of z (None: z itself)."""

    def __init__(self, network: Network, inputs: Callable[[Tensor], Tensor] | None = None) -> None:
        self.network, self.inputs = network, inputs

    def __call__(self, z: Tensor, known: Tensor | None = None, room: Tensor | None = None, /) -> Tensor:
        return self.network(z if self.inputs is None else self.inputs(z), known, room)

    def back(self, z: Tensor, sigma: Tensor, outer: Tensor, /) -> Tensor:
        if self.inputs is None and isinstance(self.network, FusedDecoder):
            return self.network.gradient(z, sigma, outer, spare=True)
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            if not isinstance(self.network, FusedDecoder):
                return torch.autograd.grad(self(leaf, sigma), leaf, outer)[0]
            assert self.inputs is not None
            inputs = self.inputs(leaf)
        gradient = self.network.gradient(inputs.detach(), sigma, outer, spare=True)
        return torch.autograd.grad(inputs, leaf, gradient)[0]


class SpectralDecoder(nn.Module):
    """sigma_f(z) = floor + exp(d_f(z)), the variance of the clean-speech STFT (linear power at full scale 1).

    d is a network of tanh layers of widths `hidden` on `width` inputs, made of z by `inputs` (derivations, eq. 1.10).

    `visual` decoders look at lips; one with `reach` c > 0 looks at the latent vectors of c frames on either side, so
    frames are coupled.
    """

    visual = False
    reach = 0

    def __init__(self, bins: int, width: int, hidden: Sequence[int], floor: float) -> None:
        super().__init__()
        self.floor = floor
        self.trunk = layers((width, *hidden), nn.Tanh)
        self.output = nn.Linear((width, *hidden)[-1], bins)

    def inputs(self, z: Tensor, visual: Visual | None) -> Tensor:
        """What the network sees: z [..., N, L] to [..., N, width]."""
        return z

    def start_at(self, log_power: Tensor) -> None:
        """Set the output's bias to a mean log power [F], so that training starts from the average spectrum."""
        with torch.no_grad():
            self.output.bias.copy_(log_power)

    def log_variance(self, z: Tensor, visual: Visual | None = None) -> Tensor:
        """log sigma_f(z): [..., N, L] to [..., N, F]."""
        least = math.log(self.floor)
        return least + functional.softplus(self.output(self.trunk(self.inputs(z, visual))) - least)

    def banded(self, bins: int) -> SpectralDecoder:
        """The decoder of the first `bins` alone, with the same weights: the others are summed out of p(s | z).

        (derivations, eq. 6.47)
        """
        if type(self).variance is not SpectralDecoder.variance:
            return _Banded(self, bins)
        part = copy.copy(self)
        part._modules = dict(self._modules)
        part.output = nn.Linear(self.output.in_features, bins, device="meta")
        part.output.weight = nn.Parameter(self.output.weight[:bins].detach(), requires_grad=False)
        part.output.bias = nn.Parameter(self.output.bias[:bins].detach(), requires_grad=False)
        return part

    def given(self, visual: Visual | None) -> Variance:
        """sigma(., v) at given lips, a function of z alone: what depends on the lips only is computed once."""
        if type(self).variance is not SpectralDecoder.variance:
            return Decoding(lambda z, known, room: self.variance(z, visual))
        plain = type(self).inputs is SpectralDecoder.inputs
        return Decoding(self._fixed(), None if plain else lambda z: self.inputs(z, visual))

    def variance(self, z: Tensor, visual: Visual | None = None) -> Tensor:
        """sigma_f(z): [..., N, L] to [..., N, F]."""
        return self._variance_of(self.inputs(z, visual))

    def _variance_of(self, inputs: Tensor, known: Tensor | None = None, room: Tensor | None = None) -> Tensor:
        return self.output(self.trunk(inputs)).clamp(max=LARGEST).exp() + self.floor

    def _fixed(self) -> Network:
        """`_variance_of` for weights that stay as they are, as quick as can be."""
        fast = None if torch.is_grad_enabled() else folded(self.trunk, self.output, self.floor)
        return self._variance_of if fast is None else fast


class _Banded(SpectralDecoder):
    """The first `bins` of a decoder that computes its variance in a way of its own."""

    def __init__(self, whole: SpectralDecoder, bins: int) -> None:
        nn.Module.__init__(self)
        self.whole, self.bins, self.floor = whole, bins, whole.floor
        self.visual, self.reach = whole.visual, whole.reach

    def inputs(self, z: Tensor, visual: Visual | None) -> Tensor:
        return self.whole.inputs(z, visual)

    def log_variance(self, z: Tensor, visual: Visual | None = None) -> Tensor:
        return self.whole.log_variance(z, visual)[..., : self.bins]

    def variance(self, z: Tensor, visual: Visual | None = None) -> Tensor:
        return self.whole.variance(z, visual)[..., : self.bins]


class VisualDecoder(SpectralDecoder):
    """sigma_f(z, v): beside z the network sees an embedding of the lips, zero on frames without.

    MIN-VAE-Dec (Sadeghi & Alameda-Pineda 2021; derivations, eq. 5.6) and AV-CVAE (eq. 5.1).

    `lips` is D, the length of the lip features; `embedding` the widths of the layers between them and the trunk, with
    `dropout` before each.
    """

    visual = True

    def __init__(
        self,
        bins: int,
        latent: int,
        hidden: Sequence[int],
        floor: float,
        *,
        lips: int,
        embedding: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__(bins, latent + embedding[-1], hidden, floor)
        self.width = embedding[-1]
        self.embedding = layers((lips, *embedding), nn.ReLU, dropout=dropout)

    def inputs(self, z: Tensor, visual: Visual | None) -> Tensor:
        return self._beside(z, self._embedded(visual))

    def given(self, visual: Visual | None) -> Variance:
        embedded = self._embedded(visual)
        return Decoding(self._fixed(), lambda z: self._beside(z, embedded))

    def _embedded(self, visual: Visual | None) -> Tensor | None:
        if visual is None:
            return None
        valid = visual.valid[..., None]
        # Features of invalid frames may be anything; a NaN among them would reach the weights' gradients.
        return torch.where(valid, self.embedding(torch.where(valid, visual.features, 0.0)), 0.0)

    def _beside(self, z: Tensor, embedded: Tensor | None) -> Tensor:
        if embedded is None:
            return functional.pad(z, (0, self.width))
        return torch.cat([z, embedded.expand(*z.shape[:-1], self.width)], -1)


class ContextDecoder(SpectralDecoder):
    """sigma_f(z_(n-c), ..., z_(n+c)): the network sees the frames around n; beyond the ends z is zero.

    Frames are then coupled (derivations, eq. 6.40).

    `context` is c, in frames.
    """

    def __init__(self, bins: int, latent: int, hidden: Sequence[int], floor: float, *, context: int) -> None:
        super().__init__(bins, (2 * context + 1) * latent, hidden, floor)
        self.reach = context

    def inputs(self, z: Tensor, visual: Visual | None) -> Tensor:
        padded = functional.pad(z, (0, 0, self.reach, self.reach))
        frames = z.shape[-2]
        return torch.cat([padded[..., k : k + frames, :] for k in range(2 * self.reach + 1)], -1)
