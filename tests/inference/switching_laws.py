"""The law of the switching loop, alone and beside other speakers: no update lowers the objective."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_minvae.inference.switching.engine import SwitchingEngine
from pyro_minvae.models.noise.nmf import Nmf


def noise_of(power: Tensor) -> Nmf:
    return Nmf(power, rank=2, smooth=10.0, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def assert_no_update_lowers(loop: SwitchingEngine, *, rounds: int) -> None:
    """The objective for fixed eps, after each update of each of so many rounds."""
    for _ in range(rounds):
        for mode in loop.modes:
            mode.renew(loop.generator)
        loop.choose(loop.emissions())
        before = loop.objective()
        noise = loop.noise.variance()
        steps = [
            lambda noise=noise: [m.climb(noise, steps=2, rate=0.1) for m in loop.modes],
            loop.fit_noise,
            loop.fit_gains,
            loop.fit_transition,
        ]
        for step in steps:
            step()
            # The bound at the r(m) that the step saw is at most that at the best one.
            loop.choose(loop.emissions())
            after = loop.objective()
            assert after >= before - 1e-7 * before.abs()
            before = after
