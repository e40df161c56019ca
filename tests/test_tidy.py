"""The repository itself: small files, no traces of one machine, nothing unfinished."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MIB = 2**20
# Written in pieces, so that this file does not match itself.
MACHINE = re.compile(r"(?<![\w.~}])/(?:" + "|".join(["work", "farm", "root", "home", "Users"]) + r")/\w")
REGISTRY = re.compile(
    "|".join(["index" + "-url", "find" + "-links", r"pypi\.or" + "g", "files.pytho" + "nhosted"])
)
UNFINISHED = re.compile(r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
# About 250 lines are wanted; beyond these a file has to be cut. Tests are lists by nature and get more.
MOST_LINES = {"pyro_minvae": 320, "benchmarks": 320, "examples": 320, "tests": 400}


def listed_files() -> list[Path]:
    """Every file that is or would come under version control; in an unpacked source archive every file."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = [ROOT / name for name in sorted(set(listed.stdout.split("\0"))) if name]
    else:
        paths = [path for folder in ("pyro_minvae", "tests") for path in (ROOT / folder).rglob("*")]
    # A file may be deleted and not yet committed so.
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


FILES = listed_files()
WEIGHTS = [
    path
    for path in FILES
    if path.name == "model.safetensors" and path.parents[1] == ROOT / "pyro_minvae" / "systems" / "pretrained"
]
TEXTS = [path for path in FILES if b"\0" not in path.read_bytes()[:8192]]


def offending_lines(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    """`file:line: text` of every line that the pattern finds."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_files_are_under_two_mib_but_for_the_bundled_weights() -> None:
    assert [path for path in FILES if path not in WEIGHTS and path.stat().st_size > 2 * MIB] == []


def test_weights_together_are_under_ten_megabytes() -> None:
    weights = (ROOT / "pyro_minvae" / "systems" / "pretrained").rglob("*")
    assert sum(path.stat().st_size for path in weights if path.is_file()) < 10e6


def test_no_paths_of_one_machine_and_no_registries() -> None:
    assert offending_lines(MACHINE, TEXTS) == []
    assert offending_lines(REGISTRY, TEXTS) == []


def test_nothing_is_unfinished() -> None:
    assert offending_lines(UNFINISHED, TEXTS) == []


def test_no_figure_is_left_to_be_filled_in() -> None:
    cards = [path for path in TEXTS if path.name == "README.md" and ROOT / "pyro_minvae" in path.parents]
    assert offending_lines(re.compile(r"@[A-Z][A-Z0-9_]*@"), cards) == []
    assert offending_lines(re.compile(r"<!--\s*figures\s*-->"), [ROOT / "README.md"]) == []


# The road from a file to a file: no room imports one that comes after it.
ROOMS = [
    "config",
    "media",
    "features",
    "data",
    "models",
    "guides",
    "inference",
    "systems",
    "pipelines",
    "checks",
    "evaluation",
    "cli",
]
# Arithmetic on arrays that knows nothing of the rooms around it: every room may use it.
LEAF = "pyro_minvae.inference.ops"


def runtime_imports(source: Path) -> list[str]:
    """The modules of the package that a file imports when it runs; what is only for types binds nobody."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    return [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing_only
        for alias in node.names
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_room_that_comes_after_it(room: str) -> None:
    after = tuple(f"pyro_minvae.{name}." for name in ROOMS[ROOMS.index(room) + 1 :])
    sources = [path for path in FILES if path.suffix == ".py" and ROOT / "pyro_minvae" / room in path.parents]
    assert sources
    found = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in sources
        for module in runtime_imports(path)
        if module.startswith(after) and not f"{module}.".startswith(LEAF)
    }
    assert found == set()


def test_the_arithmetic_knows_nothing_of_the_rooms_around_it() -> None:
    sources = (ROOT / "pyro_minvae" / "inference" / "ops").glob("*.py")
    found = {
        module for path in sources for module in runtime_imports(path) if module.startswith("pyro_minvae")
    }
    leaf = (LEAF, "pyro_minvae.errors.", "pyro_minvae.types.")
    assert {m for m in found if not m.startswith(leaf)} == set()


@pytest.mark.parametrize("folder", MOST_LINES)
def test_source_files_are_short(folder: str) -> None:
    sources = [path for path in FILES if path.suffix == ".py" and ROOT / folder in path.parents]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES[folder]} == {}


def test_no_media_but_the_example() -> None:
    media = {".wav", ".flac", ".ogg", ".mp3", ".mkv", ".mp4", ".mpg", ".avi", ".mat", ".npz", ".npy"}
    found = {str(path.relative_to(ROOT)) for path in FILES if path.suffix.lower() in media}
    assert found <= {"examples/noisy.mkv", "examples/clean.flac"}
