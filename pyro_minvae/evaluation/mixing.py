"""Noisy speech and several speakers at chosen levels, drawn so that every mixture can be made again on its own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from pyro_minvae.errors import InputError, notify
from pyro_minvae.features.rumble import audible
from pyro_minvae.media.audio import is_audio, is_hidden, mono, read_audio

VOICES = 6
"""How many speakers make babble."""

PEAK = 0.999
"""Where a mixture that would clip is scaled to, with room for rounding to the file's subtype."""

SILENT = 1e-6
"""Share of a file's power below which a stretch of it is silence (-60 dB): at a level it would be hiss."""

DRAWS = 20
"""How often a stretch is drawn anew because of silence."""

T = TypeVar("T")


class NoisyUtterance(NamedTuple):
    """mixture = scale (clean + gain noise), each [S]; `clean` and `noise` hold their part of the sum.

    `gain` is the factor on the noise as it was drawn, `scale` is below 1 only where the sum would have
    clipped.
    """

    mixture: np.ndarray
    clean: np.ndarray
    noise: np.ndarray
    gain: float
    scale: float


class Chorus(NamedTuple):
    """mixture [S] = sum of `speakers` [J, S] + `noise` [S] (zeros where there is none).

    `scale` is below 1 only where one of them would have clipped.
    """

    mixture: np.ndarray
    speakers: np.ndarray
    noise: np.ndarray
    scale: float


class NoiseSource(Protocol):
    """A kind of noise: its `name` in folders and tables, and segments on demand.

    A new kind needs these two members; `draw` gives `length` samples at `rate` Hz for the speech file
    `target`, of any power above zero, and takes every random number from `generator`.
    """

    @property
    def name(self) -> str: ...

    def draw(self, length: int, rate: int, generator: np.random.Generator, target: Path) -> np.ndarray: ...


def stable_seed(*parts: object) -> int:
    """A 63-bit number that depends on `parts` alone: equal on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for(seed: int, utterance: str, noise: str, snr_db: float) -> np.random.Generator:
    """The random stream of one mixture. It knows nothing of the set around it, so sub-sets reproduce."""
    return np.random.default_rng(stable_seed(seed, utterance, noise, f"{snr_db:g}"))


def mix(clean: np.ndarray, noise: np.ndarray, snr_db: float) -> NoisyUtterance:
    """clean + g noise with g = sqrt(sum clean^2 / (sum noise^2 10^(snr_db / 10))), for signals [S].

    The SNR is the ratio of powers over the whole clip, pauses included. Where the sum exceeds full scale, all
    three signals are scaled down alike, so that neither clips. Raises `ValueError` for unequal shapes or
    silent signals.
    """
    clean, noise = np.asarray(clean, np.float64), np.asarray(noise, np.float64)
    if clean.shape != noise.shape or clean.ndim != 1:
        raise ValueError(f"expected two signals [S] of one length, got {clean.shape} and {noise.shape}")
    power, noise_power = float(clean @ clean), float(noise @ noise)
    if not (0 < power < np.inf and 0 < noise_power < np.inf):
        raise ValueError(f"expected signals with power, got {power:g} (speech) and {noise_power:g} (noise)")
    gain = np.sqrt(power / noise_power) * 10 ** (-snr_db / 20)
    peak = float(np.abs(clean + gain * noise).max())
    scale = PEAK / peak if peak > 1 else 1.0
    speech, noise = scale * clean, scale * gain * noise
    return NoisyUtterance(speech + noise, speech, noise, float(gain), scale)


def mix_speakers(
    speakers: np.ndarray, level_db: float, noise: np.ndarray | None = None, snr_db: float = 0.0
) -> Chorus:
    """sum_j g_j s_j + g n for `speakers` s [J, S] and `noise` n [S], with |g_1 s_1|^2 / |g_j s_j|^2 at `level_db`.

    The first speaker keeps their level. The SNR is that of all speech together to the noise; powers are over the
    whole clip. Everything is scaled down alike where the mixture or a part of it exceeds full scale. Raises
    `ValueError` for wrong shapes and silent signals.
    """
    voices = np.asarray(speakers, np.float64)
    if voices.ndim != 2:
        raise ValueError(f"expected signals [J, S], got {voices.shape}")
    powers = (voices**2).sum(-1)
    if not (np.isfinite(powers).all() and powers.min() > 0):
        raise ValueError(f"expected speakers with power, got {powers}")
    gains = np.sqrt(powers[0] / powers) * 10 ** (-level_db / 20)
    gains[0] = 1.0
    voices = gains[:, None] * voices
    speech, sound = voices.sum(0), np.zeros(voices.shape[-1])
    if noise is not None:
        sound = mix(speech, noise, snr_db).gain * np.asarray(noise, np.float64)
    peak = max(float(np.abs(part).max()) for part in (*voices, sound, speech + sound))
    scale = PEAK / peak if peak > 1 else 1.0
    return Chorus(scale * (speech + sound), scale * voices, scale * sound, scale)


def segment(signal: np.ndarray, length: int, generator: np.random.Generator) -> np.ndarray:
    """`length` samples of `signal` [S] from a random place; a shorter one is repeated from a random phase."""
    if len(signal) >= length:
        start = int(generator.integers(len(signal) - length + 1))
        return signal[start : start + length]
    start = int(generator.integers(len(signal)))
    return signal[(start + np.arange(length)) % len(signal)]


def sounding(
    signal: np.ndarray, length: int, generator: np.random.Generator, *, name: object, draws: int = DRAWS
) -> np.ndarray:
    """As `segment`, but drawn again while it has less than `SILENT` of the power of all of `signal`.

    After `draws` it is the loudest of them, with sound from a place that has some.

    Raises:
        InputError: (about `name`) where all of it is silent.
    """
    power = float(np.mean(np.square(signal, dtype=np.float64)))
    if power == 0:
        raise InputError(f"{name}: expected sound, found silence")
    for _ in range(draws):
        part = segment(signal, length, generator)
        if float(np.mean(np.square(part, dtype=np.float64))) >= SILENT * power:
            return part
    # A click in a silent file: it is hardly ever hit by chance.
    loudest = int(np.argmax(np.abs(signal)))
    start = loudest - int(generator.integers(length))
    start = int(np.clip(start, 0, max(len(signal) - length, 0)))
    return signal[(start + np.arange(length)) % len(signal)]


class White(NamedTuple):
    """White Gaussian noise."""

    name: str = "white"

    def draw(self, length: int, rate: int, generator: np.random.Generator, target: Path) -> np.ndarray:
        """Independent samples N(0, 1)."""
        return generator.standard_normal(length)


class RecordedNoise(NamedTuple):
    """Segments of one noise file (mixed down to one channel)."""

    name: str
    path: Path

    def draw(self, length: int, rate: int, generator: np.random.Generator, target: Path) -> np.ndarray:
        """A random segment, another one where the file is silent there; raises `InputError` where it is all silent."""
        return sounding(_read(self.path, rate), length, generator, name=self.path)


class Babble(NamedTuple):
    """Voices of several `speakers` at equal power (over their whole files), never the speaker of the target.

    `voices` maps each speaker to the files of theirs.
    """

    name: str
    folder: Path
    voices: dict[str, list[Path]]
    speakers: int = VOICES

    def draw(self, length: int, rate: int, generator: np.random.Generator, target: Path) -> np.ndarray:
        """Random speakers, for each a random file and a random segment, repeated where it is short."""
        total = np.zeros(length)
        for path in self.choose(generator, target):
            voice = _read(path, rate).astype(np.float64)
            power = float(np.mean(voice**2))
            if power == 0:
                notify(f"{path}: left out of the babble for {target.name}, which it would add silence to")
                continue
            total += segment(voice, length, generator) / np.sqrt(power)
        if not total.any():
            raise InputError(f"{self.folder}: expected speech for babble, found silence for {target.name}")
        return total

    def choose(self, generator: np.random.Generator, target: Path) -> list[Path]:
        """The files of different speakers, none of them the target file or its speaker."""
        own = target.resolve()
        speaker = voice_of(target, self.folder)
        others = [
            files
            for name, files in sorted(self.voices.items())
            if name != speaker and own not in [path.resolve() for path in files]
        ]
        if len(others) < self.speakers:
            raise InputError(
                f"{self.folder}: expected at least {self.speakers} speakers for babble, not counting"
                f" that of {target.name}, found {len(others)}"
            )
        picked = generator.choice(len(others), self.speakers, replace=False)
        return [others[i][int(generator.integers(len(others[i])))] for i in picked]


def voice_of(path: Path, folder: Path) -> str:
    """Who speaks in `path`: the first part of a LibriSpeech name, else its folder below `folder`.

    A file that lies in `folder` itself, or outside, is taken for a speaker of its own.
    """
    parts = path.stem.split("-")
    if len(parts) == 3 and all(part.isdigit() for part in parts):
        return parts[0]
    path, folder = path.resolve(), folder.resolve()
    if path.is_relative_to(folder) and path.parent != folder:
        return path.relative_to(folder).parts[0]
    return str(path)


def recordings(source: Path) -> list[RecordedNoise]:
    """The noise file `source`, or every audio file directly in that folder, each named by its stem."""
    # The functions of os.path answer no to a name that is too long, where those of Path raise.
    if os.path.isdir(source):
        files = [path for path in sorted(source.iterdir()) if is_audio(path) and not is_hidden(path)]
        found = [RecordedNoise(path.stem, path) for path in files]
        if not found:
            raise InputError(f"{source}: expected a folder with noise files, found no audio in it")
        return found
    if not os.path.isfile(source):
        raise InputError(f"{source}: expected a noise file or a folder of them, found nothing")
    return [RecordedNoise(source.stem, source)]


def babble(folder: Path, *, count: int = VOICES) -> Babble:
    """Babble of the speech files in `folder` and below."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: expected a folder of speech for babble, found none")
    voices: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if is_audio(path) and not is_hidden(path) and path.is_file():
            voices.setdefault(voice_of(path, folder), []).append(path)
    if len(voices) < count:
        raise InputError(
            f"{folder}: expected speech of at least {count} speakers for babble, found {len(voices)}"
        )
    return Babble("babble", folder, voices, count)


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """`count` of `items`, evenly spread over their order and always the same ones (all of them for None)."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


@lru_cache(maxsize=32)
def _read(path: Path, rate: int) -> np.ndarray:
    """One channel [S] at `rate` Hz without offset and rumble, kept because a set draws from few files often."""
    signal = mono(read_audio(path), rate)
    if not np.isfinite(signal).all():
        raise InputError(f"{path}: expected finite samples, found NaN or infinity")
    return audible(signal, rate)
