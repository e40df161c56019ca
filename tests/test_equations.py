"""The table "where each equation lives": what it names exists, and every numbered section of code is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "derivations.md").read_text(encoding="utf-8")
NUMBERED = {
    f"{chapter}.{number}"
    for page in (ROOT / "docs" / "derivations").glob("*.md")
    for chapter, number in re.findall(r"\(eq-(\d+)-(\d+)\)=", page.read_text(encoding="utf-8"))
}
ROWS = re.findall(r"^\| (\d[^|]*) \| (`pyro_minvae[^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE)


def test_the_table_is_read() -> None:
    assert len(ROWS) > 60
    assert len(NUMBERED) > 200


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_equations_code_and_tests_that_exist(row: tuple[str, str, str]) -> None:
    equations, code, tests = row
    assert set(re.findall(r"\d+\.\d+", equations)) <= NUMBERED
    for name in re.findall(r"`([\w.]+)`", code):
        assert defined(name), name
    cited = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", tests)
    assert cited
    for path, function in cited:
        assert (
            f"def {function}(" in (ROOT / path).read_text(encoding="utf-8")
            if function
            else (ROOT / path).is_file()
        )


def defined(name: str) -> bool:
    """Whether some module defines the class or function, or the method of a class."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        stem = ROOT.joinpath(*parts[:cut])
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                first, *rest = parts[cut:]
                found = re.search(
                    rf"^(?:class|def) {first}\b|^from .* import .*\b{first}\b", text, re.MULTILINE
                )
                return bool(found) and all(
                    re.search(rf"^    def {one}\b", text, re.MULTILINE) for one in rest
                )
    return False
