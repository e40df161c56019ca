"""Stand-ins for the trained enhancer, at module level so that worker processes can import them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile

from pyro_minvae.errors import InputError
from pyro_minvae.media.crop_files import read_crops
from pyro_minvae.types import Switches


def answer(speech: np.ndarray, waveform: np.ndarray, rate: int, *, seed: int, video: Any = None) -> Any:
    """What an enhancer returns."""
    frames = len(waveform) // 256 + 1
    return SimpleNamespace(
        speech=speech,
        noise=waveform - speech,
        rate=rate,
        seconds=len(waveform) / rate,
        iterations=seed % 1000,
        acceptance=0.4,
        responsibility=0.25,
        responsibilities=np.full(frames, 0.25),
        times=np.arange(frames) * 256 / rate,
        real_time_factor=0.5,
        used_video=video is not None,
        switches=None,
    )


class Identity:
    """Gives back the mixture."""

    def __call__(self, waveform: np.ndarray, rate: int, video: Any = None, *, seed: int = 0) -> Any:
        return answer(waveform, waveform, rate, seed=seed, video=video)


class Watchful:
    """Gives back the mixture, and trusts lips that move: crops that stand are frozen, and it says so."""

    def __call__(self, waveform: np.ndarray, rate: int, video: Any = None, *, seed: int = 0) -> Any:
        result = answer(waveform, waveform, rate, seed=seed, video=video)
        if video is not None:
            lips = read_crops(video, size=16)
            still = np.append(~np.diff(lips.crops.astype(int), axis=0).any((1, 2)), False)
            near = np.abs(lips.times[None] - result.times[:, None]).argmin(1)
            trust = 1.0 - still[near]
            modes = np.stack([1 - trust, trust], 1)
            result.switches = Switches(("sound", "lips"), result.times, modes, modes.argmax(1), trust)
        return result


class Halfway:
    """Halves the noise: it knows the clean speech of a set with one utterance, and what its level is."""

    def __init__(self, clean: Path) -> None:
        self.clean = soundfile.read(clean)[0]

    def __call__(self, waveform: np.ndarray, rate: int, video: Any = None, *, seed: int = 0) -> Any:
        generator = np.random.default_rng(seed)
        dither = 1e-6 * generator.standard_normal(len(waveform))
        return answer(0.5 * (waveform + self.clean) + dither, waveform, rate, seed=seed, video=video)


class Fragile:
    """Fails on seeds that are even, as a model might on some inputs."""

    def __call__(self, waveform: np.ndarray, rate: int, video: Any = None, *, seed: int = 0) -> Any:
        if seed % 2 == 0:
            raise RuntimeError("cannot\nenhance this")
        return answer(waveform, waveform, rate, seed=seed)


class Deadly:
    """Kills its process on seeds that are even, as a crash in compiled code does."""

    def __call__(self, waveform: np.ndarray, rate: int, video: Any = None, *, seed: int = 0) -> Any:
        if seed % 2 == 0:
            os._exit(3)
        return answer(waveform, waveform, rate, seed=seed)


def no_such_model() -> Any:
    """A model that does not exist."""
    raise InputError("nowhere: expected a model, found none")
