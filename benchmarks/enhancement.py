"""Quality of the bundled models on real speech: `python benchmarks/enhancement.py DATA`.

Ten clips of GRID's validation list, spread evenly, each in babble of six LibriSpeech voices, a cafe, a
kitchen, a busy street and white noise at -5 dB, seed 0. DATA (default: PYRO_MINVAE_DATA) holds `grid`,
`librispeech/val` and `noise`. A system is a model by name or folder, with settings after commas:
`min-vae-grid,inference.start=audio`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

from rich.console import Console

from pyro_minvae.cli.console import progress
from pyro_minvae.data.corpus import open_corpus
from pyro_minvae.enhancer import Enhancer
from pyro_minvae.errors import InputError
from pyro_minvae.evaluation import report
from pyro_minvae.evaluation.benchmark import Row, evaluate
from pyro_minvae.evaluation.manifest import Item
from pyro_minvae.evaluation.mixing import White, babble, recordings
from pyro_minvae.evaluation.noisy_set import make_noisy_set, select

SYSTEMS = [
    "min-vae-grid",
    "min-vae-grid,inference.start=audio",
    "min-vae-grid,inference.e_step=marginal",
    "min-vae-grid,inference.e_step=marginal,inference.start=audio",
    "min-vae-grid,inference.lips=never",
    "a-vae",
]
NOISES = ("cafe", "kitchen", "busy-street")


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", default=os.environ.get("PYRO_MINVAE_DATA"))
    parser.add_argument("--system", action="append", help=f"repeatable; default: {' '.join(SYSTEMS)}")
    parser.add_argument("--out", type=Path, help="JSON file with every score")
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--snr", type=float, action="append", help="dB, repeatable; default: -5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.data is None:
        parser.error("expected DATA or PYRO_MINVAE_DATA")
    return options


def noisy_set(data: Path, folder: Path, *, clips: int, snrs_db: list[float], seed: int) -> list[Item]:
    """The mixtures of `clips` validation clips of `data` with every noise at every SNR (dB), written below `folder`."""
    noises = [
        babble(data / "librispeech" / "val"),
        *(noise for name in NOISES for noise in recordings(data / "noise" / f"{name}.flac")),
        White(),
    ]
    speech = select(open_corpus(data / "grid"), source=data / "grid", split="val", limit=clips)
    return make_noisy_set(speech, noises, snrs_db=snrs_db, out=folder, seed=seed)


def run(system: str, items: list[Item], *, seed: int, workers: int) -> list[Row]:
    """The scores of one system."""
    name, *settings = system.split(",")
    make = partial(Enhancer.from_pretrained, name, overrides=settings)
    rows = []
    with progress() as bar:
        task = bar.add_task(system, total=len(items))
        for row in evaluate(items, make, workers=workers, seed=seed):
            rows.append(row)
            bar.advance(task)
    return rows


def main() -> None:
    """Make the set, run every system and print one table."""
    options = arguments()
    command = "python benchmarks/" + report.command_line(sys.argv)
    with tempfile.TemporaryDirectory() as folder:
        items = noisy_set(
            Path(options.data),
            Path(folder),
            clips=options.clips,
            snrs_db=options.snr or [-5.0],
            seed=options.seed,
        )
        scores = {
            system: run(system, items, seed=options.seed, workers=options.workers)
            for system in options.system or SYSTEMS
        }
    # A wide console: a table that is cut to the terminal cannot be pasted elsewhere.
    console = Console(width=200, highlight=False)
    console.print(report.comparison(scores))
    console.print(f"{len(items)} mixtures, seed {options.seed}: {command}", markup=False)
    for system, rows in scores.items():
        for line in report.failures(rows):
            console.print(f"{system}: no score for {line}", markup=False)
    if options.out:
        settings = {"seed": options.seed, "clips": options.clips, "snr_db": options.snr or [-5.0]}
        trees = [report.tree(rows, model=system, settings=settings) for system, rows in scores.items()]
        report.write_json(options.out, {"command": command, "systems": trees})


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
