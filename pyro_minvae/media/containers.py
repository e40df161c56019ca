"""Decoding the streams of any container with PyAV: damage is stepped over, and all streams share one clock.

The clock: time 0 is the first decoded sample of the sound, so a waveform never needs padding and video frames
get the times at which they are seen while it plays (negative if the picture starts first). Without sound,
time 0 is the start of the video stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_minvae.errors import InputError
from pyro_minvae.media.files import existing_file

if TYPE_CHECKING:
    import numpy as np

    from pyro_minvae.types import Audio

# Containers round timestamps (Matroska to 1 ms); only more than this is missing sound (s).
JITTER_S = 0.009
# A longer jump is a damaged timestamp rather than silence (s).
LONGEST_GAP_S = 60.0
# Broken packets in a row after which the rest of a stream is given up.
PATIENCE = 500

# Lossless streams whose samples libsndfile can hold in a WAV as they are.
_KEPT = {
    "pcm_u8": "PCM_U8",
    "pcm_s32le": "PCM_32",
    "pcm_s32be": "PCM_32",
    "pcm_f32le": "FLOAT",
    "pcm_f32be": "FLOAT",
    "pcm_f64le": "DOUBLE",
    "pcm_f64be": "DOUBLE",
}


@contextmanager
def opened(path: str | Path, what: str) -> Iterator[Any]:
    """Open a container; raises InputError that expects `what` if it is missing, empty or not one."""
    import av

    stack = ExitStack()
    path = existing_file(path, what)
    if not path.is_file():
        raise InputError(f"{path}: expected {what}, found no regular file (a pipe or a device)")
    try:
        # A colon in a name would be read as a protocol's; letters that are no text can only be opened here.
        name = f"file:{path}"
        container = stack.enter_context(
            av.open(
                name if _is_text(name) else stack.enter_context(path.open("rb")), metadata_errors="replace"
            )
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected {what}, found a file that cannot be read ({_reason(error)})"
        ) from None
    with stack:
        yield container


def _is_text(name: str) -> bool:
    """Whether a name can be written in UTF-8; surrogates stand for bytes that are no letters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def find_stream(container: Any, kind: str) -> Any | None:
    """The best stream of `kind` ("audio" or "video"), or None; a cover picture is not a video."""
    import av

    # FFmpeg's own choice; it can be a cover picture in a file that also holds a real video.
    streams = [container.streams.best(kind), *getattr(container.streams, kind)]
    picture = av.stream.Disposition.attached_pic
    for stream in streams:
        if stream is not None and stream.codec_context is not None and not stream.disposition & picture:
            # Workers run in parallel processes: one thread each.
            stream.codec_context.thread_count = 1
            return stream
    return None


def decode(container: Any, stream: Any) -> Iterator[Any]:
    """Frames of `stream` in order; packets that cannot be read or decoded are skipped."""
    import av

    failures = 0
    packets = container.demux(stream)
    while failures < PATIENCE:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            # A generator that raised is finished, but its container reads on behind the damage.
            failures += 1
            packets = container.demux(stream)
            continue
        if packet is None:
            return
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            failures += 1
            continue
        failures = 0
        yield from frames


def clock_start(path: str | Path) -> float | None:
    """The container's own time (s) of the first decoded sample of its sound; None without decodable sound."""
    with opened(path, "a video") as container:
        stream = find_stream(container, "audio")
        if stream is None:
            return None
        first = next(decode(container, stream), None)
        return None if first is None else _time(first, stream)


def read_sound(path: str | Path) -> Audio:
    """The sound of a container; holes in the stream are filled with silence so that it stays on the clock.

    Raises:
        InputError: when the file is no container, has no sound or none that can be decoded.
    """
    import numpy as np

    from pyro_minvae.types import Audio

    with opened(path, "a sound or video file") as container:
        stream = find_stream(container, "audio")
        if stream is None:
            raise InputError(f"{path}: expected a file with sound, found no audio stream")
        pieces: list[np.ndarray] = []
        rate, start, length = 0, 0.0, 0
        for frame in decode(container, stream):
            piece = _samples(frame)
            if not pieces:
                rate, start = frame.sample_rate, _time(frame, stream)
            elif frame.sample_rate != rate or len(piece) != len(pieces[0]):
                raise InputError(
                    f"{path}: expected one sample rate and channel count throughout, "
                    f"found a change after {length / rate:.2f} s"
                )
            hole = 0 if frame.pts is None else round((_time(frame, stream) - start) * rate) - length
            if JITTER_S * rate < hole <= LONGEST_GAP_S * rate:
                pieces.append(np.zeros((len(piece), hole)))
                length += hole
            pieces.append(piece)
            length += piece.shape[1]
        if length == 0:
            raise InputError(
                f"{path}: expected a file with sound, found an audio stream without a decodable sample"
            )
        return Audio(np.concatenate(pieces, axis=1), rate, _subtype(stream), "WAV")


def _time(frame: Any, stream: Any) -> float:
    """Time of a frame (s) by the container's own clock."""
    if frame.pts is not None:
        return float(frame.pts * frame.time_base)
    return float((stream.start_time or 0) * stream.time_base)


def _samples(frame: Any) -> np.ndarray:
    """An audio frame as float64 [channels, S] at full scale 1."""
    import numpy as np

    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, len(frame.layout.channels)).T
    if values.dtype == np.uint8:
        return (values.astype(np.float64) - 128) / 128
    if np.issubdtype(values.dtype, np.integer):
        return values / -float(np.iinfo(values.dtype).min)
    return values.astype(np.float64)


def _subtype(stream: Any) -> str:
    """The WAV coding that holds the stream: lossless samples are kept, lossy codecs get 16 bits."""
    if stream.codec_context.name in _KEPT:
        return _KEPT[stream.codec_context.name]
    return "PCM_24" if stream.codec_context.format.name in ("s32", "s32p") else "PCM_16"


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
