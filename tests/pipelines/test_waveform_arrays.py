"""What callers in Python hand over: any kind of array, whole numbers of any kind, and torch's globals as they like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from signals import speechlike
from tiny import save_tiny_model

from pyro_minvae.errors import InputError
from pyro_minvae.pipelines.arrays import as_channels
from pyro_minvae.pipelines.enhancer import Enhancer
from pyro_minvae.pipelines.separator import Separator

RATE = 16000
MONO = np.round(speechlike(RATE, 0.5) * 32767) / 32768
STEREO = np.stack([MONO, 0.5 * np.roll(MONO, 5)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def enhancer(model: Path) -> Enhancer:
    return Enhancer.from_pretrained(model)


@pytest.fixture(scope="module")
def expected(enhancer: Enhancer) -> np.ndarray:
    return enhancer(STEREO, RATE).speech


def sparse(array: np.ndarray) -> np.ndarray:
    """The same numbers where every third of a larger array lies."""
    room = np.full((array.shape[0], 3 * array.shape[1]), np.nan)
    room[:, ::3] = array
    return room[:, ::3]


ARRAYS: dict[str, tuple[Callable[[np.ndarray], Any], float, float]] = {
    "float32": (lambda x: x.astype(np.float32), 1, 0),
    "float16": (lambda x: x.astype(np.float16), 1, 2e-3),
    "int16": (lambda x: np.round(x * 32768).astype(np.int16), 32768, 2e-3),
    "int32": (lambda x: np.round(x * 2**31).astype(np.int32), 2**31, 1e-6),
    "big-endian": (lambda x: x.astype(">f8"), 1, 0),
    "Fortran": (np.asfortranarray, 1, 0),
    "not contiguous": (sparse, 1, 0),
    "read-only": (lambda x: np.frombuffer(x.tobytes()).reshape(x.shape), 1, 0),
    "transposed": (lambda x: np.ascontiguousarray(x.T).T, 1, 0),
    "list": (lambda x: x.tolist(), 1, 0),
    "torch": (torch.from_numpy, 1, 0),
    "torch float32": (lambda x: torch.from_numpy(x).float(), 1, 0),
    "torch bfloat16": (lambda x: torch.from_numpy(x).bfloat16(), 1, 0.02),
    "torch int16": (lambda x: torch.from_numpy(x * 32768).round().short(), 32768, 2e-3),
    "requires grad": (lambda x: torch.from_numpy(x).requires_grad_(), 1, 0),
    "torch transposed": (lambda x: torch.from_numpy(x.T.copy()).T, 1, 0),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_any_array_of_the_same_numbers_is_the_same_sound(kind: str) -> None:
    """At its own scale, up to what the kind rounds to (a share of the peak)."""
    make, scale, tolerance = ARRAYS[kind]
    for sound in (STEREO, MONO):
        given = make(np.atleast_2d(sound))
        found = as_channels(given if sound.ndim == 2 else given[0])
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, scale * np.atleast_2d(sound), atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize("kind", ["int16", "not contiguous", "requires grad", "torch transposed"])
def test_any_array_is_enhanced_alike(enhancer: Enhancer, expected: np.ndarray, kind: str) -> None:
    """The level is the input's: speech of int16 has its scale."""
    make, scale, _ = ARRAYS[kind]
    given = make(STEREO)
    found = enhancer(given, RATE)
    assert found.speech.shape == STEREO.shape
    np.testing.assert_allclose(found.mixture, scale * STEREO, atol=scale * 1e-4)
    size = np.abs(expected).max()
    np.testing.assert_allclose(found.speech / scale, expected, atol=2e-3 * size)
    np.testing.assert_array_equal(found.speech + found.noise, found.mixture)


@pytest.mark.parametrize("make", [np.array, torch.from_numpy])
def test_samples_before_channels_are_refused_with_the_way_out(enhancer: Enhancer, make: Any) -> None:
    with pytest.raises(
        ValueError, match=r"found \[8000, 2\], which looks like \[S, channels\]: give waveform\.T"
    ):
        enhancer(make(STEREO.T), RATE)


def test_many_channels_of_more_samples_are_fine() -> None:
    assert as_channels(np.zeros((64, 100))).shape == (64, 100)
    assert as_channels(np.zeros((8, 1))).shape == (8, 1)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros((1, 2, 3)), r"expected shape \[S\] or \[channels, S\], found \[1, 2, 3\]"),
        (np.zeros(0), "expected at least one sample"),
        (np.array([1.0, np.nan]), "expected finite samples"),
        (np.array([1e200]), r"expected samples up to 1e\+15, found 1e\+200"),
        (["a"], "expected numbers, found list"),
    ],
)
def test_what_is_no_sound_is_named(waveform: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_channels(waveform)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int16, torch.tensor])
def test_whole_numbers_of_any_kind(enhancer: Enhancer, expected: np.ndarray, kind: Any) -> None:
    np.testing.assert_array_equal(enhancer(STEREO, RATE, seed=kind(0)).speech, expected)
    np.testing.assert_array_equal(enhancer(STEREO, np.int32(RATE)).speech, expected)


def test_other_seeds_and_rates_are_refused(enhancer: Enhancer) -> None:
    with pytest.raises(InputError, match=r"seed: expected a whole number, found 0\.5"):
        enhancer(MONO, RATE, seed=0.5)
    for rate in (16000.5, 0, -1, "16000"):
        with pytest.raises(InputError, match="rate: expected a positive whole number"):
            enhancer(MONO, rate)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_the_default_dtype_of_torch_changes_nothing(
    model: Path, expected: np.ndarray, dtype: torch.dtype
) -> None:
    separated = Separator.from_pretrained(model)(STEREO, RATE, [None, None]).speakers[0]
    torch.set_default_dtype(dtype)
    try:
        found = Enhancer.from_pretrained(model)(STEREO, RATE).speech
        voice = Separator.from_pretrained(model)(STEREO, RATE, [None, None]).speakers[0]
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(voice, separated)


def test_autocast_changes_nothing(enhancer: Enhancer, expected: np.ndarray) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = enhancer(STEREO, RATE).speech
        assert torch.is_autocast_enabled("cpu")
    np.testing.assert_array_equal(found, expected)
