"""Where training stands: what it hands out after every epoch and takes back to go on."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class RunState(NamedTuple):
    """Where a training run stands after an epoch: everything that a resumed run needs.

    `weights` are the current ones, `best` those of the stage's best validation bound so far. Random draws need no
    state, because every epoch is seeded by the recipe's seed, its stage and its number.
    """

    recipe: dict[str, Any]
    stage: int
    epoch: int
    weights: dict[str, Tensor]
    best: dict[str, Tensor]
    best_bound: float
    waited: int
    optimiser: dict[str, Any]
    finished: bool
