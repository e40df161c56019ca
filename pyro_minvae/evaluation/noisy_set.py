"""Write a noisy set: clean speech, its mixtures with every noise at every SNR, and their manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from pyro_minvae.data.corpus import listed
from pyro_minvae.errors import InputError, notify
from pyro_minvae.evaluation.corrupted import Corrupter
from pyro_minvae.evaluation.manifest import NAME, NoisyItem, write_manifest
from pyro_minvae.evaluation.mixing import NoiseSource, NoisyUtterance, generator_for, mix, spread
from pyro_minvae.features.rumble import audible
from pyro_minvae.media.audio import mono, read_audio, write_audio
from pyro_minvae.media.files import check_writable, make_folder
from pyro_minvae.types import Audio, Utterance


def make_noisy_set(
    utterances: Sequence[Utterance],
    noises: Sequence[NoiseSource],
    *,
    snrs_db: Sequence[float],
    out: Path,
    seed: int = 0,
    corrupter: Corrupter | None = None,
    advance: Callable[[str], None] | None = None,
) -> list[NoisyItem]:
    """Mix every utterance with every noise at every SNR (dB) into the folder `out`.

    Writes `clean/ID.flac`, `NOISE/SNRdB/ID.flac` (24 bits; float WAV where the speech exceeds full scale)
    and, when all of them are there, `manifest.jsonl`: a set that was interrupted has none. With a `corrupter` the
    lips lie as `NOISE/SNRdB/ID.npz` beside their mixture, spoilt. `advance` hears of each mixture. Offset and rumble
    are removed from speech and noise; an utterance that is silent is named and left out. Raises `InputError` for
    doubled names, and for speech, noise or lips that cannot be used.
    """
    check_set(utterances, noises, snrs_db=snrs_db, out=out)
    if corrupter:
        corrupter.check()
    (out / NAME).unlink(missing_ok=True)
    items = []
    for utterance in utterances:
        audio = read_audio(utterance.audio)
        clean = audible(mono(audio, audio.rate).astype(np.float64), audio.rate)
        if not clean.any():
            notify(f"{utterance.audio}: left out, expected speech, found silence")
            continue
        for noise in noises:
            for snr_db in snrs_db:
                stream = generator_for(seed, utterance.id, noise.name, snr_db)
                sound = audible(noise.draw(len(clean), audio.rate, stream, utterance.audio), audio.rate)
                mixed = mix(clean, sound, snr_db)
                item = _item(utterance, noise, snr_db, seed, audio.rate, mixed, clean, out)
                write_sound(item.mixture, mixed.mixture, audio.rate)
                if corrupter:
                    item = corrupter(item, item.mixture.with_name(f"{item.mixture.stem}.npz"))
                items.append(item)
                if advance:
                    advance(f"{utterance.id} {noise.name} {snr_db:g} dB")
        write_sound(items[-1].clean, clean, audio.rate)
    if not items:
        raise InputError(f"{utterances[0].audio}: expected speech, found silence in all utterances")
    write_manifest(out / NAME, items)
    return items


def select(
    utterances: Iterable[Utterance],
    *,
    source: Path,
    split: str | None = None,
    ids: Path | None = None,
    limit: int | None = None,
) -> list[Utterance]:
    """The utterances of one `split`, named in the file `ids`, and `limit` of them evenly spread by id.

    Raises `InputError` (about the corpus `source`) where none is left or a name is unknown.
    """
    found = sorted(utterances, key=lambda utterance: utterance.id)
    if split is not None:
        splits = sorted({utterance.split for utterance in found})
        found = [utterance for utterance in found if utterance.split == split]
        if not found:
            raise InputError(
                f"{source}: expected utterances of the split {split}, found {', '.join(splits) or 'none'}"
            )
    if ids is not None:
        found = listed(found, ids, source=source)
    if not found:
        raise InputError(f"{source}: expected at least one utterance to mix, found none")
    return spread(found, limit)


def _item(
    utterance: Utterance,
    noise: NoiseSource,
    snr_db: float,
    seed: int,
    rate: int,
    mixed: NoisyUtterance,
    clean: np.ndarray,
    out: Path,
) -> NoisyItem:
    """The manifest's row of one mixture."""
    suffix = ".flac" if np.abs(clean).max() <= 1 else ".wav"
    return NoisyItem(
        id=utterance.id,
        speaker=utterance.speaker,
        noise=noise.name,
        snr_db=snr_db,
        seed=seed,
        mixture=out / noise.name / f"{snr_db:g}dB" / f"{utterance.id}{suffix}",
        clean=out / "clean" / f"{utterance.id}{suffix}",
        video=utterance.video,
        gain=mixed.gain,
        scale=mixed.scale,
        rate=rate,
    )


def write_sound(path: Path, signal: np.ndarray, rate: int) -> None:
    """One channel at 24 bits, or as floats, which hold a signal beyond full scale."""
    make_folder(path.parent, "a folder to write to")
    subtype, form = ("FLOAT", "WAV") if path.suffix == ".wav" else ("PCM_24", "FLAC")
    write_audio(path, Audio(signal[None], rate, subtype, form))


def check_set(
    utterances: Sequence[Utterance], noises: Sequence[NoiseSource], *, snrs_db: Sequence[float], out: Path
) -> None:
    """Raise `InputError` where two files would have one name, an SNR is none or `out` cannot be written."""
    check_different("utterances", [utterance.id for utterance in utterances])
    check_different("noises", [noise.name for noise in noises])
    check_different("SNRs", [f"{snr_db:g} dB" for snr_db in snrs_db])
    if any(noise.name == "clean" for noise in noises):
        raise InputError(
            "clean: expected another name for a noise, this one is the folder of the clean speech"
        )
    check_levels("--snr", snrs_db)
    check_writable(make_folder(out, "a folder to write to") / NAME)


def check_different(what: str, names: Sequence[str]) -> None:
    """Raise `InputError` where there is none of the `names`, or two are equal: their files would be one."""
    if not names:
        raise InputError(f"expected at least one of the {what} to mix, found none")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"{name}: expected different {what}, found {count} of this name")


def check_levels(option: str, levels_db: Sequence[float]) -> None:
    """Raise `InputError` for ratios that are no number, or beyond any that a file could hold."""
    what = "SNR" if option == "--snr" else "level"
    for level_db in levels_db:
        if not -100 <= level_db <= 100:
            raise InputError(f"{option} {level_db:g}: expected a finite {what} between -100 and 100 dB")
