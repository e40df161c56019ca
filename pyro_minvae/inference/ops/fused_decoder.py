"""Networks of tanh layers with an exponential at their end, written so that a processor computes them fastest.

Vector units have a quick logistic function and a quick power of two, and tanh and exp that take several times as long.
Since tanh x = 2 logistic(2 x) - 1 and exp x = 2^(x log2 e), the factors and the constant can go into the weights once,
and the network computes the same (to rounding) without either.

The way back is written out as well: with sigma = floor + exp(d(h)) known, d sigma / d d = sigma - floor, so that a
gradient costs one product of matrices and no power of two, and where sigma is remembered not even the way there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_minvae.inference import ops
from pyro_minvae.inference.ops.workspace import Workspace, cut, joined, same_place, tiles

# Above this the exponent is cut, so that sigma stays finite in single precision.
LARGEST = 80.0

LOG2_E = math.log2(math.e)


class Layer(NamedTuple):
    """A linear layer: `weight` [out, in] and `bias` [out]."""

    weight: Tensor
    bias: Tensor


class FusedDecoder:
    """inputs [..., width] to sigma = floor + exp(min(d, 80)) [..., F], for weights that do not change.

    `hidden` are layers with logistic functions after them, `last` gives log2 of sigma without its floor.
    """

    def __init__(self, hidden: Sequence[Layer], last: Layer, floor: float) -> None:
        self.hidden, self.last, self.floor = list(hidden), last, floor
        self.limit = LARGEST * LOG2_E
        # Logistic functions lie between 0 and 1, so many networks cannot come near the limit.
        self.bounded = bool((last.weight.clamp_min(0).sum(-1) + last.bias < self.limit).all())
        # Of the natural logarithm: what gradients go back through.
        self._back = last.weight / LOG2_E
        self._scratch = Workspace()
        self._seen: tuple[Tensor, list[Tensor]] | None = None

    def __call__(self, inputs: Tensor, known: Tensor | None = None, room: Tensor | None = None) -> Tensor:
        """sigma at the inputs; `known` and `room` as for `decoders.Variance`."""
        if inputs.requires_grad and torch.is_grad_enabled():
            return _Tracked.apply(inputs, known, self)
        return self.sigma(inputs, room) if known is None else known

    def sigma(self, inputs: Tensor, room: Tensor | None = None) -> Tensor:
        """The way there, without a graph."""
        inputs = inputs.contiguous()
        activations = self._activations(inputs)
        # Held, so that nothing else comes to lie where the inputs are.
        self._seen, hidden = (inputs, activations), activations[-1]
        shape = (*inputs.shape[:-1], self.last.bias.shape[0])
        if room is None or room.shape != shape:
            room = inputs.new_empty(shape)
        rows, hidden = room.view(-1, shape[-1]), hidden.view(-1, hidden.shape[-1])
        limit = math.inf if self.bounded else self.limit
        for part in tiles(rows):
            values = torch.mm(cut(hidden, part), self.last.weight.mT, out=cut(rows, part))
            ops.decode_(values, self.last.bias, limit=limit, floor=self.floor)
        return room

    def gradient(self, inputs: Tensor, sigma: Tensor, outer: Tensor, *, spare: bool = False) -> Tensor:
        """The way back: d / d inputs of sum(outer sigma) [..., width]; it can be differentiated again.

        `outer` may be written into if it is `spare`.
        """
        if torch.is_grad_enabled():
            values = self._through(sigma - self.floor, outer) @ self._back
        else:
            found = []
            for part in tiles(sigma):
                own = cut(sigma, part)
                found.append(self._slope(own, cut(outer, part), spare) @ self._back)
            values = joined(found, -2)
        activations = self._seen_at(inputs) or self._activations(inputs)
        for layer, bend in zip(reversed(self.hidden), reversed(activations), strict=True):
            values = torch.ops.aten.sigmoid_backward(values, bend) @ layer.weight
        return values

    def _slope(self, sigma: Tensor, outer: Tensor, spare: bool) -> Tensor:
        """`_through` without a graph, in one pass if that can be."""
        most = math.inf if self.bounded else 2.0**self.limit
        room = outer if spare else self._scratch("slope", sigma)
        return ops.through(sigma, outer, floor=self.floor, most=most, out=room)

    def _through(self, exponential: Tensor, outer: Tensor) -> Tensor:
        """Back through the power of two, which was cut off at its limit."""
        if self.bounded:
            return exponential * outer
        return torch.where(exponential < 2.0**self.limit, exponential * outer, 0.0)

    def _seen_at(self, inputs: Tensor) -> list[Tensor] | None:
        """The activations, if these are the inputs that the way there was last asked about and no graph is wanted."""
        if self._seen is None or torch.is_grad_enabled() or not same_place(inputs, self._seen[0]):
            return None
        return self._seen[1]

    def _activations(self, inputs: Tensor) -> list[Tensor]:
        """What every hidden layer says."""
        found, values = [], inputs
        for layer in self.hidden:
            values = functional.linear(values, *layer)
            # Graphs may need what it is made of.
            values = values.sigmoid() if torch.is_grad_enabled() else values.sigmoid_()
            found.append(values)
        return found


class _Tracked(torch.autograd.Function):
    """sigma with the way back that `Folded` knows."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, known: Tensor | None, network: FusedDecoder) -> Tensor:
        sigma = network.sigma(inputs) if known is None else known.view_as(known)
        ctx.save_for_backward(inputs, sigma)
        ctx.network = network
        return sigma

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        inputs, sigma = ctx.saved_tensors
        return ctx.network.gradient(inputs, sigma, outer[0]), None, None


def folded(trunk: nn.Module, output: nn.Module, floor: float) -> FusedDecoder | None:
    """The same network as floor + exp(min(output(trunk(inputs)), 80)), to rounding.

    None for a trunk that is not linear layers with tanh after each.
    """
    layers = list(trunk) if isinstance(trunk, nn.Sequential) else []
    linear, bends = [*layers[::2], output], layers[1::2]
    if not layers or len(layers) % 2 or not all(isinstance(one, nn.Tanh) for one in bends):
        return None
    found: list[Layer] = []
    for number, layer in enumerate(linear):
        if not isinstance(layer, nn.Linear) or layer.bias is None:
            return None
        weight, bias = layer.weight.detach(), layer.bias.detach()
        if number > 0:  # the layer before answers (tanh + 1) / 2
            weight, bias = 2 * weight, bias - weight.sum(-1)
        factor = LOG2_E if layer is output else 2.0
        found.append(Layer(factor * weight, factor * bias))
    return FusedDecoder(found[:-1], found[-1], floor)
