"""Decoding the streams of any container with PyAV: damage is stepped over, and all streams share one clock.

The clock: time 0 is the first decoded sample of the sound, so a waveform never needs padding and video frames
get the times at which they are seen while it plays (negative if the picture starts first). Without sound,
time 0 is the start of the video stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_minvae.errors import InputError, notify
from pyro_minvae.media.clock import Order, holes, order_of
from pyro_minvae.media.files import existing_file

if TYPE_CHECKING:
    import numpy as np

    from pyro_minvae.types import Audio

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

    path = existing_file(path, what)
    try:
        # Without the prefix a colon in the name would end the name of a protocol.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected {what}, found a file that cannot be read ({_reason(error)})"
        ) from None
    try:
        yield container
    finally:
        container.close()


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


def decode(container: Any, stream: Any, lost: list[str] | None = None) -> Iterator[Any]:
    """Frames of `stream` in order; packets that cannot be read or decoded are skipped, and why is added to `lost`."""
    import av

    failures = 0
    lost = [] if lost is None else lost
    packets = container.demux(stream)
    while failures < PATIENCE:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            lost.append(_reason(error))
            # A generator that raised is finished, but its container reads on behind the damage.
            failures += 1
            packets = container.demux(stream)
            continue
        if packet is None:
            return
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError) as error:
            lost.append(_reason(error))
            failures += 1
            continue
        failures = 0
        yield from frames


def find_track(container: Any, path: str | Path, track: int | None = None) -> Any | None:
    """The sound track of that number (1, 2, ...), or FFmpeg's choice; None without sound.

    Raises:
        InputError: for a track that there is not.
    """
    if track is None:
        return find_stream(container, "audio")
    streams = container.streams.audio
    if not 1 <= track <= len(streams):
        raise InputError(f"{path}: expected sound track {track}, found {len(streams)}")
    streams[track - 1].codec_context.thread_count = 1
    return streams[track - 1]


def has_pictures(path: str | Path) -> bool:
    """Whether a container has a video; a cover picture is none. True for what cannot be opened, as its name says so."""
    try:
        with opened(path, "a video") as container:
            return find_stream(container, "video") is not None
    except InputError:
        return True


def clock_start(path: str | Path, track: int | None = None) -> float | None:
    """The container's own time (s) of the first decoded sample of its sound; None without decodable sound."""
    with opened(path, "a video") as container:
        stream = find_track(container, path, track)
        if stream is None:
            return None
        first = next(decode(container, stream), None)
        return None if first is None else _time(first, stream)


def read_sound(path: str | Path, track: int | None = None) -> Audio:
    """The sound of a container; holes in the stream are filled with silence so that it stays on the clock.

    `track` is which of several sound tracks (1, 2, ...); where it is not given, the user is told which was taken.

    Raises:
        InputError: when the file is no container, has no sound or none that can be decoded, or no such track.
    """
    import numpy as np

    from pyro_minvae.types import Audio

    with opened(path, "a sound or video file") as container:
        stream = find_track(container, path, track)
        if stream is None:
            raise InputError(f"{path}: expected a file with sound, found no audio stream")
        streams = container.streams.audio
        if track is None and len(streams) > 1:
            taken = 1 + [one.index for one in streams].index(stream.index)
            notify(f"{path}: sound track {taken} of {len(streams)} is taken; --audio-track takes another")
        pieces: list[np.ndarray] = []
        rate, length = 0, 0
        lost: list[str] = []
        for hole, frame in _with_holes(decode(container, stream, lost), stream):
            piece = _samples(frame)
            if not pieces:
                rate = frame.sample_rate
            elif frame.sample_rate != rate or len(piece) != len(pieces[0]):
                raise InputError(
                    f"{path}: expected one sample rate and channel count throughout, "
                    f"found a change after {length / rate:.2f} s"
                )
            if hole:
                pieces.append(np.zeros((len(piece), hole)))
            pieces.append(piece)
            length += hole + piece.shape[1]
        if length == 0:
            raise InputError(
                f"{path}: expected a file with sound, found an audio stream without a decodable sample"
            )
        if lost:
            notify(f"{path}: {len(lost)} packets of sound cannot be read and are missing ({lost[0]})")
        return Audio(np.concatenate(pieces, axis=1), rate, _subtype(stream), "WAV")


def picture_order(path: str | Path) -> Order:
    """How the stamps of the pictures of a video are to be read (see `media.clock`)."""
    with opened(path, "a video") as container:
        stream = find_stream(container, "video")
        first = None if stream is None else next(_packets(container, stream), None)
    with opened(path, "a video") as container:
        stream = find_stream(container, "video")
        return order_of(container, decode(container, stream) if stream is not None else (), first)


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    import av

    with suppress(av.error.FFmpegError):
        yield from container.demux(stream)


def _with_holes(frames: Iterator[Any], stream: Any) -> Iterator[tuple[int, Any]]:
    """Frames of sound, each with the number of samples that are missing before it."""
    first = next(frames, None)
    if first is None:
        return iter(())
    start, rate = _time(first, stream), first.sample_rate

    def stamped() -> Iterator[tuple[Any, int | None, int]]:
        for frame in chain((first,), frames):
            stamp = None if frame.pts is None else round((_time(frame, stream) - start) * rate)
            yield frame, stamp, frame.samples

    return holes(stamped(), rate)


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
