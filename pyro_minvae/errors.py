"""The one error that users cause: the command line prints it as a single line and exits with code 2. And words."""

from __future__ import annotations

import logging

LOG = logging.getLogger("pyro_minvae")


class InputError(ValueError):
    """Bad input: the message is one clear line that names the file, what was expected and what was found."""


def notify(line: str) -> None:
    """Tell the user what was done with an input that leaves something open: a warning of the log "pyro_minvae".

    The command line prints it; in Python `logging` does, on standard error.
    """
    LOG.warning("%s", line)
