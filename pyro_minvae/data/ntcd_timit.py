"""NTCD-TIMIT: clean and noisy sounds of read sentences, and mouth crops as MATLAB arrays.

Layout, under any folders in between:

    Clean/volunteers/<speaker>/straightcam/<utterance>.wav
    Noisy*/.../<noise>/<snr>/volunteers/<speaker>/straightcam/<utterance>.wav
    matlab_raw/<train|dev|test>/<speaker>/<utterance>.mat

Source: Abdelaziz, "NTCD-TIMIT: A New Database and Baseline for Noise-robust Audio-visual Speech Recognition",
Interspeech 2017.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pyro_minvae.data.folder import files_under, require_folder
from pyro_minvae.errors import InputError
from pyro_minvae.types import Utterance

_SPLITS = {"train": "train", "dev": "val", "val": "val", "test": "test"}
_DEPTH = 3  # how far below the root the three parts are looked for
_LEVEL = re.compile(r"(?i)(?:snr)?[ _=]*(-?\d+(?:\.\d+)?)[ _]*(?:db)?")


class Noisy(NamedTuple):
    """A mixture of the corpus: clean `utterance`, `mixture` file, kind of `noise` and `snr_db` (dB)."""

    utterance: Utterance
    mixture: Path
    noise: str
    snr_db: float


def ntcd_timit(root: Path) -> Iterator[Utterance]:
    """The clean utterances with their lips, sorted; ids are `<speaker>/<utterance>`.

    The split is that of the speaker's folder of crops. A sound without crops, or crops without a sound, is
    yielded with the path where the other should be: `data.cache.prepare` names it and stops, or skips it if
    told to.
    Raises `InputError` if a whole part is missing, or a speaker is in no split or in two.
    """
    require_folder(root)
    clean, raw = _part(root, _is_clean), _part(root, _is_raw)
    if clean is None:
        raise InputError(
            f"{root}: expected sounds in Clean/volunteers/<speaker>/straightcam, found no such folder"
        )
    if raw is None:
        raise InputError(
            f"{root}: expected crops in matlab_raw/<split>/<speaker>, found no folder matlab_raw"
        )
    sounds = {_name(path): path for path in files_under(clean) if _is_sound(path)}
    homes, crops = _crops(raw)
    for speaker, utterance in sorted(sounds.keys() | crops.keys()):
        if speaker not in homes:
            path = sounds[speaker, utterance]
            raise InputError(f"{path}: expected crops of speaker {speaker} in a split of {raw}, found none")
        split, home = homes[speaker]
        audio = clean / "volunteers" / speaker / "straightcam" / f"{utterance}.wav"
        yield Utterance(
            f"{speaker}/{utterance}",
            speaker,
            sounds.get((speaker, utterance), audio),
            crops.get((speaker, utterance), home / f"{utterance}.mat"),
            split,
        )


def noisy(root: Path) -> Iterator[Noisy]:
    """The mixtures that come with the corpus, sorted by path, each with its clean utterance.

    Raises `InputError` if there are none, if a mixture has no clean utterance, or if its path names no SNR.
    """
    clean = {utterance.id: utterance for utterance in ntcd_timit(root)}
    part = _part(root, lambda path: path.name.lower().startswith("noisy"))
    if part is None:
        raise InputError(f"{root}: expected mixtures in Noisy/<noise>/<snr>/volunteers, found no such folder")
    # Several such folders (one a noise, say) lie side by side.
    parts = sorted(
        path for path in part.parent.iterdir() if path.is_dir() and path.name.lower().startswith("noisy")
    )
    for path in (path for part in parts for path in files_under(part)):
        if not _is_sound(path):
            continue
        # .../<noise>/<snr>/volunteers/<speaker>/straightcam/<utterance>.wav
        noise, level = path.parts[-6:-4]
        match = _LEVEL.fullmatch(level)
        if match is None:
            raise InputError(f"{path}: expected .../<noise>/<snr>/volunteers/..., found no SNR in {level}")
        utterance = clean.get("/".join(_name(path)))
        if utterance is None:
            raise InputError(f"{path}: expected a clean recording of this sentence, found none")
        yield Noisy(utterance, path, noise, float(match[1]))


def is_ntcd_timit(root: Path) -> bool:
    """Whether `Clean/volunteers` lies in or not far below `root`."""
    return _part(root, _is_clean) is not None


def _is_clean(path: Path) -> bool:
    return path.name.lower() == "clean" and (path / "volunteers").is_dir()


def _is_raw(path: Path) -> bool:
    return path.name.lower() == "matlab_raw"


def _is_sound(path: Path) -> bool:
    """Whether the path ends in volunteers/<speaker>/straightcam/<utterance>.wav."""
    return (
        path.suffix.lower() == ".wav"
        and path.parent.name == "straightcam"
        and len(path.parts) > 6
        and path.parts[-4] == "volunteers"
    )


def _name(path: Path) -> tuple[str, str]:
    """(speaker, utterance) of a sound."""
    return path.parent.parent.name, path.stem


def _part(root: Path, wanted: Callable[[Path], bool]) -> Path | None:
    """The first folder that is `wanted`, nearest to `root`: the whole tree is too large to search."""
    level = [root]
    for _ in range(_DEPTH + 1):
        for path in level:
            if wanted(path):
                return path
        level = [path for parent in level for path in _folders(parent)]
    return None


def _folders(parent: Path) -> list[Path]:
    """The folders in `parent`, sorted, without hidden ones."""
    try:
        with os.scandir(parent) as entries:
            return sorted(
                Path(item.path) for item in entries if item.is_dir() and not item.name.startswith(".")
            )
    except OSError as error:
        raise InputError(f"{parent}: expected a readable folder, found {error.strerror}") from error


def _crops(raw: Path) -> tuple[dict[str, tuple[str, Path]], dict[tuple[str, str], Path]]:
    """Each speaker's split and folder, and all crops by (speaker, utterance)."""
    homes: dict[str, tuple[str, Path]] = {}
    crops: dict[tuple[str, str], Path] = {}
    for part in _folders(raw):
        split = _SPLITS.get(part.name.lower())
        if split is None:
            raise InputError(f"{part}: expected a split (train, dev or test), found {part.name}")
        for home in _folders(part):
            if home.name in homes:
                other = homes[home.name][1]
                raise InputError(
                    f"{home}: expected each speaker in one split, found it in {other.parent.name} too"
                )
            homes[home.name] = split, home
            crops.update(
                {(home.name, path.stem): path for path in files_under(home) if path.suffix.lower() == ".mat"}
            )
    return homes, crops
