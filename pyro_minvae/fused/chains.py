"""Passes of the E-step over latent vectors [..., N, L]: Gaussian priors and decisions (`chains.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.fused import done, repeats, row_count, rows, single, threads


class Normal(NamedTuple):
    """log N(z; mean, diag precision^-2) = constant - |(z - mean) precision|^2 / 2: [..., N, L] or [L], and [..., N]."""

    mean: Tensor
    precision: Tensor
    constant: Tensor


class Gaussians:
    """One component p(z), or two p(z | alpha) with log p(alpha) [..., N] in `logs`, for many questions about z.

    All methods answer None where the passes do not take the arrays, and where there are no parts.
    """

    def __init__(self, parts: Sequence[Normal], logs: Sequence[Tensor] = ()) -> None:
        self.parts, self.logs = list(parts), list(logs)
        self._wide = [one for part in parts for one in (part.mean, part.precision)]
        self._narrow = [*(part.constant for part in parts), *logs]
        self._fit = 0 < len(parts) <= 2 and single(*self._wide, *self._narrow)
        fixed: list[Tensor | int | None] = []
        for part in parts:
            latent = part.precision.shape[-1]
            fixed += [*rows(part.mean, latent), *rows(part.precision, latent), *rows(part.constant, 1)]
        # Addresses of what is held here, so that nobody looks at it again.
        self._operands = _places(fixed) + [None, 1] * 3 * (2 - len(parts)) if self._fit else []
        known = [one for log in logs for one in rows(log, 1)]
        self._logs = _places(known) if self._fit and known else NO_LOGS
        self._shapes: dict[torch.Size, bool] = {}

    def __reduce__(self) -> tuple[type[Gaussians], tuple[list[Normal], list[Tensor]]]:
        """Copies hold tensors of their own, which lie elsewhere."""
        return Gaussians, (self.parts, self.logs)

    def log_density(self, z: Tensor, weight: Tensor | None = None) -> Tensor | None:
        """log p(z), the sum over alpha, [..., N]; its mean for q(alpha = 1) = `weight` [..., N] if that is given."""
        return None if self._open(weight) else self._ask("log_densities", z, z.shape[:-1], weight, self._logs)

    def responsibility(self, draws: Tensor, *, mean_ratio: bool) -> Tensor | None:
        """p(alpha = 1) [..., N] of draws [D, ..., N, L]: that of their mean log ratio, or the mean of each draw's."""
        shape, latent = draws.shape[1:], draws.shape[-1]
        if not (self._fit and self.logs and len(self.parts) == 2 and self._repeats(shape)):
            return None
        out = draws.new_empty(shape[:-1])
        sizes = 2, out.numel(), latent, len(draws), int(mean_ratio)
        operands = (*self._operands, None, 1, *self._logs)
        return out if done("responsibilities", *operands, draws, out, *sizes, threads()) else None

    def gradient(self, z: Tensor, weight: Tensor | None = None) -> Tensor | None:
        """That of `log_density` [..., N, L]."""
        return None if self._open(weight) else self._ask("gradients", z, z.shape, weight, self._logs)

    def _open(self, weight: Tensor | None) -> bool:
        """Whether nothing tells how much either of two components counts."""
        return weight is None and not self.logs and len(self.parts) > 1

    def _ask(
        self, name: str, z: Tensor, shape: torch.Size, weight: Tensor | None, logs: list[int | None]
    ) -> Tensor | None:
        if not (self._fit and self._repeats(z.shape)):
            return None
        if weight is not None and not repeats(weight, z.shape[:-1]):
            return None
        out, latent = z.new_empty(shape), z.shape[-1]
        operands = (*self._operands, *rows(weight, 1), *(logs if weight is None else NO_LOGS))
        sizes = len(self.parts), z.numel() // latent, latent, threads()
        return out if done(name, *operands, z, out, *sizes) else None

    def _repeats(self, shape: torch.Size) -> bool:
        """Whether all parts repeat over z of that shape."""
        found = self._shapes.get(shape)
        if found is None:
            found = all(repeats(one, shape) for one in self._wide)
            found = self._shapes[shape] = found and all(repeats(one, shape[:-1]) for one in self._narrow)
        return found


NO_LOGS: list[int | None] = [None, 1, None, 1]


def _places(operands: Sequence[Tensor | int | None]) -> list[int | None]:
    """Addresses in place of tensors."""
    return [one.data_ptr() if isinstance(one, Tensor) else one for one in operands]


def langevin(z: Tensor, gradient: Tensor, xi: Tensor, step: float) -> Tensor | None:
    """z + step (step / 2 gradient + xi), all of one shape; None if it was not done."""
    if not z.shape == gradient.shape == xi.shape:
        return None
    out = torch.empty_like(z)
    return out if done("langevin", z, gradient, xi, out, z.numel(), step, threads()) else None


class Decided(NamedTuple):
    """Where chains are after a decision, and what was decided: see `decide`."""

    accepted: Tensor
    position: Tensor
    log_density: Tensor
    gradient: Tensor | None
    probability: Tensor | None


Place = tuple[Tensor, Tensor, Tensor | None]


def decide(
    chance: Tensor, there: Place, here: Place, correction: Tensor | None, *, probability: bool
) -> Decided | None:
    """Metropolis and Hastings' decision by uniform `chance` [..., N] between two places.

    A place is z [..., N, L], its log density [..., N] and its gradient (None: nobody wants it). A proposal is accepted
    where log chance < log p(z') - log p(z) + correction, never where log p(z') is not finite, and otherwise always
    where log p(z) is not. None if it was not done.
    """
    shape, wide = chance.shape, here[0].shape
    narrow = [one for one in (there[1], here[1], correction) if one is not None]
    if there[0].shape != wide or wide[:-1] != shape or any(one.shape != shape for one in narrow):
        return None
    if there[2] is not None and here[2] is None:
        return None
    found = Decided(
        torch.empty_like(chance, dtype=torch.bool),
        torch.empty_like(here[0]),
        torch.empty_like(here[1]),
        None if there[2] is None else torch.empty_like(here[0]),
        torch.empty_like(here[1]) if probability else None,
    )
    fit = done(
        "decide",
        *(there[1], here[1], correction, chance, there[0], here[0]),
        *((None, None) if there[2] is None else (there[2], here[2])),
        *(found.accepted, found.log_density, found.position, found.gradient, found.probability),
        *row_count(here[0]),
        threads(),
    )
    return found if fit else None


def exchange(accepted: Tensor, there: Tensor, here: Tensor) -> bool | None:
    """Copy the fewer frames [..., N, F] into the other's array, of which the old contents are lost.

    True if `there` then holds where the chains are after a decision `accepted` [..., N], False if `here` does, and None
    if it was not done.
    """
    if not accepted.shape == here.shape[:-1] == there.shape[:-1] or there.shape[-1] != here.shape[-1]:
        return None
    found: bool | None = done("exchange", accepted, there, here, *row_count(here))
    return found
