"""Settings of the documentation site: `sphinx-build -W docs docs/_build`."""

from __future__ import annotations

import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))  # pictures.py

from docutils import nodes  # noqa: E402
from sphinx.util.docutils import SphinxDirective  # noqa: E402

import pyro_minvae  # noqa: E402

project = "pyro_minvae"
author = "pyro_minvae developers"
release = version = pyro_minvae.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = "pyro_minvae"
html_show_sphinx = False

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 88
autodoc_default_options = {"exclude-members": "model_config"}
smartquotes = False
default_role = "py:obj"
# Two modules may each have a class of one name.
suppress_warnings = ["ref.python"]
# Names in docstrings that start with the package's own must exist; others may be arguments, or of other packages.
nitpicky = True
nitpick_ignore_regex = [("py:(?!obj$).*", ".*"), ("py:obj", r"(?!pyro_minvae\.).*")]


# Modules in rooms, with which a dotted name in a docstring may begin: "inference.elbo".
OWN = {
    module.name.removeprefix("pyro_minvae.")
    for module in pkgutil.walk_packages(pyro_minvae.__path__, "pyro_minvae.")
    if module.name.count(".") == 2
}
CITATION = re.compile(r"\(derivations, [^)]*\)")


def prepare(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `names` in backticks: make reStructuredText of it.

    A formula such as |s|^2 must not be read as markup, a dotted name may leave out the package, and the number of an
    equation leads to it.
    """
    parts = "\n".join(lines).split("`")
    for index, part in enumerate(parts):
        if index % 2:
            parts[index] = f"~pyro_minvae.{part}" if ".".join(part.split(".")[:2]) in OWN else part
        else:
            escaped = re.sub(r"[*|]|_(?!\w)", r"\\\g<0>", part)
            parts[index] = CITATION.sub(link_equations, escaped)
    lines[:] = "`".join(parts).split("\n")


def link_equations(citation: re.Match[str]) -> str:
    """(derivations, eq. 2.7) with a link at 2.7."""
    return re.sub(r"\b(\d+)\.(\d+)\b", r":ref:`\1.\2 <eq-\1-\2>`", citation[0])


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """The fields of a named tuple have no docstrings of their own: the tuple's tells what they are."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def include_from_above(app: Any, relative_path: Path, parent: str, content: list[str]) -> None:
    """Links of a file from the repository's root: to a page of this site, or to the file itself."""
    if relative_path.parent.name == "..":
        content[0] = re.sub(r"\]\((?![a-z]+:|#|docs/)", "](path:../", content[0]).replace("](docs/", "](")


class Pictures(SphinxDirective):
    """The pictures of a system's model and guide, side by side."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        cells = [f"![{side} of {name}](_generated/{name}-{side}.svg)" for side in ("model", "guide")]
        return self.parse_text_to_nodes(f"| model | guide |\n|---|---|\n| {' | '.join(cells)} |\n")


def setup(app: Any) -> None:
    import pictures

    app.add_directive("pictures", Pictures)
    app.connect("builder-inited", lambda app: pictures.draw_all(Path(app.srcdir) / "_generated"))
    # Before napoleon, which makes markup of the sections of a docstring.
    app.connect("autodoc-process-docstring", prepare, priority=400)
    app.connect("autodoc-skip-member", skip)
    app.connect("include-read", include_from_above)
