"""`pyro-minvae enhance`: noisy recordings in, clean speech out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyro_minvae.cli.options import AudioTrack, Device, Face, Preset, Seed, Settings, parse_face
from pyro_minvae.errors import InputError

if TYPE_CHECKING:
    from pyro_minvae.cli.files import Done, EnhancementJob
    from pyro_minvae.inference.mcem.loop import EMState


def enhance(
    inputs: Annotated[list[Path], typer.Argument(help="Recordings, videos, or folders of them.")],
    video: Annotated[
        Path | None, typer.Option(help="Lips for a single INPUT: a video, or crops (.npz, .npy, .mat).")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            "-o",
            help="Output file for one INPUT, or a folder; beside the input without it.",
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Bundled model or folder of a trained one.")] = "min-vae-grid",
    seed: Seed = 0,
    settings: Settings = None,
    preset: Preset = None,
    noise_out: Annotated[
        Path | None, typer.Option(help="Also write the noise: file for one INPUT, folder for several.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Diagnosis as .html or .png for one INPUT, folder for several.")
    ] = None,
    switches: Annotated[
        Path | None,
        typer.Option(help="Modes over time as .csv for one INPUT, folder for several (switching models)."),
    ] = None,
    face: Face = None,
    audio_track: AudioTrack = None,
    mix: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of the estimate in what is written; without it as the recording's noise asks.",
        ),
    ] = None,
    atten_lim: Annotated[
        float | None, typer.Option(min=0, metavar="DB", help="Lower the noise by that much at most (dB).")
    ] = None,
    device: Device = "cpu",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No line for each result; errors stay.")
    ] = False,
) -> None:
    """Enhance noisy speech, guided by the lips where there is a video."""
    from pyro_minvae.cli.batches import run_all
    from pyro_minvae.cli.console import complain, warn
    from pyro_minvae.cli.files import plan
    from pyro_minvae.pipelines.enhancer import Enhancer

    jobs = plan(
        inputs,
        video=video,
        out=out,
        noise_out=noise_out,
        report=report,
        switches=switches,
        track=audio_track,
    )
    asked = {
        "inference.mix": mix,
        "inference.attenuation_db": atten_lim,
        "crops.face": None if face is None else parse_face(face),
    }
    overrides = [*(settings or []), *(f"{key}={value}" for key, value in asked.items() if value is not None)]
    enhancer = Enhancer.from_pretrained(model, device=device, preset=preset, overrides=overrides)
    if enhancer.caution:
        warn(f"{model}: {enhancer.caution}")
    failed = 0
    for job, outcome in run_all(jobs, enhancer, _bar, seed=seed):
        if not isinstance(outcome, InputError):
            _tell(job, outcome, quiet)
        elif len(jobs) == 1:
            raise outcome
        else:
            failed += 1
            complain(f"error: {outcome}")
    if failed:
        complain(f"{failed} of {len(jobs)} recordings failed")
        raise typer.Exit(2)


@contextmanager
def _bar(jobs: Sequence[EnhancementJob], iterations: int) -> Iterator[Callable[[int, EMState], None]]:
    """One bar over the EM iterations of all blocks of recordings that run together."""
    from pyro_minvae.cli.console import progress

    first, *others = [job.audio.name for job in jobs]
    name = first if not others else f"{first} and {len(others)} more"
    with progress("objective") as bar:
        task = bar.add_task(name, total=iterations, objective="")

        def show(done: int, state: EMState) -> None:
            # Blocks with lips and blocks without run apart, which may take more rounds than were counted.
            bar.update(
                task,
                completed=done,
                total=max(iterations, done),
                objective=f"objective {state.objective:,.0f}",
            )

        yield show


def _tell(job: EnhancementJob, done: Done, quiet: bool) -> None:
    """Warnings, and unless `quiet` a line of figures."""
    from pyro_minvae.cli.console import say, warn

    for line in done.warnings:
        warn(line)
    if quiet:
        return
    result = done.result
    trust = "-" if result.responsibility is None else f"{result.responsibility:.2f}"
    lips = f" ({result.lips_evidence})" if result.lips_evidence else ""
    say(
        f"{job.out}: {result.seconds:.2f} s, {'audio-visual' if result.used_video else 'audio-only'}{lips}, "
        f"{result.iterations} iterations, acceptance {result.acceptance:.2f}, "
        f"audio responsibility {trust}, real-time factor {result.real_time_factor:.2f}"
    )
