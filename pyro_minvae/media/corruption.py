"""Lips spoilt on purpose, in bursts, to see what a model does when its video is missing, late or wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from pyro_minvae.errors import InputError
from pyro_minvae.types import MouthCrops

BURST_S = (0.2, 1.0)
"""The shortest and the longest burst (s)."""

SHIFT_S = 0.2
"""How late or early shifted lips are (s)."""

# Standard deviation of the blur and side of the block, in parts of the crop's side: no movement of the lips is left
# to see through either. A block of this side covers the middle of the crop wherever it lies.
BLUR, BLOCK = 0.15, 0.6

MIXED = "mixed"
"""A kind drawn for each burst, of all that come in bursts."""


class Corruption(NamedTuple):
    """What to do: a `kind` of `KINDS` or "mixed", and the `share` (0 to 1) of the video's frames."""

    kind: str
    share: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Corruption:
        """`KIND` (all frames) or `KIND:SHARE`, for example "swapped:0.33".

        Raises:
            InputError: for an unknown kind, or a share that is no number from 0 to 1.
        """
        kind, colon, share = text.partition(":")
        if kind not in (*KINDS, MIXED):
            raise InputError(
                f"--corrupt {text}: expected one of {', '.join((*KINDS, MIXED))}, found '{kind}'"
            )
        try:
            value = float(share) if colon else 1.0
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise InputError(
                f"--corrupt {text}: expected a share from 0 to 1 after the colon, found '{share}'"
            )
        return cls(kind, value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.share:g}"

    @property
    def needs_donor(self) -> bool:
        """Whether another clip's lips may be called for."""
        return self.kind in ("swapped", MIXED) and self.share > 0


class Corrupted(NamedTuple):
    """The spoilt `lips`, and the truth: `wrong` [T] bool, the frames that were spoilt."""

    lips: MouthCrops
    wrong: np.ndarray


class Burst(NamedTuple):
    """What one burst is made of: the whole clip `lips`, its `frames`, a generator, another clip's lips or None."""

    lips: MouthCrops
    frames: range
    generator: np.random.Generator
    donor: MouthCrops | None


def corrupt(
    lips: MouthCrops, what: Corruption, *, generator: np.random.Generator, donor: MouthCrops | None = None
) -> Corrupted:
    """Spoil round(share T) of the T frames of `lips`, in bursts of 0.2 to 1 s at random places.

    Kinds that a detector of faces notices mark their frames invalid; the others leave `valid` as it is, so that the
    model has to find out:

    - dropped: no picture (invalid);
    - lost: the face is found late, so the first frames are without one, in a single burst (invalid);
    - frozen: the last picture before the burst stands (before a burst at the start: the first one after it);
    - blurred: beyond recognition;
    - occluded: a grey block over the mouth, at another place in each burst;
    - swapped: the lips of `donor`, over and over if its clip is shorter;
    - shifted: those of 0.2 s before or after; beyond the ends of the clip its first or last picture stands;
    - mixed: each burst one of these, but for lost.

    Bursts lie apart where the rest of the clip allows it; those that touch and are of one kind are one, so that a
    share of 1 is one burst. Frames without a face stay so. Times never change.

    Raises:
        ValueError: for a kind that calls for a donor without one, or with one that has no face or other crops.
    """
    count = round(what.share * len(lips.times))
    if count == 0:
        return Corrupted(lips, np.zeros(len(lips.times), bool))
    if what.needs_donor:
        _check_donor(lips, donor)
    crops, valid = lips.crops.copy(), lips.valid.copy()
    wrong = np.zeros(len(valid), bool)
    for kind, frames in _plan(what.kind, count, lips.times, generator):
        part = slice(frames.start, frames.stop)
        wrong[part] = True
        spoil = KINDS[kind]
        if spoil is None:
            valid[part] = False
        else:
            crops[part] = spoil(Burst(lips, frames, generator, donor))
    # As `read_lips` leaves frames without a face.
    crops[~valid & wrong] = 0
    return Corrupted(MouthCrops(crops, lips.times, valid), wrong)


def bursts(count: int, total: int, rate: float, generator: np.random.Generator) -> list[range]:
    """Ranges that cover `count` of `total` frames at `rate` Hz: lengths drawn within `BURST_S`, then places.

    Only a `count` below the shortest burst makes a shorter one.
    """
    shortest, longest = (max(1, round(seconds * rate)) for seconds in BURST_S)
    lengths = []
    rest = count
    while rest >= 2 * shortest:
        length = int(generator.integers(shortest, min(longest, rest) + 1))
        if rest - length < shortest:
            # What is left has to be long enough for a burst of its own, or to be nothing.
            length = rest if rest <= longest else rest - shortest
        lengths.append(length)
        rest -= length
    lengths = [int(length) for length in generator.permutation([*lengths, *([rest] if rest else [])])]
    apart = 1 if total - count >= len(lengths) - 1 else 0
    free = total - count - apart * (len(lengths) - 1)
    before = np.sort(generator.integers(0, free + 1, len(lengths)))
    starts = before + np.concatenate([[0], np.cumsum(lengths)[:-1] + apart * np.arange(1, len(lengths))])
    return [range(int(start), int(start) + length) for start, length in zip(starts, lengths, strict=True)]


def _plan(
    kind: str, count: int, times: np.ndarray, generator: np.random.Generator
) -> list[tuple[str, range]]:
    """The bursts with their kinds; those that touch and are of one kind are joined."""
    if kind == "lost":
        return [(kind, range(count))]
    steps = np.diff(times)
    rate = 1 / float(np.median(steps)) if len(steps) else 1.0
    joined: list[tuple[str, range]] = []
    for frames in bursts(count, len(times), rate, generator):
        drawn = MIXTURE[int(generator.integers(len(MIXTURE)))] if kind == MIXED else kind
        if joined and joined[-1][0] == drawn and joined[-1][1].stop == frames.start:
            joined[-1] = drawn, range(joined[-1][1].start, frames.stop)
        else:
            joined.append((drawn, frames))
    return joined


def _frozen(burst: Burst) -> np.ndarray:
    seen, first, stop = np.flatnonzero(burst.lips.valid), burst.frames.start, burst.frames.stop
    if len(seen) == 0:
        return burst.lips.crops[first:stop]
    before, after = seen[seen < first], seen[seen >= stop]
    held = before[-1] if len(before) else after[0] if len(after) else seen[0]
    return np.repeat(burst.lips.crops[held][None], stop - first, axis=0)


def _blurred(burst: Burst) -> np.ndarray:
    crops = burst.lips.crops[burst.frames.start : burst.frames.stop]
    width = BLUR * max(crops.shape[1:])
    return np.stack([cv2.GaussianBlur(crop, (0, 0), width) for crop in crops])


def _occluded(burst: Burst) -> np.ndarray:
    crops = burst.lips.crops[burst.frames.start : burst.frames.stop].copy()
    sides = [max(1, round(BLOCK * side)) for side in crops.shape[1:]]
    top, left = (
        int(burst.generator.integers(whole - side + 1))
        for whole, side in zip(crops.shape[1:], sides, strict=True)
    )
    crops[:, top : top + sides[0], left : left + sides[1]] = burst.generator.integers(256)
    return crops


def _swapped(burst: Burst) -> np.ndarray:
    assert burst.donor is not None
    at, own = burst.lips.times[burst.frames.start : burst.frames.stop], burst.donor.times
    step = float(np.median(np.diff(own))) if len(own) > 1 else 1.0
    return burst.donor.crops[_nearest_seen(burst.donor, own[0] + (at - own[0]) % (own[-1] - own[0] + step))]


def _shifted(burst: Burst) -> np.ndarray:
    shift = SHIFT_S if burst.generator.random() < 0.5 else -SHIFT_S
    at = burst.lips.times[burst.frames.start : burst.frames.stop] + shift
    if not burst.lips.valid.any():
        return burst.lips.crops[burst.frames.start : burst.frames.stop]
    return burst.lips.crops[_nearest_seen(burst.lips, at)]


KINDS: dict[str, Callable[[Burst], np.ndarray] | None] = {
    "dropped": None,
    "lost": None,
    "frozen": _frozen,
    "blurred": _blurred,
    "occluded": _occluded,
    "swapped": _swapped,
    "shifted": _shifted,
}
"""The kinds with what makes the crops of a burst; None for those that mark it invalid instead."""

MIXTURE = tuple(kind for kind in KINDS if kind != "lost")


def _nearest_seen(lips: MouthCrops, at: np.ndarray) -> np.ndarray:
    """For each time (s) the index of the nearest frame with a face."""
    seen = np.flatnonzero(lips.valid)
    return seen[np.abs(lips.times[seen][None] - at[:, None]).argmin(1)]


def _check_donor(lips: MouthCrops, donor: MouthCrops | None) -> None:
    if donor is None or not donor.valid.any():
        raise ValueError("expected another clip's lips with a face, got none")
    if donor.crops.shape[1:] != lips.crops.shape[1:]:
        raise ValueError(f"expected crops alike, got {lips.crops.shape[1:]} and {donor.crops.shape[1:]}")
