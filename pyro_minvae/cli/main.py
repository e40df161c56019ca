"""The `pyro-minvae` program: one thin command per file; bad input becomes one line and exit code 2."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import typer

from pyro_minvae import __version__
from pyro_minvae.cli.console import complain
from pyro_minvae.cli.elbo import elbo
from pyro_minvae.cli.enhance import enhance
from pyro_minvae.cli.evaluate import evaluate
from pyro_minvae.cli.lips import lips
from pyro_minvae.cli.mix import mix
from pyro_minvae.cli.separate import separate
from pyro_minvae.cli.train import train
from pyro_minvae.errors import LOG, InputError

app = typer.Typer(
    name="pyro-minvae",
    help="Noise-agnostic audio-visual speech enhancement with deep generative models.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pyro-minvae {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and stop.", callback=_print_version, is_eager=True
    ),
) -> None:
    pass


for command in (enhance, train, lips, mix, evaluate, elbo):
    app.command()(command)
# `--names a b` leaves words over.
app.command(context_settings={"allow_extra_args": True})(separate)


class _Words(logging.Handler):
    """Prints what the package tells the user."""

    def emit(self, record: logging.LogRecord) -> None:
        from pyro_minvae.cli.console import warn

        warn(record.getMessage())


WORDS = _Words()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; exit codes: 0 done, 1 a check failed, 2 bad input, 130 interrupted (typer's own)."""
    LOG.addHandler(WORDS)
    try:
        app(args=None if arguments is None else list(arguments))
    except InputError as error:
        complain(f"error: {error}")
        sys.exit(2)
