"""`pyro-minvae mix`: make a noisy set from clean speech."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
        typer.Option(min=0, max=2**31 - 1, help="Random seed; each mixture depends on it and its own name."),
    ] = 0,
    split: Annotated[str | None, typer.Option(help="Only this split: train, val or test.")] = None,
    list_: Annotated[
        Path | None, typer.Option("--list", help="Only the ids in this file, one a line.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many, evenly spread.")] = None,
) -> None:
    """Mix clean SPEECH with noise at chosen SNRs.

    Writes OUT/NOISE/SNRdB/ID.flac, OUT/clean/ID.flac and OUT/manifest.jsonl, which `pyro-minvae evaluate`
    reads. The SNR is the power ratio over the whole clip.
    """
    from pyro_minvae.cli.console import progress, say
    from pyro_minvae.data.corpus import open_corpus
    from pyro_minvae.errors import InputError
    from pyro_minvae.evaluation import mixing
    from pyro_minvae.evaluation.manifest import NAME
    from pyro_minvae.evaluation.noisy_set import check_set, make_noisy_set, select

    noises: list[mixing.Noise] = [item for source in noise or [] for item in mixing.recordings(source)]
    if white:
        noises.append(mixing.White())
    if babble:
        noises.append(mixing.babble(babble))
    if not noises:
        raise InputError("mix: expected a kind of noise (--noise, --white or --babble), found none")
    if not snr:
        raise InputError("mix: expected at least one --snr in dB, found none")
    utterances = select(open_corpus(speech), split=split, ids=list_, limit=limit, source=speech)
    check_set(utterances, noises, snrs_db=snr, out=out)
    with progress("item") as bar:
        task = bar.add_task("mixing", total=len(utterances) * len(noises) * len(snr), item="")
        items = make_noisy_set(
            utterances,
            noises,
            snrs_db=snr,
            out=out,
            seed=seed,
            advance=lambda item: bar.update(task, advance=1, item=item),
        )
    say(f"{out / NAME}: {len(items)} mixtures of {len(utterances)} utterances")
