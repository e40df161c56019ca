"""The pictures of a video with the times at which they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_minvae.errors import InputError
from pyro_minvae.media.containers import clock_start, decode, find_stream, opened, picture_order

if TYPE_CHECKING:
    import numpy as np

# Used only where a stream names no frame rate (Hz).
_USUAL_RATE = 25.0
# Pixels this near to squares are taken for squares; a ratio beyond the second is damage.
_SQUARE, _OBLONG = 0.01, 8.0


class NoPicturesError(InputError):
    """The file is a container with sound alone."""


def read_frames(path: str | Path, *, colour: bool = False) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (time in s, picture) for every frame that can be decoded, upright, in strictly rising time.

    Pictures have square pixels and are uint8: grey [height, width], or with `colour` blue-green-red
    [height, width, 3]. Times are on the clock of `media.audio.read_audio`: 0 is the first sample of the file's
    own sound. Damaged frames
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
        start, order = clock_start(path), picture_order(path)
        begin = float((stream.start_time or 0) * stream.time_base)
        origin = begin if start is None else start
        step = 1.0 / float(stream.average_rate or stream.guessed_rate or _USUAL_RATE)
        aspect = _aspect(stream)
        time: float | None = None
        for frame in decode(container, stream):
            ticks = frame.dts if order.decoding else frame.pts
            stamp = None if ticks is None else float(ticks * frame.time_base) - origin - order.ahead
            if time is None:
                # An ASF of pictures alone names no start.
                if start is None and stream.start_time is None and stamp is not None:
                    origin, stamp = origin + stamp, 0.0
                time = begin - origin if stamp is None else stamp
            else:
                # A stamp that does not rise is damaged as well.
                time = stamp if stamp is not None and stamp > time else time + step
            yield time, np.ascontiguousarray(_upright(frame, "bgr24" if colour else "gray", aspect))
        if time is None:
            raise InputError(f"{path}: expected a video, found no frame that can be decoded")


def _aspect(stream: Any) -> float:
    """Width over height of a pixel as the stream names it; 1 where it names none or nonsense."""
    aspect = float(stream.sample_aspect_ratio or 1)
    if abs(aspect - 1) < _SQUARE or not 1 / _OBLONG <= aspect <= _OBLONG:
        return 1.0
    return aspect


def _upright(frame: Any, form: str, aspect: float = 1.0) -> np.ndarray:
    """The pixels of a frame made square by stretching their short side, and turned as the camera noted it."""
    import numpy as np

    # The display matrix counts degrees counter-clockwise (telephones film sideways).
    turns = round(frame.rotation / 90) % 4
    if aspect != 1:
        frame = frame.reformat(
            width=round(frame.width * max(aspect, 1.0)), height=round(frame.height * max(1 / aspect, 1.0))
        )
    return np.rot90(frame.to_ndarray(format=form), turns)
