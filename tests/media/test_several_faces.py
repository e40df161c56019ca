"""Several faces in one video: each is followed, from left to right, and read as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from faces import face_pictures, write_video

from pyro_minvae.errors import InputError
from pyro_minvae.media.crop_files import save_lips
from pyro_minvae.media.faces import Faces, Track, choose_several, find_tracks, joined
from pyro_minvae.media.mouths import read_faces, read_lips
from pyro_minvae.media.video import read_frames
from pyro_minvae.types import MouthCrops

LEFT, MIDDLE, RIGHT = [60.0, 100.0, 60.0], [180.0, 90.0, 70.0], [300.0, 100.0, 80.0]
GREY = np.full((120, 160), 150, np.uint8)


def tracks(*boxes: Sequence[float], steps: int = 10) -> list[Track]:
    return [Track(list(range(steps)), [np.array(box)] * steps) for box in boxes]


def detector(answers: Sequence[Sequence[Sequence[float]]]) -> Callable[[np.ndarray], np.ndarray]:
    """A detector that answers its n-th call with the n-th list of boxes."""
    left = iter(answers)
    return lambda picture: np.array(next(left), float).reshape(-1, 3)


def likeness(one: MouthCrops, other: MouthCrops) -> float:
    """Mean correlation of the crops of two tracks, frame by frame."""
    pairs = zip(one.crops[one.valid & other.valid], other.crops[one.valid & other.valid], strict=True)
    return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))


def side_by_side(path: Path, *videos: Path) -> Path:
    """One video with the pictures of several next to each other."""
    streams = [[picture for _, picture in read_frames(video)] for video in videos]
    pictures = [np.hstack(rows) for rows in zip(*streams, strict=True)]
    return write_video(path, pictures)


@pytest.mark.parametrize(
    ("faces", "expected"),
    [
        ("all", [LEFT, MIDDLE, RIGHT]),
        (["left", "right"], [LEFT, RIGHT]),
        (["right", "left"], [RIGHT, LEFT]),
        ([1], [MIDDLE]),
        ([2, "left", 1], [RIGHT, LEFT, MIDDLE]),
    ],
    ids=str,
)
def test_faces_come_from_the_left_or_as_asked_for(faces: Faces, expected: list[list[float]]) -> None:
    found = choose_several(tracks(MIDDLE, RIGHT, LEFT), faces)
    assert [track.boxes[0].tolist() for track in found] == expected


@pytest.mark.parametrize(
    ("boxes", "faces", "message"),
    [
        ([], "all", "at least 1 face, found 0"),
        ([LEFT], ["left", "right"], "at least 2 faces, found 1"),
        ([LEFT, RIGHT], [2], "at least 3 faces, found 2"),
        ([LEFT, RIGHT], ["left", 0], "different faces, found face 0 twice"),
        ([LEFT, RIGHT], ["right", 1], "different faces, found face 1 twice"),
    ],
    ids=str,
)
def test_too_few_faces_are_refused(boxes: list[list[float]], faces: Faces, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_several(tracks(*boxes), faces)


def test_brief_faces_do_not_speak() -> None:
    brief = Track([3], [np.array(MIDDLE)])
    assert len(choose_several([*tracks(LEFT, RIGHT), brief], "all")) == 2


def test_a_face_that_is_lost_and_moves_stays_one() -> None:
    """It comes back a head further on: no overlap, but nobody else can be it."""
    moved = [LEFT[0] + 70, LEFT[1] + 10, LEFT[2]]
    answers = [[LEFT, RIGHT]] * 8 + [[RIGHT]] * 5 + [[moved, RIGHT]] * 8
    found = find_tracks(np.array(boxes, float) for boxes in answers)
    assert len(found) == 3
    first, second = choose_several(found, "all")
    assert first.steps == [*range(8), *range(13, 21)]
    assert first.boxes[-1].tolist() == moved
    assert second.steps == list(range(21))
    # The tracks themselves are left as they were.
    assert sorted(len(track.steps) for track in found) == [8, 8, 21]


def test_a_face_elsewhere_or_of_another_size_is_another() -> None:
    for later in (RIGHT, [LEFT[0], LEFT[1], 2 * LEFT[2]]):
        one = Track([0, 1, 2], [np.array(LEFT)] * 3)
        other = Track([5, 6, 7], [np.array(later)] * 3)
        assert len(joined([one, other])) == 2
    # Two that are seen at once are never one.
    assert len(joined(tracks(LEFT, LEFT))) == 2


def test_the_nearest_goes_on() -> None:
    near, far = [LEFT[0] + 30, *LEFT[1:]], [LEFT[0] + 80, *LEFT[1:]]
    ends = Track([0, 1], [np.array(LEFT)] * 2)
    begins = [Track([4, 5], [np.array(box)] * 2) for box in (far, near)]
    whole = joined([ends, *begins])
    assert sorted(len(track.steps) for track in whole) == [2, 4]
    assert next(t for t in whole if len(t.steps) == 4).boxes[-1].tolist() == near


def test_a_lost_face_is_invalid_only_while_it_is_lost(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", [GREY] * 75)
    left, right = [40.0, 60.0, 40.0], [110.0, 60.0, 40.0]
    answers = [[left, right] if not 6 <= n < 12 else [left] for n in range(20)]
    first, second = read_faces(path, detect=detector(answers))
    assert first.valid.all()
    assert np.flatnonzero(~second.valid).tolist() == list(range(21, 48))
    assert not second.crops[~second.valid].any()


def test_two_drawn_faces_give_the_lips_of_the_separate_videos(tmp_path: Path) -> None:
    steps = np.arange(50)
    openings = [0.5 - 0.5 * np.cos(steps / 3), 0.5 - 0.5 * np.cos(steps / 2 + 1)]
    videos = [
        write_video(tmp_path / f"{n}.mkv", face_pictures(opening)) for n, opening in enumerate(openings)
    ]
    both = side_by_side(tmp_path / "both.mkv", *videos)
    alone = [read_lips(video) for video in videos]
    found = read_faces(both, ["left", "right"])
    for one, other, opening in zip(found, alone, openings, strict=True):
        assert one.valid.all()
        np.testing.assert_allclose(one.times, other.times, atol=1e-6)
        assert likeness(one, other) > 0.97
        darkness = -one.crops[:, 20:47, 20:47].mean((1, 2))
        assert np.corrcoef(darkness, opening)[0, 1] > 0.95
    for one, other in zip(read_faces(both, [1, 0]), found[::-1], strict=True):
        np.testing.assert_array_equal(one.crops, other.crops)
    with pytest.raises(InputError, match=r"both\.mkv: expected at least 3 faces, found 2"):
        read_faces(both, [0, 1, 2])
    with pytest.raises(InputError, match=r"0\.mkv: expected at least 2 faces, found 1"):
        read_faces(videos[0], ["left", "right"])


def test_crops_hold_one_face(tmp_path: Path) -> None:
    save_lips(
        tmp_path / "a.npz", MouthCrops(np.zeros((3, 8, 8), np.uint8), np.arange(3) / 25, np.ones(3, bool))
    )
    with pytest.raises(InputError, match=r"a\.npz: expected a video with several faces, found lip crops"):
        read_faces(tmp_path / "a.npz")


@pytest.mark.real_data
def test_two_grid_clips_side_by_side_give_the_lips_of_each(data_root: Path, tmp_path: Path) -> None:
    videos = [data_root / "grid" / "s1" / f"{clip}.mkv" for clip in ("bbaf2n", "bbaf3s")]
    found = read_faces(side_by_side(tmp_path / "both.mkv", *videos))
    assert len(found) == 2
    alone = [read_lips(video) for video in videos]
    for one, other, wrong in zip(found, alone, alone[::-1], strict=True):
        assert (one.valid & other.valid).mean() > 0.95
        assert likeness(one, other) > 0.9
        assert likeness(one, other) > likeness(one, wrong) + 0.05
