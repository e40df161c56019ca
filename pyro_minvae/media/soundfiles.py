"""Sound files that libsndfile reads, and PyAV in its place where it refuses: no length, wrong suffixes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pyro_minvae.errors import InputError, notify
from pyro_minvae.types import Audio

if TYPE_CHECKING:
    import numpy as np

# Frames in one read: the number in a header may be wrong by any factor.
_BLOCK = 1 << 20
# A header that announces more than this (frames) does not know: encoders that write to a pipe leave it so.
_UNKNOWN = 1 << 40
# What is missing at the end and worth a word (s).
_MISSING_S = 0.01


def read_soundfile(path: Path, codings: set[str]) -> Audio:
    """The sound of a file of `_FORMATS`; a coding that is not in `codings` becomes PCM of 16 bits.

    Raises:
        InputError: where neither libsndfile nor FFmpeg can read it.
    """
    import soundfile

    announced, rate = 0, 0
    try:
        with _opened(path) as file:
            announced, rate = file.frames, file.samplerate
            waveform = _samples(file)
            subtype, name = file.subtype, file.format
    except (soundfile.LibsndfileError, OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        audio = _by_ffmpeg(path)
        if audio is None:
            raise InputError(
                f"{path}: expected a sound file, found one that cannot be read ({reason or 'damaged'})"
            ) from None
    else:
        audio = Audio(waveform, rate, subtype if subtype in codings else "PCM_16", name)
        if waveform.shape[1] == 0:
            audio = _by_ffmpeg(path) or audio
    _tell_missing(path, max(announced, _in_chunk(path)), audio)
    return audio


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import soundfile

    if _encodable(path):
        with soundfile.SoundFile(path) as file:
            yield file
        return
    # libsndfile takes names in UTF-8 only.
    with open(path, "rb") as raw, soundfile.SoundFile(raw) as file:
        yield file


@contextmanager
def opened_to_write(path: Path, **form: Any) -> Iterator[Any]:
    """A `soundfile.SoundFile` to write, whatever letters its name has."""
    import soundfile

    if _encodable(path):
        with soundfile.SoundFile(path, "w", **form) as file:
            yield file
        return
    with open(path, "w+b") as raw, soundfile.SoundFile(raw, "w", **form) as file:
        yield file


def _encodable(path: Path) -> bool:
    """Whether the name is one in UTF-8; Python holds other bytes as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in str(path))


def _samples(file: Any) -> np.ndarray:
    """All samples [channels, S], however many the header announces."""
    import numpy as np

    blocks: list[np.ndarray] = []
    while not blocks or len(blocks[-1]) == _BLOCK:
        blocks.append(file.read(_BLOCK, dtype="float64", always_2d=True))
    return blocks[0].T if len(blocks) == 1 else np.concatenate(blocks).T


def _by_ffmpeg(path: Path) -> Audio | None:
    from pyro_minvae.media.containers import read_sound

    try:
        return read_sound(path)
    except InputError:
        return None


def _tell_missing(path: Path, announced: int, audio: Audio) -> None:
    found = audio.waveform.shape[1]
    if announced < _UNKNOWN and announced - found > _MISSING_S * audio.rate:
        notify(
            f"{path}: the file ends early or is damaged: "
            f"{found / audio.rate:.2f} s of the {announced / audio.rate:.2f} s that it announces can be read"
        )


def _in_chunk(path: Path) -> int:
    """The frames that the chunks of a WAV announce, which libsndfile cuts to what is there; 0 where they do not say."""
    with open(path, "rb") as raw:
        head = raw.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return 0
        return _frames(raw)


def _frames(raw: BinaryIO) -> int:
    """The frames of uncompressed samples that follow in a WAV."""
    align = 0
    while len(head := raw.read(8)) == 8:
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            # All ones stand for a length that was not known.
            return size // align if align and size < 2**32 - 1 - 64 * 1024 else 0
        body = raw.read(size + size % 2) if head[:4] == b"fmt " and size < 1024 else b""
        if body:
            # 1: PCM, 3: float, 0xfffe: either. In others a block holds more than one frame.
            plain = int.from_bytes(body[:2], "little") in (1, 3, 0xFFFE)
            align = int.from_bytes(body[12:14], "little") if plain else 0
        else:
            raw.seek(size + size % 2, 1)
    return 0
