"""`pyro-minvae elbo`: every term of the evidence lower bound by independent roads, and whether they agree."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyro_minvae.errors import InputError

if TYPE_CHECKING:
    from pyro_minvae.checks.check import Report
    from pyro_minvae.checks.compare import Estimate
    from pyro_minvae.checks.subject import Frames, Subject


def elbo(
    recipe: Annotated[
        str | None, typer.Argument(help="Recipe by name (a-vae, min-vae, ...) or a .toml file.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A trained system instead: bundled model or folder of one.")
    ] = None,
    audio: Annotated[Path | None, typer.Option(help="Frames of a recording in place of random ones.")] = None,
    video: Annotated[
        Path | None, typer.Option(help="Lips for --audio: a video, or crops (.npz, .npy, .mat).")
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames to check.", min=2, max=64)] = 8,
    draws: Annotated[int, typer.Option(help="Draws of the Monte-Carlo column.", min=10, max=100000)] = 1000,
    seed: Annotated[
        int, typer.Option(help="Seed of parameters, frames and draws.", min=0, max=2**31 - 1)
    ] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a setting of RECIPE, e.g. model.prior.kind=vamp."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, no table.")] = False,
) -> None:
    """Check the evidence lower bound of a system, term by term; exit code 1 if anything disagrees."""
    from pyro_minvae.checks.check import check

    subject = _subject(recipe, model, settings or [], seed)
    if video is not None and audio is None:
        raise InputError(f"--video {video}: expected --audio with it, found none")
    some = _frames(subject, audio, video, frames, seed)
    report = check(subject, some, draws=draws, seed=seed)
    source = str(audio) if audio else "random"
    if as_json:
        _print_json(subject, some, report, source, seed)
    else:
        _print(subject, some, report, source, seed)
    for comparison in report.disagreements:
        print(f"disagrees: {comparison.line()}", file=sys.stderr)
    if report.disagreements:
        raise typer.Exit(1)


def _subject(recipe: str | None, model: str | None, settings: list[str], seed: int) -> Subject:
    from pyro_minvae.checks.subject import trained, untrained
    from pyro_minvae.config.load import load_recipe

    if (recipe is None) == (model is None):
        found = "neither" if recipe is None else "both"
        raise InputError(f"elbo: expected either a RECIPE or --model, found {found}")
    if recipe is not None:
        return untrained(load_recipe(recipe, settings), seed)
    assert model is not None
    if settings:
        raise InputError(
            f"--set {settings[0]}: expected a RECIPE with it, found --model, whose parts are fixed"
        )
    return trained(model)


def _frames(subject: Subject, audio: Path | None, video: Path | None, count: int, seed: int) -> Frames:
    from pyro_minvae.checks.recorded_frames import recorded
    from pyro_minvae.checks.subject import synthetic

    return synthetic(subject, count, seed) if audio is None else recorded(subject, audio, video, count)


def _print(subject: Subject, frames: Frames, report: Report, source: str, seed: int) -> None:
    """The table, the bounds, the toy and the gradients, each in a line or a few."""
    from rich.console import Console
    from rich.table import Table

    count, bins = frames.power.shape
    print(
        f"{subject.recipe.name}: {count} frames ({source}), F = {bins}, L = {subject.recipe.model.latent}, "
        f"seed {seed}; nats per frame"
    )
    table = Table(box=None, pad_edge=False)
    for name in ("term", "Pyro", "closed form", "Monte Carlo"):
        table.add_column(name, justify="left" if name == "term" else "right")
    for row in report.rows:
        table.add_row(row.term, *(_figure(value) for value in row[1:]))
    # A log has no width of its own, and a table folded at 80 columns is hard to read.
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(table)
    if report.responsibility is not None:
        print(f"q(alpha = 1), mean over frames: {report.responsibility:.6f}")
    print(
        "importance-weighted bounds: " + ", ".join(f"K = {k} {_figure(v)}" for k, v in report.bounds.items())
    )
    toy, gradients = report.toy, report.gradients
    print(
        f"toy of the same kinds, {toy.frames} frames: exact log p(s) {toy.evidence:.8f}, Pyro's ELBO {toy.pyro:.8f}, "
        + ("" if toy.closed is None else f"closed {toy.closed:.8f}, ")
        + f"gap {toy.gap:.8f}, KL(q || p(.|s)) {toy.kl:.8f}, ELBO at the true posterior {toy.at_posterior:.8f}"
    )
    print(
        f"gradients of {gradients.tensors} tensors: Pyro against closed form {gradients.pyro_closed:.1e}, "
        f"against finite differences {gradients.closed_differences:.1e} (largest relative differences)"
    )
    for note in report.notes:
        print(f"note: {note}")
    agreed = len(report.comparisons) - len(report.disagreements)
    print(f"{agreed} of {len(report.comparisons)} comparisons agree")


def _figure(value: Estimate) -> str:
    """A number with its standard error, if it has one."""
    return f"{value.value:,.4f}" + (f" ± {value.error:.2g}" if value.error else "")


def _print_json(subject: Subject, frames: Frames, report: Report, source: str, seed: int) -> None:
    import json

    tree: dict[str, Any] = {
        "system": subject.recipe.name,
        "frames": {"source": source, "count": len(frames.power), "bins": frames.power.shape[-1]},
        "seed": seed,
        "terms": [
            {"term": row.term, **{name: getattr(row, name)._asdict() for name in row._fields[1:]}}
            for row in report.rows
        ],
        "responsibility": report.responsibility,
        "importance": {str(k): value._asdict() for k, value in report.bounds.items()},
        "toy": report.toy._asdict(),
        "gradients": report.gradients._asdict(),
        "notes": report.notes,
        "comparisons": [{**c._asdict(), "agrees": c.agrees} for c in report.comparisons],
        "agrees": not report.disagreements,
    }
    print(json.dumps(tree, indent=1))
