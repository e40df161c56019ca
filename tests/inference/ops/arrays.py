"""Arrays for the passes to work on, and how near they have to come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_minvae.inference.ops import choice

# Rows and bins: fewer than a vector, over a block's end, and as many as the loop has.
SIZES = [(3, 1), (7, 24), (5, 129), (40, 513)]
# Frames alone, chains, and chains of a batch.
LEADS = [(), (2,), (2, 3)]


def positive(*shape: int) -> Tensor:
    """Numbers over eight orders of magnitude."""
    return torch.exp(4 * torch.randn(shape))


def close(found: Tensor | None, wanted: Tensor, tolerance: float = 2e-6) -> None:
    """To a share of the largest number that a row's sum may hold, which rounding is relative to."""
    assert found is not None
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted.double(), rtol=tolerance, atol=tolerance)


def near(found: Tensor, wanted: Tensor, bound: Tensor) -> bool:
    return bool(((found.double() - wanted).abs() <= bound).all())


def scene(sources: int, draws: int, lead: tuple[int, ...], size: tuple[int, int]) -> tuple[Tensor, ...]:
    """sigma, gain, noise and power as the M-step has them."""
    shape = (*lead, *size)
    return (
        positive(sources, draws, *shape),
        positive(sources, *lead, size[0]),
        positive(*shape),
        positive(*shape),
    )


@contextmanager
def no_formula(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Inside, what the compiled passes leave to torch is listed."""
    left: set[str] = set()
    passes = choice._loaded()
    assert passes is not None

    def listening(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            try:
                return run(*arguments, **named)
            except choice.UnfitError:
                left.add(name)
                raise

        return called

    with monkeypatch.context() as patch:
        patch.setattr(choice, "_in_use", {name: listening(name, run) for name, run in passes.items()})
        yield left
