"""The mouth is found, followed and cropped; who is followed does not change; arrays of crops are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Literal

import cv2
import numpy as np
import pytest
from faces import draw_face, face_pictures, write_video

from pyro_minvae.errors import InputError
from pyro_minvae.media.faces import Track, choose, find_tracks, follow, overlap
from pyro_minvae.media.mouths import cut, find_mouths, read_lips

GREY = np.full((240, 320), 150, np.uint8)
# Mouths of the drawn face: centre and side, in the picture of `face_pictures`.
DRAWN = (160, 0.46 * 240 + 0.32 * 0.46 * 240)


def two_faces(count: int) -> list[np.ndarray]:
    """A small face on the left and a large one on the right."""
    picture = np.full((240, 480), 150, np.uint8)
    draw_face(picture, centre=(110, 110), side=80)
    draw_face(picture, centre=(340, 110), side=120)
    return [cv2.GaussianBlur(picture, (0, 0), 1.2)] * count


def detector(boxes: Sequence[Sequence[Sequence[float]]]) -> Callable[[np.ndarray], np.ndarray]:
    """A detector that answers its n-th call with the n-th list of boxes."""
    answers = iter(boxes)
    return lambda picture: np.array(next(answers), float).reshape(-1, 3)


# --- drawn faces, the real detector ---


def test_mouth_of_a_drawn_face(tmp_path: Path) -> None:
    openings = 0.5 - 0.5 * np.cos(np.arange(50) / 3)
    path = write_video(tmp_path / "a.mkv", face_pictures(openings))
    mouths = find_mouths(path)
    assert mouths.valid.all()
    assert np.abs(mouths.boxes[:, :2] - DRAWN).max() < 6
    lips = read_lips(path)
    assert lips.crops.shape == (50, 67, 67)
    assert lips.crops.dtype == np.uint8
    np.testing.assert_allclose(lips.times, np.arange(50) / 25, atol=1e-9)
    # An open mouth is dark, so the crops show when it opens.
    darkness = -lips.crops[:, 20:47, 20:47].mean((1, 2))
    assert np.corrcoef(darkness, openings)[0, 1] > 0.95


def test_size_of_the_crops(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", face_pictures([0.5] * 5))
    small, large = read_lips(path, size=24).crops, read_lips(path, size=96).crops
    assert (small.shape, large.shape) == ((5, 24, 24), (5, 96, 96))
    assert small.mean() == pytest.approx(large.mean(), abs=3)


def test_frames_before_between_and_after_a_face_are_invalid(tmp_path: Path) -> None:
    seen = np.zeros(80, bool)
    seen[15:40] = seen[60:75] = True
    pairs = zip(face_pictures([0.0] * 80), seen, strict=True)
    pictures = [face if present else GREY for face, present in pairs]
    lips = read_lips(write_video(tmp_path / "a.mkv", pictures))
    # Detection looks at every fourth frame: a face may be noticed three frames late, but is never made up.
    assert not lips.valid[~seen].any()
    assert np.count_nonzero(seen & ~lips.valid) <= 3 * 4
    assert not lips.crops[~lips.valid].any()
    assert lips.crops[lips.valid].mean() > 100


def test_no_face_is_no_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", [GREY] * 10)
    for face in ("largest", 0):
        lips = read_lips(path, face=face)
        assert not lips.valid.any()
        assert not lips.crops.any()
        assert lips.crops.shape == (10, 67, 67)


def test_one_of_two_faces(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", two_faces(10))
    for face, centre, side in (("largest", 340, 120), (0, 110, 80), (1, 340, 120)):
        mouths = find_mouths(path, face=face)  # type: ignore[arg-type]
        assert mouths.valid.all()
        assert np.abs(mouths.boxes[:, 0] - centre).max() < 6
        assert mouths.boxes[:, 2].mean() == pytest.approx(0.44 * 1.08 * side, rel=0.1)
    with pytest.raises(InputError, match=r"a\.mkv: expected a face from 0 to 1 .* found face 2"):
        read_lips(path, face=2)


def test_a_single_frame(tmp_path: Path) -> None:
    lips = read_lips(write_video(tmp_path / "a.mkv", face_pictures([0.0])))
    assert lips.valid.tolist() == [True]
    assert lips.times.tolist() == [0.0]


def test_a_large_picture_is_searched_small(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", face_pictures([0.0] * 3, size=(720, 960)))
    mouths = find_mouths(path)
    assert mouths.valid.all()
    assert np.abs(mouths.boxes[:, :2] - 3 * np.array(DRAWN)).max() < 18
    # The mouth is still cut from the large picture.
    assert mouths.boxes[:, 2].mean() > 130


# --- following ---

LEFT, RIGHT = [100.0, 100.0, 60.0], [250.0, 100.0, 80.0]


def test_a_missed_face_is_not_replaced_by_another(tmp_path: Path) -> None:
    """The larger face is lost for a second: its frames are invalid, the smaller one is not taken instead."""
    path = write_video(tmp_path / "a.mkv", [GREY] * 75)
    answers = [[LEFT, RIGHT] if not 6 <= n < 12 else [LEFT] for n in range(20)]
    mouths = find_mouths(path, detect=detector(answers))
    assert np.abs(mouths.boxes[mouths.valid, 0] - 250).max() < 1e-6
    assert np.flatnonzero(~mouths.valid).tolist() == list(range(21, 48))


def test_one_missed_detection_is_bridged(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", [GREY] * 25)
    answers = [[] if n == 3 else [RIGHT] for n in range(7)]
    assert find_mouths(path, detect=detector(answers)).valid.all()


def test_faces_that_pass_keep_their_tracks() -> None:
    steps = [[[100 + 5 * n, 100, 60], [300 - 5 * n, 140 + n, 90]] for n in range(30)]
    tracks = find_tracks(np.array(boxes, float) for boxes in steps)
    assert len(tracks) == 2
    for track, side in zip(tracks, (60, 90), strict=True):
        assert {float(box[2]) for box in track.boxes} == {side}


def test_a_face_seen_once_is_a_mistake() -> None:
    tracks = find_tracks([np.array([RIGHT]), np.array([RIGHT, [40, 40, 200]]), np.array([RIGHT])])
    assert len(tracks) == 1
    assert tracks[0].steps == [0, 1, 2]


def test_brief_faces_are_not_counted_from_the_left() -> None:
    lasting = Track(list(range(20)), [np.array(RIGHT)] * 20)
    brief = Track([3, 4], [np.array(LEFT)] * 2)
    assert choose([lasting, brief], 0) is lasting
    assert choose([], "largest") is None
    with pytest.raises(InputError, match="from 0 to 0"):
        choose([lasting, brief], 1)


def test_boxes_move_smoothly_and_without_delay() -> None:
    times = np.arange(250) / 25
    detected = times[::4]
    generator = np.random.default_rng(0)
    exact = _path(detected)
    noisy = exact + generator.normal(0, 2, exact.shape)
    noisy[20, 2] = 140
    boxes, valid = follow(Track(list(range(len(detected))), list(noisy)), detected, times)
    assert valid[: 4 * (len(detected) - 1) + 1].all()
    error = np.abs(boxes - _path(times))[valid]
    assert error.mean() < 1.3
    assert error.max() < 6
    assert np.abs(np.diff(boxes[valid], axis=0)).max() < 2


def _path(times: np.ndarray) -> np.ndarray:
    """Boxes of a face that sways from side to side."""
    still = np.ones_like(times)
    return np.column_stack([200 + 30 * np.sin(times), 90 * still, 80 * still])


def test_overlap() -> None:
    box = np.array([10.0, 10.0, 4.0])
    assert overlap(box, box) == pytest.approx(1)
    assert overlap(box, np.array([12.0, 10.0, 4.0])) == pytest.approx(1 / 3)
    assert overlap(box, np.array([19.0, 10.0, 4.0])) == 0


def test_a_box_over_the_edge_repeats_the_last_pixels() -> None:
    picture = np.tile(np.arange(100, dtype=np.uint8), (100, 1))
    crop = cut(picture, np.array([0.0, 50.0, 40.0]), 40)
    np.testing.assert_array_equal(crop[:, 20:], picture[30:70, :20])
    assert not crop[:, :20].any()


# --- real faces ---


@pytest.mark.real_data
def test_grid_clip_and_its_original(data_root: Path) -> None:
    both = []
    for clip in ("s1/bbaf2n.mkv", "original/s1/bbaf2n.mpg"):
        start = process_time()
        lips = read_lips(data_root / "grid" / clip)
        # About half a second on one core; loose because the machine is shared.
        assert process_time() - start < 2
        assert lips.valid.all()
        assert lips.crops.shape == (75, 67, 67)
        np.testing.assert_allclose(lips.times, np.arange(75) / 25, atol=1e-3)
        # The line between the lips is the darkest below the nose: the mouth is in the middle.
        rows = lips.crops[:, 15:, 25:42].mean((0, 2))
        assert 27 <= 15 + int(rows.argmin()) <= 40
        both.append(lips.crops.astype(float))
    assert np.abs(both[0] - both[1]).mean() < 6


def test_kinds_of_face() -> None:
    kinds: list[Literal["largest"] | int] = ["largest", 0]
    tracks = [Track([0, 1], [np.array(LEFT)] * 2), Track([0, 1], [np.array(RIGHT)] * 2)]
    assert [choose(tracks, kind) for kind in kinds] == [tracks[1], tracks[0]]
