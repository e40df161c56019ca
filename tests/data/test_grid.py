"""GRID: clips of speakers and their split lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_minvae.data.grid import grid
from pyro_minvae.errors import InputError

Touch = Callable[..., Path]


@pytest.fixture
def one_speaker(tmp_path: Path, touch: Touch) -> Path:
    for name in ("s1/bbaf2n.mkv", "s1/bbaf3s.mpg", "s1/bbaf4p.mp4", "s1/bbaf4p.wav", "s1/bbaf5a.mkv"):
        touch(tmp_path / name)
    touch(tmp_path / "alignments" / "s1" / "bbaf2n.align")
    return tmp_path


def test_lists_name_the_split(one_speaker: Path, touch: Touch) -> None:
    touch(one_speaker / "train.txt", "bbaf4p\r\n\r\nbbaf2n\n")
    touch(one_speaker / "val.txt", "s1/bbaf3s")
    found = list(grid(one_speaker))
    assert [(item.id, item.speaker, item.split) for item in found] == [
        ("s1/bbaf2n", "s1", "train"),
        ("s1/bbaf3s", "s1", "val"),
        ("s1/bbaf4p", "s1", "train"),
    ]
    first, _, third = found
    assert first.audio == first.video == one_speaker / "s1" / "bbaf2n.mkv"
    assert (third.audio.name, third.video and third.video.name) == ("bbaf4p.wav", "bbaf4p.mp4")


def test_without_lists_all_is_for_training(one_speaker: Path) -> None:
    found = list(grid(one_speaker))
    assert len(found) == 4
    assert {item.split for item in found} == {"train"}


def test_several_speakers(one_speaker: Path, touch: Touch) -> None:
    touch(one_speaker / "s2" / "bbaf2n.mkv")
    touch(one_speaker / "s2" / "only.mkv")
    touch(one_speaker / "train.txt", "s1/bbaf2n\nonly\n")
    touch(one_speaker / "test.txt", "s2/bbaf2n\n")
    assert [(item.id, item.speaker, item.split) for item in grid(one_speaker)] == [
        ("s1/bbaf2n", "s1", "train"),
        ("s2/bbaf2n", "s2", "test"),
        ("s2/only", "s2", "train"),
    ]


@pytest.mark.parametrize(
    ("train", "val", "found"),
    [
        ("bbaf2n", "bbaf2n", r"val.txt: expected disjoint lists, found bbaf2n in train.txt too"),
        ("bbaf2n", "gone", r"val.txt: expected a clip for every line, found none named gone"),
        (
            "bbaf3s\ntwice",
            "bbaf2n",
            r"train.txt: expected <speaker>/twice, found twice for s1/twice and s2/tw",
        ),
    ],
)
def test_faulty_lists(one_speaker: Path, touch: Touch, train: str, val: str, found: str) -> None:
    for name in ("s1/twice.mkv", "s2/twice.mkv"):
        touch(one_speaker / name)
    touch(one_speaker / "train.txt", train)
    touch(one_speaker / "val.txt", val)
    with pytest.raises(InputError, match=found):
        list(grid(one_speaker))


def test_unreadable_list(one_speaker: Path) -> None:
    (one_speaker / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"train.txt: expected a list of clips, found"):
        list(grid(one_speaker))
