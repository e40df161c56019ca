"""Stand-ins for the trained separator and for baselines, at module level so that worker processes can import them."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np

from pyro_minvae.evaluation.separation import Answer, System, Task


class Nothing:
    """A separator that gives every speaker an equal share of the mixture, a little of it moved by the seed."""

    cautions: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(
        self, waveform: np.ndarray, rate: int, videos: list[Any], *, seed: int, background: bool
    ) -> Any:
        self.asked.append({"videos": videos, "background": background})
        count = len(videos)
        dither = 1e-4 * np.random.default_rng(seed).standard_normal((count, len(waveform)))
        return SimpleNamespace(
            speakers=list(waveform / count + dither),
            background=-dither.sum(0),
            rate=rate,
            seconds=len(waveform) / rate,
            used_video=[video is not None for video in videos],
            without_video=["" if video else "no video" for video in videos],
            iterations=seed % 1000,
            acceptance=0.4,
            real_time_factor=0.5,
        )


def truth(task: Task, *, order: tuple[int, ...] = (0, 1), fixed: tuple[bool, ...] = (True, True)) -> Answer:
    """Nine tenths of the way from the mixture to the truth, in the `order` given."""
    estimates = 0.9 * task.speakers[list(order)] + 0.1 * task.mixture
    return Answer(estimates, fixed, real_time_factor=0.1)


def right() -> System:
    """A system that knows the truth."""
    return truth


def swapped() -> System:
    """One that was told who is who, and gives them the other way round."""
    return lambda task: truth(task, order=(1, 0))


def blind() -> System:
    """One that gives them the other way round because nobody told it."""
    return lambda task: truth(task, order=(1, 0), fixed=(False, False))


def seeded() -> System:
    """One whose answer depends on the seed, and is the wrong way round for even ones."""
    return lambda task: truth(task, order=(1, 0) if task.seed % 2 == 0 else (0, 1))


def deadly() -> System:
    """One that kills its process on even seeds and fails on the others."""

    def separate(task: Task) -> Answer:
        if task.seed % 2 == 0:
            os._exit(3)
        raise RuntimeError("cannot\nseparate this")

    return separate
