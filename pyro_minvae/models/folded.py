"""Networks of tanh layers with an exponential at their end, written so that a processor computes them fastest.

Vector units have a quick logistic function and a quick power of two, and tanh and exp that take several times as long.
Since tanh x = 2 logistic(2 x) - 1 and exp x = 2^(x log2 e), the factors and the constant can go into the weights once,
and the network computes the same (to rounding) without either.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

# Above this the exponent is cut, so that sigma stays finite in single precision.
LARGEST = 80.0


def folded(trunk: nn.Module, output: nn.Module, floor: float) -> Callable[[Tensor], Tensor] | None:
    """inputs [..., width] to floor + exp(min(output(trunk(inputs)), 80)) [..., F], for weights that do not change.

    None for a trunk that is not linear layers with tanh after each.
    """
    layers = list(trunk) if isinstance(trunk, nn.Sequential) else []
    linear, bends = [*layers[::2], output], layers[1::2]
    if not layers or len(layers) % 2 or not all(isinstance(one, nn.Tanh) for one in bends):
        return None
    weights: list[tuple[Tensor, Tensor]] = []
    for number, layer in enumerate(linear):
        if not isinstance(layer, nn.Linear) or layer.bias is None:
            return None
        weight, bias = layer.weight.detach(), layer.bias.detach()
        if number > 0:  # the layer before answers (tanh + 1) / 2
            weight, bias = 2 * weight, bias - weight.sum(-1)
        factor = math.log2(math.e) if layer is output else 2.0
        weights.append((factor * weight, factor * bias))
    *hidden, (last, offset) = weights
    limit = LARGEST * math.log2(math.e)
    # Logistic functions lie between 0 and 1, so many networks cannot come near the limit.
    bounded = bool((last.clamp_min(0).sum(-1) + offset < limit).all())

    def variance(inputs: Tensor) -> Tensor:
        values = inputs.contiguous()
        tracked = values.requires_grad and torch.is_grad_enabled()
        for weight, bias in hidden:
            values = functional.linear(values, weight, bias)
            values = values.sigmoid() if tracked else values.sigmoid_()
        values = functional.linear(values, last, offset)
        if not bounded:
            values = values.clamp(max=limit)
        return values.exp2() + floor if tracked else values.exp2_().add_(floor)

    return variance
