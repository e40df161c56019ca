"""SHA-256 of file contents, with a memo so that files that did not change are not read again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyro_minvae.errors import InputError
from pyro_minvae.media.files import atomic

# A file written this recently (ns) may change again without its clock showing it: it is not remembered.
_SETTLED = 2_000_000_000

# Per absolute path: size, mtime and ctime in ns (a copied-back mtime still moves ctime), digest.
Memo = dict[str, tuple[int, int, int, str]]


def content_digests(paths: Iterable[Path], memo: Path, *, workers: int = 2) -> dict[Path, str | InputError]:
    """SHA-256 (hexadecimal) of every file, or the error that says why it cannot be read.

    `memo` is a JSON file that is read, brought up to date and written back. It is only a shortcut: where it
    is broken all files are read.
    """
    known = _load(memo)
    pool = ThreadPoolExecutor(workers)
    try:
        wanted = list(dict.fromkeys(paths))
        found = dict(zip(wanted, pool.map(lambda path: _digest(path, known), wanted), strict=True))
    finally:
        # On an interrupt only the files in hand are finished.
        pool.shutdown(cancel_futures=True)
    fresh = {
        os.path.abspath(path): entry
        for path, entry in found.items()
        if not isinstance(entry, InputError) and time.time_ns() - entry[1] > _SETTLED
    }
    if fresh.items() - known.items():
        with atomic(memo) as temporary:
            temporary.write_text(json.dumps({**known, **fresh}), encoding="utf-8")
    return {path: entry if isinstance(entry, InputError) else entry[3] for path, entry in found.items()}


def sha256(path: Path) -> str:
    """The digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(path: Path, known: Memo) -> tuple[int, int, int, str] | InputError:
    """The memo's entry for a file, from the memo where it still holds."""
    try:
        status = path.stat()
        state = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        entry = known.get(os.path.abspath(path))
        if entry is not None and entry[:3] == state:
            return entry
        if not path.is_file():
            return InputError(f"{path}: expected a file, found a folder or a device")
        return (*state, sha256(path))
    except OSError as error:
        return InputError(f"{path}: expected a readable file, found: {error.strerror}")


def _load(memo: Path) -> Memo:
    """The memo, or an empty one if it is missing or anything else than a memo."""
    try:
        tree = json.loads(memo.read_text(encoding="utf-8"))
        entries = {
            str(path): (int(size), int(mtime), int(ctime), str(digest))
            for path, (size, mtime, ctime, digest) in tree.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {path: entry for path, entry in entries.items() if len(entry[3]) == 64}
