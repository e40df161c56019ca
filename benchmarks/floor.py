"""The least time that a machine could take for the EM loop: what has to be computed, times what each part costs here.

Counted are the matrix products of the decoder and of the noise model, the decoder's logistic functions (tanh x =
2 logistic(2 x) - 1) and powers of two (exp x = 2^(x log2 e)), the logarithms (of products of two bins), products,
divisions and sums of the densities, the random numbers, the choice between old and new variances after a decision, and
the M-step's passes over [N, F]: what the algorithm needs, in the quickest form that we know in this machine's library.
The STFT is not, nor is anything of the size of z or smaller. Each operation is timed here by itself, at the shape of a
whole recording, with its operands in place and, at these sizes, mostly in the caches; the best of many runs is its
ceiling. On a machine that others use too, the best run of a few microseconds is one that nobody disturbed, while
somebody always disturbs a loop of a second: the median of the same runs is what the operation usually costs there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from pyro_minvae.errors import InputError
from pyro_minvae.inference.mcem.schedule import stretches
from pyro_minvae.pipelines.enhancer import Enhancer

# Numbers that a sum runs over, about those of a spectrum.
BINS = 512


class Operation(NamedTuple):
    """`calls` of one `kind` of operation on `shape`: (m, k, n) of a matrix product, (n,) numbers otherwise."""

    part: str
    kind: str
    shape: tuple[int, ...]
    calls: int

    @property
    def work(self) -> int:
        """Floating-point operations of a call (products), or numbers."""
        if self.kind == "matmul":
            m, k, n = self.shape
            return 2 * m * k * n
        return self.shape[0]


class Moves(NamedTuple):
    """What one move of a sampler needs: decodings, gradients (back through the decoder) and log densities.

    `renewed` are the log densities that a new target needs of where the chain is.
    """

    decodings: int
    gradients: int
    densities: int
    renewed: int


def moves(kernel: str, leapfrogs: int) -> Moves:
    """The needs of a kernel by name.

    Raises:
        InputError: for a kernel whose needs depend on the data.
    """
    known = {
        "metropolis": Moves(1, 0, 1, 1),
        "independence": Moves(1, 0, 1, 1),
        "langevin": Moves(1, 1, 0, 0),
        "map": Moves(1, 1, 0, 0),
        "mala": Moves(1, 1, 1, 1),
        "hmc": Moves(leapfrogs, leapfrogs, 1, 1),
    }
    if kernel not in known:
        raise InputError(
            f"inference.kernel: expected one of {', '.join(known)} for the floor, found {kernel}"
        )
    return known[kernel]


def operations(enhancer: Enhancer, frames: int, *, lips: bool) -> list[Operation]:
    """What the loop has to compute for a recording of that many frames, with its lips or without.

    Raises:
        InputError: for a decoder or a kernel whose needs are not known here.
    """
    recipe, decoder = enhancer.recipe, enhancer.trained.model.decoder
    config, bins, latent = recipe.inference, recipe.stft.bins, recipe.model.latent
    if not hasattr(decoder, "trunk") or enhancer.trained.model.coupled:
        raise InputError(f"{recipe.name}: expected a decoder of independent frames, found another")
    layers = [
        (one.in_features, one.out_features)
        for one in [*decoder.trunk, decoder.output]
        if isinstance(one, nn.Linear)
    ]
    need, rounds = moves(config.kernel, config.leapfrogs), config.iterations
    field = config.e_step == "mean-field" or (config.e_step == "auto" and lips)
    marginal = sum(stretch.iterations for stretch in stretches(config, field) if not stretch.mean_field)
    rows, steps = config.chains * frames, config.iterations * config.steps
    found = [Operation("decoder", "matmul", (rows, i, o), steps * need.decodings) for i, o in layers]
    found += [Operation("gradient", "matmul", (rows, o, i), steps * need.gradients) for i, o in layers]
    hidden = rows * sum(o for _, o in layers[:-1])
    renewed = config.steps * need.densities + need.renewed
    densities = rounds * renewed
    found += [
        Operation("decoder", "sigmoid", (hidden,), steps * need.decodings),
        Operation("decoder", "exp2", (rows * bins,), steps * need.decodings),
        # sigma = 2^... + floor and, in marginal E-steps, V = g sigma + the rest.
        Operation("decoder", "add", (rows * bins,), steps * need.decodings),
        Operation("density", "fma", (rows * bins,), marginal * renewed),
        Operation("density", "mul", (rows * (bins // 2),), densities),
        Operation("density", "log", (rows * (bins - bins // 2),), densities),
        Operation("density", "div", (rows * bins,), max(densities, steps * need.gradients)),
        Operation("density", "sum", (rows * bins,), densities),
        # Through |x|^2 / V^2 - 1 / V and back through the power of two.
        Operation("gradient", "mul", (rows * bins,), 3 * steps * need.gradients),
        Operation("choice", "fma", (rows * bins,), steps if need.densities else 0),
        Operation("proposals", "normal", (rows * latent,), 0 if config.kernel == "map" else steps),
    ]
    found += _start(enhancer, frames, layers) + _maximisation(enhancer, frames, marginal)
    return [operation for operation in found if operation.calls]


def _start(enhancer: Enhancer, frames: int, decoder: Sequence[tuple[int, int]]) -> list[Operation]:
    """The networks of guide and prior, once each, and the decoder where the chains begin."""
    model, guide = enhancer.trained.model, enhancer.trained.guide
    linear = [one for part in (guide, model.prior) for one in part.modules() if isinstance(one, nn.Linear)]
    sizes = [*((one.in_features, one.out_features) for one in linear), *decoder]
    return [Operation("start", "matmul", (frames, i, o), 1) for i, o in sizes]


def _maximisation(enhancer: Enhancer, frames: int, marginal: int) -> list[Operation]:
    """The M-step's passes and products, in so many `marginal` iterations and the mean-field rest, and the filters."""
    config, bins = enhancer.recipe.inference, enhancer.recipe.stft.bins
    rank, rounds = getattr(enhancer.recipe.noise, "rank", 1), config.iterations
    draws, field, gain = config.chains * config.keep, rounds - marginal, int(config.gain)
    whole, one = (draws * frames * bins,), (frames * bins,)
    return [
        # V and v / V of every draw.
        Operation("filter", "fma", whole, min(config.average, rounds)),
        Operation("filter", "div", whole, min(config.average, rounds)),
        # W H anew after each factor; P H', Q H', W' P and W' Q.
        Operation("noise", "matmul", (bins, rank, frames), 2 * rounds),
        Operation("noise", "matmul", (bins, frames, rank), 2 * rounds),
        Operation("noise", "matmul", (rank, bins, frames), 2 * rounds),
        # Mean field: 1 / mean_r[1 / sigma]; then gamma, V, three for E|b|^2 and for E|c|^2, two for P (twice), the
        # gain's ratio and sum, and before the E-step gamma, V, E|c|^2 and its ratio to g.
        Operation("M-step", "div", whole, field if draws > 1 else 0),
        Operation("M-step", "fma", one, (2 * (2 + 2) + 2 * 2 + (2 + 2)) * field),
        Operation("M-step", "div", one, (1 + 1 + 1 + 1 + 2) * field),
        Operation("M-step", "sum", one, field),
        # Marginal: g sigma; then V, 1 / V, 1 / V^2 and |x|^2 / V^2 for each factor, and for the gain two products and
        # sums more.
        Operation("M-step", "mul", whole, marginal),
        Operation("M-step", "fma", whole, 2 * (2 + gain) * marginal),
        Operation("M-step", "mul", one, (2 + gain) * marginal),
        Operation("M-step", "div", whole, (2 + gain) * marginal),
        Operation("M-step", "mul", whole, 2 * gain * marginal),
        Operation("M-step", "sum", whole, 2 * gain * marginal),
    ]


def timed(call: Callable[[], object], *, least_s: float = 0.03, least_calls: int = 5) -> list[float]:
    """The times of calls in seconds, of `least_s` seconds and `least_calls` calls at least."""
    call()
    times: list[float] = []
    while len(times) < least_calls or sum(times) < least_s:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def seconds_of(kind: str, shape: tuple[int, ...]) -> list[float]:
    """Of one operation, many times."""
    if kind == "matmul":
        m, k, n = shape
        a, b, c = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
        return timed(lambda: torch.mm(a, b, out=c))
    x, y, z = torch.rand(shape) + 0.5, torch.rand(shape) + 0.5, torch.empty(shape)
    # Sums are over the bins of a frame.
    rows = x[: len(x) // BINS * BINS].view(-1, BINS)
    calls: dict[str, Callable[[], object]] = {
        "exp2": lambda: torch.exp2(x, out=z),
        "log": lambda: torch.log(x, out=z),
        "sigmoid": lambda: torch.sigmoid(x, out=z),
        "div": lambda: torch.div(x, y, out=z),
        "mul": lambda: torch.mul(x, y, out=z),
        "add": lambda: torch.add(x, 1.0, out=z),
        "fma": lambda: torch.addcmul(x, y, y, out=z),
        "sum": lambda: torch.sum(rows, -1),
        "normal": lambda: z.normal_(),
    }
    return timed(calls[kind])


def bandwidth(mebibytes: int = 256) -> float:
    """Bytes per second that a copy from memory to memory reads and writes."""
    a = torch.zeros(mebibytes * 2**18)
    b = torch.empty_like(a)
    return 2 * 4 * a.numel() / min(timed(lambda: b.copy_(a), least_s=0.1))
