"""Means, gains, intervals, and the three shapes of a report."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pyro_minvae import __version__
from pyro_minvae.evaluation import report
from pyro_minvae.evaluation.benchmark import Row
from pyro_minvae.evaluation.manifest import NoisyItem
from pyro_minvae.evaluation.metrics import HEADINGS, Scores, failed
from pyro_minvae.evaluation.summary import bootstrap, summarise


def row(number: int, noise: str, before: float, after: float) -> Row:
    """A row whose metrics all have the same values."""
    item = NoisyItem(id=f"u{number}", noise=noise, snr_db=-5, mixture=Path(f"m{number}"), clean=Path("c"))
    scores = [Scores(dict.fromkeys(HEADINGS, value), {}) for value in (before, after)]
    return Row(item, *scores, seed=0, seconds=2.0, real_time_factor=0.5)


@pytest.fixture
def rows() -> list[Row]:
    good = [row(0, "cafe", -5, 1), row(1, "cafe", -4, 4), row(2, "white", -3, 0)]
    bad = row(3, "white", -6, 0)._replace(output=failed("it broke"), error="it broke")
    return [*good, bad]


def test_groups_are_means_of_what_was_measured(rows: list[Row]) -> None:
    cafe, white, overall = summarise(rows)
    assert (cafe.noise, cafe.snr_db, cafe.mixtures, cafe.scored, cafe.failures) == ("cafe", -5, 2, 2, 0)
    assert cafe.cells["pesq"][:3] == (-4.5, 2.5, 7)
    assert (white.mixtures, white.scored, white.failures) == (2, 1, 1)
    # The failed mixture is missing in the input's mean too, or the gain would compare different sets.
    assert white.cells["stoi"] == (-3, 0, 3, 3, 3, 1)
    assert (overall.noise, overall.snr_db, overall.mixtures) == ("overall", None, 4)
    assert overall.cells["si_sdr"].gain == pytest.approx((6 + 8 + 3) / 3)


def test_bootstrap_covers_the_mean_and_shrinks() -> None:
    generator = np.random.default_rng(0)
    few, many = generator.normal(3, 1, 25), generator.normal(3, 1, 400)
    low, high = bootstrap(many)
    assert low < many.mean() < high
    # The interval of a mean of n normal values is 2 * 1.96 / sqrt(n) wide.
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert np.diff(bootstrap(few))[0] == pytest.approx(2 * 1.96 / 5, rel=0.4)
    assert bootstrap(many) == (low, high)
    assert np.isnan(bootstrap(few[:0])).all()


def test_the_table_names_units_and_pesq_mode(rows: list[Row]) -> None:
    stream = io.StringIO()
    Console(file=stream, width=130).print(report.table(rows, model="[some]"))
    text = stream.getvalue()
    for part in (
        "[some]: 3 of 4 mixtures",
        "1 (1 missing)",
        "3 (1 missing)",
        "SI-SDR (dB)",
        "PESQ (wide band)",
        "ESTOI",
        "cafe",
        "-5 dB",
        "overall",
        "[6.00, 8.00]",
    ):
        assert part in text
    assert report.failures(rows) == ["m3: it broke"]


def test_systems_are_compared_in_markdown(rows: list[Row]) -> None:
    stream = io.StringIO()
    Console(file=stream, width=200).print(report.comparison({"good": rows[:2], "other [x]": rows[2:3]}))
    lines = [line.strip() for line in stream.getvalue().splitlines() if line.strip()]
    assert [line.split("|")[1].strip() for line in lines] == [
        "system",
        "-" * 11,
        "mixture",
        "good",
        "other [x]",
    ]
    assert "+7.00 [6.00, 8.00]" in lines[3]
    assert "PESQ (wide band)" in lines[0]


def test_csv_has_a_line_for_each_mixture(rows: list[Row], tmp_path: Path) -> None:
    report.write_csv(tmp_path / "scores.csv", rows)
    with open(tmp_path / "scores.csv", encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["id"] for line in lines] == ["u0", "u1", "u2", "u3"]
    assert lines[0]["noise"] == "cafe"
    assert float(lines[1]["output_si_sdr"]) == 4
    assert (lines[3]["output_pesq"], lines[3]["reason"]) == ("nan", "it broke")


def test_json_can_be_read_and_repeats_the_run(rows: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    contents = report.tree(rows, model="m", settings={"seed": 3})
    report.write_json(path, {"command": "pyro-minvae evaluate", **contents})

    def refuse(name: str) -> float:
        raise AssertionError(name)

    tree = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert (tree["version"], tree["model"], tree["settings"]) == (__version__, "m", {"seed": 3})
    assert tree["metrics"]["pesq"] == "PESQ (wide band)"
    assert tree["rows"][3]["output_si_sdr"] is None
    assert tree["summary"][0]["cells"]["si_sdr"]["gain"] == 7
    assert [group["noise"] for group in tree["summary"]] == ["cafe", "white", "overall"]


def test_the_command_line_can_be_pasted() -> None:
    words = ["/opt/venv/bin/pyro-minvae", "evaluate", "my set", "--seed", "1"]
    assert report.command_line(words) == "pyro-minvae evaluate 'my set' --seed 1"
