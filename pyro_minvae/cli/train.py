"""`pyro-minvae train`: a recipe and clean speech in, a trained system out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyro_minvae.cli.options import Device

if TYPE_CHECKING:
    from pyro_minvae.config.schema import Recipe
    from pyro_minvae.inference.svi.trainer import EpochEvent, StepEvent
    from pyro_minvae.pipelines.train_run import Speech


def train(
    recipe: Annotated[str, typer.Argument(help="Recipe by name (a-vae, min-vae, ...) or a .toml file.")],
    data: Annotated[
        list[str], typer.Option(help="Clean speech: a GRID, NTCD-TIMIT or plain folder (repeatable).")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run: log, state, weights.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    init: Annotated[
        str | None, typer.Option(help="Start from this model's weights: a bundled name or a folder.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed [default: the recipe's].", min=0, max=2**31 - 1)
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override, e.g. training.batch=512.")
    ] = None,
    device: Device = "cpu",
    workers: Annotated[int, typer.Option(help="Processes that prepare the data.", min=1)] = 2,
    cache: Annotated[Path | None, typer.Option(help="Folder of prepared data [default: user cache].")] = None,
    list_: Annotated[
        Path | None, typer.Option("--list", help="Only the ids in this file, one a line.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Name broken files and go on without.")
    ] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also log for TensorBoard.")] = False,
) -> None:
    """Train a system on clean speech alone."""
    from pyro_minvae.cli.console import say
    from pyro_minvae.config.load import load_recipe
    from pyro_minvae.pipelines.train_run import Run
    from pyro_minvae.pipelines.video_guidance import check_device

    overrides = list(settings or []) + ([] if seed is None else [f"seed={seed}"])
    chosen = load_recipe(recipe, overrides)
    check_device(device)
    run = Run.open(out, chosen, resume=resume, tensorboard=tensorboard, init=init)
    try:
        _show(run.events(_gather(data, chosen, cache, workers, skip_bad, list_), device))
    finally:
        run.close()
    say(f"{out}: trained {chosen.name}, validation bound {run.best_bound:,.2f} nats per frame")


def _gather(
    data: list[str], recipe: Recipe, cache: Path | None, workers: int, skip_bad: bool, ids: Path | None
) -> Speech:
    """The prepared speech, behind a bar; broken files that were skipped are named."""
    from pyro_minvae.cli.console import console, progress, warn
    from pyro_minvae.pipelines.train_run import gather

    with progress() as bar:
        task = bar.add_task("preparing", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        speech, skipped = gather(
            data, recipe, cache=cache, workers=workers, skip_bad=skip_bad, ids=ids, advance=advance
        )
    for line in skipped:
        warn(f"skipped {line}")
    console().print(
        f"{len(speech.fit)} utterances to fit, {len(speech.held_out)} held out for validation", markup=False
    )
    return speech


def _show(events: Iterator[StepEvent | EpochEvent]) -> None:
    """A bar for the epoch that runs, a line for each that is over."""
    from pyro_minvae.cli.console import progress
    from pyro_minvae.inference.svi.trainer import StepEvent

    with progress("terms") as bar:
        current, task = "", None
        for event in events:
            name = f"{event.stage} {event.epoch}"
            if task is None or name != current:
                if task is not None:
                    bar.remove_task(task)
                steps = event.steps if isinstance(event, StepEvent) else 1
                current, task = name, bar.add_task(name, total=steps, terms="")
            if isinstance(event, StepEvent):
                bar.update(task, completed=event.step, terms=f"loss {event.loss:,.1f}")
            else:
                terms = "  ".join(f"{key} {value:,.2f}" for key, value in event.terms.items())
                line = f"{name}: loss {event.loss:,.1f}  validation {terms}  ({event.seconds:.0f} s)"
                bar.console.print(line)
