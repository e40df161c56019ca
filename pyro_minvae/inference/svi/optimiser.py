"""The optimiser that stages of training hand to `pyro.infer.SVI`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor


class GradientError(ValueError):
    """Gradients that are not finite."""


class GroupedAdam(PyroOptim):
    """One Adam over groups of parameters, whose gradients are clipped by their joint norm.

    Pyro's own optimisers keep an Adam for each parameter and clip each gradient by itself; a step keeps its direction
    only if one factor shortens all.

    Args:
        groups: as for `torch.optim.Adam`, each with its `peak` rate, which `anneal` starts from.
        clip_norm: the largest norm of all gradients together (loss in nats per frame).
        weight_decay: Adam's (L2).
    """

    def __init__(self, groups: Sequence[dict[str, Any]], *, clip_norm: float, weight_decay: float) -> None:
        super().__init__(torch.optim.Adam, {})
        self.adam = torch.optim.Adam(list(groups), weight_decay=weight_decay)
        self.clip_norm = clip_norm
        self.parameters = [p for group in self.adam.param_groups for p in group["params"]]

    def anneal(self, share: float) -> None:
        """Rates on a half cosine from their peak (`share` 0) to zero (1)."""
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * 0.5 * (1 + math.cos(math.pi * share))

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        """One step with the gradients that are there; parameters that had no part in the loss stay as they are.

        Raises:
            GradientError: if a gradient is not finite; then nothing moves.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        if not bool(norm.isfinite()):
            raise GradientError(f"expected finite gradients, found {float(norm)}")
        self.adam.step()
        # SVI would set them to zero, which Adam takes for gradients.
        self.adam.zero_grad(set_to_none=True)

    def get_state(self) -> dict[str, Any]:
        """Adam's state, as `torch.optim` gives it."""
        return self.adam.state_dict()

    def set_state(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.adam.load_state_dict(state_dict)
