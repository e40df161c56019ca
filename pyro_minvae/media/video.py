"""The pictures of a video with the times at which they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_minvae.errors import InputError
from pyro_minvae.media.containers import clock_start, decode, find_stream, opened

if TYPE_CHECKING:
    import numpy as np

# Pixels are square within this (720 x 576 in a 5 : 4 frame and its like).
SQUARE = 0.02

# Used only where a stream names no frame rate (Hz).
_USUAL_RATE = 25.0


# Containers that note when a picture is decoded and not when it is shown: with B-frames their times go to and fro.
_DECODING_TIMES = ("avi", "asf")


class NoPicturesError(InputError):
    """A file that holds sound alone."""


def read_frames(path: str | Path, *, colour: bool = False) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (time in s, picture) for every frame that can be decoded, upright, in strictly rising time.

    Pictures are uint8: grey [height, width], or with `colour` blue-green-red [height, width, 3]. Times are
    on the clock of `media.audio.read_audio`: 0 is the first sample of the file's own sound. Damaged frames
    are skipped or shown as far as the decoder could conceal them; a frame without a timestamp follows the
    one before it by one frame time.

    Raises:
        InputError: when the file is no video or none of its frames can be decoded.
    """
    import numpy as np

    with opened(path, "a video") as container:
        stream = find_stream(container, "video")
        if stream is None:
            raise NoPicturesError(f"{path}: expected a video, found no video stream")
        start = clock_start(path)
        begin = float((stream.start_time or 0) * stream.time_base)
        origin = begin if start is None else start
        step = 1.0 / float(stream.average_rate or stream.guessed_rate or _USUAL_RATE)
        aspect = float(stream.sample_aspect_ratio or 1)
        numbered = any(name in container.format.name.split(",") for name in _DECODING_TIMES)
        time: float | None = None
        for frame in decode(container, stream):
            stamp = None if frame.pts is None else float(frame.pts * frame.time_base) - origin
            if numbered:
                # Shown one frame time after another, from the beginning of the stream.
                time = begin - origin if time is None else time + step
            elif time is None:
                time = begin - origin if stamp is None else stamp
            else:
                # A stamp that does not rise is damaged as well.
                time = stamp if stamp is not None and stamp > time else time + step
            yield time, np.ascontiguousarray(_upright(frame, "bgr24" if colour else "gray", aspect))
        if time is None:
            raise InputError(f"{path}: expected a video, found no frame that can be decoded")


def _upright(frame: Any, form: str, aspect: float) -> np.ndarray:
    """The pixels of a frame made square and turned as the camera noted it (telephones film sideways).

    `aspect` is the width of a pixel over its height, 4 / 3 in HDV. The shorter side grows, so that no detail is lost.
    """
    import numpy as np

    picture = frame.to_ndarray(format=form)
    if not 1 - SQUARE < aspect < 1 + SQUARE and 0.1 < aspect < 10:
        import cv2

        wide, high = round(frame.width * max(aspect, 1)), round(frame.height * max(1 / aspect, 1))
        picture = cv2.resize(picture, (wide, high), interpolation=cv2.INTER_LINEAR)
    # The display matrix counts degrees counter-clockwise.
    return np.rot90(picture, round(frame.rotation / 90) % 4)
