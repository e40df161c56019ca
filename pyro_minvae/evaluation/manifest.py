"""The list of a set of mixtures: one JSON object a line for each, paths relative to the list's folder.

A noisy set holds one speaker in noise (`Item`), a separation set several speakers (`SeparationItem`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pyro_minvae.errors import InputError
from pyro_minvae.media.files import atomic

NAME = "manifest.jsonl"


class NoisyItem(BaseModel):
    """One mixture = `scale` (clean + `gain` noise). Keys that are not listed here are ignored.

    `rate` is in Hz and `snr_db` in dB; `corrupt` tells how the lips in `video` were spoilt, if they were. In memory
    the paths are absolute or relative to the working directory.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    id: str
    speaker: str = ""
    noise: str
    snr_db: float
    seed: int = 0
    mixture: Path
    clean: Path
    video: Path | None = None
    corrupt: str = ""
    gain: float | None = None
    scale: float = Field(1.0, gt=0)
    rate: int | None = Field(None, gt=0)


class SpeakerItem(BaseModel):
    """One speaker of a mixture: the utterance `id`, who speaks it, and the lips if there is a video.

    `clean` is the utterance as it is in the mixture: at the same level, as long, and without the others.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    speaker: str = ""
    clean: Path
    video: Path | None = None


class SeparationItem(BaseModel):
    """One mixture = the sum of the speakers' `clean` files and of `background`, where there is noise.

    `level_db` is the power of the first speaker over that of each other one; `snr_db` that of all speech over the
    noise's (None without noise).
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    id: str
    speakers: tuple[SpeakerItem, ...] = Field(min_length=2)
    level_db: float
    noise: str | None = None
    snr_db: float | None = None
    background: Path | None = None
    seed: int = 0
    mixture: Path
    scale: float = Field(1.0, gt=0)
    rate: int | None = Field(None, gt=0)

    @property
    def voices(self) -> str:
        """Whether one person speaks against themselves, or different ones: "same" or "different"."""
        return "same" if len({speaker.speaker for speaker in self.speakers}) == 1 else "different"


Listed = TypeVar("Listed", NoisyItem, SeparationItem)

# The keys that hold paths, of an item and of its speakers.
PATHS = ("mixture", "clean", "video", "background")
KINDS = {
    NoisyItem: "a noisy set (one speaker in noise)",
    SeparationItem: "a separation set (several speakers; `pyro-minvae mix --speakers`)",
}


def write_manifest(path: Path, items: Iterable[NoisyItem] | Iterable[SeparationItem]) -> None:
    """Write `items`; paths inside the list's folder become relative to it, so that it can be moved."""
    folder = path.parent.resolve()

    def move(row: dict[str, Any]) -> dict[str, Any]:
        for key in PATHS:
            if row.get(key) is not None:
                row[key] = _relative(Path(row[key]), folder)
        return row

    with atomic(path) as temporary:
        lines = []
        for item in items:
            row = move(item.model_dump(mode="json"))
            for speaker in row.get("speakers", []):
                move(speaker)
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        Path(temporary).write_text("".join(lines), encoding="utf-8")


def read_manifest(source: Path) -> list[NoisyItem]:
    """The mixtures of a noisy set: its manifest, or the folder that holds one; their paths are resolved.

    Raises `InputError` naming the line for anything that is not such a list, a separation set among them.
    """
    return _read(source, NoisyItem)


def read_separation(source: Path) -> list[SeparationItem]:
    """The mixtures of a separation set, as `read_manifest` reads those of a noisy one."""
    return _read(source, SeparationItem)


def read_set(source: Path) -> list[NoisyItem] | list[SeparationItem]:
    """The mixtures of a set of either kind, which its first line tells; raises `InputError` as `read_manifest`."""
    lines = _lines(source)[1]
    several = next(('"speakers"' in line for line in lines if line.strip()), False)
    return _read(source, SeparationItem) if several else _read(source, NoisyItem)


def _read(source: Path, kind: type[Listed]) -> list[Listed]:
    """The items of a list of that kind."""
    path, lines = _lines(source)
    items = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            item = kind.model_validate_json(line)
        except ValidationError as error:
            other = NoisyItem if kind is SeparationItem else SeparationItem
            if _is(line, other):
                raise InputError(
                    f"{path}, line {number}: expected {KINDS[kind]}, found a line of {KINDS[other]}"
                ) from None
            raise InputError(f"{path}, line {number}: expected a mixture, found {_explain(error)}") from None
        items.append(item.model_copy(update=_resolved(item, path.parent)))
    if not items:
        raise InputError(f"{path}: expected at least one mixture, found none")
    return items


def _is(line: str, kind: type[NoisyItem] | type[SeparationItem]) -> bool:
    """Whether a line is an item of that kind."""
    try:
        kind.model_validate_json(line)
    except ValidationError:
        return False
    return True


def _lines(source: Path) -> tuple[Path, list[str]]:
    """The manifest's own path and its lines."""
    # The functions of os.path answer no to a name that is too long, where those of Path raise.
    path = source / NAME if os.path.isdir(source) else source
    if not os.path.isfile(path):
        raise InputError(
            f"{path}: expected the manifest of a set (`pyro-minvae mix` writes one), found no file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a readable manifest (JSON lines), found {error}") from error
    return path, text.split("\n")


def _resolved(item: NoisyItem | SeparationItem | SpeakerItem, folder: Path) -> dict[str, Any]:
    """The paths of an item as they start from the manifest's folder (an absolute path stays as it is)."""
    paths = {key: getattr(item, key) for key in PATHS if getattr(item, key, None) is not None}
    moved: dict[str, Any] = {key: folder / path for key, path in paths.items()}
    if isinstance(item, SeparationItem):
        moved["speakers"] = tuple(
            speaker.model_copy(update=_resolved(speaker, folder)) for speaker in item.speakers
        )
    return moved


def _relative(path: Path, folder: Path) -> str:
    """`path` from `folder` where it lies inside, else absolute."""
    full = path.resolve()
    return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else str(full)


def _explain(error: ValidationError) -> str:
    """The first fault in words."""
    fault = error.errors()[0]
    key = ".".join(str(step) for step in fault["loc"])
    return f"{key + ': ' if key else ''}{fault['msg'].splitlines()[0].lower()}"
