"""From a face on video to grey mouth crops, and what was cropped for the user to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pyro_minvae.errors import InputError
from pyro_minvae.media.audio import is_crops
from pyro_minvae.media.crops import read_crops, resize, save_lips
from pyro_minvae.media.faces import DETECT_S, Detector, choose, find_tracks, follow, haar
from pyro_minvae.media.video import read_frames
from pyro_minvae.types import Lips

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Mouths", "cut_mouths", "find_mouths", "read_lips", "save_lips"]

# The mouth in the cascade's square face: its centre down from the top edge and the side of the square crop,
# in parts of the face's side. Measured on GRID; lips take about three quarters of the crop's width.
MOUTH_DOWN = 0.82
MOUTH_SIDE = 0.44


class Mouths(NamedTuple):
    """`times` [T] s, `boxes` [T, 3] (centre x, centre y, side of the mouth; pixels), `valid` [T] bool."""

    times: np.ndarray
    boxes: np.ndarray
    valid: np.ndarray


def read_lips(path: str | Path, *, size: int = 67, face: Literal["largest"] | int = "largest") -> Lips:
    """Mouth crops [T, size, size] of a video, or of an array file (.npz, .npy, .mat; see `media.crops`).

    `face` is "largest" (summed over the video) or the n-th from the left (0, 1, ...). Frames without a face
    are marked invalid and black; a video without any face has no valid frame, which is not an error here.

    Raises:
        InputError: when the file cannot be read or has fewer faces than `face` asks for.
    """
    if is_crops(path):
        return read_crops(path, size=size)
    return cut_mouths(path, find_mouths(path, face=face), size=size)


def find_mouths(
    path: str | Path, *, face: Literal["largest"] | int = "largest", detect: Detector | None = None
) -> Mouths:
    """Find the mouth of one face in every frame; `detect` replaces the face detector.

    Raises:
        InputError: as `read_lips`.
    """
    import numpy as np

    detect = detect or haar()
    times: list[float] = []
    detected: list[float] = []
    found: list[np.ndarray] = []
    for time, picture in read_frames(path):
        times.append(time)
        if not detected or time > detected[-1] + DETECT_S - 1e-3:
            detected.append(time)
            found.append(detect(picture))
    # Without a look at the last frame those since the last detection would be lost.
    if detected[-1] < times[-1]:
        detected.append(times[-1])
        found.append(detect(picture))
    try:
        track = choose(find_tracks(found), face)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    boxes, valid = follow(track, np.asarray(detected), np.asarray(times))
    boxes[:, 1] += (MOUTH_DOWN - 0.5) * boxes[:, 2]
    boxes[:, 2] *= MOUTH_SIDE
    return Mouths(np.asarray(times), boxes, valid)


def cut_mouths(path: str | Path, mouths: Mouths, *, size: int = 67) -> Lips:
    """Crop the boxes from the video, which is decoded again: keeping it in memory would bound its length."""
    import numpy as np

    crops = np.zeros((len(mouths.times), size, size), np.uint8)
    for n, (_, picture) in enumerate(read_frames(path)):
        if n < len(crops) and mouths.valid[n]:
            crops[n] = cut(picture, mouths.boxes[n], size)
    return Lips(crops, mouths.times, mouths.valid)


def cut(picture: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The square `box` of a grey picture as [size, size]; beyond the edge its last pixels are repeated."""
    import cv2

    # The centre keeps its fraction of a pixel, so that a drifting face does not make the mouth jitter.
    side = max(2, round(float(box[2])))
    patch = cv2.getRectSubPix(picture, (side, side), (float(box[0]) - 0.5, float(box[1]) - 0.5))
    return resize(patch[None], size)[0]
