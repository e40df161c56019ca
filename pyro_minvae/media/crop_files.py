"""Mouth crops kept as arrays: `.npz` and `.npy` of NumPy, and the `.mat` files of NTCD-TIMIT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_minvae.errors import InputError
from pyro_minvae.media.files import atomic, existing_file
from pyro_minvae.types import MouthCrops

if TYPE_CHECKING:
    import numpy as np

# Frame rate (Hz) of arrays that carry no times, and of NTCD-TIMIT's lip data.
PLAIN_RATE = 25.0
NTCD_RATE = 30.0
# Side of NTCD-TIMIT's crops in pixels.
NTCD_SIZE = 67


def read_crops(path: str | Path, *, size: int = 67) -> MouthCrops:
    """Read crops from an array file and resize them to `size` x `size` pixels.

    `.npz` holds `crops` [T, H, W] uint8 and perhaps `times` [T] s and `valid` [T] bool (as `save_lips`
    writes); `.npy` holds crops [T, H, W] uint8. Without times, 25 frames per second from time 0 are
    assumed; without `valid`, every frame is. `.mat` is NTCD-TIMIT's form, see `_read_mat`.

    Raises:
        InputError: when the file cannot be read or its arrays have another shape or type.
    """
    path = existing_file(path, "an array of mouth crops")
    readers = {".npz": _read_npz, ".npy": _read_npy, ".mat": _read_mat}
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise InputError(f"{path}: expected crops as {', '.join(readers)}, found the suffix '{path.suffix}'")
    lips = readers[suffix](path)
    return lips._replace(crops=resize(lips.crops, size))


def save_lips(path: str | Path, lips: MouthCrops, wrong: np.ndarray | None = None) -> None:
    """Write `crops`, `times` and `valid` to a compressed `.npz`, atomically.

    `wrong` [T] bool marks the frames that were spoilt on purpose (see `media.corruption`).

    Raises:
        InputError: for another suffix or an unwritable place.
    """
    import numpy as np

    if Path(path).suffix.lower() != ".npz":
        raise InputError(f"{path}: expected the name of a .npz file to write, found '{Path(path).suffix}'")
    arrays: dict[str, Any] = lips._asdict() | ({} if wrong is None else {"wrong": wrong})
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def read_wrong(path: str | Path) -> np.ndarray | None:
    """Which frames [T] of crops were spoilt on purpose, as `save_lips` wrote it; None where nobody says.

    Raises:
        InputError: when an archive cannot be read or its `wrong` is not one bool for each crop.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        return None
    arrays = _load(existing_file(path, "an array of mouth crops"))
    if not isinstance(arrays, dict) or not {"crops", "wrong"} <= set(arrays):
        return None
    wrong = arrays["wrong"]
    if wrong.dtype != bool or wrong.shape != _lips(path, arrays).crops.shape[:1]:
        raise InputError(f"{path}: expected wrong as bool, one for each crop, found {_describe(wrong)}")
    return wrong


def resize(crops: np.ndarray, size: int) -> np.ndarray:
    """Grey pictures [T, H, W] uint8 to [T, size, size]: area means when shrinking, linear when growing."""
    import cv2
    import numpy as np

    if crops.shape[1:] == (size, size):
        return crops
    way = cv2.INTER_AREA if min(crops.shape[1:]) >= size else cv2.INTER_LINEAR
    return np.stack([cv2.resize(crop, (size, size), interpolation=way) for crop in crops])


def _read_npy(path: Path) -> MouthCrops:
    loaded = _load(path)
    if isinstance(loaded, dict):
        raise InputError(f"{path}: expected a single array, found an archive (name it .npz)")
    return _lips(path, {"crops": loaded})


def _read_npz(path: Path) -> MouthCrops:
    arrays = _load(path)
    if not isinstance(arrays, dict):
        raise InputError(f"{path}: expected an .npz archive, found a single array (name it .npy)")
    if "crops" not in arrays:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise InputError(f"{path}: expected an array named 'crops', found {found}")
    return _lips(path, arrays)


def _read_mat(path: Path) -> MouthCrops:
    """NTCD-TIMIT lips: MATLAB 7.3 (HDF5) with `data` [T, 4489] at 30 frames per second.

    A row is the orthonormal two-dimensional DCT of a 67 x 67 crop in column-major order, so the inverse DCT
    of the row read as a matrix is the transposed picture in grey 0 to 255 (Abdelaziz, Interspeech 2017).
    """
    import h5py
    import numpy as np
    from scipy.fft import idctn

    try:
        with h5py.File(path, "r") as file:
            names = list(file)
            data = file.get("data")
            values = np.asarray(data) if isinstance(data, h5py.Dataset) else None
    # A damaged file makes the parser raise almost anything.
    except Exception:
        raise InputError(
            f"{path}: expected a MATLAB 7.3 file (HDF5), found one that cannot be read"
        ) from None
    if values is None:
        raise InputError(f"{path}: expected a dataset named 'data', found {', '.join(names) or 'nothing'}")
    if values.ndim != 2 or values.shape[1] != NTCD_SIZE**2 or len(values) == 0 or values.dtype.kind != "f":
        raise InputError(
            f"{path}: expected 'data' as float [frames, {NTCD_SIZE**2}], found {_describe(values)}"
        )
    if not np.isfinite(values).all():
        raise InputError(f"{path}: expected finite values in 'data', found NaN or infinite ones")
    transposed = idctn(values.reshape(-1, NTCD_SIZE, NTCD_SIZE), axes=(1, 2), norm="ortho")
    crops = np.clip(np.rint(transposed.transpose(0, 2, 1)), 0, 255).astype(np.uint8)
    return MouthCrops(crops, np.arange(len(crops)) / NTCD_RATE, np.ones(len(crops), bool))


def _load(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array of a `.npy` or all arrays of a `.npz`."""
    import numpy as np

    try:
        # Opened here, because np.load leaves a broken archive open.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    # A damaged file makes the parser raise almost anything.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: expected an array file of NumPy, found one that cannot be read ({reason})"
        ) from None


def _lips(path: Path, arrays: dict[str, Any]) -> MouthCrops:
    """Check `crops`, `times` and `valid` and fill in what is missing."""
    import numpy as np

    crops = arrays["crops"]
    if getattr(crops, "dtype", None) != np.uint8 or crops.ndim != 3 or 0 in crops.shape:
        raise InputError(f"{path}: expected crops as uint8 [frames, height, width], found {_describe(crops)}")
    times = arrays.get("times", np.arange(len(crops)) / PLAIN_RATE)
    if times.shape != crops.shape[:1] or times.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected times as numbers [{len(crops)}], found {_describe(times)}")
    if not np.isfinite(times).all() or np.any(np.diff(times) <= 0):
        raise InputError(f"{path}: expected times that rise from frame to frame, found ones that do not")
    valid = arrays.get("valid", np.ones(len(crops), bool))
    if valid.shape != crops.shape[:1] or valid.dtype != bool:
        raise InputError(f"{path}: expected valid as bool [{len(crops)}], found {_describe(valid)}")
    return MouthCrops(crops, times.astype(np.float64), valid)


def _describe(value: Any) -> str:
    return f"{getattr(value, 'dtype', type(value).__name__)} {list(getattr(value, 'shape', ()))}"
