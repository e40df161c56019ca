"""The most probable z by gradient ascent (PEEM)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_minvae.inference.mcmc.base import ChainInfo, ChainState, LogDensity
from pyro_minvae.inference.mcmc.blocked import advance, known_gradient, start
from pyro_minvae.inference.mcmc.draws import Randomness


@dataclass(frozen=True)
class MapAdam:
    """z goes up the gradient of log p(z) by Adam's rule (Kingma & Ba 2015): a point in place of draws.

    m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, z += step_size mhat / (sqrt(vhat) + 1e-8), where mhat, vhat are
    divided by 1 - b^t. Nothing is drawn, so the generator stays as it is. The point-estimate EM (PEEM) of the papers
    is this kernel with `keep = 1`. `refresh` carries m, v and t over to the next target.
    """

    step_size: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if not self.step_size > 0:
            raise ValueError(f"expected step_size > 0, got {self.step_size}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"expected betas in [0, 1), got {self.betas}")

    def init(self, log_density: LogDensity, z: Tensor) -> ChainState:
        return start(log_density, z)._replace(moments=torch.stack([torch.zeros_like(z)] * 2))

    def step(
        self, log_density: LogDensity, state: ChainState, generator: Randomness | None = None
    ) -> tuple[ChainState, ChainInfo]:
        assert state.moments is not None
        gradient, age, (first, second) = known_gradient(log_density, state), state.age + 1, self.betas
        mean = first * state.moments[0] + (1 - first) * gradient
        square = second * state.moments[1] + (1 - second) * gradient.square()
        move = self._move(mean / (1 - first**age), square / (1 - second**age))
        state = state._replace(moments=torch.stack([mean, square]))
        return advance(log_density, state, state.position + move)

    def _move(self, mean: Tensor, square: Tensor) -> Tensor:
        return self.step_size * mean / (square.sqrt() + 1e-8)
