"""Passes of the E-step over latent vectors [..., N, L]: Gaussian priors and decisions (`chains.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.fused import at, fit, passes, repeats, row_count, rows, threads


class Normal(NamedTuple):
    """log N(z; mean, diag precision^-2) = constant - |(z - mean) precision|^2 / 2: [..., N, L] or [L], and [..., N]."""

    mean: Tensor
    precision: Tensor
    constant: Tensor


class Gaussians:
    """One component p(z), or two p(z | alpha) with log p(alpha) [..., N] in `logs`, for many questions about z.

    All methods answer None where the passes do not take the arrays.
    """

    def __init__(self, parts: Sequence[Normal], logs: Sequence[Tensor] = ()) -> None:
        self.parts, self.logs = list(parts), list(logs)
        self._wide = [one for part in parts for one in (part.mean, part.precision)]
        self._narrow = [*(part.constant for part in parts), *logs]
        # Held, so that addresses stay true.
        self._fit = len(parts) <= 2 and fit(*self._wide, *self._narrow)
        latent = self._wide[0].shape[-1]
        self._operands: list[int | None] = []
        for part in parts:
            self._operands += [
                *rows(part.mean, latent),
                *rows(part.precision, latent),
                *rows(part.constant, 1),
            ]
        self._operands += [None, 1] * 3 * (2 - len(parts))
        self._log_operands = [one for log in logs for one in rows(log, 1)] or NO_LOGS
        self._shapes: dict[torch.Size, bool] = {}

    def log_density(self, z: Tensor, weight: Tensor | None = None) -> Tensor | None:
        """log p(z), the sum over alpha, [..., N]; its mean for q(alpha = 1) = `weight` [..., N] if that is given."""
        return self._ask("log_densities", z, z.shape[:-1], weight, self._log_operands)

    def log_ratio(self, z: Tensor) -> Tensor | None:
        """log p(z | alpha = 1) - log p(z | alpha = 0) [..., N]."""
        return self._ask("log_densities", z, z.shape[:-1], None, NO_LOGS)

    def gradient(self, z: Tensor, weight: Tensor | None = None) -> Tensor | None:
        """That of `log_density` [..., N, L]."""
        return self._ask("gradients", z, z.shape, weight, self._log_operands)

    def _ask(
        self, name: str, z: Tensor, shape: torch.Size, weight: Tensor | None, logs: list[int | None]
    ) -> Tensor | None:
        if not (self._fit and fit(z, weight) and self._repeats(z)):
            return None
        if weight is not None and not repeats(weight, z[..., 0]):
            return None
        out, latent = z.new_empty(shape), z.shape[-1]
        getattr(passes(), name)(
            *self._operands,
            *rows(weight, 1),
            *(logs if weight is None else NO_LOGS),
            z.data_ptr(),
            out.data_ptr(),
            len(self.parts),
            z.numel() // latent,
            latent,
            threads(),
        )
        return out

    def _repeats(self, z: Tensor) -> bool:
        """Whether all parts repeat over z."""
        found = self._shapes.get(z.shape)
        if found is None:
            frames = z[..., 0]
            found = all(repeats(one, z) for one in self._wide)
            found = self._shapes[z.shape] = found and all(repeats(one, frames) for one in self._narrow)
        return found


NO_LOGS: list[int | None] = [None, 1, None, 1]


def langevin(z: Tensor, gradient: Tensor, xi: Tensor, step: float) -> Tensor | None:
    """z + step (step / 2 gradient + xi), all of one shape; None if it was not done."""
    if not fit(z, gradient, xi) or not z.shape == gradient.shape == xi.shape:
        return None
    out = torch.empty_like(z)
    passes().langevin(*at((z, gradient, xi, out)), z.numel(), step, threads())
    return out


class Decided(NamedTuple):
    """Where chains are after a decision, and what was decided: see `decide`."""

    accepted: Tensor
    position: Tensor
    log_density: Tensor
    gradient: Tensor | None
    probability: Tensor | None


def decide(
    chance: Tensor,
    there: tuple[Tensor, Tensor, Tensor | None],
    here: tuple[Tensor, Tensor, Tensor | None],
    correction: Tensor | None,
    *,
    probability: bool,
) -> Decided | None:
    """Metropolis and Hastings' decision by uniform `chance` [..., N] between two places.

    A place is z [..., N, L], its log density [..., N] and its gradient (None: nobody wants it). A proposal is accepted
    where log chance < log p(z') - log p(z) + correction, never where log p(z') is not finite, and otherwise always
    where log p(z) is not. None if it was not done.
    """
    gradients = (there[2], here[2]) if there[2] is not None else (None, None)
    arrays = (*there[:2], *here[:2], *gradients, correction, chance)
    shape = chance.shape
    if not fit(*arrays) or there[0].shape != here[0].shape or here[0].shape[:-1] != shape:
        return None
    if there[1].shape != shape or here[1].shape != shape or (there[2] is not None and here[2] is None):
        return None
    if correction is not None and correction.shape != shape:
        return None
    found = Decided(
        torch.empty(shape, dtype=torch.bool),
        torch.empty_like(here[0]),
        torch.empty_like(here[1]),
        None if there[2] is None else torch.empty_like(here[0]),
        torch.empty_like(here[1]) if probability else None,
    )
    passes().decide(
        *at((there[1], here[1], correction, chance, there[0], here[0], *gradients)),
        *at((found.accepted, found.log_density, found.position, found.gradient, found.probability)),
        *row_count(here[0]),
        threads(),
    )
    return found


def exchange(accepted: Tensor, there: Tensor, here: Tensor) -> bool | None:
    """Copy the fewer frames [..., N, F] into the other's array, of which the old contents are lost.

    True if `there` then holds where the chains are after a decision `accepted` [..., N], False if `here` does, and None
    if it was not done.
    """
    if not fit(there, here) or there.shape != here.shape:
        return None
    if accepted.shape != here.shape[:-1] or accepted.dtype is not torch.bool or not accepted.is_contiguous():
        return None
    return bool(passes().exchange(*at((accepted, there, here)), *row_count(here)))
