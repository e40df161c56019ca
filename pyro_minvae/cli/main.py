"""The `pyro-minvae` program: registers one thin command per file and turns bad input into one line and exit code 2."""

from __future__ import annotations

import sys

import typer

from pyro_minvae.errors import InputError

app = typer.Typer(
    name="pyro-minvae",
    help="Noise-agnostic audio-visual speech enhancement with deep generative models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
