"""The one error that users cause: the command line prints it as a single line and exits with code 2."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message is one clear line that names the file, what was expected and what was found."""
