"""Crops kept as arrays are read, checked and resized."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.fft import dctn
from scipy.io import savemat

from pyro_minvae.errors import InputError
from pyro_minvae.media.crop_files import read_crops, save_lips
from pyro_minvae.media.mouths import read_lips
from pyro_minvae.types import MouthCrops


def pictures(count: int = 6, size: int = 67, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, size, size)).astype(np.uint8)


def ntcd(path: Path, crops: np.ndarray) -> None:
    """A file as NTCD-TIMIT has them: the DCT of each picture, in column-major order."""
    rows = [dctn(crop.astype(float), norm="ortho").flatten(order="F") for crop in crops]
    with h5py.File(path, "w") as file:
        file["data"] = np.array(rows, np.float32)


def test_npz_round_trip(tmp_path: Path) -> None:
    lips = MouthCrops(pictures(), 0.5 + np.arange(6) / 30, np.arange(6) % 3 > 0)
    save_lips(tmp_path / "a.npz", lips)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    for one, other in zip(read_lips(tmp_path / "a.npz"), lips, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_lone_crops_have_25_frames_per_second(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez(path, crops=pictures())
    else:
        np.save(path, pictures())
    lips = read_lips(path)
    np.testing.assert_array_equal(lips.crops, pictures())
    np.testing.assert_allclose(lips.times, np.arange(6) / 25)
    assert lips.valid.all()


def test_ntcd_timit(tmp_path: Path) -> None:
    ntcd(tmp_path / "a.mat", pictures())
    lips = read_lips(tmp_path / "a.mat")
    np.testing.assert_array_equal(lips.crops, pictures())
    np.testing.assert_allclose(lips.times, np.arange(6) / 30)
    assert lips.valid.all()


@pytest.mark.parametrize("size", [32, 67, 100])
def test_arrays_are_resized(tmp_path: Path, size: int) -> None:
    np.save(tmp_path / "a.npy", np.tile(np.arange(60, dtype=np.uint8), (3, 80, 1)))
    crops = read_crops(tmp_path / "a.npy", size=size).crops
    assert crops.shape == (3, size, size)
    assert crops.mean() == pytest.approx(29.5, abs=1)


def text(path: Path) -> None:
    path.write_text("not an array\n")


def misnamed(path: Path) -> None:
    with path.open("wb") as file:
        if path.suffix == ".npy":
            np.savez(file, crops=pictures())
        else:
            np.save(file, pictures())


def npz(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def mat(**data: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, value in data.items():
                file[name] = value

    return write


@pytest.mark.parametrize(
    ("name", "build", "found"),
    [
        ("none.npz", lambda path: None, "no such file"),
        ("empty.npy", Path.touch, "0 bytes"),
        *((f"text{suffix}", text, "found") for suffix in (".npz", ".npy", ".mat")),
        ("cut.npz", lambda path: path.write_bytes(b"PK\x03\x04" + bytes(60)), "cannot be read"),
        ("archive.npy", misnamed, "found an archive"),
        ("single.npz", misnamed, "found a single array"),
        ("object.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True), "cannot be read"),
        ("object.npz", npz(crops=np.array([{}])), "cannot be read"),
        ("name.npz", npz(mouths=pictures()), "found mouths"),
        ("float.npz", npz(crops=pictures().astype(float)), "found float64 [6, 67, 67]"),
        ("flat.npy", lambda path: np.save(path, pictures()[0]), "found uint8 [67, 67]"),
        ("none_left.npz", npz(crops=pictures()[:0]), "found uint8 [0, 67, 67]"),
        ("times.npz", npz(crops=pictures(), times=np.arange(5.0)), "found float64 [5]"),
        ("back.npz", npz(crops=pictures(), times=np.zeros(6)), "times that rise"),
        ("nan.npz", npz(crops=pictures(), times=np.full(6, np.nan)), "times that rise"),
        ("valid.npz", npz(crops=pictures(), valid=np.ones(6)), "found float64 [6]"),
        ("old.mat", lambda path: savemat(path, {"data": np.zeros((2, 4489))}), "MATLAB 7.3"),
        ("name.mat", mat(lips=np.zeros((2, 4489), np.float32)), "found lips"),
        ("shape.mat", mat(data=np.zeros((2, 4488), np.float32)), "found float32 [2, 4488]"),
        ("kind.mat", mat(data=np.zeros((2, 4489), int)), "found int64 [2, 4489]"),
        ("nan.mat", mat(data=np.full((2, 4489), np.nan, np.float32)), "NaN"),
    ],
)
def test_bad_arrays_are_named_in_one_line(
    tmp_path: Path, name: str, build: Callable[[Path], object], found: str
) -> None:
    build(tmp_path / name)
    with pytest.raises(InputError) as caught:
        read_lips(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / name}: expected ")
    assert found in message
    assert "\n" not in message


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".mat"])
def test_damaged_arrays_are_read_or_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    build = {".mat": lambda: ntcd(path, pictures()), ".npy": lambda: np.save(path, pictures())}
    build.get(suffix, lambda: np.savez(path, crops=pictures()))()
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = whole.copy()
        damaged[generator.integers(0, 3000, 20)] = generator.integers(0, 256, 20)
        path.write_bytes(damaged.tobytes())
        try:
            read_crops(path)
        except InputError:
            refused += 1
    assert refused > 0
