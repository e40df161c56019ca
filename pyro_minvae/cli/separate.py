"""`pyro-minvae separate`: several voices in, one file for each out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyro_minvae.cli.options import Device, Preset, Seed, Settings

if TYPE_CHECKING:
    from pyro_minvae.cli.separation_files import Parted
    from pyro_minvae.inference.mcem.loop import EMState

MODEL = "av-separation-grid"


def separate(
    context: typer.Context,
    mixture: Annotated[Path, typer.Argument(metavar="MIX", help="A recording or a video of several voices.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.wav of each speaker and background.wav.")],
    video: Annotated[
        list[Path] | None,
        typer.Option(help="Lips of a speaker: a video, or crops (.npz, .npy, .mat); repeatable."),
    ] = None,
    faces: Annotated[
        str | None,
        typer.Option(help="Speakers are faces of one video, or of MIX: all, or from left,right,0,1,..."),
    ] = None,
    speakers: Annotated[
        int | None,
        typer.Option(min=1, max=8, help="How many speak in all; those without video are only heard."),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME...", help="What to call them, one name each, in their order."),
    ] = None,
    background: Annotated[
        bool, typer.Option("--background/--no-background", help="Is there noise besides the speakers?")
    ] = True,
    model: Annotated[
        list[str] | None,
        typer.Option(help=f"Bundled model or folder, for all or repeated for each; default: {MODEL}."),
    ] = None,
    seed: Seed = 0,
    settings: Settings = None,
    preset: Preset = None,
    switches: Annotated[
        bool, typer.Option("--switches", help="Also write each speaker's modes over time, OUT/NAME.csv.")
    ] = False,
    device: Device = "cpu",
) -> None:
    """Separate several voices in MIX, each guided by the lips of its speaker where there are any."""
    from pyro_minvae.cli.console import progress, warn
    from pyro_minvae.cli.separation_files import plan_separation
    from pyro_minvae.errors import InputError
    from pyro_minvae.pipelines.separator import Separator

    # `--names a b`: what follows the first name is left over, since an option takes one value.
    more = context.args
    if more and not names:
        raise InputError(f"{more[0]}: expected a single MIX, found another one")
    job = plan_separation(
        mixture,
        videos=video or [],
        faces=faces,
        speakers=speakers,
        names=[*(names or []), *more],
        out=out,
        switches=switches,
    )
    models = model or [MODEL]
    separator = Separator.from_pretrained(models, device=device, preset=preset, overrides=settings or [])
    for line in separator.cautions:
        warn(line)
    with progress("objective") as bar:
        task = bar.add_task(mixture.name, total=separator.recipe.inference.iterations, objective="")

        def watch(state: EMState) -> None:
            bar.update(task, completed=state.iteration, objective=f"objective {state.objective:,.0f}")

        done = job.run(separator, seed=seed, background=background, watch=watch)
    for line in done.warnings:
        warn(line)
    _report(done)


def _report(done: Parted) -> None:
    """A line of figures for each file."""
    from pyro_minvae.cli.console import say

    result = done.result
    pace = f"real-time factor {result.real_time_factor:.2f}"
    for path, name, reason in zip(done.files, done.names, result.without_video, strict=True):
        how = f"audio-only ({reason})" if reason else "audio-visual"
        say(f"{path}: {name}, {result.seconds:.2f} s, {how}, {pace}")
    say(
        f"{done.background}: background, {result.seconds:.2f} s, {result.iterations} iterations, "
        f"acceptance {result.acceptance:.2f}, {pace}"
    )
