"""Small recordings and corpora made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from scipy.fft import dctn
from signals import speechlike


@pytest.fixture
def touch() -> Callable[..., Path]:
    """Make an empty file and its folders: the adapters look at names only."""

    def make(path: Path, text: str = "") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return make


@pytest.fixture
def make_wav() -> Callable[..., Path]:
    """Write a short sound."""

    def make(path: Path, *, seed: int = 0, rate: int = 16000, seconds: float = 0.1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, speechlike(rate, seconds, seed), rate)
        return path

    return make


@pytest.fixture
def make_mat() -> Callable[[Path, np.ndarray], Path]:
    """Write crops [T, 67, 67] as NTCD-TIMIT does: the column-major DCT of each, MATLAB 7.3 (HDF5)."""

    def make(path: Path, crops: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        transposed = crops.transpose(0, 2, 1).astype(float)
        values = dctn(transposed, axes=(1, 2), norm="ortho").reshape(len(crops), -1)
        with h5py.File(path, "w") as file:
            file["data"] = values.astype(np.float32)
        return path

    return make


@pytest.fixture
def make_crops() -> Callable[..., Path]:
    """Write random crops as `.npz`."""

    def make(path: Path, *, seed: int = 0, frames: int = 3, size: int = 67) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        crops = np.random.default_rng(seed).integers(0, 256, (frames, size, size), np.uint8)
        np.savez(path, crops=crops)
        return path

    return make
