"""Hashes of content and the memo that spares reading files twice."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from pyro_minvae.data import digest as module
from pyro_minvae.data.digest import content_digests
from pyro_minvae.errors import InputError


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read."""
    seen: list[Path] = []
    sha256 = module.sha256

    def spy(path: Path) -> str:
        seen.append(path)
        return sha256(path)

    monkeypatch.setattr(module, "sha256", spy)
    return seen


def write(path: Path, text: str, age_s: float = 60) -> Path:
    path.write_text(text)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_settled_files_are_read_once(tmp_path: Path, hashed: list[Path]) -> None:
    memo = tmp_path / "memo.json"
    old, new = write(tmp_path / "old", "a"), write(tmp_path / "new", "b", age_s=0)
    first = content_digests([old, new, old], memo)
    assert first == {old: hashlib.sha256(b"a").hexdigest(), new: hashlib.sha256(b"b").hexdigest()}
    assert sorted(hashed) == [new, old]
    del hashed[:]
    assert content_digests([old, new], memo) == first
    # What was written just now might be written again within the clock's tick.
    assert hashed == [new]


def test_a_change_is_seen(tmp_path: Path, hashed: list[Path]) -> None:
    memo = tmp_path / "memo.json"
    path = write(tmp_path / "file", "a")
    status = path.stat()
    before = content_digests([path], memo)
    # Same size, and the modification time set back as copying tools do.
    path.write_text("b")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content_digests([path], memo) != before
    assert len(hashed) == 2


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b"\xff", b'{"a": 3}', b'{"a": [1, 2, 3]}', b'{"a": [1, 2, 3, "short"]}']
)
def test_a_broken_memo_is_replaced(tmp_path: Path, hashed: list[Path], content: bytes) -> None:
    memo = tmp_path / "memo.json"
    memo.write_bytes(content)
    path = write(tmp_path / "file", "a")
    content_digests([path], memo)
    content_digests([path], memo)
    assert hashed == [path]


def test_unreadable_files_are_answers(tmp_path: Path) -> None:
    path = write(tmp_path / "file", "a")
    found = content_digests([tmp_path / "gone", tmp_path, path], tmp_path / "memo.json")
    gone, folder = found[tmp_path / "gone"], found[tmp_path]
    assert isinstance(gone, InputError)
    assert isinstance(folder, InputError)
    assert str(folder) == f"{tmp_path}: expected a file, found a folder or a device"
    assert found[path] == hashlib.sha256(b"a").hexdigest()
