"""Write a separation set: mixtures of several speakers, each speaker and the noise beside them, and the manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pyro_minvae.errors import InputError, notify
from pyro_minvae.evaluation.manifest import NAME, SeparationItem, SpeakerItem, write_manifest
from pyro_minvae.evaluation.mixing import (
    Chorus,
    NoiseSource,
    generator_for,
    mix_speakers,
    sounding,
    stable_seed,
)
from pyro_minvae.evaluation.noisy_set import check_different, check_levels, write_sound
from pyro_minvae.features.rumble import audible
from pyro_minvae.media.audio import mono, quantise, read_audio
from pyro_minvae.media.files import check_writable, make_folder
from pyro_minvae.types import Utterance

QUIET = "quiet"
"""The folder of mixtures without noise."""

CODING = "PCM_24"
"""The coding of the files. What is rounded to it before it is summed is still a sum when it is read."""

Cast = tuple[Utterance, ...]


class Scene(NamedTuple):
    """The speakers of a mixture as they will be heard, before levels: `signals` [J, S] at `rate` Hz."""

    id: str
    cast: Cast
    signals: np.ndarray
    rate: int


def casts(first: Sequence[Utterance], pool: Sequence[Utterance], *, count: int, seed: int) -> list[Cast]:
    """Each of `first` with `count` - 1 others of `pool`, drawn by `seed` and the utterance's id.

    The others are different people wherever the pool has enough of them besides the first speaker, else other
    utterances of the same people. A cast depends on the pool and not on the rest of `first`. Raises `InputError`
    where the pool is too small.
    """
    return [_cast(utterance, pool, count=count, seed=seed) for utterance in first]


def _cast(first: Utterance, pool: Sequence[Utterance], *, count: int, seed: int) -> Cast:
    own = (first.id, first.audio.resolve())
    others = [one for one in pool if one.id != own[0] and one.audio.resolve() != own[1]]
    if len(others) < count - 1:
        raise InputError(
            f"{first.audio}: expected {count - 1} other utterances to mix with, found {len(others)}"
        )
    generator = np.random.default_rng(stable_seed(seed, first.id, "speakers", count))
    people: dict[str, list[Utterance]] = {}
    for one in others:
        if one.speaker != first.speaker:
            people.setdefault(one.speaker, []).append(one)
    if len(people) >= count - 1:
        names = generator.choice(sorted(people), count - 1, replace=False)
        drawn = [people[name][int(generator.integers(len(people[name])))] for name in names]
    else:
        drawn = [others[i] for i in generator.choice(len(others), count - 1, replace=False)]
    return (first, *drawn)


def make_separation_set(
    speech: Sequence[Cast],
    noises: Sequence[NoiseSource],
    *,
    levels_db: Sequence[float],
    snrs_db: Sequence[float] = (),
    out: Path,
    seed: int = 0,
    advance: Callable[[str], None] | None = None,
) -> list[SeparationItem]:
    """Mix the utterances of every cast at every level (dB), with every noise at every SNR (dB) if there are noises.

    Writes `NOISE/SNRdB/levelLdB/{mix,s1,s2,noise}/ID.flac` (`quiet/levelLdB/{mix,s1,s2}/ID.flac` without noise), 24
    bits, and at the end `manifest.jsonl`. A mixture is as long as its shortest utterance: utterances with video
    begin at their beginning, so that lips stay in time, others at a random place. In the files the speakers and the
    noise add up to the mixture exactly. `advance` hears of each mixture. Raises `InputError` for what cannot be mixed.
    """
    check_separation_set(speech, noises, levels_db=levels_db, snrs_db=snrs_db, out=out)
    (out / NAME).unlink(missing_ok=True)
    conditions = [(noise, snr) for noise in noises for snr in snrs_db] if noises else [(None, None)]
    items = []
    for cast in speech:
        scene = stage(cast, seed=seed)
        if scene is None:
            continue
        for noise, snr_db in conditions:
            for level_db in levels_db:
                sound = None
                if noise is not None and snr_db is not None:
                    stream = generator_for(seed, scene.id, noise.name, snr_db)
                    drawn = noise.draw(scene.signals.shape[-1], scene.rate, stream, cast[0].audio)
                    sound = audible(drawn, scene.rate)
                chorus = mix_speakers(scene.signals, level_db, sound, snr_db or 0.0)
                name = None if noise is None else noise.name
                item = _item(scene, out, level_db, name, snr_db, seed, chorus.scale)
                _write(item, chorus, scene.rate)
                items.append(item)
                if advance:
                    advance(f"{scene.id} {name or ''} {level_db:g} dB")
    if not items:
        raise InputError(f"{speech[0][0].audio}: expected speech, found silence in all mixtures")
    write_manifest(out / NAME, items)
    return items


def stage(cast: Cast, *, seed: int) -> Scene | None:
    """Read the utterances of a cast and cut them to the length of the shortest, at the rate of the first.

    Offset and rumble are removed. None, and a word to the user, where a speaker is silent.
    """
    first = read_audio(cast[0].audio)
    name = "+".join(utterance.id.replace("/", "-") for utterance in cast)
    generator = np.random.default_rng(stable_seed(seed, name, "segments"))
    read = [mono(first if one is cast[0] else read_audio(one.audio), first.rate) for one in cast]
    voices = [audible(signal.astype(np.float64), first.rate) for signal in read]
    length = min(len(signal) for signal in voices)
    cut = []
    for utterance, voice in zip(cast, voices, strict=True):
        if voice[: length if utterance.video else None].any():
            part = sounding(voice, length, generator, name=utterance.audio)
            cut.append(voice[:length] if utterance.video else part)
        else:
            notify(f"{utterance.audio}: left out with the mixture {name}, expected speech, found silence")
            return None
    # Parts of what has no offset may have one.
    signals = np.stack([audible(part, first.rate) for part in cut])
    return Scene(name, cast, signals, first.rate)


def _item(
    scene: Scene,
    out: Path,
    level_db: float,
    noise: str | None,
    snr_db: float | None,
    seed: int,
    scale: float,
) -> SeparationItem:
    """The manifest's row of one mixture."""
    folder = out / QUIET if noise is None else out / noise / f"{snr_db:g}dB"
    folder, file = folder / f"level{level_db:g}dB", f"{scene.id}.flac"
    return SeparationItem(
        id=scene.id,
        speakers=tuple(
            SpeakerItem(id=one.id, speaker=one.speaker, clean=folder / f"s{number}" / file, video=one.video)
            for number, one in enumerate(scene.cast, start=1)
        ),
        level_db=level_db,
        noise=noise,
        snr_db=snr_db,
        background=None if noise is None else folder / "noise" / file,
        seed=seed,
        mixture=folder / "mix" / file,
        scale=scale,
        rate=scene.rate,
    )


def _write(item: SeparationItem, chorus: Chorus, rate: int) -> None:
    """The parts rounded to the files' grid, and their sum."""
    speakers, noise = quantise(chorus.speakers, CODING), quantise(chorus.noise, CODING)
    for speaker, signal in zip(item.speakers, speakers, strict=True):
        write_sound(speaker.clean, signal, rate)
    if item.background is not None:
        write_sound(item.background, noise, rate)
    write_sound(item.mixture, speakers.sum(0) + noise, rate)


def check_separation_set(
    speech: Sequence[Cast],
    noises: Sequence[NoiseSource],
    *,
    levels_db: Sequence[float],
    snrs_db: Sequence[float],
    out: Path,
) -> None:
    """Raise `InputError` where two files would have one name, a level is none, or `out` cannot be written."""
    check_different("mixtures", ["+".join(one.id for one in cast) for cast in speech])
    check_different("levels", [f"{level_db:g} dB" for level_db in levels_db])
    check_levels("--level", levels_db)
    if noises or snrs_db:
        check_different("noises", [noise.name for noise in noises])
        check_different("SNRs", [f"{snr_db:g} dB" for snr_db in snrs_db])
        check_levels("--snr", snrs_db)
    if any(noise.name == QUIET for noise in noises):
        raise InputError(
            f"{QUIET}: expected another name for a noise, this one is the folder of mixtures without noise"
        )
    check_writable(make_folder(out, "a folder to write to") / NAME)
