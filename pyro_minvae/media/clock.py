"""When decoded frames are played: sound by counting samples, with holes found by stamps; pictures by stamps that rise.

Stamps are rounded (Matroska to 1 ms), jitter (recordings of browsers), stand for decoding rather than display (AVI,
ASF), or are damaged. What is played without a hole follows what came before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

# A hole in the sound is at least this long (s), longer than rounding.
SHORTEST_HOLE_S = 0.005
# A longer jump is a damaged stamp rather than silence (s).
LONGEST_HOLE_S = 60.0
# A hole is there in this many frames after it too: the stamps of one that only came late catch up.
AHEAD = 12
# Pictures that show whether stamps rise: the longest order of H.264 is 16.
LOOKED_AT = 20


def holes(stamped: Iterable[tuple[T, int | None, int]], rate: int) -> Iterator[tuple[int, T]]:
    """Yield (samples missing before it, frame) for (frame, stamp in samples from the first, samples in it).

    With d_i = stamp of frame i less the samples before it, holes included, the hole is min(d_i, ..., d_{i+AHEAD}) if
    all of these are at least `SHORTEST_HOLE_S`: jitter is no hole. A frame without a stamp, or with one that jumps by
    over `LONGEST_HOLE_S`, says nothing.
    """
    source = iter(stamped)
    waiting = deque(islice(source, AHEAD + 1))
    length = 0
    while waiting:
        late, before = [], length
        for _, stamp, samples in waiting:
            if stamp is not None and abs(stamp - before) <= LONGEST_HOLE_S * rate:
                late.append(stamp - before)
            before += samples
        frame, stamp, samples = waiting.popleft()
        known = stamp is not None and abs(stamp - length) <= LONGEST_HOLE_S * rate
        hole = min(late) if known else 0
        hole = hole if hole >= SHORTEST_HOLE_S * rate else 0
        yield hole, frame
        length += hole + samples
        waiting.extend(islice(source, 1))


class Order(NamedTuple):
    """How the stamps of a stream's pictures are to be read.

    `decoding`: the container holds the times of decoding only, and `ahead` (s) is what a stamp is ahead of the time at
    which the picture is seen.
    """

    decoding: bool
    ahead: float


def order_of(container: Any, frames: Iterable[Any], first: Any) -> Order:
    """How to read the stamps of a video from its first decoded `frames` and its `first` packet (or None).

    AVI and ASF have one time for each packet, in the order of decoding, and FFmpeg guesses the other: one picture
    later. The first packet of an AVI is seen at the stream's start; the times of an ASF are late by the pictures that
    the decoder holds back.
    """
    seen = [frame for frame in islice(frames, LOOKED_AT) if frame.pts is not None]
    falls = sum(later.pts <= one.pts for one, later in pairwise(seen))
    name, guess = container.format.name, 0.0
    if name == "avi" and first is not None and first.pts is not None and first.dts is not None:
        guess = float((first.pts - first.dts) * first.time_base)
    # One that falls is damaged; two are a habit.
    if falls < 2:
        return Order(False, guess)
    if name == "asf" or seen[0].dts is None:
        return Order(True, 0.0)
    return Order(True, float((seen[0].dts - seen[0].pts) * seen[0].time_base) + guess)
