"""Which layout a folder has, and the real corpora."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_minvae.config.schema import CropConfig, Stft
from pyro_minvae.data.cache import prepare
from pyro_minvae.data.corpus import open_corpus
from pyro_minvae.errors import InputError

Touch = Callable[..., Path]


def test_the_layout_is_recognised(tmp_path: Path, touch: Touch) -> None:
    touch(tmp_path / "g" / "s1" / "a.mkv")
    touch(tmp_path / "g" / "s1" / "b.mkv")
    touch(tmp_path / "g" / "val.txt", "a")
    touch(tmp_path / "n" / "x" / "Clean" / "volunteers" / "01M" / "straightcam" / "a.wav")
    touch(tmp_path / "n" / "x" / "matlab_raw" / "test" / "01M" / "a.mat")
    touch(tmp_path / "f" / "train" / "a.mkv")
    touch(tmp_path / "f" / "train.txt", "the first list")
    assert [(item.id, item.split) for item in open_corpus(tmp_path / "g")] == [("s1/a", "val")]
    assert [(item.id, item.split) for item in open_corpus(str(tmp_path / "n"))] == [("01M/a", "test")]
    assert [(item.id, item.split) for item in open_corpus(tmp_path / "f")] == [("train/a", "train")]


def test_a_prefix_settles_it(tmp_path: Path, touch: Touch) -> None:
    touch(tmp_path / "s1" / "a.mkv")
    touch(tmp_path / "s1" / "b.mkv")
    touch(tmp_path / "val.txt", "a")
    assert [item.split for item in open_corpus(f"folder:{tmp_path}")] == ["train", "train"]
    assert [item.split for item in open_corpus(f"grid:{tmp_path}")] == ["val"]
    with pytest.raises(InputError, match="expected sounds in Clean/volunteers"):
        open_corpus(f"ntcd:{tmp_path}")


def test_nothing_to_open(tmp_path: Path, touch: Touch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="empty: expected recordings, found an empty folder"):
        open_corpus(empty)
    touch(empty / "notes.txt")
    with pytest.raises(InputError, match="empty: expected recordings, found none among 1 files"):
        open_corpus(empty)
    with pytest.raises(InputError, match=r"notes.txt: expected a folder of recordings, found a file"):
        open_corpus(empty / "notes.txt")
    with pytest.raises(InputError, match=r"gone: expected a folder of recordings, found nothing"):
        open_corpus(f"grid:{tmp_path / 'gone'}")


@pytest.mark.real_data
def test_real_grid(data_root: Path, tmp_path: Path) -> None:
    found = open_corpus(data_root / "grid")
    assert Counter(item.split for item in found) == {"train": 800, "val": 100}
    assert len({item.id for item in found}) == len({item.audio for item in found}) == 900
    assert {item.speaker for item in found} == {"s1"}
    first, faults = prepare(found[:3], stft=Stft(), crops=CropConfig(), cache=tmp_path)
    assert (len(first), faults) == (3, [])
    for item in first:
        assert 2.9 < len(item.waveform) / 16000 < 3.1
        assert abs(item.waveform).max() > 0.01
        assert item.lips is not None
        assert item.lips.valid.mean() > 0.9
        assert len(item.lips.crops) in (74, 75)


@pytest.mark.real_data
def test_real_librispeech(data_root: Path) -> None:
    found = open_corpus(data_root / "librispeech")
    assert Counter(item.split for item in found) == {"train": 220, "val": 31}
    assert len({item.speaker for item in found}) == len(found)
