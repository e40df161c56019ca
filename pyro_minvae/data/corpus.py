"""From a folder to its utterances: which of the known layouts it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

# os.path answers False for a name too long for the system, where pathlib raises.
from os.path import exists, isdir
from pathlib import Path

from pyro_minvae.data.folder import files_under, folder
from pyro_minvae.data.grid import grid, is_grid
from pyro_minvae.data.ntcd_timit import is_ntcd_timit, ntcd_timit
from pyro_minvae.errors import InputError
from pyro_minvae.media.files import existing_file
from pyro_minvae.types import Utterance

ADAPTERS: dict[str, Callable[[Path], Iterator[Utterance]]] = {
    "grid": grid,
    "folder": folder,
    "ntcd": ntcd_timit,
}


def open_corpus(path: str | Path) -> list[Utterance]:
    """The utterances of a corpus, sorted: GRID, NTCD-TIMIT or a plain folder.

    `Clean/volunteers` marks NTCD-TIMIT; split lists beside folders of clips mark GRID; anything else is a
    plain folder. "grid:PATH", "ntcd:PATH" or "folder:PATH" settles it.
    Raises `InputError` if there is no such folder or nothing in it.
    """
    kind, root = _parse(path)
    if not isdir(root):
        raise InputError(
            f"{root}: expected a folder of recordings, found {'a file' if exists(root) else 'nothing'}"
        )
    utterances = list(ADAPTERS[kind or _recognise(root)](root))
    if not utterances:
        count = sum(1 for _ in files_under(root))
        raise InputError(
            f"{root}: expected recordings, found "
            + (f"none among {count} files" if count else "an empty folder")
        )
    return utterances


def listed(utterances: Sequence[Utterance], ids: Path, *, source: str | Path) -> list[Utterance]:
    """The utterances that the file `ids` names, one id a line, with or without its folder.

    Raises `InputError` (about the corpus `source`) for a name that is none of theirs, and for a file that is no list.
    """
    try:
        lines = existing_file(ids, "a list of ids").read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{ids}: expected a list of ids, found {error}") from error
    names = {line.strip() for line in lines} - {""}
    known = {utterance.id: {utterance.id, utterance.id.rpartition("/")[2]} for utterance in utterances}
    unknown = sorted(names.difference(*known.values()))
    if unknown:
        raise InputError(f"{ids}: expected ids of {source}, found {unknown[0]}")
    return [utterance for utterance in utterances if names & known[utterance.id]]


def _parse(path: str | Path) -> tuple[str | None, Path]:
    """The prefix if it names an adapter, and the folder."""
    kind, colon, rest = str(path).partition(":")
    if colon and kind in ADAPTERS:
        return kind, Path(rest).expanduser()
    return None, Path(path).expanduser()


def _recognise(root: Path) -> str:
    """The name of the adapter for `root`."""
    if is_ntcd_timit(root):
        return "ntcd"
    return "grid" if is_grid(root) else "folder"
