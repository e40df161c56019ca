"""Writing files so that a reader only ever sees a whole one, and finding out early if this is impossible."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_minvae.errors import InputError

# The user's disk, not our mistake. Everything else keeps its traceback.
_DISK = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOENT}
_DISK |= {errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EISDIR}


def existing_file(path: str | Path, what: str) -> Path:
    """`path` as a Path; raises InputError that expects `what` when it is missing, a folder or empty."""
    path = Path(path)
    try:
        found = path.exists()
    except OSError as error:
        raise InputError(f"{path}: expected {what}, found: {error.strerror}") from None
    if not found:
        raise InputError(f"{path}: expected {what}, found no such file")
    if path.is_dir():
        raise InputError(f"{path}: expected {what}, found a folder")
    # Reading a pipe takes its content away, and a file is read more than once.
    if not path.is_file():
        raise InputError(f"{path}: expected {what}, found no regular file (a pipe or a device)")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: expected {what}, found an empty file (0 bytes)")
    return path


def make_folder(path: str | Path, what: str) -> Path:
    """Make the folder `path` and those above it, or raise InputError that expects `what`."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: expected {what}, found: {error.strerror}") from None
    return path


def check_writable(path: str | Path) -> Path:
    """Make sure, before long work starts, that a file can be written at `path`, or raise InputError."""
    path = Path(path)
    _refuse_non_files(path)
    probe = _sibling(path)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None
    return path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix; it becomes `path` on success and vanishes on any failure.

    The body writes the temporary file itself. Raises InputError when the folder is missing, cannot be written
    to or is full.
    """
    path = Path(path)
    _refuse_non_files(path)
    temporary = _sibling(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in _DISK and error.filename in (None, str(temporary), str(path)):
            raise _unwritable(path, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _sibling(path: Path) -> Path:
    """A fresh name in the same folder: os.replace is atomic only inside one file system."""
    # Cut, as a name has 255 bytes and a letter up to four.
    return path.with_name(f".{path.stem[:50]}.{secrets.token_hex(4)}{path.suffix}")


def _refuse_non_files(path: Path) -> None:
    if not path.parent.is_dir():
        raise InputError(f"{path}: expected a folder {path.parent} to write into, found none")
    try:
        path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(path, error) from None
    if path.is_dir():
        raise InputError(f"{path}: expected the name of a file to write, found a folder")
    # Replacing a device such as /dev/null by a file would harm the machine.
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: expected the name of a file to write, found a device or a pipe")


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: expected a writable place, found: {error.strerror or error}")
