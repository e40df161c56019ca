"""The contract of samplers: two pure functions on tensors, after BlackJAX.

`init(log_density, z)` caches what the next step needs; `step(log_density, state, generator)` moves every frame of
every chain once and returns the new state and what happened. Chains, recordings and whatever else comes in several
copies are leading dimensions. For independent frames the last place that a step asks the target about is its proposal,
so the caller knows by `info.accepted` what the target computed on the way for the new position.

To write a new kernel, write a frozen dataclass with these two methods. One that accepts or rejects subclasses
`blocked.BlockedKernel` and answers `propose`; coupled frames, refusals and step sizes are then dealt with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

from torch import Tensor

from pyro_minvae.inference.mcmc.draws import Randomness
from pyro_minvae.models.distributions import gradient_of

LogDensity = Callable[[Tensor], Tensor]
Reach = tuple[int, int]


@dataclass(frozen=True)
class Target:
    """log p(z) = sum_n phi_n, where z_n enters phi_{n - before} .. phi_{n + after} (derivations, sec. 11).

    A plain function z [..., N, L] to [..., N] serves as well where no frame enters another's factor.

    Args:
        factors: z [..., N, L] to phi [..., N], up to a constant; each leading index by itself.
        gradient: z to that of the sum of the factors [..., N, L], in less time than torch takes; None: torch does it.
        finite: z to numbers [..., N] that are finite where the factors are, in less time; None: the factors.
        reach: (before, after) in frames. (0, 0): frames are independent. An AR(1) prior with phi_n =
            log p(z_n | z_{n-1}) has (0, 1), a decoder that sees c frames on either side (c, c).

    Raises:
        ValueError: if `reach` is negative.
    """

    factors: LogDensity
    reach: Reach = (0, 0)
    gradient: LogDensity | None = None
    finite: LogDensity | None = None

    def __post_init__(self) -> None:
        if len(self.reach) != 2 or min(self.reach) < 0:
            raise ValueError(f"expected reach (before, after) of frames >= 0, got {self.reach}")

    def __call__(self, z: Tensor) -> Tensor:
        return self.factors(z)


class FrameGaussian(NamedTuple):
    """N(mean, B diag(scale^2) B') in each frame: mean and scale [..., N, L], orthogonal basis B [..., N, L, L] or I."""

    mean: Tensor
    scale: Tensor
    basis: Tensor | None = None


class ChainState(NamedTuple):
    """Where the chains are and what their next step needs.

    Of `position` [..., N, L] the factors are `log_density` [..., N] (for kernels that compare no densities what
    `finite_at` said when they last moved, or 0) and the gradient of their sum is `gradient` [..., N, L] (None: unknown,
    or not wanted). `scale` [..., N] is the step size, `moments` [2, ..., N, L] are Adam's, `proposal` is what an
    independence sampler draws from. `age` counts steps.
    """

    position: Tensor
    log_density: Tensor
    gradient: Tensor | None = None
    scale: Tensor | None = None
    moments: Tensor | None = None
    proposal: FrameGaussian | None = None
    age: int = 0


class ChainInfo(NamedTuple):
    """Diagnostics of one step: which frames [..., N] accepted their proposal, and with which probability."""

    accepted: Tensor
    probability: Tensor | None = None


class Kernel(Protocol):
    """A sampler."""

    def init(self, log_density: LogDensity, z: Tensor) -> ChainState: ...

    def step(
        self, log_density: LogDensity, state: ChainState, generator: Randomness
    ) -> tuple[ChainState, ChainInfo]: ...


def reach_of(log_density: LogDensity) -> Reach:
    """The target's reach; (0, 0) for a plain function."""
    return getattr(log_density, "reach", (0, 0))


def factors_at(log_density: LogDensity, z: Tensor) -> Tensor:
    """The target's factors [..., N].

    Raises:
        ValueError: if the target returns another shape.
    """
    factors = log_density(z)
    if factors.shape != z.shape[:-1]:
        raise ValueError(f"expected a target of shape {tuple(z.shape[:-1])}, got {tuple(factors.shape)}")
    return factors


def gradient_at(log_density: LogDensity, z: Tensor) -> Tensor:
    """The gradient of the sum of the factors with respect to z [..., N, L], also under `no_grad`.

    Where it is not finite it is 0: samplers may follow any fixed field, and a chain that starts where the density is
    NaN has to get away from there.
    """
    closed = getattr(log_density, "gradient", None)
    gradient = gradient_of(partial(factors_at, log_density), z)[1] if closed is None else closed(z)
    return gradient.nan_to_num(0.0, 0.0, 0.0)


def value_and_gradient(log_density: LogDensity, z: Tensor) -> tuple[Tensor, Tensor]:
    """The factors [..., N], and the gradient as `gradient_at` has it."""
    if getattr(log_density, "gradient", None) is not None:
        return factors_at(log_density, z), gradient_at(log_density, z)
    factors, gradient = gradient_of(partial(factors_at, log_density), z)
    return factors, gradient.nan_to_num(0.0, 0.0, 0.0)


def finite_at(log_density: LogDensity, z: Tensor) -> Tensor:
    """Numbers [..., N] that are finite where the factors are."""
    finite = getattr(log_density, "finite", None)
    return factors_at(log_density, z) if finite is None else finite(z)


def at_hand(array: Tensor) -> bool:
    """Whether Python learns a number of the array without waiting for a device: then steps may depend on it."""
    return array.device.type == "cpu"


def refresh(kernel: Kernel, log_density: LogDensity, state: ChainState) -> ChainState:
    """The same chains under another target: positions, step sizes and age stay, cached densities are renewed."""
    fresh = kernel.init(log_density, state.position)
    return fresh._replace(scale=state.scale, moments=state.moments, age=state.age)
