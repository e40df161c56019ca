"""The list of a noisy set: one JSON object a line for each mixture, paths relative to the list's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pyro_minvae.errors import InputError
from pyro_minvae.media.files import atomic

NAME = "manifest.jsonl"


class Item(BaseModel):
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


def write_manifest(path: Path, items: Iterable[Item]) -> None:
    """Write `items`; paths inside the list's folder become relative to it, so that it can be moved."""
    folder = path.parent.resolve()
    with atomic(path) as temporary:
        lines = []
        for item in items:
            row = item.model_dump(mode="json")
            for key in ("mixture", "clean", "video"):
                if row[key] is not None:
                    row[key] = _relative(Path(row[key]), folder)
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        Path(temporary).write_text("".join(lines), encoding="utf-8")


def read_manifest(source: Path) -> list[Item]:
    """The mixtures of a manifest, or of the folder that holds one; their paths are resolved.

    Raises `InputError` naming the line for anything that is not such a list.
    """
    # The functions of os.path answer no to a name that is too long, where those of Path raise.
    path = source / NAME if os.path.isdir(source) else source
    if not os.path.isfile(path):
        raise InputError(
            f"{path}: expected the manifest of a noisy set (`pyro-minvae mix` writes one), found no file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a readable manifest (JSON lines), found {error}") from error
    items = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            item = Item.model_validate_json(line)
        except ValidationError as error:
            raise InputError(f"{path}, line {number}: expected a mixture, found {_explain(error)}") from None
        items.append(_resolved(item, path.parent))
    if not items:
        raise InputError(f"{path}: expected at least one mixture, found none")
    return items


def _resolved(item: Item, folder: Path) -> Item:
    """A copy whose paths start from the manifest's folder (an absolute path stays as it is)."""
    return item.model_copy(
        update={
            "mixture": folder / item.mixture,
            "clean": folder / item.clean,
            "video": None if item.video is None else folder / item.video,
        }
    )


def _relative(path: Path, folder: Path) -> str:
    """`path` from `folder` where it lies inside, else absolute."""
    full = path.resolve()
    return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else str(full)


def _explain(error: ValidationError) -> str:
    """The first fault in words."""
    fault = error.errors()[0]
    key = ".".join(str(step) for step in fault["loc"])
    return f"{key + ': ' if key else ''}{fault['msg'].splitlines()[0].lower()}"
