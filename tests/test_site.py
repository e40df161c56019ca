"""The documentation site builds with warnings as errors; its pictures show the models, its swaps lead to the recipes.

Where the extra "docs" is not installed these tests skip, or fail with PYRO_MINVAE_REQUIRE_DOCS=1.
"""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pyro_minvae
from pyro_minvae.config.load import load_recipe, recipe_names

ROOT = Path(__file__).parents[1]
REQUIRE = "PYRO_MINVAE_REQUIRE_DOCS"
NEEDED = ("sphinx", "myst_parser", "furo", "graphviz", "pygraphviz")
MODELS = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", MODELS, re.MULTILINE | re.DOTALL))


@pytest.fixture
def tools() -> None:
    """What the site is built with; skips, or fails where it is required, without."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"the extra 'docs' is not installed: no {', '.join(missing)}"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{REQUIRE}=1 and {reason}")
        pytest.skip(reason)


def copy_sources(target: Path) -> Path:
    """A copy of all that the site is made of: building writes beside its sources."""
    ignored = shutil.ignore_patterns("_build", "_generated", "__pycache__")
    for name in ("docs", "examples"):
        shutil.copytree(ROOT / name, target / name, ignore=ignored)
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target


def modules() -> list[str]:
    """Every public module; the command line's are told in docs/commands.md."""
    found = [module.name for module in pkgutil.walk_packages(pyro_minvae.__path__, "pyro_minvae.")]
    return ["pyro_minvae", *(n for n in found if not re.search(r"\._|\.cli(\.|$)", n))]


def test_the_site_builds_without_a_warning_and_offline(tools: None, tmp_path: Path) -> None:
    source, out = copy_sources(tmp_path / "source"), tmp_path / "site"
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(out)],
        cwd=source,
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [name for name in modules() if not (out / f"_generated/api/{name}.html").is_file()] == []
    # What a docstring cites leads to the equation, and equations are typeset.
    assert (
        "derivations/02-min-vae.html#eq-2-"
        in (out / "_generated/api/pyro_minvae.inference.svi.elbo.html").read_text()
    )
    assert 'class="math' in (out / "derivations/02-min-vae.html").read_text()
    # The README's links to other files arrive there.
    index = (out / "index.html").read_text()
    assert 'href="commands.html"' in index
    assert re.search(r'href="_downloads/\w+/LICENSE"', index)
    shown = set(re.findall(r'src="_images/([\w-]+)\.svg"', (out / "models.html").read_text()))
    assert {f"{name}-{side}" for name in recipe_names() for side in ("model", "guide")} <= shown
    for name in shown:
        ElementTree.parse(out / "_images" / f"{name}.svg")


@pytest.fixture
def pictures(tools: None, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`docs/pictures.py`."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("pictures")


def arrows(svg: bytes) -> set[str]:
    """The edges of a picture, as "z->s"."""
    titles = [
        node.text or "" for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}title")
    ]
    return {title for title in titles if "->" in title}


ARROWS = {
    "a-vae-model": {"z->s"},
    "a-vae-guide": {"s->z"},
    "v-vae-model": {"z->s"},
    "v-vae-guide": {"v->z"},
    "av-vae-guide": {"s->z", "v->z"},
    "av-cvae-model": {"v->z", "v->s", "z->s"},
    "min-vae-model": {"alpha->z", "z->s"},
    "min-vae-guide": {"s->alpha", "v->alpha", "alpha->z", "s->z", "v->z"},
    "min-vae-visual-prior-model": {"v->z", "alpha->z", "z->s"},
    "min-vae-dec-model": {"v->s", "alpha->z", "z->s"},
    "moe-poe-guide": {"s->alpha", "v->alpha", "alpha->z", "s->z", "v->z"},
    "student-t-model": {"z->s", "w->s"},
    "student-t-guide": {"s->z", "s->w", "z->w"},
    "noisy-speech": {"v->z_0", "alpha_0->z_0", "z_0->x", "noise->x", "gain->x", "W->noise", "H->noise"},
}


def test_pictures_show_who_depends_on_whom(pictures: ModuleType) -> None:
    drawn = {name: pictures.render(program) for name, program in pictures.pictures().items()}
    assert {name: arrows(drawn[name]) for name in ARROWS} == ARROWS
    # Frames are a plate where they are independent, and none where a prior or a decoder couples them.
    for name, svg in drawn.items():
        coupled = name.startswith(("ar1", "context"))
        assert (b"cluster_frames" in svg) is not coupled, name


def test_every_system_has_its_section() -> None:
    assert [name for name in recipe_names() if f"{{pictures}} {name}\n" not in SECTIONS.get(name, "")] == []


def sections_of(recipe: str, overrides: list[str]) -> tuple[Any, Any]:
    """The model and the guide of a recipe, which has to stay a legal one with these overrides."""
    chosen = load_recipe(recipe, overrides)
    return chosen.model, chosen.guide


@pytest.mark.parametrize("name", [name for name, text in SECTIONS.items() if "\nSwap from" in text])
def test_a_swap_leads_from_one_system_to_the_other(name: str) -> None:
    line = next(line for line in SECTIONS[name].splitlines() if line.startswith("Swap from"))
    base, *overrides = re.findall(r"`([^`]+)`", line)
    swapped = sections_of(base, overrides)
    if name in recipe_names():
        assert swapped == sections_of(name, [])
    else:
        assert swapped != sections_of(base, [])
