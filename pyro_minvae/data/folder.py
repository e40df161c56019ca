"""A plain folder of recordings, and the rule that makes one item out of the files of one stem."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

# os.path answers False for a name too long for the system, where pathlib raises.
from os.path import exists, isdir
from pathlib import Path
from typing import NamedTuple

from pyro_minvae.errors import InputError
from pyro_minvae.media.audio import is_audio, is_crops, is_hidden, is_video
from pyro_minvae.media.containers import has_pictures
from pyro_minvae.types import Utterance

SPLITS = ("train", "val", "test")
# LibriSpeech names its files <speaker>-<chapter>-<utterance>.
_LIBRISPEECH = re.compile(r"(\d+)-\d+-\d+")


class StemFiles(NamedTuple):
    """The files of one stem: where the sound is and where the lips are (video or crops), if anywhere."""

    stem: str
    audio: Path
    video: Path | None


def pair_by_stem(paths: Iterable[Path]) -> list[StemFiles]:
    """One item per folder and stem, sorted by these; files other than sound, video and crops are left out.

    So are hidden ones: `._a.wav`, which macOS puts beside `a.wav`, is none.

    Sound comes from the audio file, else from the video. Lips come from crop arrays, else from the video. So
    `a.wav` with `a.mkv` takes the sound from the first and the lips from the second, and a video alone gives
    both.
    Raises `InputError` for two files of one kind (`a.wav` and `a.flac`) and for crops without any sound.
    """
    groups = by_stem(paths)
    return [item_of(groups[key]) for key in sorted(groups)]


def by_stem(paths: Iterable[Path]) -> dict[tuple[Path, str], list[Path]]:
    """Sound, video and crops by folder and stem; without what a Mac keeps beside a file, `._a.wav` beside `a.wav`."""
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        if not is_hidden(path) and (is_audio(path) or is_video(path) or is_crops(path)):
            groups.setdefault((path.parent, path.stem), []).append(path)
    return groups


def item_of(paths: list[Path]) -> StemFiles:
    """The item of the files that share one stem; raises `InputError` as `pair_by_stem`."""
    paths = sorted(paths)
    audio = _single([path for path in paths if is_audio(path)], "sound")
    video = _single([path for path in paths if is_video(path)], "video")
    crops = _single([path for path in paths if is_crops(path)], "array of crops")
    sound = audio or video
    if sound is None:
        raise InputError(
            f"{paths[0]}: expected a sound or a video of the same name beside the crops, found none"
        )
    return StemFiles(sound.stem, sound, crops or video)


def _single(paths: list[Path], kind: str) -> Path | None:
    """The only path, or None; two of a kind would leave open which one is meant."""
    if len(paths) > 1:
        raise InputError(f"{paths[0]}: expected one {kind} of this name, found {paths[1].name} beside it")
    return paths[0] if paths else None


def files_under(root: Path) -> Iterator[Path]:
    """All files below `root` in sorted order, without hidden ones; linked folders are followed, each once.

    Raises `InputError` if `root` is no folder or a folder below it cannot be listed.
    """
    require_folder(root)
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: expected a readable folder, found {error.strerror}")

    for folder, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))


def require_folder(root: Path) -> None:
    """Raise `InputError` unless `root` is a folder."""
    if not isdir(root):
        raise InputError(f"{root}: expected a folder, found {'a file' if exists(root) else 'nothing'}")


def folder(root: Path, split: str = "train") -> Iterator[Utterance]:
    """Every recording below `root`, one utterance per stem (see `pair_by_stem`), sorted.

    Where `root` has sub-folders `train`, `val` or `test`, these name the split and files outside of them are
    left out; otherwise all belong to `split`. The id is the path below `root` without its suffix. The speaker
    is the first number of names like LibriSpeech's (`103-1240-0000`), else the name of the file's folder.
    """
    require_folder(root)
    parts = [(name, root / name) for name in SPLITS if (root / name).is_dir()] or [(split, root)]
    for name, part in parts:
        for item in pair_by_stem(files_under(part)):
            identity = (item.audio.parent / item.stem).relative_to(root).as_posix()
            yield Utterance(identity, _speaker(item.audio), item.audio, _pictures(item), name)


def _pictures(item: StemFiles) -> Path | None:
    """Where the lips are; a container that may hold sound alone is looked into."""
    alone = item.video is not None and item.video == item.audio
    return None if alone and not has_pictures(item.audio) else item.video


def _speaker(path: Path) -> str:
    """The speaker's name as far as the file's path tells it."""
    match = _LIBRISPEECH.fullmatch(path.stem)
    # A relative root such as "." has no name of its own.
    return match[1] if match else path.parent.name or path.parent.resolve().name
