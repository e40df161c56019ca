"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

LARGEST_SEED = 2**31 - 1

Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the sampler and the noise model.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Override, e.g. inference.iterations=50 or noise.rank=8.")
]
Preset = Annotated[
    str | None, typer.Option(help="fast, best or paper, in place of the model's own settings.")
]
Device = Annotated[str, typer.Option(help="cpu, or cuda.")]
