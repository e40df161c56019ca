"""`pyro-minvae train`: a recipe and clean speech in, a trained system out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Argument(help="Recipe by name (a-vae, min-vae, ...) or a .toml file.")],
    data: Annotated[
        list[str], typer.Option(help="Clean speech: a GRID, NTCD-TIMIT or plain folder (repeatable).")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run: log, state, weights.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed [default: the recipe's].")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override, e.g. training.batch=512.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda.")] = "cpu",
    workers: Annotated[int, typer.Option(help="Processes that prepare the data.", min=1)] = 2,
    cache: Annotated[Path | None, typer.Option(help="Folder of prepared data [default: user cache].")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Name broken files and go on without.")
    ] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also log for TensorBoard.")] = False,
) -> None:
    """Train a system on clean speech alone."""
    from pyro_minvae.cli.console import console, progress, say, warn
    from pyro_minvae.enhancer import check_device
    from pyro_minvae.inference.training import StepEvent
    from pyro_minvae.recipe import load_recipe
    from pyro_minvae.run import Run, gather

    overrides = list(settings or []) + ([] if seed is None else [f"seed={seed}"])
    chosen = load_recipe(recipe, overrides)
    check_device(device)
    run = Run.open(out, chosen, resume=resume, tensorboard=tensorboard)
    with progress() as bar:
        task = bar.add_task("preparing", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        speech, skipped = gather(
            data, chosen, cache=cache, workers=workers, skip_bad=skip_bad, advance=advance
        )
    for line in skipped:
        warn(f"skipped {line}")
    console().print(
        f"{len(speech.fit)} utterances to fit, {len(speech.held_out)} held out for validation", markup=False
    )
    with progress("terms") as bar:
        tasks: dict[str, object] = {}
        for event in run.events(speech, device):
            name = f"{event.stage} {event.epoch}"
            if name not in tasks:
                for old in tasks.values():
                    bar.remove_task(old)  # type: ignore[arg-type]
                tasks = {
                    name: bar.add_task(
                        name, total=event.steps if isinstance(event, StepEvent) else 1, terms=""
                    )
                }
            if isinstance(event, StepEvent):
                bar.update(tasks[name], completed=event.step, terms=f"loss {event.loss:,.1f}")  # type: ignore[arg-type]
            else:
                terms = "  ".join(f"{key} {value:,.2f}" for key, value in event.terms.items())
                bar.console.print(
                    f"{name}: loss {event.loss:,.1f}  validation {terms}  ({event.seconds:.0f} s)"
                )
    say(f"{out}: trained {chosen.name}, validation bound {run.best_bound:,.2f} nats per frame")
