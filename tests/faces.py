"""A drawn face that OpenCV's frontal cascade takes for one, with a mouth that can open, and videos of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

# The mouth below the centre of the face, in parts of the face's side: where `media.mouths` looks for it.
MOUTH = 0.32


def draw_face(picture: np.ndarray, *, centre: tuple[float, float], side: float, mouth: float = 0.0) -> None:
    """Draw a face into grey `picture`, for the cascade about `side` wide around `centre` (x, y).

    `mouth` opens the mouth from 0 (closed) to 1.
    """

    def oval(x: float, y: float, wide: float, high: float, grey: int) -> None:
        middle = (round(centre[0] + x * side), round(centre[1] + y * side))
        axes = (max(1, round(wide * side)), max(1, round(high * side)))
        cv2.ellipse(picture, middle, axes, 0, 0, 360, grey, -1, cv2.LINE_AA)

    oval(0, 0.02, 0.46, 0.62, 60)  # hair
    oval(0, 0.06, 0.40, 0.55, 190)  # face
    for x in (-0.18, 0.18):
        oval(x, -0.22, 0.12, 0.03, 80)  # brow
        oval(x, -0.12, 0.10, 0.055, 110)  # socket
        oval(x, -0.12, 0.06, 0.035, 40)  # eye
    oval(0, 0.0, 0.035, 0.14, 215)  # nose
    oval(0, 0.13, 0.08, 0.02, 130)
    oval(0, MOUTH, 0.15, 0.03 + 0.06 * mouth, 120)  # lips
    oval(0, MOUTH, 0.12, 0.008 + 0.05 * mouth, 40)  # opening


def face_pictures(mouths: Sequence[float], *, size: tuple[int, int] = (240, 320)) -> list[np.ndarray]:
    """One picture [height, width] per opening of the mouth, with one face in the middle."""
    height, width = size
    pictures = []
    for mouth in mouths:
        picture = np.full(size, 150, np.uint8)
        draw_face(picture, centre=(width / 2, 0.46 * height), side=0.46 * height, mouth=mouth)
        pictures.append(cv2.GaussianBlur(picture, (0, 0), 1.2))
    return pictures


def write_video(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    times: Sequence[float] | None = None,
    codec: str = "mpeg4",
    sound: np.ndarray | None = None,
    sound_rate: int = 16000,
    sound_codec: str = "pcm_s16le",
    sound_form: str = "s16",
    sound_times: Callable[[int], float] = lambda start: start / 16000,
) -> Path:
    """Encode grey pictures, shown at `times` (s; default 25 a second), and a sound [channels, S] into a file.

    `sound_times` gives the time (s) at which the block that starts at a sample is played.
    """
    clock = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        if len(pictures):
            video = container.add_stream(codec, rate=25)
            video.height, video.width = pictures[0].shape
            video.pix_fmt = "yuv420p"
            if times is not None:
                video.codec_context.time_base = clock
        if sound is not None:
            layout = "mono" if len(sound) == 1 else "stereo"
            track = container.add_stream(sound_codec, rate=sound_rate, layout=layout)
            track.codec_context.format = sound_form
            for packet in _sound_packets(track, sound, sound_rate, layout, sound_times):
                container.mux(packet)
        if len(pictures):
            for n, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, format="gray")
                frame.pts = n if times is None else round(times[n] / clock)
                frame.time_base = Fraction(1, 25) if times is None else clock
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
    return path


def _sound_packets(
    track: Any, sound: np.ndarray, rate: int, layout: str, times: Callable[[int], float]
) -> Iterator[Any]:
    kind = {"s16": np.int16, "s32": np.int32, "flt": np.float32}
    form = track.codec_context.format.name
    dtype = kind[form.rstrip("p")]
    scaled = sound if form.startswith("flt") else sound * np.iinfo(dtype).max
    block = track.codec_context.frame_size or 1024
    for start in range(0, sound.shape[1], block):
        piece = scaled[:, start : start + block].astype(dtype)
        packed = piece if form.endswith("p") else np.ascontiguousarray(piece.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format=form, layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = round(times(start) * rate)
        yield from track.encode(frame)
    yield from track.encode(None)
