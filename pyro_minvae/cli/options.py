"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pyro_minvae.errors import InputError

LARGEST_SEED = 2**31 - 1

Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the sampler and the noise model.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Override, e.g. inference.iterations=50 or noise.rank=8.")
]
Preset = Annotated[
    str | None, typer.Option(help="fast, best or paper, in place of the model's own settings.")
]
Device = Annotated[str, typer.Option(help="cpu, or cuda.")]
AudioTrack = Annotated[
    int | None,
    typer.Option(min=1, help="Which sound track of a video with several: 1, 2, ... [default: the main one]."),
]
Face = Annotated[
    str | None,
    typer.Option(help="Whose lips: largest, left, right, or the n-th face from the left (0, 1, ...)."),
]


def parse_face(text: str) -> Literal["largest", "left", "right"] | int:
    """Read `--face`; raises InputError unless it is "largest", "left", "right" or a number from 0."""
    if text in ("largest", "left", "right"):
        return text  # type: ignore[return-value]
    # str.isdigit alone also takes digits that int refuses.
    if text.isascii() and text.isdigit():
        return int(text)
    raise InputError(f"--face: expected 'largest', 'left', 'right' or a number from 0, found '{text}'")
