"""Kernels by name, targets whose moments are known, and chains on them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_minvae.inference.mcmc.base import ChainInfo, ChainState, Kernel, LogDensity
from pyro_minvae.inference.mcmc.hmc import Hmc
from pyro_minvae.inference.mcmc.independence import Independence
from pyro_minvae.inference.mcmc.laplace import Laplace
from pyro_minvae.inference.mcmc.mala import Mala
from pyro_minvae.inference.mcmc.metropolis import Metropolis

# Kernels that leave their target invariant, for targets near `mean` and about as wide as `scale` [N, L]. Steps are
# wide and proposals off, so that many are refused.
EXACT: dict[str, Callable[[Tensor, Tensor], Kernel]] = {
    "metropolis": lambda mean, scale: Metropolis(1.5),
    "mala": lambda mean, scale: Mala(0.6),
    "hmc": lambda mean, scale: Hmc(0.4, leapfrogs=3),
    "independence": lambda mean, scale: Independence(mean + 0.5 * scale, scale, inflate=1.4),
    "laplace": lambda mean, scale: Laplace(mean + 0.5 * scale, search=3, inflate=1.4),
}
ADAPTIVE = {"metropolis": Metropolis, "mala": Mala, "hmc": Hmc}


def walk(
    kernel: Kernel, target: LogDensity, start: Tensor, steps: int, seed: int = 0
) -> tuple[ChainState, list[ChainInfo]]:
    """The state after some steps, and what happened at each."""
    generator, infos = torch.Generator().manual_seed(seed), []
    state = kernel.init(target, start)
    for _ in range(steps):
        state, info = kernel.step(target, state, generator)
        infos.append(info)
    return state, infos


def acceptance(infos: list[ChainInfo]) -> Tensor:
    """The share of accepted proposals in each frame of chains [R, N]."""
    return torch.stack([info.accepted for info in infos]).double().mean((0, 1))


def covariance_off(chains: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """How many standard errors the worst mean or covariance of chains [R, N, L] is away from a Gaussian's.

    `mean` [N L] and `covariance` [N L, N L]; independent chains have exact standard errors.
    """
    count = chains.shape[0]
    flat = chains.flatten(1) - mean
    variances = covariance.diagonal()
    of_mean = flat.mean(0) / (variances / count).sqrt()
    error = ((variances[:, None] * variances + covariance**2) / count).sqrt()
    return float(
        torch.maximum(of_mean.abs().max(), ((flat.T @ flat / count - covariance) / error).abs().max())
    )


def gaussian_of(target: LogDensity, frames: int, latent: int) -> tuple[Tensor, Tensor]:
    """Mean [N L] and covariance [N L, N L] of a Gaussian target, from its value and derivatives at 0."""

    def total(flat: Tensor) -> Tensor:
        return target(flat.reshape(frames, latent)).sum()

    zero = torch.zeros(frames * latent, dtype=torch.float64)
    covariance = torch.linalg.inv(-torch.autograd.functional.hessian(total, zero))
    return covariance @ torch.autograd.functional.jacobian(total, zero), covariance


def normal_chains(mean: Tensor, covariance: Tensor, shape: tuple[int, int], count: int, seed: int) -> Tensor:
    """Independent draws [count, N, L] from the Gaussian."""
    xi = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (mean + xi @ torch.linalg.cholesky(covariance).T).reshape(count, *shape)


def log_gamma(shape: Tensor) -> LogDensity:
    """z = log of a Gamma(a) variable in each frame and dimension: phi = sum_l a z - exp(z), skewed to the left.

    Cumulants are polygamma(k - 1, a). `shape` a is [N, L].
    """
    return lambda z: (shape * z - z.exp()).sum(-1)


def shifted(values: Tensor, by: int) -> Tensor:
    """values_{n + by} [..., N, L], 0 beyond the ends."""
    moved = torch.zeros_like(values)
    if by >= 0:
        moved[..., : values.shape[-2] - by, :] = values[..., by:, :]
    else:
        moved[..., -by:, :] = values[..., :by, :]
    return moved


def autoregressive(z: Tensor, rho: float = 0.85, pull: float = 0.3) -> Tensor:
    """log p(z_n | z_{n-1}) of a stationary AR(1) chain, and an observation of each frame: reach (0, 1)."""
    variance = torch.full(z.shape[-2:], 1 - rho**2, dtype=z.dtype)
    variance[0] = 1.0
    observed = torch.linspace(-2, 2, z.shape[-2], dtype=z.dtype)[:, None]
    drift = (z - rho * shifted(z, -1)).square() / variance
    return -0.5 * (drift + pull * (z - observed).square()).sum(-1)


def context(z: Tensor) -> Tensor:
    """A factor that sees two frames back and one ahead, and mixes dimensions: reach (1, 2)."""
    seen = z + 0.9 * shifted(z, 1) - 0.7 * shifted(z, -1) + 0.6 * shifted(z, -2).flip(-1) - 1.0
    return -0.5 * (2.0 * seen.square() + 0.2 * z.square()).sum(-1)


def standard_errors(unit: Tensor) -> float:
    """How many standard errors the worst mean or variance of unit normal chains [R, ...] is off."""
    count = unit.shape[0]
    of_mean = unit.mean(0) * math.sqrt(count)
    of_variance = (unit.var(0) - 1) * math.sqrt(count / 2)
    return float(torch.stack([of_mean, of_variance]).abs().max())
