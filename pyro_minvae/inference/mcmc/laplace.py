"""Independence sampler with Laplace's approximation as proposal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_minvae.inference.mcmc.adam import MapAdam
from pyro_minvae.inference.mcmc.base import (
    ChainInfo,
    ChainState,
    FrameGaussian,
    LogDensity,
    factors_at,
    reach_of,
)
from pyro_minvae.inference.mcmc.blocked import colours
from pyro_minvae.inference.mcmc.draws import Randomness
from pyro_minvae.inference.mcmc.independence import independence_step


@dataclass(frozen=True, eq=False)
class Laplace:
    """z' ~ N(mode, inflate^2 H^-1) in each frame, accepted as any independence proposal (derivations, sec. 11).

    `init` finds the mode by `search` steps of Adam and one Newton step (taken where it goes up), and there H, each
    frame's L x L block of the Hessian of -log p. It costs `search` gradients and L Hessian-vector products for each
    of the colours; a column of H comes out of each product for all frames at once, so the whole block costs no
    more than its diagonal, which would be too narrow along correlated directions. Steps then cost one density each.

    H need not be positive definite away from a mode: its eigenvalues are replaced by their absolute values and
    those below `floor` by `floor`, so no direction has a standard deviation above inflate / sqrt(floor).

    A proposal that depends on where the chain is when it is built is fixed from then on. If it is built again and
    again on the way (`refresh`), give a `start` that does not depend on the chain, such as the guide's mean; the
    chain is then exact throughout, and all chains share the search.

    Args:
        start: where the search starts, broadcastable to [..., N, L]; None for the chain's own start.
        search: steps of Adam.
        rate: Adam's step size.
        inflate: factor on the standard deviations, above 1 for safety in the tails.
        floor: least precision.
    """

    start: Tensor | None = None
    search: int = 50
    rate: float = 0.1
    inflate: float = 1.1
    floor: float = 0.01

    def init(self, log_density: LogDensity, z: Tensor) -> ChainState:
        start = z if self.start is None else self.start
        if log_density(start).shape != start.shape[:-1]:
            # The target differs from chain to chain, as that of a speaker next to other speakers' chains does.
            start = start.expand_as(z)
        gaussian = laplace_approximation(
            log_density, start, search=self.search, rate=self.rate, floor=self.floor
        )
        proposal = gaussian._replace(scale=self.inflate * gaussian.scale)
        return ChainState(z, factors_at(log_density, z), proposal=proposal)

    def step(
        self, log_density: LogDensity, state: ChainState, generator: Randomness
    ) -> tuple[ChainState, ChainInfo]:
        return independence_step(log_density, state, generator)


def laplace_approximation(
    log_density: LogDensity, start: Tensor, *, search: int, rate: float, floor: float
) -> FrameGaussian:
    """N(mode, H^-1) in each frame, H the frame's block of -d^2 log p / dz dz' at the mode that the search finds."""
    climber = MapAdam(rate)
    state = climber.init(log_density, start)
    for _ in range(search):
        state, _ = climber.step(log_density, state)
    curvature, basis = torch.linalg.eigh(-frame_hessians(log_density, state.position))
    precision = curvature.abs().clamp_min(floor)
    assert state.gradient is not None
    along = torch.matmul(basis.mT, state.gradient[..., None]) / precision[..., None]
    newton = state.position + torch.matmul(basis, along)[..., 0]
    gain = log_density(newton) - state.log_density
    if reach_of(log_density) != (0, 0):
        gain = gain.sum(-1, keepdim=True)
    mode = torch.where((gain > 0)[..., None], newton, state.position)
    return FrameGaussian(mode, precision.rsqrt(), basis)


def frame_hessians(log_density: LogDensity, z: Tensor) -> Tensor:
    """d^2 sum_n phi_n / dz_n dz_n' of each frame: z [..., N, L] to [..., N, L, L], 0 where it is not finite."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(log_density(leaf).sum(), leaf, create_graph=True)
        hessian = z.new_zeros(*z.shape, z.shape[-1])
        if not gradient.requires_grad:  # a linear density
            return hessian
        for frames in colours(reach_of(log_density), z.shape[-2], z.device):
            for index in range(z.shape[-1]):
                # Frames of one colour share no factor: their columns do not mix.
                direction = torch.zeros_like(z)
                direction[..., index] = 1.0 if frames is None else frames.to(z.dtype)
                (column,) = torch.autograd.grad(gradient, leaf, direction, retain_graph=True)
                shown = column if frames is None else torch.where(frames[..., None], column, 0.0)
                hessian[..., index] += shown
    hessian = hessian.nan_to_num(0.0, 0.0, 0.0)
    return 0.5 * (hessian + hessian.mT)
