"""Accepting and rejecting frame by frame, where frames are independent and where they are coupled.

If z_n enters the factors n - before .. n + after, then frames before + after + 1 apart share no factor: given all
the others they are independent. So the frames fall into before + after + 1 colours, n mod (before + after + 1), and
one step sweeps over them. The frames of a colour move together, and each accepts or rejects by the change of the
factors that it enters (derivations, sec. 11): Gibbs sampling with a Metropolis-Hastings move in each conditional
(Tierney 1994). Independent frames have one colour and cost one evaluation of the density.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyro_minvae.inference import ops
from pyro_minvae.inference.mcmc.base import (
    ChainInfo,
    ChainState,
    LogDensity,
    Reach,
    at_hand,
    factors_at,
    finite_at,
    gradient_at,
    reach_of,
    value_and_gradient,
)
from pyro_minvae.inference.mcmc.draws import Randomness, normal, uniform
from pyro_minvae.inference.ops.gaussians import Place

# Share of a step by which log step sizes follow the acceptance: RATE / t^DECAY sums to infinity, its square does not.
RATE, DECAY = 2.0, 0.6


class Proposal(NamedTuple):
    """A place z' to go: its factors, its gradient if the kernel uses gradients, and log q(z | z') - log q(z' | z)."""

    position: Tensor
    log_density: Tensor
    gradient: Tensor | None = None
    correction: Tensor | float = 0.0


# (state, standard normal draws [..., N, L], frames that may move [N] or None for all) to a proposal.
Propose = Callable[[ChainState, Tensor, Tensor | None], Proposal]


@dataclass(frozen=True)
class BlockedKernel:
    """A kernel with a step size in each frame of each chain that follows the acceptance while it warms up.

    After step t <= `warmup`, log scale += 2 t^-0.6 (acceptance probability - target_acceptance): Robbins-Monro on
    the log scale (Andrieu & Thoms 2008). Later steps leave it alone, so the chain is Markov again.

    Args:
        step_size: where the step size starts; with `warmup = 0` it stays there.
        warmup: number of steps that adapt.
        target_acceptance: the wanted share of accepted proposals.

    Raises:
        ValueError: if `step_size` is not positive, `warmup` is negative or `target_acceptance` is not in (0, 1).
    """

    uses_gradient: ClassVar[bool] = False

    step_size: float
    warmup: int = 0
    target_acceptance: float = 0.5

    def __post_init__(self) -> None:
        if not self.step_size > 0:
            raise ValueError(f"expected step_size > 0, got {self.step_size}")
        if self.warmup < 0:
            raise ValueError(f"expected warmup >= 0 steps, got {self.warmup}")
        if not 0 < self.target_acceptance < 1:
            raise ValueError(f"expected target_acceptance in (0, 1), got {self.target_acceptance}")

    def init(self, log_density: LogDensity, z: Tensor) -> ChainState:
        if self.uses_gradient:
            factors, gradient = value_and_gradient(log_density, z)
        else:
            factors, gradient = factors_at(log_density, z), None
        return ChainState(z, factors, gradient, scale=torch.full_like(factors, self.step_size))

    def step(
        self, log_density: LogDensity, state: ChainState, generator: Randomness
    ) -> tuple[ChainState, ChainInfo]:
        def propose(state: ChainState, xi: Tensor, frames: Tensor | None) -> Proposal:
            return self.propose(log_density, state, xi, frames)

        adapting = state.age < self.warmup
        state, info = sweep(log_density, state, propose, generator, probabilities=adapting)
        return self._adapt(state, info), info

    def propose(
        self, log_density: LogDensity, state: ChainState, xi: Tensor, frames: Tensor | None
    ) -> Proposal:
        """Where the given frames [N] (None: all) would go; `xi` [..., N, L] is standard normal."""
        raise NotImplementedError(f"{type(self).__name__} lacks propose()")

    def _adapt(self, state: ChainState, info: ChainInfo) -> ChainState:
        age = state.age + 1
        if state.scale is None or info.probability is None:
            return state._replace(age=age)
        change = RATE * age**-DECAY * (info.probability - self.target_acceptance)
        return state._replace(age=age, scale=state.scale * change.exp())


def sweep(
    log_density: LogDensity,
    state: ChainState,
    propose: Propose,
    generator: Randomness,
    *,
    probabilities: bool = True,
) -> tuple[ChainState, ChainInfo]:
    """One Metropolis-Hastings move of every frame, colour after colour; who asks for no `probabilities` gets None."""
    z, reach = state.position, reach_of(log_density)
    xi = normal(z, generator)
    # Each frame moves once in a sweep, so one draw for each suffices.
    chance = uniform(state.log_density, generator)
    if reach == (0, 0):
        proposal = propose(state, xi, None)
        return _decided_at_once(state, proposal, chance, probabilities=probabilities)
    infos = []
    for frames in colours(reach, z.shape[-2], z.device):
        proposal = propose(state, xi, frames)
        ratio = _log_ratio(proposal, state.log_density, reach)
        accepted = chance.log() < ratio
        if frames is not None:
            accepted, ratio = accepted & frames, torch.where(frames, ratio, -torch.inf)
        infos.append(ChainInfo(accepted, ratio.clamp_max_(0.0).exp_() if probabilities else None))
        state = _settled(state, proposal, accepted, reach)
    # Each frame has its decision in one colour and zeros in the others.
    accepted = torch.stack([info.accepted for info in infos]).any(0)
    found = [info.probability for info in infos if info.probability is not None]
    return state, ChainInfo(accepted, torch.stack(found).sum(0) if found else None)


def colours(reach: Reach, count: int, device: torch.device) -> list[Tensor | None]:
    """Masks [N] of the frames n = k mod (before + after + 1), k = 0, 1, ...; [None], all, for independent frames."""
    number = sum(reach) + 1
    if number == 1:
        return [None]
    colour = torch.arange(count, device=device) % number
    return [colour == k for k in range(min(number, count))]


def only(frames: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    """`new` [..., N, L] in the given frames [..., N] (None: all), `old` elsewhere."""
    return new if frames is None else torch.where(frames[..., None], new, old)


def windowed_sum(values: Tensor, before: int, after: int) -> Tensor:
    """sum_{k = n - before}^{n + after} values_k over the last dimension, with nothing beyond the ends."""
    if before == after == 0:
        return values
    return pad(values, (before, after)).unfold(-1, before + after + 1, 1).sum(-1)


def known_gradient(log_density: LogDensity, state: ChainState) -> Tensor:
    """The gradient at the state's position, computed if it is not known."""
    return gradient_at(log_density, state.position) if state.gradient is None else state.gradient


def start(log_density: LogDensity, z: Tensor) -> ChainState:
    """What `advance` goes on from, which asks itself whether z is finite if it has to know."""
    closed = getattr(log_density, "finite", None) is not None
    said = z.new_zeros(z.shape[:-1]) if closed else factors_at(log_density, z)
    return ChainState(z, said, gradient_at(log_density, z))


def advance(
    log_density: LogDensity, state: ChainState, z: Tensor, *, ahead: bool = True
) -> tuple[ChainState, ChainInfo]:
    """Go to z without asking for the density, unless it is not finite there and was where the chain is.

    For kernels that reject nothing else. Coupled frames go or stay together, so that the cache stays true. The gradient
    at z is computed `ahead`, or else by the next step, which saves it before a new target.
    """
    said = finite_at(log_density, z)
    gradient = gradient_at(log_density, z) if ahead else None
    everywhere = state._replace(position=z, log_density=said, gradient=gradient, age=state.age + 1)
    if at_hand(z) and math.isfinite(float(said.sum())):
        return everywhere, ChainInfo(torch.ones_like(said, dtype=torch.bool))
    before = finite_at(log_density, state.position)
    finite, was_finite = said.isfinite(), before.isfinite()
    if reach_of(log_density) != (0, 0):
        finite = finite.all(-1, keepdim=True).expand(said.shape)
        was_finite = was_finite.all(-1, keepdim=True)
    moved = finite | ~was_finite
    if gradient is not None:
        gradient = only(moved, gradient, known_gradient(log_density, state))
    new = everywhere._replace(
        position=only(moved, z, state.position),
        log_density=torch.where(moved, said, before),
        gradient=gradient,
    )
    return new, ChainInfo(moved)


def _decided_at_once(
    state: ChainState, proposal: Proposal, uniform: Tensor, *, probabilities: bool
) -> tuple[ChainState, ChainInfo]:
    """The state after a decision on independent frames."""
    correction: Tensor | float | None = proposal.correction
    if not isinstance(correction, Tensor):
        correction = torch.full_like(uniform, correction) if correction else None
    there = Place(proposal.position, proposal.log_density, proposal.gradient)
    here = Place(state.position, state.log_density, state.gradient)
    found = ops.decide(uniform, there, here, correction, probability=probabilities)
    return state._replace(**found.place._asdict()), ChainInfo(found.accepted, found.probability)


def _log_ratio(proposal: Proposal, current: Tensor, reach: Reach) -> Tensor:
    """log of the acceptance ratio [..., N], -inf where the proposal is to be refused in any case.

    A factor that stops being finite forbids the move, one that becomes finite demands it, and one that is finite
    neither before nor after says nothing: chains leave places of NaN density, and never enter one.
    """
    before, after = reach
    proposed = proposal.log_density
    possible, was_possible = proposed.isfinite(), current.isfinite()
    repaired = torch.where(was_possible, proposed - current, torch.inf)
    change = torch.where(possible, repaired, torch.where(was_possible, -torch.inf, 0.0))
    ratio = windowed_sum(change, before, after) + proposal.correction
    known = windowed_sum(possible.to(ratio.dtype), before, after) > 0
    return torch.where(known & ~ratio.isnan(), ratio, -torch.inf)


def _settled(state: ChainState, proposal: Proposal, accepted: Tensor, reach: Reach) -> ChainState:
    """The state after the accepted frames [..., N] of a colour have moved."""
    before, after = reach
    # Factor i belongs to at most one frame of the colour, the one in i - after .. i + before.
    changed = windowed_sum(accepted.to(torch.int32), after, before) > 0
    return state._replace(
        position=only(accepted, proposal.position, state.position),
        log_density=torch.where(changed, proposal.log_density, state.log_density),
        # A coupled frame's gradient depends on which of its neighbours moved.
        gradient=None,
    )
