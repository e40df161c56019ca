"""Pairs of sound and video in a plain folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_minvae.data.folder import StemFiles, folder, pair_by_stem
from pyro_minvae.errors import InputError

Touch = Callable[..., Path]


def names(item: StemFiles) -> tuple[str, str, str | None]:
    return item.stem, item.audio.name, item.video and item.video.name


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.wav"], ("a", "a.wav", None)),
        (["a.mkv"], ("a", "a.mkv", "a.mkv")),
        (["a.mkv", "a.wav"], ("a", "a.wav", "a.mkv")),
        (["a.flac", "a.npz"], ("a", "a.flac", "a.npz")),
        (["a.flac", "a.mat"], ("a", "a.flac", "a.mat")),
        (["a.mp4", "a.npy"], ("a", "a.mp4", "a.npy")),
        (["a.WAV", "a.MPG", "a.npz", "a.txt"], ("a", "a.WAV", "a.npz")),
        (["take.1.wav", "take.1.mkv"], ("take.1", "take.1.wav", "take.1.mkv")),
    ],
)
def test_one_item_per_stem(files: list[str], expected: tuple[str, str, str | None]) -> None:
    assert [names(item) for item in pair_by_stem(Path(file) for file in files)] == [expected]


def test_pairs_are_sorted_and_stay_in_their_folder() -> None:
    paths = [Path(name) for name in ("y/a.wav", "x/b.wav", "x/a.mkv", "notes.txt")]
    assert pair_by_stem(paths) == pair_by_stem(reversed(paths))
    assert [item.audio for item in pair_by_stem(paths)] == [Path("x/a.mkv"), Path("x/b.wav"), Path("y/a.wav")]
    assert pair_by_stem([]) == []


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["a.wav", "a.flac"], "expected one sound of this name, found a.wav beside it"),
        (["a.mkv", "a.mp4", "a.wav"], "expected one video of this name, found a.mp4 beside it"),
        (["a.npy", "a.mat", "a.wav"], "expected one array of crops of this name, found a.npy beside it"),
        (["a.npz"], "expected a sound or a video of the same name beside the crops, found none"),
    ],
)
def test_unclear_pairs_are_refused(files: list[str], found: str) -> None:
    with pytest.raises(InputError, match=found):
        pair_by_stem(Path(file) for file in files)


def test_split_folders(tmp_path: Path, touch: Touch) -> None:
    for name in ("train/103-1240-0000.flac", "train/anna/b.wav", "val/1034-121119-0000.flac", "loose.wav"):
        touch(tmp_path / name)
    found = list(folder(tmp_path))
    assert [(item.id, item.speaker, item.split) for item in found] == [
        ("train/103-1240-0000", "103", "train"),
        ("train/anna/b", "anna", "train"),
        ("val/1034-121119-0000", "1034", "val"),
    ]
    assert all(item.video is None for item in found)


def test_without_split_folders(tmp_path: Path, touch: Touch) -> None:
    for name in ("b.mkv", "a/x.wav", "a/.hidden.wav", ".secret/c.wav", "a/readme.txt"):
        touch(tmp_path / name)
    found = list(folder(tmp_path, split="test"))
    assert [(item.id, item.speaker, item.split) for item in found] == [
        ("b", tmp_path.name, "test"),
        ("a/x", "a", "test"),
    ]
    assert found[0].audio == found[0].video == tmp_path / "b.mkv"


def test_speaker_of_the_working_folder(tmp_path: Path, touch: Touch, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)
    assert [item.speaker for item in folder(Path())] == [tmp_path.name]


def test_linked_folders_are_followed_once(tmp_path: Path, touch: Touch) -> None:
    touch(tmp_path / "store" / "anna" / "a.wav")
    root = tmp_path / "root"
    root.mkdir()
    (root / "train").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "anna" / "loop").symlink_to(tmp_path / "store")
    assert [item.id for item in folder(root)] == ["train/anna/a"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing: expected a folder, found nothing"):
        list(folder(tmp_path / "missing"))
