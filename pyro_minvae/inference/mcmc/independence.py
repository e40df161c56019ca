"""Independence Metropolis-Hastings: proposals that do not look at where the chain is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_minvae.inference.mcmc.base import ChainInfo, ChainState, FrameGaussian, LogDensity, factors_at
from pyro_minvae.inference.mcmc.blocked import Proposal, only, sweep
from pyro_minvae.inference.mcmc.draws import Randomness


@dataclass(frozen=True, eq=False)
class Independence:
    """z' ~ q = N(mean, diag scale^2) in each frame, accepted with probability min(1, p(z') q(z) / (p(z) q(z'))).

    For q close to p, such as a trained guide, draws are nearly independent. A q that is narrower than p makes chains
    stick in p's tails (Mengersen & Tweedie 1996): `inflate` widens it.

    Args:
        mean: of the proposal, broadcastable to [..., N, L].
        scale: standard deviation of the proposal, broadcastable to [..., N, L], > 0.
        inflate: factor on `scale`.
    """

    mean: Tensor
    scale: Tensor
    inflate: float = 1.0

    def init(self, log_density: LogDensity, z: Tensor) -> ChainState:
        proposal = FrameGaussian(self.mean, self.inflate * self.scale)
        return ChainState(z, factors_at(log_density, z), proposal=proposal)

    def step(
        self, log_density: LogDensity, state: ChainState, generator: Randomness
    ) -> tuple[ChainState, ChainInfo]:
        return independence_step(log_density, state, generator)


def independence_step(
    log_density: LogDensity, state: ChainState, generator: Randomness
) -> tuple[ChainState, ChainInfo]:
    """One sweep with proposals from `state.proposal`."""
    assert state.proposal is not None
    gaussian = state.proposal

    def propose(state: ChainState, xi: Tensor, frames: Tensor | None) -> Proposal:
        z = only(frames, _draw(gaussian, xi), state.position)
        here = _standardised(gaussian, state.position)
        return Proposal(z, log_density(z), correction=0.5 * (xi.square() - here.square()).sum(-1))

    state, info = sweep(log_density, state, propose, generator)
    return state._replace(age=state.age + 1), info


def _draw(gaussian: FrameGaussian, xi: Tensor) -> Tensor:
    """mean + B diag(scale) xi."""
    scaled = gaussian.scale * xi
    if gaussian.basis is not None:
        scaled = torch.matmul(gaussian.basis, scaled[..., None])[..., 0]
    return gaussian.mean + scaled


def _standardised(gaussian: FrameGaussian, z: Tensor) -> Tensor:
    """diag(1 / scale) B' (z - mean), the xi that leads to z."""
    centred = z - gaussian.mean
    if gaussian.basis is not None:
        centred = torch.matmul(gaussian.basis.mT, centred[..., None])[..., 0]
    return centred / gaussian.scale
