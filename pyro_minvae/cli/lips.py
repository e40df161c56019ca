"""`pyro-minvae lips`: show and save what the model will see of a mouth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyro_minvae.cli.options import Face, parse_face

if TYPE_CHECKING:
    from pyro_minvae.types import MouthCrops


def lips(
    video: Annotated[Path, typer.Argument(help="A video, or mouth crops (.npz, .npy, .mat).")],
    out: Annotated[
        Path | None, typer.Option(help="Write the crops, their times and validity (.npz).")
    ] = None,
    preview: Annotated[Path | None, typer.Option(help="Write a contact sheet to look at (.png).")] = None,
    face: Face = None,
    size: Annotated[int, typer.Option(min=8, help="Side of the crops in pixels.")] = 67,
) -> None:
    """Crop the mouth from every frame of VIDEO.

    Prints the number of frames, their length, their rate and the share in which the face was found.
    """
    from pyro_minvae.cli.console import say, warn
    from pyro_minvae.errors import InputError
    from pyro_minvae.media.audio import is_crops
    from pyro_minvae.media.files import check_writable
    from pyro_minvae.media.mouths import cut_mouths, find_mouths, read_lips, save_lips
    from pyro_minvae.media.sheet import check_name, pick_frames, save_sheet

    chosen = parse_face(face or "largest")
    if out is not None:
        check_writable(out)
        if out.suffix.lower() != ".npz":
            raise InputError(f"{out}: expected the name of a .npz file to write, found '{out.suffix}'")
    if preview is not None:
        check_writable(preview)
        check_name(preview)
    frames = []
    if is_crops(video):
        found = read_lips(video, size=size)
    else:
        mouths = find_mouths(video, face=chosen)
        (found,) = cut_mouths(video, [mouths], size=size)
        frames = pick_frames(video, mouths) if preview else []
    if out is not None:
        save_lips(out, found)
    if preview is not None:
        save_sheet(preview, found, frames=frames)
    say(f"{video}: {_summary(found)}")
    if not found.valid.any():
        warn(f"{video}: no face was found")


def _summary(found: MouthCrops) -> str:
    """One line: frames, seconds, frames per second, share of valid frames."""
    import numpy as np

    count = len(found.times)
    step = float(np.median(np.diff(found.times))) if count > 1 else 0.0
    rate = f"{1 / step:.2f} frames/s" if step else "one frame"
    seconds = float(found.times[-1] - found.times[0]) + step
    return f"{count} frames, {seconds:.2f} s, {rate}, face in {100 * found.valid.mean():.1f} %"
