"""A part of the training data to stop by: the same part for the same data and seed, on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeVar

from pyro_minvae.errors import InputError


class _Named(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def speaker(self) -> str: ...


Named = TypeVar("Named", bound=_Named)


def hold_out(items: Sequence[Named], share: float, seed: int) -> tuple[list[Named], list[Named]]:
    """Split `items` (utterances, prepared or not) into (to fit, held out), each in the order given.

    Speakers who make up at most `share` of the items are held out whole, in the order of a hash of the
    speaker's name, until `share` of these items is reached: the bound is then that of unheard voices. Of the
    other speakers, who are too large for that, `share` of the utterances is held out, in the order of a hash
    of speaker and id. The seed enters the hash; the order of `items` does not matter. At least one item is on
    each side.
    Raises `InputError` for fewer than two items, `ValueError` for a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"expected 0 < share < 1, got {share}")
    if len(items) < 2:
        raise InputError(
            f"training data: expected at least two utterances to hold one out, found {len(items)}"
        )
    speakers: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        speakers.setdefault(item.speaker, []).append(index)
    whole = [name for name, indices in speakers.items() if len(indices) <= share * len(items)]
    parted = [index for name in speakers.keys() - set(whole) for index in speakers[name]]

    def rank(index: int) -> tuple[str, int]:
        # Two corpora may hold one id: the position then decides.
        return _hash(seed, items[index].speaker, items[index].id), index

    held = set(sorted(parted, key=rank)[: round(share * len(parted))])
    target = len(held) + round(share * (len(items) - len(parted)))
    for name in sorted(whole, key=lambda name: _hash(seed, name)):
        if len(held) >= target:
            break
        held.update(speakers[name])
    if not held:
        held.add(min(range(len(items)), key=rank))
    if len(held) == len(items):
        held.remove(max(held, key=rank))
    fit = [item for index, item in enumerate(items) if index not in held]
    return fit, [items[index] for index in sorted(held)]


def _hash(seed: int, *names: str) -> str:
    """Digest that orders names at random; the separator keeps ("a", "bc") and ("ab", "c") apart."""
    return hashlib.sha256("\0".join((str(seed), *names)).encode("utf-8", "surrogateescape")).hexdigest()
