"""`pyro-minvae mix`: make a noisy set, or mixtures of several speakers, from clean speech."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyro_minvae.cli.options import LARGEST_SEED

if TYPE_CHECKING:
    from pyro_minvae.evaluation.manifest import NoisyItem, SeparationItem


def mix(
    speech: Annotated[Path, typer.Argument(help="A corpus (GRID, NTCD-TIMIT) or any folder of speech.")],
    out: Annotated[Path, typer.Option(help="Folder for the set and its manifest.jsonl.")],
    noise: Annotated[
        list[Path] | None, typer.Option(help="Noise file, or a folder of them (repeatable).")
    ] = None,
    white: Annotated[bool, typer.Option("--white", help="White Gaussian noise.")] = False,
    babble: Annotated[Path | None, typer.Option(help="Babble of six voices from this folder.")] = None,
    snr: Annotated[list[float] | None, typer.Option(help="Signal-to-noise ratio in dB (repeatable).")] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=LARGEST_SEED, help="Random seed; each mixture depends on it and its own name."
        ),
    ] = 0,
    split: Annotated[str | None, typer.Option(help="Only this split: train, val or test.")] = None,
    list_: Annotated[
        Path | None, typer.Option("--list", help="Only the ids in this file, one a line.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many, evenly spread.")] = None,
    speakers: Annotated[int, typer.Option(min=1, max=8, help="How many people speak at once.")] = 1,
    with_: Annotated[
        Path | None, typer.Option("--with", help="Corpus of the other speakers [default: SPEECH].")
    ] = None,
    level: Annotated[
        list[float] | None,
        typer.Option(help="Power of the first speaker over each other one in dB (repeatable) [default: 0]."),
    ] = None,
    corrupt: Annotated[
        str | None,
        typer.Option(metavar="KIND[:SHARE]", help="Spoil that share of the lips, for example mixed:0.33."),
    ] = None,
) -> None:
    """Mix clean SPEECH with noise at chosen SNRs, or with other speakers at chosen levels.

    Writes OUT/NOISE/SNRdB/ID.flac, OUT/clean/ID.flac and OUT/manifest.jsonl, which `pyro-minvae evaluate`
    reads. The SNR is the power ratio over the whole clip. With --speakers above 1 noise may be left out, and each
    speaker has a file beside the mixture. With --corrupt the lips are written beside the mixtures, spoilt.
    """
    from pyro_minvae.cli.console import progress, say
    from pyro_minvae.data.corpus import open_corpus
    from pyro_minvae.errors import InputError
    from pyro_minvae.evaluation import mixing
    from pyro_minvae.evaluation.corrupted import Corrupter
    from pyro_minvae.evaluation.manifest import NAME
    from pyro_minvae.evaluation.noisy_set import check_set, make_noisy_set, select
    from pyro_minvae.evaluation.separation_set import casts, check_separation_set, make_separation_set
    from pyro_minvae.media.corruption import Corruption

    if speakers == 1 and (with_ or level):
        raise InputError("mix: expected --speakers 2 or more with --with or --level, found one speaker")
    if speakers > 1 and corrupt:
        raise InputError(f"--corrupt {corrupt}: expected a single speaker, found --speakers {speakers}")
    noises: list[mixing.NoiseSource] = [item for source in noise or [] for item in mixing.recordings(source)]
    if white:
        noises.append(mixing.White())
    if babble:
        noises.append(mixing.babble(babble))
    if speakers == 1 and not noises:
        raise InputError("mix: expected a kind of noise (--noise, --white or --babble), found none")
    if noises and not snr:
        raise InputError("mix: expected at least one --snr in dB, found none")
    if snr and not noises:
        raise InputError("mix: expected a kind of noise (--noise, --white or --babble) for --snr, found none")
    what = Corruption.parse(corrupt) if corrupt else None
    corpus = open_corpus(speech)
    pool = select(corpus, split=split, ids=list_, source=speech)
    # Donors are of the whole corpus, so that a part of a set stays the same as in the whole.
    videos = {utterance.id: utterance.video for utterance in corpus if utterance.video is not None}
    corrupter = Corrupter(what, videos, seed) if what else None
    utterances, snrs, levels = mixing.spread(pool, limit), snr or [], level or [0.0]
    together = []
    if speakers == 1:
        check_set(utterances, noises, snrs_db=snrs, out=out)
    else:
        together = casts(utterances, open_corpus(with_) if with_ else pool, count=speakers, seed=seed)
        check_separation_set(together, noises, levels_db=levels, snrs_db=snrs, out=out)
    count = len(utterances) * max(1, len(noises) * len(snrs)) * (len(levels) if together else 1)
    with progress("item") as bar:
        items: Sequence[NoisyItem | SeparationItem]
        task = bar.add_task("mixing", total=count, item="")

        def advance(item: str) -> None:
            bar.update(task, advance=1, item=item)

        if together:
            items = make_separation_set(
                together, noises, levels_db=levels, snrs_db=snrs, out=out, seed=seed, advance=advance
            )
        else:
            items = make_noisy_set(
                utterances, noises, snrs_db=snrs, out=out, seed=seed, corrupter=corrupter, advance=advance
            )
    of = f"{len({item.id for item in items})} utterances" if speakers == 1 else f"{speakers} speakers"
    say(f"{out / NAME}: {len(items)} mixtures of {of}")
