"""From a face on video to grey mouth crops, and what was cropped for the user to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyro_minvae.errors import InputError, notify
from pyro_minvae.media.audio import is_crops
from pyro_minvae.media.crop_files import read_crops, resize, save_lips
from pyro_minvae.media.faces import (
    DETECT_S,
    Detector,
    Face,
    Faces,
    Track,
    choose,
    choose_several,
    doubt,
    find_tracks,
    follow,
    haar,
)
from pyro_minvae.media.video import read_frames
from pyro_minvae.types import MouthCrops

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Mouths", "cut_mouths", "find_mouths", "read_faces", "read_lips", "save_lips"]

# The mouth in the cascade's square face: its centre down from the top edge and the side of the square crop,
# in parts of the face's side. Measured on GRID; lips take about three quarters of the crop's width.
MOUTH_DOWN = 0.82
MOUTH_SIDE = 0.44


class Mouths(NamedTuple):
    """`times` [T] s, `boxes` [T, 3] (centre x, centre y, side of the mouth; pixels), `valid` [T] bool."""

    times: np.ndarray
    boxes: np.ndarray
    valid: np.ndarray


def read_lips(path: str | Path, *, size: int = 67, face: Face = "largest") -> MouthCrops:
    """Mouth crops [T, size, size] of a video, or of an array file (.npz, .npy, .mat; see `media.crop_files`).

    `face` is "largest" (summed over the video; where another is nearly as large the user is told), "left",
    "right" or the n-th from the left (0, 1, ...). Frames without a face
    are marked invalid and black; a video without any face has no valid frame, which is not an error here.

    Raises:
        InputError: when the file cannot be read or has fewer faces than `face` asks for.
    """
    if is_crops(path):
        return read_crops(path, size=size)
    return cut_mouths(path, [find_mouths(path, face=face)], size=size)[0]


def read_faces(
    path: str | Path, faces: Faces = "all", *, size: int = 67, detect: Detector | None = None
) -> list[MouthCrops]:
    """Mouth crops of several faces of one video, as `read_lips` gives them, in the order that they are asked for.

    `faces` is "all", from left to right, or a list of "left", "right" and n-th from the left (0, 1, ...); faces seen
    for less than a fifth of the time of the one seen most are not counted. `detect` replaces the face detector.

    Raises:
        InputError: when the file is no video, or has fewer faces than asked for.
    """
    if is_crops(path):
        raise InputError(f"{path}: expected a video with several faces, found lip crops")
    seen = _detected(path, detect)
    try:
        tracks = choose_several(seen.tracks, faces)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return cut_mouths(path, [_mouths(seen, track) for track in tracks], size=size)


def find_mouths(path: str | Path, *, face: Face = "largest", detect: Detector | None = None) -> Mouths:
    """Find the mouth of one face in every frame; `detect` replaces the face detector.

    Raises:
        InputError: as `read_lips`.
    """
    seen = _detected(path, detect)
    try:
        track = choose(seen.tracks, face)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if face == "largest" and (line := doubt(seen.tracks)):
        notify(f"{path}: {line}; --face takes another")
    return _mouths(seen, track)


class _Detected(NamedTuple):
    """Times (s) of all frames [T] and of those searched for faces [M], and the faces found."""

    times: np.ndarray
    searched: np.ndarray
    tracks: list[Track]


def _detected(path: str | Path, detect: Detector | None) -> _Detected:
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
    return _Detected(np.asarray(times), np.asarray(detected), find_tracks(found))


def _mouths(seen: _Detected, track: Track | None) -> Mouths:
    boxes, valid = follow(track, seen.searched, seen.times)
    boxes[:, 1] += (MOUTH_DOWN - 0.5) * boxes[:, 2]
    boxes[:, 2] *= MOUTH_SIDE
    return Mouths(seen.times, boxes, valid)


def cut_mouths(path: str | Path, several: Sequence[Mouths], *, size: int = 67) -> list[MouthCrops]:
    """Crop the boxes of each face from the video, which is decoded again: keeping it would bound its length."""
    import numpy as np

    found = [np.zeros((len(mouths.times), size, size), np.uint8) for mouths in several]
    for n, (_, picture) in enumerate(read_frames(path)):
        for crops, mouths in zip(found, several, strict=True):
            if n < len(crops) and mouths.valid[n]:
                crops[n] = cut(picture, mouths.boxes[n], size)
    return [
        MouthCrops(crops, mouths.times, mouths.valid) for crops, mouths in zip(found, several, strict=True)
    ]


def cut(picture: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The square `box` of a grey picture as [size, size]; beyond the edge its last pixels are repeated."""
    import cv2

    # The centre keeps its fraction of a pixel, so that a drifting face does not make the mouth jitter.
    side = max(2, round(float(box[2])))
    patch = cv2.getRectSubPix(picture, (side, side), (float(box[0]) - 0.5, float(box[1]) - 0.5))
    return resize(patch[None], size)[0]
