"""Lips spoilt on purpose: laws over all kinds and shares, and what each kind looks like."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_minvae.errors import InputError
from pyro_minvae.media.corruption import (
    BURST_S,
    KINDS,
    MIXED,
    MIXTURE,
    SHIFT_S,
    Corrupted,
    Corruption,
    bursts,
    corrupt,
)
from pyro_minvae.types import MouthCrops

ALL = (*KINDS, MIXED)
FLAGGED = {"dropped", "lost"}
SHARES = (0.0, 0.1, 1 / 3, 0.5, 0.9, 1.0)


def clip(frames: int = 75, *, seed: int = 0, rate: float = 25.0, size: int = 16) -> MouthCrops:
    """Random crops: no two frames are alike."""
    crops = np.random.default_rng(seed).integers(1, 256, (frames, size, size), np.uint8)
    return MouthCrops(crops, 0.04 + np.arange(frames) / rate, np.ones(frames, bool))


def spoil(kind: str, share: float, *, seed: int = 0, lips: MouthCrops | None = None) -> Corrupted:
    donor = clip(50, seed=99)
    return corrupt(
        lips or clip(), Corruption(kind, share), generator=np.random.default_rng(seed), donor=donor
    )


def runs(wrong: np.ndarray) -> list[range]:
    """Stretches of wrong frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], wrong.astype(int), [0]])))
    return [range(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("seed", range(3))
def test_laws_of_every_kind(kind: str, share: float, seed: int) -> None:
    lips = clip()
    before = lips.crops.copy()
    spoilt, wrong = spoil(kind, share, seed=seed, lips=lips)
    np.testing.assert_array_equal(lips.crops, before)  # the input is left alone
    assert lips.valid.all()
    assert wrong.sum() == round(share * len(lips.times))
    assert spoilt.crops.shape == lips.crops.shape
    assert spoilt.crops.dtype == np.uint8
    np.testing.assert_array_equal(spoilt.times, lips.times)
    np.testing.assert_array_equal(spoilt.crops[~wrong], lips.crops[~wrong])
    np.testing.assert_array_equal(spoilt.valid[~wrong], lips.valid[~wrong])
    if kind != MIXED:
        assert (spoilt.valid[wrong] == (kind not in FLAGGED)).all()
    assert not spoilt.crops[~spoilt.valid].any()
    same = np.flatnonzero((spoilt.crops == lips.crops).all((1, 2)) & wrong)
    # A picture that stands, or a clip that runs late to its end, may show the first or the last at its own time.
    assert set(same) <= ({0, 74} if kind in ("frozen", "shifted", MIXED) else set())


@pytest.mark.parametrize("kind", ALL)
def test_the_seed_decides(kind: str) -> None:
    once, again, other = (spoil(kind, 0.4, seed=seed) for seed in (5, 5, 6))
    for one, two in zip((*once.lips, once.wrong), (*again.lips, again.wrong), strict=True):
        np.testing.assert_array_equal(one, two)
    # Frames lost from the start on are always the same.
    assert (once.wrong == other.wrong).all() == (kind == "lost")


@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([5.0, 25.0, 29.97, 60.0]), st.integers(0, 99))
def test_bursts_cover_what_they_should(total: int, share: float, rate: float, seed: int) -> None:
    count = max(1, round(share * total))
    found = bursts(count, total, rate, np.random.default_rng(seed))
    assert sum(map(len, found)) == count
    assert found[0].start >= 0
    assert found[-1].stop <= total
    gaps = [after.start - before.stop for before, after in itertools.pairwise(found)]
    assert all(gap >= (1 if total - count >= len(found) - 1 else 0) for gap in gaps)
    shortest, longest = (round(seconds * rate) for seconds in BURST_S)
    assert max(map(len, found)) <= longest
    assert min(map(len, found)) >= min(shortest, count)


def test_bursts_are_anywhere_and_of_any_length() -> None:
    drawn = [bursts(25, 75, 25, np.random.default_rng(seed)) for seed in range(400)]
    covered = np.zeros(75)
    for found in drawn:
        for burst in found:
            covered[burst.start : burst.stop] += 1
    assert covered.min() > 0
    # No part of the clip is spared: the ends are rarer, as in any placement of stretches.
    assert covered[10:65].min() > 0.5 * covered.mean()
    assert {len(burst) for found in drawn for burst in found} == {*range(5, 21), 25}  # 5 at least are left


@pytest.mark.parametrize("kind", ["frozen", "occluded", "swapped", "shifted", "blurred", "dropped"])
def test_a_third_comes_in_bursts_of_0_2_to_1_s(kind: str) -> None:
    for seed in range(20):
        lengths = [len(run) / 25 for run in runs(spoil(kind, 1 / 3, seed=seed).wrong)]
        assert all(BURST_S[0] <= length <= BURST_S[1] for length in lengths)


def test_lost_is_the_start() -> None:
    spoilt, wrong = spoil("lost", 0.4)
    assert runs(wrong) == [range(30)]
    assert not spoilt.valid[:30].any()
    assert spoilt.valid[30:].all()


def test_frozen_holds_the_picture_before() -> None:
    lips = clip()
    for seed in range(10):
        spoilt, wrong = spoil("frozen", 0.5, seed=seed, lips=lips)
        for run in runs(wrong):
            held = run.start - 1 if run.start else run.stop
            assert (spoilt.crops[run.start : run.stop] == lips.crops[held]).all()
    whole = spoil("frozen", 1.0, lips=lips).lips.crops
    assert (whole == lips.crops[0]).all()


def test_blurred_keeps_the_brightness_and_nothing_else() -> None:
    lips = clip(size=67)
    crops = spoil("blurred", 1.0, lips=lips).lips.crops.astype(float)
    assert crops.mean() == pytest.approx(lips.crops.mean(), abs=1)
    # White pixels lose all but 1 / (4 pi sigma^2) of their variance.
    assert crops.var(axis=(1, 2)).max() < 0.01 * lips.crops.var()


def test_occluded_is_one_block_over_the_middle_for_a_burst() -> None:
    lips = clip(size=20)
    corners = set()
    for seed in range(20):
        spoilt, wrong = spoil("occluded", 0.3, seed=seed, lips=lips)
        for run in runs(wrong):
            part = slice(run.start, run.stop)
            changed = spoilt.crops[part] != lips.crops[part]
            (rows, columns), block = (
                (np.flatnonzero(changed.any((0, 3 - axis))) for axis in (1, 2)),
                spoilt.crops[part],
            )
            area = block[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert area.shape[1:] == (12, 12)
            assert len(np.unique(area)) == 1
            assert max(rows[0], columns[0]) <= 9
            assert min(rows[-1], columns[-1]) >= 10
            corners.add((int(rows[0]), int(columns[0])))
    assert len(corners) > 10


def test_swapped_shows_the_donor_at_the_same_time_over_and_over() -> None:
    donor = clip(50, seed=99)
    spoilt, wrong = spoil("swapped", 1.0)
    assert wrong.all()
    np.testing.assert_array_equal(spoilt.crops[:50], donor.crops)
    np.testing.assert_array_equal(spoilt.crops[50:], donor.crops[:25])


def test_swapped_never_shows_a_donor_without_a_face() -> None:
    donor = clip(50, seed=99)
    donor.valid[10:20] = False
    spoilt = corrupt(clip(), Corruption("swapped"), generator=np.random.default_rng(0), donor=donor).lips
    faces = {donor.crops[n].tobytes() for n in np.flatnonzero(donor.valid)}
    assert {crop.tobytes() for crop in spoilt.crops} <= faces


def test_shifted_is_late_or_early() -> None:
    lips, frames = clip(), round(SHIFT_S * 25)
    ways = set()
    for seed in range(10):
        crops = spoil("shifted", 1.0, seed=seed, lips=lips).lips.crops
        late = bool((crops[frames:] == lips.crops[:-frames]).all())
        early = bool((crops[:-frames] == lips.crops[frames:]).all())
        assert late != early
        held = crops[:frames] == lips.crops[0] if late else crops[-frames:] == lips.crops[-1]
        assert held.all()
        ways.add(late)
    assert ways == {True, False}


def test_mixed_draws_a_kind_for_each_burst() -> None:
    """Each kind alone leaves a trace that no other one does."""
    lips, donor, seen = clip(size=20), clip(50, seed=99, size=20), set()
    own = {crop.tobytes() for crop in lips.crops}
    others = {crop.tobytes() for crop in donor.crops}
    for seed in range(30):
        generator = np.random.default_rng(seed)
        spoilt, wrong = corrupt(lips, Corruption(MIXED, 0.3), generator=generator, donor=donor)
        for run in runs(wrong):
            part = spoilt.crops[run.start : run.stop]
            if not spoilt.valid[run.start]:
                seen.add("dropped")
            elif part[0].tobytes() in others:
                seen.add("swapped")
            elif part[0].tobytes() in own:
                seen.add("frozen" if (part == part[0]).all() else "shifted")
            else:
                seen.add("occluded" if (part[0] == lips.crops[run.start]).any(1).all() else "blurred")
    assert seen == set(MIXTURE)


def test_frames_without_a_face_stay_so() -> None:
    lips = clip()
    lips.valid[20:60] = False
    lips.crops[20:60] = 0
    for kind in ALL:
        spoilt, wrong = spoil(kind, 0.8, lips=lips)
        assert wrong.sum() == 60
        assert not spoilt.valid[20:60].any()
        assert not spoilt.crops[20:60].any()
    nobody = MouthCrops(np.zeros_like(lips.crops), lips.times, np.zeros(75, bool))
    for kind in ALL:
        spoilt = spoil(kind, 0.5, lips=nobody).lips
        assert not spoilt.valid.any()
        assert not spoilt.crops.any()


def test_a_clip_of_one_frame() -> None:
    for kind in ALL:
        assert spoil(kind, 1.0, lips=clip(1)).wrong.tolist() == [True]
        assert spoil(kind, 0.4, lips=clip(1)).wrong.tolist() == [False]


def test_a_donor_is_asked_for() -> None:
    generator = np.random.default_rng(0)
    for kind in ("swapped", MIXED):
        with pytest.raises(ValueError, match="another clip's lips"):
            corrupt(clip(), Corruption(kind, 0.5), generator=generator)
        with pytest.raises(ValueError, match="expected crops alike"):
            corrupt(clip(), Corruption(kind, 0.5), generator=generator, donor=clip(size=8))
        assert not corrupt(clip(), Corruption(kind, 0.0), generator=generator).wrong.any()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("frozen", ("frozen", 1.0)), ("mixed:0.33", ("mixed", 0.33)), ("lost:0", ("lost", 0.0))],
)
def test_what_is_typed_is_understood(text: str, expected: tuple[str, float]) -> None:
    what = Corruption.parse(text)
    assert what == expected
    assert Corruption.parse(str(what)) == what


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("melted", "expected one of dropped, lost, frozen, blurred, occluded, swapped, shifted, mixed"),
        ("", "found ''"),
        ("frozen:", "expected a share from 0 to 1"),
        ("frozen:33", "found '33'"),
        ("frozen:-0.1", "found '-0.1'"),
        ("frozen:nan", "found 'nan'"),
        ("frozen:a:b", "found 'a:b'"),
    ],
)
def test_other_words_are_refused(text: str, fault: str) -> None:
    with pytest.raises(InputError, match=f"--corrupt {text}.*{fault}"):
        Corruption.parse(text)
