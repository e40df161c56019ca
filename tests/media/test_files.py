"""Atomic writing: a whole file or none, and bad places are named before the work starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyro_minvae.errors import InputError
from pyro_minvae.media.files import atomic, check_writable, existing_file, make_folder


def test_atomic_replaces_on_success(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_leaves_nothing_on_failure(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_keeps_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with atomic(tmp_path / "a") as temporary:
        temporary.touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_full_disk_is_the_users_error(tmp_path: Path) -> None:
    def write() -> None:
        with atomic(tmp_path / "a.txt"):
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"a\.txt: expected a writable place, found: No space left"):
        write()


def test_other_errors_of_the_system_stay_visible(tmp_path: Path) -> None:
    def write() -> None:
        with atomic(tmp_path / "a.txt"):
            Path(tmp_path / "another.txt").read_text()

    with pytest.raises(FileNotFoundError):
        write()


def test_check_writable_leaves_no_trace(tmp_path: Path) -> None:
    assert check_writable(tmp_path / "a.wav") == tmp_path / "a.wav"
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("check", [check_writable, lambda path: atomic(path).__enter__()])
def test_bad_places_are_named(tmp_path: Path, check: object) -> None:
    assert callable(check)
    with pytest.raises(InputError, match=r"none/a\.wav: expected a folder .* found none"):
        check(tmp_path / "none" / "a.wav")
    with pytest.raises(InputError, match="found a folder"):
        check(tmp_path)
    with pytest.raises(InputError, match="found a device"):
        check("/dev/null")


def test_unwritable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as a user to whom permissions do not apply.
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(InputError, match=r"a\.wav: expected a writable place, found: Permission denied"):
        check_writable(tmp_path / "a.wav")


def test_existing_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name, found in (("none", "no such file"), ("empty", "an empty file"), (".", "a folder")):
        with pytest.raises(InputError, match=f"expected a sound, found {found}"):
            existing_file(tmp_path / name, "a sound")


def test_names_that_are_too_long_are_named(tmp_path: Path) -> None:
    path = tmp_path / f"{300 * 'a'}.wav"
    for check in (check_writable, lambda path: existing_file(path, "a sound")):
        with pytest.raises(InputError, match=r"File name too long|no such file"):
            check(path)


def test_a_long_name_in_wide_letters_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / (83 * "\u97f3" + ".wav")
    check_writable(path)
    with atomic(path) as temporary:
        temporary.touch()
    assert os.listdir(tmp_path) == [path.name]


def test_make_folder(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b", "a folder").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/x: expected a folder, found: Not a directory"):
        make_folder(tmp_path / "file" / "x", "a folder")
