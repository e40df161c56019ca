"""`pyro-minvae enhance`: noisy recordings in, clean speech out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyro_minvae.errors import InputError

if TYPE_CHECKING:
    from pyro_minvae.enhancer import Enhancer
    from pyro_minvae.inference.mcem import EMState
    from pyro_minvae.jobs import Job


def enhance(
    inputs: Annotated[list[Path], typer.Argument(help="Recordings, videos, or folders of them.")],
    video: Annotated[
        Path | None, typer.Option(help="Lips for a single INPUT: a video, or crops (.npz, .npy, .mat).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Output file for one INPUT, folder for several [default: beside it].")
    ] = None,
    model: Annotated[str, typer.Option(help="Bundled model or folder of a trained one.")] = "min-vae-grid",
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Seed of the sampler and the noise model.")
    ] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override, e.g. inference.iterations=50 or noise.rank=8."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="fast, best or paper, in place of the model's own settings.")
    ] = None,
    noise_out: Annotated[
        Path | None, typer.Option(help="Also write the noise: file for one INPUT, folder for several.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Diagnosis as .html or .png for one INPUT, folder for several.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda.")] = "cpu",
) -> None:
    """Enhance noisy speech, guided by the lips where there is a video."""
    from pyro_minvae.cli.console import warn
    from pyro_minvae.enhancer import Enhancer
    from pyro_minvae.jobs import plan

    jobs = plan(inputs, video=video, out=out, noise_out=noise_out, report=report)
    enhancer = Enhancer.from_pretrained(model, device=device, preset=preset, overrides=settings or [])
    if enhancer.caution:
        warn(f"{model}: {enhancer.caution}")
    if len(jobs) == 1:
        _run(jobs[0], enhancer, seed)
        return
    failed = sum(not _attempt(job, enhancer, seed) for job in jobs)
    if failed:
        print(f"{failed} of {len(jobs)} recordings failed", file=sys.stderr)
        raise typer.Exit(2)


def _attempt(job: Job, enhancer: Enhancer, seed: int) -> bool:
    """One recording of many, which a bad one must not stop: False if it was one, which is said."""
    try:
        _run(job, enhancer, seed)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    return True


def _run(job: Job, enhancer: Enhancer, seed: int) -> None:
    """One recording, with a bar over the EM iterations and a line of figures at the end."""
    from pyro_minvae.cli.console import progress, say, warn

    iterations = enhancer.recipe.inference.iterations
    with progress("objective") as bar:
        task = bar.add_task(job.audio.name, total=iterations, objective="")

        def watch(state: EMState) -> None:
            bar.update(task, completed=state.iteration, objective=f"objective {state.objective:,.0f}")

        done = job.run(enhancer, seed=seed, watch=watch)
    for line in done.warnings:
        warn(line)
    result = done.result
    trust = "-" if result.responsibility is None else f"{result.responsibility:.2f}"
    say(
        f"{job.out}: {result.seconds:.2f} s, {'audio-visual' if result.used_video else 'audio-only'}, "
        f"{result.iterations} iterations, acceptance {result.acceptance:.2f}, "
        f"audio responsibility {trust}, real-time factor {result.real_time_factor:.2f}"
    )
