"""Every benchmark runs from its command line on small settings, prints its table and writes what it printed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from signals import speechlike
from tiny import save_tiny_model

from pyro_minvae.evaluation.mixing import White
from pyro_minvae.evaluation.noisy_set import make_noisy_set
from pyro_minvae.inference import ops
from pyro_minvae.media.mouths import save_lips
from pyro_minvae.types import MouthCrops, Utterance

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
EXAMPLE = Path(__file__).parents[1] / "examples" / "noisy.mkv"
RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model `tiny`, `blind` without lips, and the noisy set `set`: two clips with lips at 0 dB."""
    folder = tmp_path_factory.mktemp("benchmarks")
    save_tiny_model(folder / "tiny")
    save_tiny_model(folder / "blind", video=False)
    random = np.random.default_rng(0)
    clips = []
    for name in ("one", "two"):
        soundfile.write(folder / f"{name}.wav", speechlike(RATE, 1.2, len(clips)), RATE)
        lips = MouthCrops(
            random.integers(0, 256, (30, 16, 16), np.uint8), np.arange(30) / 25, np.ones(30, bool)
        )
        save_lips(folder / f"{name}.npz", lips)
        clips.append(Utterance(name, name, folder / f"{name}.wav", folder / f"{name}.npz", "val"))
    make_noisy_set(clips, [White()], snrs_db=[0.0], out=folder / "set")
    return folder


def run(program: str, *arguments: object) -> str:
    """What the program prints; a failure shows why."""
    command = [sys.executable, str(BENCHMARKS / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tables(printed: str) -> list[dict[str, list[str]]]:
    """The Markdown tables of a page: first cell of a line to the others."""
    found: list[dict[str, list[str]]] = []
    inside = False
    for line in printed.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        first, *rest = [cell.strip() for cell in line.strip("|").split("|")]
        if not inside:
            found.append({})
        inside = True
        found[-1][first] = rest
    return found


def test_quality_compares_systems(folder: Path) -> None:
    plain, settings = f"{folder}/tiny,preset=fast", f"{folder}/blind,inference.gain_prior=[1, 1]"
    printed = run(
        "quality.py", "--noisy-set", folder / "set", "--workers", 1, "--out", folder / "quality.json",
        "--system", plain, "--system", settings,
    )  # fmt: skip
    (table,) = tables(printed)
    assert {"mixture", plain, settings} <= set(table)
    tree = json.loads((folder / "quality.json").read_text())
    assert [system["model"] for system in tree["systems"]] == [plain, settings]
    assert all(len(system["rows"]) == 2 for system in tree["systems"])


@pytest.mark.parametrize("model", ["tiny", "blind"])
def test_paper_loop_is_beside_ours(folder: Path, model: str) -> None:
    system = f"{folder}/{model},preset=fast,inference.lips=always"
    printed = run(
        "paper_loop.py", "--noisy-set", folder / "set", "--model", folder / model, "--system", system,
        "--iterations", 3, "--steps", 4, "--keep", 2, "--threads", 1, "--out", folder / "loop.json",
    )  # fmt: skip
    scores, differences = tables(printed)
    published = f"published loop, {folder / model} (3 x 4)"
    assert scores[published][-1] == "1.0"  # as fast as itself
    for metric in range(3):
        assert all(np.isfinite(float(scores[name][metric])) for name in ("mixture", published, system))
    assert system in differences
    assert published not in differences
    tree = json.loads((folder / "loop.json").read_text())
    assert tree["published"]["iterations"] == 3
    assert all(seconds > 0 for seconds in tree["speed"].values())


def test_ladder_goes_up_with_what_is_given_away(folder: Path) -> None:
    printed = run(
        "ladder.py", "--noisy-set", folder / "set", "--system", f"{folder}/tiny,inference.lips=always",
        "--preset", "fast", "--rank", 1, "--rank", 3, "--true-rank", 4, "--workers", 1,
        "--out", folder / "ladder.json",
    )  # fmt: skip
    (table,) = tables(printed)
    assert list(table)[2:] == [
        "mixture", "model, audio start", "model, lips start", "lips start, gain fixed to 1",
        "lips start, noise of rank 1", "lips start, noise of rank 3", "preset fast",
        "z from the lips alone, NMF of the true noise", "oracle z, noise learnt",
        "oracle z, NMF of the true noise", "true speech power, NMF of the true noise",
    ]  # fmt: skip
    assert table["oracle z, NMF of the true noise"][-1] == "100 %"
    decibels = {rung: float(cells[0]) for rung, cells in list(table.items())[2:]}
    assert decibels["mixture"] == pytest.approx(0, abs=0.2)
    # The Wiener filter of the truth beats all that networks without training can say.
    truth = decibels.pop("true speech power, NMF of the true noise")
    assert truth > 10
    assert truth > max(decibels.values()) + 3
    assert len(json.loads((folder / "ladder.json").read_text())["rows"]) == 2


def test_ladder_of_a_model_without_lips(folder: Path) -> None:
    printed = run(
        "ladder.py", "--noisy-set", folder / "set", "--system", folder / "blind", "--preset", "fast",
        "--rank", 2, "--workers", 1,
    )  # fmt: skip
    (table,) = tables(printed)
    assert "audio start, noise of rank 2" in table
    assert not any("lips" in rung for rung in table)


def test_speed_prints_time_memory_shares_and_floor(folder: Path) -> None:
    settings = "inference.kernel=metropolis,inference.steps=2,inference.last_marginal=5"
    printed = run(
        "speed.py", "--system", f"{folder}/tiny,preset=fast,{settings}",
        "--longest", 1, "--clip", 0.5, "--chains", 2,
        "--threads", 1, "--batch", 2, "--recordings", 2, "--repeats", 1, "--out", folder / "speed.json",
    )  # fmt: skip
    sweeps, shares, floor = tables(printed)
    assert {"1 s", "0.5 s, chains: 2", "0.5 s, threads: 1", "2 x 0.5 s, side by side: 2"} <= set(sweeps)
    assert "matrix products" in shares
    assert float(floor["EM loop"][-1]) >= float(floor["EM loop"][-2]) > 0
    for column in (-1, -2):  # usually, and at best
        ratio = float(floor["EM loop"][column]) / float(floor["floor"][column])
        assert float(floor["EM loop, times the floor"][column]) == pytest.approx(ratio, rel=0.05, abs=0.06)
    (found,) = json.loads((folder / "speed.json").read_text())["systems"].values()
    assert found["length"][0]["lips"]
    assert found["length"][0]["peak_mib"] >= found["length"][0]["before_mib"] > 50
    # What the profiler saw adds up to the call.
    assert sum(found["profile"]["kinds"].values()) == pytest.approx(found["profile"]["took_s"], rel=0.05)
    counted = {(one["part"], one["kind"]): one for one in found["floor"]["operations"]}
    # 20 iterations of 2 moves, and a log density more for each new target.
    assert counted["decoder", "exp2"]["calls"] == 40
    assert counted["density", "log"]["calls"] == 60
    # Of which the last five are marginal: V = g sigma + WH.
    assert counted["density", "fma"]["calls"] == 15
    assert counted["decoder", "exp2"]["shape"][0] % 513 == 0


def test_every_pass_counts_to_a_kind_of_operation() -> None:
    """None is left to "Python, NumPy"."""
    known = subprocess.run(
        [sys.executable, "-c", "import measure; print(*measure.KIND_OF)"],
        cwd=BENCHMARKS,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    passes = {one.__name__ for one in ops.TABLE}
    assert len(passes) > 12
    assert passes <= set(known)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpora in miniature: three training and three validation clips with a face, voices without, and a noise."""
    folder = tmp_path_factory.mktemp("corpora")
    (folder / "grid" / "s1").mkdir(parents=True)
    for number in range(6):
        # The sound beside a clip is the clip's: one face may say different things.
        shutil.copy(EXAMPLE, folder / "grid" / "s1" / f"clip{number}.mkv")
        soundfile.write(folder / "grid" / "s1" / f"clip{number}.wav", speechlike(RATE, 1.2, number), RATE)
    (folder / "grid" / "train.txt").write_text("clip0\nclip1\nclip2\n")
    (folder / "grid" / "val.txt").write_text("clip3\nclip4\nclip5\n")
    for split, first in (("train", 10), ("val", 20)):
        (folder / "librispeech" / split).mkdir(parents=True)
        for number in range(first, first + 3):
            path = folder / "librispeech" / split / f"{number}-1-0000.flac"
            soundfile.write(path, speechlike(RATE, 2.5, number), RATE)
    (folder / "noise").mkdir()
    hum = np.random.default_rng(0).standard_normal(4 * RATE)
    soundfile.write(folder / "noise" / "cafe.flac", 0.1 * hum, RATE)
    return folder


def test_separation_compares_and_shows_what_limits(folder: Path, corpora: Path) -> None:
    page = folder / "page.md"
    page.write_text("before\n<!-- separation: begin -->\nold\n<!-- separation: end -->\nafter\n")
    model = f"{folder}/tiny,inference.lips=always"
    printed = run(
        "separation.py", corpora, "--model", model, "--audio-model", folder / "blind", "--mixtures", 1, "--ladder",
        "--rank", 3, "--epochs", 1, "--runs", folder / "runs", "--workers", 1, "--json", folder / "sep.json",
        "--out", page,
    )  # fmt: skip
    same, _, same_rungs, different, by_speaker, _, different_rungs = tables(printed)
    name = f"{folder}/tiny"
    systems = [
        f"{name}, lips", f"{name}, sound alone", f"{folder}/blind, sound alone", "supervised NMF",
        "mask network, lips", "ideal ratio mask",
    ]  # fmt: skip
    assert list(same)[2:] == list(different)[2:] == ["mixture", *systems]
    assert list(by_speaker)[2:] == systems
    for table in (same, different):
        # The truth is far ahead of networks without training, and its estimates are in their places.
        ideal = table.pop("ideal ratio mask")
        assert float(ideal[0]) > max(float(cells[0]) for cells in list(table.values())[2:]) + 3
        assert ideal[-2] == "0 %"
        assert table[f"{name}, sound alone"][-2] == "-"
    assert "oracle z and gains" in same_rungs
    assert "oracle z, NMF of the true noise, gains fitted" in different_rungs.keys() - same_rungs.keys()
    text = page.read_text()
    assert text.startswith("before\n<!-- separation: begin -->\n**Two speakers")
    assert text.endswith("<!-- separation: end -->\nafter\n")
    assert "old" not in text
    sets = json.loads((folder / "sep.json").read_text())["sets"]
    assert all(found["speed"]["ratio"] > 0 for found in sets.values())


def test_wrong_systems_end_with_one_line(folder: Path) -> None:
    for program in ("quality.py", "ladder.py"):
        command = [sys.executable, str(BENCHMARKS / program), "--noisy-set", str(folder / "set")]
        command += ["--workers", "1", "--system", f"{folder}/tiny,preset=slow"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "slow" in done.stderr
        assert "Traceback" not in done.stderr
