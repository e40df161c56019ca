"""The model family under one budget: `python benchmarks/family.py DATA --out docs/results.md`.

Every recipe is trained on GRID's training clips, with the same seed, batch and number of passes over the data (its
stages keep their proportions), then judged twice: by bounds on clean validation clips (the ELBO, and the
importance-weighted bound, which is comparable between guides), and by enhancing the mixtures of
`benchmarks/quality.py`. Trained runs are kept in --runs and not trained again. --out gets the tables between the
two marks of that file; without it they are only printed. DATA (default: PYRO_MINVAE_DATA) holds `grid`,
`librispeech/val` and `noise`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import difference, gain, markdown, noisy_set, write_between
from quality import run
from rich.console import Console

from pyro_minvae.config.load import load_recipe
from pyro_minvae.config.schema import Recipe
from pyro_minvae.errors import InputError
from pyro_minvae.evaluation import report
from pyro_minvae.evaluation.benchmark import Row
from pyro_minvae.evaluation.noisy_set import select

RECIPES = ["a-vae", "v-vae", "av-vae", "av-cvae", "min-vae", "min-vae-dec", "min-vae-visual-prior", "moe-poe"]
BEGIN, END = "<!-- family: begin -->", "<!-- family: end -->"
# Pairs whose difference the published papers make a claim about.
CLAIMS = [
    ("min-vae", "av-vae"),
    ("av-vae", "a-vae"),
    ("min-vae", "a-vae"),
    ("min-vae-visual-prior", "min-vae"),
]
# "auto" is mean-field with lips and marginal without, so it is no difference for a-vae.
E_STEPS = ("auto", "marginal")
METRICS = ("si_sdr", "pesq", "estoi")
# K of the importance-weighted bound.
SAMPLES = 100


class Trained(NamedTuple):
    """What training gave: the run's `folder`, `seconds` on one thread, `parameters`, bounds in nats per frame.

    `blind` is the ELBO of the same speech when the lips are taken away.
    """

    folder: Path
    seconds: float
    parameters: int
    elbo: float
    blind: float
    iwae: float


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", default=os.environ.get("PYRO_MINVAE_DATA"))
    parser.add_argument("--recipe", action="append", help=f"repeatable; default: {' '.join(RECIPES)}")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the data, all stages together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=10, help="validation clips, noisy and clean")
    parser.add_argument("--preset", default="fast", help="of the enhancement")
    parser.add_argument("--set", action="append", default=[], help="settings of the enhancement")
    parser.add_argument("--runs", type=Path, default=Path("runs/family"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="Markdown file with the two marks")
    options = parser.parse_args()
    if options.data is None:
        parser.error("expected DATA or PYRO_MINVAE_DATA")
    return options


def budgeted(name: str, epochs: int, seed: int) -> Recipe:
    """The recipe whose stages together make `epochs` passes, in the recipe's own proportions, each one at least."""
    own = [stage.epochs for stage in load_recipe(name).training.stages]
    ends = np.round(np.cumsum(own) / sum(own) * epochs).astype(int)
    shares = np.maximum(np.diff([0, *ends]), 1)
    stages = [f"training.stages.{number}.epochs={share}" for number, share in enumerate(shares)]
    return load_recipe(name, [f"seed={seed}", *stages])


def train(name: str, options: argparse.Namespace) -> Path:
    """Train a recipe unless its run is there; the folder. Runs in a process of its own, on one thread."""
    import torch

    from pyro_minvae.pipelines.train_run import Run, gather

    torch.set_num_threads(1)
    folder = options.runs / f"{name}-{options.epochs}-{options.seed}"
    if (folder / "config.json").exists():
        tree = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if tree["training"].get("finished"):
            return folder
    recipe = budgeted(name, options.epochs, options.seed)
    speech, _ = gather([str(options.data / "grid")], recipe, workers=1)
    for _ in Run.open(folder, recipe, resume=(folder / "state.pt").exists()).events(speech):
        pass
    return folder


def judge(folder: Path, options: argparse.Namespace) -> Trained:
    """Size, training time and bounds of a trained run. Runs in a process of its own, on one thread."""
    import torch

    from pyro_minvae.data.cache import default_cache, prepare
    from pyro_minvae.data.corpus import open_corpus
    from pyro_minvae.data.loader import frame_set
    from pyro_minvae.inference.svi.elbo import bound_terms
    from pyro_minvae.inference.svi.importance import iwae
    from pyro_minvae.systems.checkpoint import load_model

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    model = load_model(folder)
    grid = options.data / "grid"
    clips = select(open_corpus(grid), source=grid, split="val", limit=options.clips)
    prepared, _ = prepare(
        clips, stft=model.recipe.stft, crops=model.recipe.crops, cache=default_cache(), with_video=True
    )
    elbo, blind, weighted, count = 0.0, 0.0, 0.0, 0
    with torch.no_grad():
        for utterance in prepared:
            frames = frame_set([utterance], model.recipe.stft)
            visual = None if model.lips is None else frames.visual(model.lips)
            terms = bound_terms(model.model, model.guide, frames.power, visual)
            elbo += float(terms.total.sum())
            blind += float(bound_terms(model.model, model.guide, frames.power, None).total.sum())
            weighted += float(iwae(model.model, model.guide, frames.power, visual, SAMPLES).sum())
            count += len(frames.power)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    parameters = {id(p): p.numel() for part in (model.model, model.guide) for p in part.parameters()}
    seconds = sum(row["seconds"] for row in log)
    return Trained(folder, seconds, sum(parameters.values()), elbo / count, blind / count, weighted / count)


def table(names: list[str], runs: list[Trained], scores: dict[str, list[list[Row]]]) -> str:
    """One line for each recipe, Markdown; scores of the usual E-step, and SI-SDR and ESTOI of the marginal one."""
    head = [
        "recipe", "parameters", "training (s)", "ELBO",
        "ELBO without lips", f"IWAE K = {SAMPLES}", "SI-SDR gain (dB) [95 %]",
        "PESQ gain [95 %]", "ESTOI gain [95 %]", "real-time factor", "marginal: SI-SDR gain (dB) [95 %]",
        "marginal: ESTOI gain [95 %]",
    ]  # fmt: skip
    lines = []
    for number, (name, trained) in enumerate(zip(names, runs, strict=True)):
        usual, marginal = (scores[e_step][number] for e_step in E_STEPS)
        speed = np.mean([row.real_time_factor for row in usual])
        lines.append([
            name, f"{trained.parameters:,}", f"{trained.seconds:.0f}", f"{trained.elbo:,.1f}",
            f"{trained.blind:,.1f}",
            f"{trained.iwae:,.1f}", *(gain(usual, key) for key in METRICS), f"{speed:.2f}",
            gain(marginal, "si_sdr"), gain(marginal, "estoi"),
        ])  # fmt: skip
    return markdown(head, lines)


def claims(names: list[str], scores: dict[str, list[list[Row]]]) -> str:
    """Paired differences on the same mixtures, Markdown."""
    head = ["difference", *(f"{e_step}: {report.HEADINGS[key]}" for e_step in E_STEPS for key in METRICS)]
    lines = []
    for better, worse in CLAIMS:
        if better in names and worse in names:
            pairs = [[scores[e_step][names.index(name)] for name in (better, worse)] for e_step in E_STEPS]
            cells = [difference(*pair, key) for pair in pairs for key in METRICS]
            lines.append([f"{better} less {worse}", *cells])
    return markdown(head, lines)


def main() -> None:
    """Train what is missing, judge all, print and write the tables."""
    options = arguments()
    names = options.recipe or RECIPES
    context = get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        folders = list(pool.map(train, names, [options] * len(names)))
        runs = list(pool.map(judge, folders, [options] * len(names)))
    with tempfile.TemporaryDirectory() as folder:
        items = noisy_set(options.data, Path(folder), clips=options.clips, snrs_db=[-5.0], seed=options.seed)
        scores = {
            e_step: [
                run(
                    ",".join(
                        [
                            str(one.folder),
                            f"preset={options.preset}",
                            f"inference.e_step={e_step}",
                            *options.set,
                        ]
                    ),
                    items,
                    seed=options.seed,
                    workers=options.workers,
                )
                for one in runs
            ]
            for e_step in E_STEPS
        }
    command = "python benchmarks/" + report.command_line(sys.argv)
    caption = (
        f"{options.epochs} passes over GRID's training clips, seed {options.seed}; bounds in nats per frame on "
        f"{options.clips} clean validation clips; scores on {len(items)} mixtures at -5 dB, preset {options.preset}. "
        f"Made by `{command}`."
    )
    text = "\n\n".join([table(names, runs, scores), claims(names, scores), caption])
    Console(width=220, highlight=False, markup=False).print(text)
    if options.out:
        write_between(options.out, text, begin=BEGIN, end=END)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
