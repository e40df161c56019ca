"""Quality of the bundled models on real speech: `python benchmarks/quality.py DATA`.

Ten clips of GRID's validation list, spread evenly, each in babble of six LibriSpeech voices, a cafe, a
kitchen, a busy street and white noise at -5 dB, seed 0. DATA (default: PYRO_MINVAE_DATA) holds `grid`,
`librispeech/val` and `noise`. A system is a model by name or folder, with a preset and settings after commas:
`min-vae-grid,preset=best,inference.start=audio`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common import add_mixture_options, command, make_enhancer, mixtures, parsed
from rich.console import Console

from pyro_minvae.cli.console import progress
from pyro_minvae.errors import InputError
from pyro_minvae.evaluation import report
from pyro_minvae.evaluation.benchmark import Row, evaluate
from pyro_minvae.evaluation.manifest import NoisyItem

SYSTEMS = [
    "min-vae-grid,preset=fast",
    "min-vae-grid,preset=best",
    "min-vae-grid,preset=paper",
    "min-vae-grid,preset=best,inference.start=audio",
    "min-vae-grid,preset=best,inference.e_step=marginal",
    "min-vae-grid,preset=best,inference.lips=never",
    "a-vae,preset=fast",
    "a-vae,preset=best",
]


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_mixture_options(parser, clips=10)
    parser.add_argument("--system", action="append", help=f"repeatable; default: {' '.join(SYSTEMS)}")
    parser.add_argument("--out", type=Path, help="JSON file with every score")
    parser.add_argument("--workers", type=int, default=2)
    return parsed(parser, arguments)


def run(system: str, items: list[NoisyItem], *, seed: int, workers: int) -> list[Row]:
    """The scores of one system."""
    rows = []
    with progress() as bar:
        task = bar.add_task(system, total=len(items))
        for row in evaluate(items, partial(make_enhancer, system), workers=workers, seed=seed):
            rows.append(row)
            bar.advance(task)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the set, run every system and print one table."""
    options = options_of(arguments)
    with mixtures(options) as items:
        scores = {
            system: run(system, items, seed=options.seed, workers=options.workers)
            for system in options.system or SYSTEMS
        }
    # A wide console: a table that is cut to the terminal cannot be pasted elsewhere.
    console = Console(width=160 + max(map(len, scores)), highlight=False)
    console.print(report.comparison(scores))
    console.print(f"{len(items)} mixtures, seed {options.seed}: {command()}", markup=False)
    for system, rows in scores.items():
        for line in report.failures(rows):
            console.print(f"{system}: no score for {line}", markup=False)
    if options.out:
        settings = {"seed": options.seed, "clips": options.clips, "snr_db": options.snr}
        trees = [report.tree(rows, model=system, settings=settings) for system, rows in scores.items()]
        report.write_json(options.out, {"command": command(), "systems": trees})


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
