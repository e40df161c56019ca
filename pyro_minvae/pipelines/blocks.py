"""Long recordings in overlapping blocks, faded into each other, so that memory does not grow with the recording."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def spans(samples: int, *, block: int, overlap: int) -> list[range]:
    """Where blocks of `block` samples lie that overlap by `overlap`; one block if the recording fits.

    The last block is as long as what is left, and never shorter than twice the overlap: else the one before takes it
    in. All but the last are `block` long, and starts are multiples of block - overlap.

    Raises:
        ValueError: if blocks are not longer than twice the overlap.
    """
    if block <= 2 * overlap:
        raise ValueError(f"expected blocks longer than twice the overlap, got {block} and {overlap}")
    step = block - overlap
    starts = list(range(0, max(samples - overlap, 1), step))
    if len(starts) > 1 and samples - starts[-1] < 2 * overlap:
        starts.pop()
    ends = [start + block for start in starts[:-1]] + [samples]
    return [range(start, end) for start, end in zip(starts, ends, strict=True)]


def packed(lengths: Sequence[int], *, most: int, room: float) -> list[slice]:
    """Neighbours to go side by side, padded to the longest of each group: `most` of them and `room` samples at most.

    One that is longer than the room goes by itself.
    """
    groups, first = [], 0
    for end in range(1, len(lengths) + 1):
        ahead = lengths[first : end + 1]
        if end == len(lengths) or len(ahead) > most or max(ahead) * len(ahead) > room:
            groups.append(slice(first, end))
            first = end
    return groups


def fade(span: range, *, samples: int, overlap: int) -> Tensor:
    """Weights [len(span)] of a block: ramps over the overlaps, which add up to one with those of its neighbours."""
    weights = torch.ones(len(span))
    ramp = (torch.arange(overlap) + 0.5) / max(overlap, 1)
    if span.start > 0:
        weights[:overlap] = ramp
    if span.stop < samples:
        weights[len(span) - overlap :] = ramp.flip(0)
    return weights
