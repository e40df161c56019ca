"""The contract of samplers: two pure functions on tensors, after BlackJAX.

`init(log_density, z)` caches what the next step needs; `step(log_density, state, generator)` moves every frame of
every chain and returns the new state and what happened. `log_density` maps z [..., N, L] to [..., N]: the target
factorises over frames, so each frame accepts or rejects by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]


class ChainState(NamedTuple):
    """Position z [..., N, L] and its cached log density [..., N]."""

    position: Tensor
    log_density: Tensor


class ChainInfo(NamedTuple):
    """Diagnostics of one step: which frames [..., N] accepted their proposal."""

    accepted: Tensor


class Kernel(Protocol):
    """A sampler."""

    def init(self, log_density: LogDensity, z: Tensor) -> ChainState: ...

    def step(
        self, log_density: LogDensity, state: ChainState, generator: torch.Generator
    ) -> tuple[ChainState, ChainInfo]: ...
