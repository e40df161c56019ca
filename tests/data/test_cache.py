"""The cache of waveforms and crops: computed once, keyed by content, never trusted when damaged."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyro_minvae.config.schema import CropConfig, Stft
from pyro_minvae.data import cache as module
from pyro_minvae.data.cache import content_key, default_cache, prepare
from pyro_minvae.errors import InputError
from pyro_minvae.types import Prepared, Utterance

MakeFile = Callable[..., Path]


@pytest.fixture
def corpus(tmp_path: Path, make_wav: MakeFile, make_crops: MakeFile) -> list[Utterance]:
    """Four sounds, of which the first two have crops."""
    found = []
    for n in range(4):
        audio = make_wav(tmp_path / "corpus" / f"{n}.wav", seed=n)
        video = make_crops(tmp_path / "corpus" / f"{n}.npz", seed=n) if n < 2 else None
        found.append(Utterance(f"u{n}", f"v{n}", audio, video, "train"))
    return found


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The sounds that were computed rather than taken from the cache (in this process)."""
    seen: list[Path] = []
    compute = module.compute

    def spy(job: module.CacheTask) -> tuple[str, str | None]:
        seen.append(job.audio)
        return compute(job)

    monkeypatch.setattr(module, "compute", spy)
    return seen


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[list[Prepared], list[str]]]:
    def call(utterances: list[Utterance], **settings: Any) -> tuple[list[Prepared], list[str]]:
        given: dict[str, Any] = {
            "stft": Stft(),
            "crops": CropConfig(),
            "cache": tmp_path / "cache",
            "workers": 1,
        }
        return prepare(utterances, **(given | settings))

    return call


Run = Callable[..., tuple[list[Prepared], list[str]]]


def assert_same(left: list[Prepared], right: list[Prepared]) -> None:
    assert [item[:3] for item in left] == [item[:3] for item in right]
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one.waveform, other.waveform)
        assert (one.lips is None) == (other.lips is None)
        if one.lips is not None and other.lips is not None:
            for a, b in zip(one.lips, other.lips, strict=True):
                np.testing.assert_array_equal(a, b)


def test_what_is_prepared(corpus: list[Utterance], run: Run) -> None:
    found, faults = run(corpus)
    assert faults == []
    assert [(item.id, item.speaker, item.split) for item in found] == [
        (f"u{n}", f"v{n}", "train") for n in range(4)
    ]
    assert all(item.waveform.dtype == np.float32 and item.waveform.shape == (1600,) for item in found)
    lips = found[1].lips
    assert lips is not None
    assert corpus[1].video is not None
    with np.load(corpus[1].video) as source:
        np.testing.assert_array_equal(lips.crops, source["crops"])
    assert (lips.crops.dtype, lips.times.dtype, lips.valid.dtype) == (np.uint8, np.float64, np.bool_)
    assert [item.lips is None for item in found] == [False, False, True, True]


def test_a_second_run_computes_nothing(corpus: list[Utterance], run: Run, computed: list[Path]) -> None:
    first, _ = run(corpus)
    assert computed == [item.audio for item in corpus]
    ready: list[str] = []
    second, _ = run(corpus[::-1], advance=ready.append)
    assert len(computed) == 4
    assert ready == ["u3", "u2", "u1", "u0"]
    assert_same(first, second[::-1])


def test_ids_and_places_do_not_enter_the_key(
    corpus: list[Utterance], run: Run, computed: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(tmp_path / "corpus", tmp_path / "copy")
    moved = [
        Utterance(
            f"other{item.id}",
            "anna",
            tmp_path / "copy" / item.audio.name,
            item.video and tmp_path / "copy" / item.video.name,
            "val",
        )
        for item in corpus
    ]
    found, _ = run([*corpus, *moved])
    assert len(computed) == 4
    assert [item.id for item in found[4:]] == [item.id for item in moved]
    assert found[4].split == "val"
    np.testing.assert_array_equal(found[0].waveform, found[4].waveform)


def test_content_enters_the_key(
    corpus: list[Utterance], run: Run, computed: list[Path], make_wav: MakeFile, make_crops: MakeFile
) -> None:
    before, _ = run(corpus)
    make_wav(corpus[0].audio, seed=10)
    assert corpus[1].video is not None
    make_crops(corpus[1].video, seed=10)
    os.utime(corpus[2].audio)
    after, _ = run(corpus)
    assert computed[4:] == [corpus[0].audio, corpus[1].audio]
    assert not np.array_equal(before[0].waveform, after[0].waveform)
    assert before[1].lips is not None
    assert after[1].lips is not None
    assert not np.array_equal(before[1].lips.crops, after[1].lips.crops)
    assert_same(before[2:], after[2:])


def test_settings_enter_the_key(corpus: list[Utterance], run: Run, computed: list[Path]) -> None:
    run(corpus)
    del computed[:]
    # The window has no part in what is stored.
    run(corpus, stft=Stft(window=512, hop=128))
    assert computed == []
    found, _ = run(corpus, stft=Stft(rate=8000))
    assert len(computed) == 4
    assert found[0].waveform.shape == (800,)
    del computed[:]
    found, _ = run(corpus, crops=CropConfig(size=32))
    assert computed == [item.audio for item in corpus[:2]]
    assert found[0].lips is not None
    assert found[0].lips.crops.shape == (3, 32, 32)


def test_key_depends_on_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys() -> list[str]:
        return [
            content_key("a", "b", 16000, CropConfig()),
            content_key("b", "a", 16000, CropConfig()),
            content_key("a", None, 16000, CropConfig()),
            content_key("a", "b", 8000, CropConfig()),
            content_key("a", "b", 16000, CropConfig(size=66)),
            content_key("a", "b", 16000, CropConfig(face=0)),
        ]

    now = keys()
    assert now == keys()
    # Without lips their settings play no part.
    assert content_key("a", None, 16000, CropConfig(size=66)) == now[2]
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    assert len(set(now + keys())) == 12


def test_without_video(corpus: list[Utterance], run: Run, computed: list[Path]) -> None:
    assert corpus[0].video is not None
    corpus[0].video.unlink()
    found, _ = run(corpus, with_video=False)
    assert [item.lips for item in found] == [None] * 4
    del computed[:]
    run(corpus[1:])
    assert computed == [corpus[1].audio]


def damaged(content: bytes) -> list[bytes]:
    middle = len(content) // 2
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    return [
        b"",
        b"not an archive",
        content[:middle],
        content[:-1],
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        array.getvalue(),
    ]


def test_a_damaged_file_is_computed_again(
    corpus: list[Utterance], run: Run, computed: list[Path], tmp_path: Path
) -> None:
    first, _ = run(corpus[:1])
    (stored,) = (tmp_path / "cache").glob("*.npz")
    whole = stored.read_bytes()
    for content in damaged(whole):
        del computed[:]
        stored.write_bytes(content)
        again, _ = run(corpus[:1])
        assert computed == [corpus[0].audio]
        assert_same(first, again)
    assert len(list((tmp_path / "cache").iterdir())) <= 2


def test_a_foreign_file_is_computed_again(
    corpus: list[Utterance], run: Run, computed: list[Path], tmp_path: Path
) -> None:
    first, _ = run(corpus[:1])
    (stored,) = (tmp_path / "cache").glob("*.npz")
    run(corpus[1:2])
    (other,) = set((tmp_path / "cache").glob("*.npz")) - {stored}
    with np.load(stored) as file:
        arrays = dict(file)
    strange: list[dict[str, Any]] = [
        arrays | {"waveform": arrays["waveform"].astype(np.float64)},
        arrays | {"crops": arrays["crops"][:-1]},
        arrays | {"valid": arrays["valid"].astype(np.uint8)},
        arrays | {"times": np.float64(0)},
        {name: value for name, value in arrays.items() if name != "times"},
        {name: value for name, value in arrays.items() if name != "key"},
        # Pickled objects could run code: they are not even opened.
        arrays | {"waveform": np.array([{"a": 1}], object)},
    ]
    for content in (*strange, None):
        del computed[:]
        if content is None:
            shutil.copy(other, stored)
        else:
            np.savez(stored, **content)
        again, _ = run(corpus[:1])
        assert computed == [corpus[0].audio]
        assert_same(first, again)


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_input(corpus: list[Utterance], run: Run, tmp_path: Path, workers: int) -> None:
    text = tmp_path / "corpus" / "text.wav"
    text.write_text("no sound")
    bad = [
        Utterance("text", "x", text, None, "train"),
        Utterance("gone", "x", tmp_path / "gone.wav", None, "train"),
    ]
    mixed = [bad[0], *corpus[:2], bad[1], *corpus[2:]]
    ready: list[str] = []
    found, faults = run(mixed, skip_bad=True, workers=workers, advance=ready.append)
    assert [item.id for item in found] == ["u0", "u1", "u2", "u3"]
    assert len(faults) == 2
    assert faults[0].startswith(f"{text}: expected a sound file")
    assert faults[1] == f"{tmp_path / 'gone.wav'}: expected a readable file, found: No such file or directory"
    assert sorted(ready) == ["gone", "text", "u0", "u1", "u2", "u3"]
    with pytest.raises(InputError, match=r"gone\.wav: expected a readable file"):
        run(mixed, workers=workers)
    with pytest.raises(InputError, match=r"text\.wav: expected a sound file"):
        run([bad[0], *corpus], workers=workers)


def test_what_was_done_before_a_broken_file_is_kept(
    corpus: list[Utterance], run: Run, computed: list[Path], tmp_path: Path
) -> None:
    corpus[2].audio.write_text("no sound")
    with pytest.raises(InputError, match=r"2\.wav: expected a sound file"):
        run(corpus)
    del computed[:]
    assert len(run(corpus, skip_bad=True)[0]) == 3
    assert computed == [corpus[2].audio, corpus[3].audio]


def test_parallel_equals_serial(corpus: list[Utterance], run: Run, tmp_path: Path) -> None:
    serial, _ = run(corpus, cache=tmp_path / "one")
    parallel, _ = run(corpus, cache=tmp_path / "two", workers=2)
    assert_same(serial, parallel)
    for stored in (tmp_path / "one").glob("*.npz"):
        assert stored.read_bytes() == (tmp_path / "two" / stored.name).read_bytes()


def test_an_interrupt_keeps_what_is_done(
    corpus: list[Utterance], run: Run, computed: list[Path], tmp_path: Path
) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(corpus, advance=interrupt)
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1
    del computed[:]
    run(corpus)
    assert len(computed) == 3


def test_unwritable_cache(corpus: list[Utterance], run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: expected a writable cache folder, found: File exists"):
        run(corpus, cache=tmp_path / "file")


def test_nothing_to_do(run: Run) -> None:
    assert run([]) == ([], [])
    with pytest.raises(ValueError, match="expected at least one worker, got 0"):
        run([], workers=0)


def test_default_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYRO_MINVAE_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    monkeypatch.delenv("PYRO_MINVAE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "pyro_minvae"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "pyro_minvae"
