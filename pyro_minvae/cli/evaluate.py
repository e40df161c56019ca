"""`pyro-minvae evaluate`: enhance a noisy set, or separate one of several speakers, and score it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyro_minvae.cli.options import LARGEST_SEED, Device, Preset

if TYPE_CHECKING:
    from pyro_minvae.evaluation.manifest import SeparationItem


def evaluate(
    manifest: Annotated[Path, typer.Argument(help="A manifest.jsonl, or the folder that holds it.")],
    model: Annotated[str, typer.Option(help="Name of a bundled model, or a folder with one.")],
    out: Annotated[Path | None, typer.Option(help="Folder for scores.csv and scores.json.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Parallel processes, one thread each.")] = 2,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Random seed; each mixture adds its own name.")
    ] = 0,
    preset: Preset = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the model.")
    ] = None,
    video: Annotated[bool, typer.Option("--video/--no-video", help="Use the lips where there are.")] = True,
    background: Annotated[
        bool, typer.Option("--background/--no-background", help="Whether there is noise besides speakers.")
    ] = True,
    corrupt: Annotated[
        str | None,
        typer.Option(metavar="KIND[:SHARE]", help="Spoil that share of the lips, for example mixed:0.33."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, evenly spread.")] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="N|DIR", help="Draw N mixtures into OUT/plots, or all of them into DIR."),
    ] = None,
    device: Device = "cpu",
) -> None:
    """Enhance or separate every mixture of MANIFEST with a model and score input and output.

    Prints SI-SDR, PESQ (wide band), STOI and ESTOI for each noise and SNR; --out keeps those of each mixture. Where
    lips were spoilt, by --corrupt here or in `mix`, it also tells how well the model's trust in them finds it out.
    What fails is named and missing in the means, and the exit code is 2.
    For a set of several speakers it prints SDR, SIR, SAR, SI-SDR, PESQ and ESTOI, means over the speakers of each
    mixture, and the share of mixtures whose speakers were swapped.
    """
    from functools import partial
    from tempfile import TemporaryDirectory

    from pyro_minvae.cli.console import progress, say, warn
    from pyro_minvae.errors import InputError
    from pyro_minvae.evaluation import report
    from pyro_minvae.evaluation.benchmark import evaluate as run
    from pyro_minvae.evaluation.corrupted import Corrupter
    from pyro_minvae.evaluation.manifest import NoisyItem, SeparationItem, read_set
    from pyro_minvae.evaluation.mixing import spread
    from pyro_minvae.evaluation.plots import plotter
    from pyro_minvae.media.corruption import Corruption
    from pyro_minvae.media.files import check_writable, make_folder
    from pyro_minvae.pipelines.enhancer import Enhancer

    what = Corruption.parse(corrupt) if corrupt else None
    if what and not video:
        raise InputError(f"--corrupt {what}: expected lips to spoil, found --no-video")
    found = read_set(manifest)
    settings: dict[str, Any] = {
        "manifest": str(manifest),
        "seed": seed,
        "preset": preset,
        "set": set_ or [],
        "video": video,
        "background": background,
        "corrupt": None if what is None else str(what),
        "limit": limit,
        "device": device,
    }
    crowd = [item for item in found if isinstance(item, SeparationItem)]
    if crowd:
        _separate(crowd, model, settings, out=out, workers=workers, plot=plot)
        return
    listed = [item for item in found if isinstance(item, NoisyItem)]
    if not background:
        raise InputError(
            f"--no-background: expected a set of several speakers, found a noisy one, {manifest}"
        )
    items = spread(listed, limit)
    make = partial(Enhancer.from_pretrained, model, device=device, preset=preset, overrides=set_ or [])
    enhancer = make()  # an unknown model or setting is answered here, before the processes start
    if enhancer.caution:
        warn(f"{model}: {enhancer.caution}")
    if out:
        check_writable(make_folder(out, "a folder to write to") / "scores.json")
    inspect = plotter(plot, items, out=out) if plot else None
    rows = []
    with progress("item") as bar, TemporaryDirectory() as folder:
        if what:
            donors = {item.id: item.video for item in listed if item.video is not None}
            spoiling = bar.add_task("spoiling lips", total=len(items), item="")
            items = Corrupter(what, donors, seed, enhancer.recipe.crops).all(
                items, Path(folder), lambda item: bar.update(spoiling, advance=1, item=item)
            )
        task = bar.add_task("evaluating", total=len(items), item="")
        for row in run(items, make, workers=workers, seed=seed, use_video=video, inspect=inspect):
            rows.append(row)
            bar.update(task, advance=1, item=f"{row.item.id} {row.item.noise}")
    settings["recipe"] = enhancer.recipe.model_dump(mode="json")
    _finish(report, rows, model, settings, out=out)
    if line := report.trust_line(rows):
        say(line)
    _exit_code(rows)


def _separate(
    listed: list[SeparationItem],
    model: str,
    settings: dict[str, Any],
    *,
    out: Path | None,
    workers: int,
    plot: str | None,
) -> None:
    """Mixtures of several speakers, which the separator takes apart."""
    from functools import partial

    from pyro_minvae.cli.console import progress, say, warn
    from pyro_minvae.errors import InputError
    from pyro_minvae.evaluation import separation_report as report
    from pyro_minvae.evaluation.mixing import spread
    from pyro_minvae.evaluation.plots import speakers_plotter
    from pyro_minvae.evaluation.separation import evaluate as run
    from pyro_minvae.evaluation.separation import with_separator
    from pyro_minvae.media.files import check_writable, make_folder
    from pyro_minvae.pipelines.separator import Separator

    if settings["corrupt"]:
        raise InputError(
            f"--corrupt {settings['corrupt']}: expected a noisy set, found one of several speakers"
        )
    make = partial(
        Separator.from_pretrained,
        model,
        device=settings["device"],
        preset=settings["preset"],
        overrides=settings["set"],
    )
    separator = make()  # an unknown model or setting is answered here, before the processes start
    for caution in separator.cautions:
        warn(caution)
    items = spread(listed, settings["limit"])
    if out:
        check_writable(make_folder(out, "a folder to write to") / "scores.json")
    inspect = speakers_plotter(plot, items, out=out) if plot else None
    system = partial(with_separator, make, use_video=settings["video"], background=settings["background"])
    rows = []
    with progress("item") as bar:
        task = bar.add_task("evaluating", total=len(items), item="")
        for row in run(items, system, workers=workers, seed=settings["seed"], inspect=inspect):
            rows.append(row)
            bar.update(task, advance=1, item=row.item.id)
    settings["recipe"] = separator.recipe.model_dump(mode="json")
    _finish(report, rows, model, settings, out=out)
    say(report.assignment(rows))
    _exit_code(rows)


def _finish(report: Any, rows: list[Any], model: str, settings: dict[str, Any], *, out: Path | None) -> None:
    """Print the table that the module `report` makes of the rows, name what failed, and keep all in files."""
    from rich.console import Console

    from pyro_minvae.cli.console import say, warn
    from pyro_minvae.errors import InputError
    from pyro_minvae.evaluation.report import command_line, write_json

    # A log has no width of its own, and a table folded at 80 columns is hard to read.
    Console(width=None if sys.stdout.isatty() else 180).print(report.table(rows, model=model))
    for line in report.failures(rows):
        warn(f"no score for {line}")
    if out:
        contents = report.tree(rows, model=model, settings=settings)
        report.write_csv(out / "scores.csv", rows)
        write_json(out / "scores.json", {"command": command_line(sys.argv), **contents})
        say(f"{out / 'scores.csv'}, {out / 'scores.json'}: the scores of {len(rows)} mixtures")
    if not any(report.scored(row) for row in rows):
        raise InputError(f"{settings['manifest']}: expected a mixture that can be scored, found none")
    if failed := sum(bool(row.error) for row in rows):
        print(f"{failed} of {len(rows)} mixtures failed and are missing in the means", file=sys.stderr)


def _exit_code(rows: list[Any]) -> None:
    """Leave with 2 where mixtures are missing: a reference, a video or the enhancement of it failed."""
    if any(row.error for row in rows):
        raise typer.Exit(2)
