"""What the benchmarks share: their mixtures, systems by name, tables, and what to say of the machine."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from pyro_minvae.data.corpus import open_corpus
from pyro_minvae.errors import InputError
from pyro_minvae.evaluation import report
from pyro_minvae.evaluation.benchmark import Row
from pyro_minvae.evaluation.manifest import NoisyItem, read_manifest
from pyro_minvae.evaluation.mixing import NoiseSource, White, babble, recordings
from pyro_minvae.evaluation.noisy_set import make_noisy_set, select
from pyro_minvae.evaluation.summary import bootstrap, summarise
from pyro_minvae.pipelines.enhancer import Enhancer
from pyro_minvae.pipelines.separator import Separator

NOISES = ("cafe", "kitchen", "busy-street")
# Share of the cores that other programs may keep busy before timings are called doubtful.
BUSY = 0.25


class System(NamedTuple):
    """A model by name or folder, the preset that it runs with (None: its own settings), and what differs from it."""

    name: str
    preset: str | None
    overrides: tuple[str, ...]


def parse_system(text: str) -> System:
    """`NAME,preset=best,inference.iterations=30`; commas inside brackets belong to a value."""
    name, *settings = re.split(r",(?![^\[]*\])", text)
    presets = [item.removeprefix("preset=") for item in settings if item.startswith("preset=")]
    overrides = tuple(item for item in settings if not item.startswith("preset="))
    return System(name, presets[-1] if presets else None, overrides)


def make_enhancer(text: str, *overrides: str) -> Enhancer:
    """The enhancer of a system as `parse_system` reads it, with more `overrides` after its own."""
    system = parse_system(text)
    preset: dict[str, Any] = {} if system.preset is None else {"preset": system.preset}
    return Enhancer.from_pretrained(system.name, overrides=[*system.overrides, *overrides], **preset)


def make_separator(text: str, *overrides: str) -> Separator:
    """The separator of a system, one model for all speakers."""
    system = parse_system(text)
    return Separator.from_pretrained(
        system.name, preset=system.preset, overrides=[*system.overrides, *overrides]
    )


def add_mixture_options(parser: argparse.ArgumentParser, *, clips: int) -> None:
    """DATA, --noisy-set, --clips, --snr and --seed, for `mixtures`."""
    parser.add_argument("data", type=Path, nargs="?", help="folder of corpora; default: PYRO_MINVAE_DATA")
    parser.add_argument("--noisy-set", type=Path, help="the mixtures of `pyro-minvae mix` in place of DATA's")
    parser.add_argument("--clips", type=int, default=clips, help=f"validation clips, default {clips}")
    parser.add_argument("--snr", type=float, action="append", help="dB, repeatable")
    parser.add_argument("--seed", type=int, default=0)


def parsed(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, *, snrs_db: Sequence[float] = (-5.0,)
) -> argparse.Namespace:
    """What was typed; where it was not, the folder of corpora from the environment and these SNRs (dB)."""
    options = parser.parse_args(arguments)
    named = os.environ.get("PYRO_MINVAE_DATA")
    options.data = options.data or (Path(named) if named else None)
    if options.data is None and options.noisy_set is None:
        parser.error("expected DATA, PYRO_MINVAE_DATA or --noisy-set")
    options.snr = options.snr or list(snrs_db)
    return options


@contextmanager
def mixtures(options: argparse.Namespace) -> Iterator[list[NoisyItem]]:
    """The mixtures that the options name, in a temporary folder if they have to be made."""
    if options.noisy_set is not None:
        yield read_manifest(options.noisy_set)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield noisy_set(
            options.data, Path(folder), clips=options.clips, snrs_db=options.snr, seed=options.seed
        )


def noisy_set(data: Path, folder: Path, *, clips: int, snrs_db: list[float], seed: int) -> list[NoisyItem]:
    """The mixtures of `clips` validation clips of `data` with every noise at every SNR (dB), written below `folder`."""
    speech = select(open_corpus(data / "grid"), source=data / "grid", split="val", limit=clips)
    return make_noisy_set(speech, noises_of(data), snrs_db=snrs_db, out=folder, seed=seed)


def noises_of(data: Path) -> list[NoiseSource]:
    """Babble, the recordings of `NOISES` and white noise."""
    return [
        babble(data / "librispeech" / "val"),
        *(noise for name in NOISES for noise in recordings(data / "noise" / f"{name}.flac")),
        White(),
    ]


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def gain(rows: list[Row], metric: str) -> str:
    """The mean gain of a metric over the mixtures, and its interval."""
    cell = summarise(rows)[-1].cells[metric]
    return f"{report.number(cell.gain, metric, sign=True)} {report.interval(cell, metric)}"


def difference(better: list[Row], worse: list[Row], metric: str) -> str:
    """The mean difference of two systems in a metric over the same mixtures, and its bootstrap interval."""
    pairs = zip(better, worse, strict=True)
    values = np.array([a.output.values[metric] - b.output.values[metric] for a, b in pairs])
    values = values[np.isfinite(values)]
    low, high = (report.number(end, metric) for end in bootstrap(values))
    return f"{report.number(float(values.mean()), metric, sign=True)} [{low}, {high}]"


def write_between(path: Path, text: str, *, begin: str, end: str) -> None:
    """Put `text` between the marks of a Markdown file."""
    page = path.read_text(encoding="utf-8")
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise InputError(f"{path}: expected the marks {begin} and {end}, found them missing")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def publish(
    texts: Sequence[str], tree: object, *, page: Path | None, json: Path | None, begin: str, end: str
) -> None:
    """Print the tables, and write them between the marks of a Markdown `page` and the `tree` of figures as JSON."""
    show(*texts)
    if json:
        report.write_json(json, tree)
    if page:
        write_between(page, "\n\n".join(texts), begin=begin, end=end)


def machine() -> dict[str, Any]:
    """What timings depend on: processor, cores, torch, compiled passes, and other work on the cores (load average)."""
    import torch

    from pyro_minvae.inference.ops import choice

    model = ""
    if (path := Path("/proc/cpuinfo")).exists():
        found = re.search(r"model name\s*:\s*(.+)", path.read_text(encoding="utf-8"))
        model = found.group(1) if found else ""
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "passes": os.environ.get(choice.VARIABLE, "auto"),
        "load": round(os.getloadavg()[0], 2),
    }


def caution(state: dict[str, Any]) -> str:
    """A line on timings taken while `machine()` said `state`."""
    where = f"{state['cores']} cores ({state['processor']}), torch {state['torch']}, passes {state['passes']}"
    if state["load"] > BUSY * (state["cores"] or 1):
        return f"{where}; load average {state['load']} before the run: other work was going on, so timings mean little."
    return f"{where}; load average {state['load']} before the run."


def command() -> str:
    """What was typed."""
    return "python benchmarks/" + report.command_line(sys.argv)


def show(*texts: str) -> None:
    """Print Markdown, never cut to the terminal: a table that is cut cannot be pasted elsewhere."""
    Console(width=400, highlight=False, markup=False, soft_wrap=True).print("\n\n".join(texts))
