"""The GRID corpus: a folder of clips per speaker, with split lists beside them.

Source: Cooke, Barker, Cunningham, Shao, "An audio-visual corpus for speech perception and automatic speech
recognition", JASA 120(5), 2006.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pyro_minvae.data.folder import SPLITS, StemFiles, pair_by_stem, require_folder
from pyro_minvae.errors import InputError
from pyro_minvae.media.audio import is_video
from pyro_minvae.types import Utterance


def grid(root: Path) -> Iterator[Utterance]:
    """The clips `<speaker>/<clip>.mkv|mpg|mp4` of `root`, sorted; ids are `<speaker>/<clip>`.

    Sound is the clip's own unless `<clip>.wav` (or another audio file) lies beside it. `train.txt`, `val.txt`
    and `test.txt` list one id a line, as `s1/bbaf2n` or, where only one speaker has that clip, `bbaf2n`;
    clips in no list are left out. Without any list all clips are "train". Raises `InputError` for a listed
    clip that is missing, ambiguous, or in two lists.
    """
    require_folder(root)
    items = _clips(root)
    splits = _splits(root, items)
    for identity in sorted(items):
        if splits is None or identity in splits:
            item = items[identity]
            split = "train" if splits is None else splits[identity]
            yield Utterance(identity, identity.partition("/")[0], item.audio, item.video, split)


def is_grid(root: Path) -> bool:
    """Whether `root` has a split list and a folder of clips that is not itself named after a split."""
    return any((root / f"{split}.txt").is_file() for split in SPLITS) and any(
        folder.name not in SPLITS and any(is_video(path) for path in folder.iterdir())
        for folder in _speaker_folders(root)
    )


def _speaker_folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _clips(root: Path) -> dict[str, StemFiles]:
    """All items by `<speaker>/<clip>`."""
    return {
        f"{folder.name}/{item.stem}": item
        for folder in _speaker_folders(root)
        for item in pair_by_stem(path for path in folder.iterdir() if not path.name.startswith("."))
    }


def _splits(root: Path, items: dict[str, StemFiles]) -> dict[str, str] | None:
    """The split of every listed clip, or None if there are no lists."""
    lists = [(split, root / f"{split}.txt") for split in SPLITS if (root / f"{split}.txt").is_file()]
    if not lists:
        return None
    by_clip: dict[str, list[str]] = {}
    for identity in items:
        by_clip.setdefault(identity.partition("/")[2], []).append(identity)
    splits: dict[str, str] = {}
    for split, path in lists:
        for line in _lines(path):
            identity = _identity(line, path, items, by_clip)
            if splits.setdefault(identity, split) != split:
                raise InputError(
                    f"{path}: expected disjoint lists, found {line} in {splits[identity]}.txt too"
                )
    return splits


def _lines(path: Path) -> list[str]:
    """The list's entries, without blank lines."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a list of clips, found {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _identity(line: str, path: Path, items: dict[str, StemFiles], by_clip: dict[str, list[str]]) -> str:
    """The id that a line of the list at `path` means."""
    if line in items:
        return line
    found = by_clip.get(line, [])
    if len(found) > 1:
        raise InputError(f"{path}: expected <speaker>/{line}, found {line} for {found[0]} and {found[1]}")
    if not found:
        raise InputError(f"{path}: expected a clip for every line, found none named {line}")
    return found[0]
