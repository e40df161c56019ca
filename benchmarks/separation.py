"""Separation of speakers: `python benchmarks/separation.py DATA --out docs/separation.md`.

Two sets of mixtures of validation clips at 0 dB: two GRID clips (one voice against itself, so that only the lips tell
them apart) without noise, and a GRID clip with a LibriSpeech voice without video in a cafe at 5 dB. On each of them the
model with lips, the same by sound alone, an audio-only VAE, supervised NMF, a supervised mask network with lips, and
the ideal ratio mask as the ceiling. A speaker with lips is scored by the estimate that was made with them; systems
without lips may order their estimates as fits best. What has to be trained for comparison is trained on training clips
and kept in --runs. DATA (default: PYRO_MINVAE_DATA) holds `grid`, `librispeech` and `noise`. --out gets the tables
between the two marks of that file. Clips that the model was developed on are left out; --development takes only them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import (
    caution,
    command,
    machine,
    make_enhancer,
    make_separator,
    markdown,
    parse_system,
    show,
    write_between,
)
from mask_network import mask_system, trained
from separation_baselines import ideal_mask_system, learn_bases, nmf_system
from separation_rungs import rungs

from pyro_minvae.cli.console import progress, say
from pyro_minvae.data.corpus import open_corpus
from pyro_minvae.errors import InputError
from pyro_minvae.evaluation import report
from pyro_minvae.evaluation import separation_report as speakers
from pyro_minvae.evaluation.manifest import SeparationItem
from pyro_minvae.evaluation.mixing import recordings, spread
from pyro_minvae.evaluation.noisy_set import select
from pyro_minvae.evaluation.separated import HEADINGS
from pyro_minvae.evaluation.separation import Row, System, evaluate, read_task, with_separator
from pyro_minvae.evaluation.separation_set import casts, make_separation_set
from pyro_minvae.evaluation.summary import bootstrap

BEGIN, END = "<!-- separation: begin -->", "<!-- separation: end -->"
DEVELOPMENT = ("bgbbzn", "bwat3s", "lgaz7s", "lwiy6n", "pgbe3s", "pwax5s", "sbbu3a", "srbo4p")
NOISE, SNR_DB = "cafe", 5.0
SAME, DIFFERENT = "the same voice, no noise", f"different voices, {NOISE} at {SNR_DB:g} dB"
ALONE, NMF, MASK, IDEAL = "sound alone", "supervised NMF", "mask network, lips", "ideal ratio mask"
# What was to be reached: the mean SDR gain with lips, and how far it is above the others.
AIMS = {SAME: {"": 4.0, ALONE: 2.0, NMF: 2.0}, DIFFERENT: {"": 5.0, NMF: 2.0}}
TIMED = 6  # mixtures that are enhanced as well, to compare times

Rows = dict[str, list[Row]]


class Speed(NamedTuple):
    """Median real-time factors on the same mixtures, and the median ratio of the pairs."""

    separation: float
    enhancement: float
    ratio: float


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", default=os.environ.get("PYRO_MINVAE_DATA"))
    parser.add_argument("--model", default="av-separation-grid", help="with settings as in quality.py")
    parser.add_argument("--audio-model", default="a-vae", help="the audio-only VAE")
    parser.add_argument("--mixtures", type=int, default=30, help="of each set, default 30")
    parser.add_argument(
        "--set", dest="sets", action="append", choices=[SAME, DIFFERENT], help="default: both"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--development", action="store_true", help="the clips that choices are made on")
    parser.add_argument("--only-model", action="store_true", help="leave out what it is compared with")
    parser.add_argument("--ladder", action="store_true", help="also give the model parts of the truth")
    parser.add_argument("--rank", type=int, default=32, help="bases of each speaker in supervised NMF")
    parser.add_argument("--epochs", type=int, default=15, help="of the mask network")
    parser.add_argument("--train-clips", type=int, help="of each corpus, for the mask network; default: all")
    parser.add_argument("--runs", type=Path, default=Path("runs/separation"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="JSON file with every score")
    parser.add_argument("--out", type=Path, help="Markdown file with the two marks")
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("expected DATA or PYRO_MINVAE_DATA")
    options.data, options.sets = Path(options.data), options.sets or [SAME, DIFFERENT]
    return options


def make_sets(options: argparse.Namespace, folder: Path) -> dict[str, list[SeparationItem]]:
    """The mixtures, written below `folder`."""
    data, seed = options.data, options.seed
    grid = [
        one
        for one in select(open_corpus(data / "grid"), source=data / "grid", split="val")
        if (one.id.rpartition("/")[2] in DEVELOPMENT) == options.development
    ]
    first = spread(grid, options.mixtures)
    sets = {}
    if SAME in options.sets:
        pairs = casts(first, grid, count=2, seed=seed)
        sets[SAME] = make_separation_set(pairs, [], levels_db=[0.0], out=folder / "same", seed=seed)
    if DIFFERENT in options.sets:
        libri = data / "librispeech"
        split = "train" if options.development else "val"
        pairs = casts(first, select(open_corpus(libri), source=libri, split=split), count=2, seed=seed)
        sets[DIFFERENT] = make_separation_set(
            pairs,
            recordings(data / "noise" / f"{NOISE}.flac"),
            levels_db=[0.0],
            snrs_db=[SNR_DB],
            out=folder / "different",
            seed=seed,
        )
    return sets


def systems_of(options: argparse.Namespace, *, noise: bool) -> dict[str, Callable[[], System]]:
    """What runs on a set: name to what makes it, in any process."""
    ours, blind = (partial(make_separator, name) for name in (options.model, options.audio_model))
    name = parse_system(options.model).name
    systems = {
        f"{name}, lips": partial(with_separator, ours, background=noise),
        f"{name}, {ALONE}": partial(with_separator, ours, use_video=False, background=noise),
    }
    if options.only_model:
        return systems
    bases = learn_bases(options.data, options.runs / f"nmf-{options.rank}.pt", rank=options.rank)
    mask = trained(options.data, options.runs, epochs=options.epochs, clips=options.train_clips, tell=say)
    return systems | {
        f"{options.audio_model}, {ALONE}": partial(with_separator, blind, use_video=False, background=noise),
        NMF: partial(nmf_system, bases),
        MASK: partial(mask_system, mask),
        IDEAL: ideal_mask_system,
    }


def run(
    systems: dict[str, Callable[[], System]], items: list[SeparationItem], options: argparse.Namespace
) -> Rows:
    """The scores of every system on the mixtures of one set."""
    scores: Rows = {}
    for name, make in systems.items():
        with progress() as bar:
            task = bar.add_task(name, total=len(items))
            rows: list[Row] = []
            earlier = next(iter(scores.values()), [])
            for row in evaluate(items, make, workers=options.workers, seed=options.seed, earlier=earlier):
                rows.append(row)
                bar.advance(task)
        scores[name] = rows
    return scores


def table(scores: Rows) -> str:
    """One line for each system, below the mixtures' own; means over the speakers and then over the mixtures."""
    head = [
        "system",
        *HEADINGS.values(),
        "SDR gain (dB) [95 %]",
        "SI-SDR gain (dB) [95 %]",
        "swaps",
        "real-time factor",
    ]
    lines = []
    for name, rows in scores.items():
        cells = {metric: speakers.gains(rows, metric) for metric in HEADINGS}
        if not lines:
            lines.append(
                ["mixture", *(report.number(cell.input, key) for key, cell in cells.items()), *[""] * 4]
            )
        gains = [
            f"{report.number(cells[key].gain, key, sign=True)} {report.interval(cells[key], key)}"
            for key in ("sdr", "si_sdr")
        ]
        speed = [row.real_time_factor for row in rows if np.isfinite(row.real_time_factor)]
        lines.append([
            name, *(report.number(cell.output, key) for key, cell in cells.items()), *gains,
            speakers.percent(speakers.swap_rate(rows)), f"{np.median(speed):.2f}" if speed else "-",
        ])  # fmt: skip
    return markdown(head, lines)


def by_speaker(scores: Rows) -> str:
    """SDR gains of the speaker with lips and of the one without."""
    lines = []
    for name, rows in scores.items():
        cells = []
        for number in range(len(rows[0].item.speakers)):
            gain = np.array(
                [row.output[number].values["sdr"] - row.input[number].values["sdr"] for row in rows]
            )
            gain = gain[np.isfinite(gain)]
            low, high = bootstrap(gain)
            cells.append(f"{gain.mean():+.2f} [{low:.2f}, {high:.2f}]" if len(gain) else "-")
        lines.append([name, *cells])
    return markdown(["SDR gain (dB) [95 %]", "the speaker with lips", "the one without"], lines)


def aims(kind: str, scores: Rows) -> str:
    """The SDR gain of the model, and how far it is above the others on the same mixtures, beside what was aimed at."""
    names = list(scores)
    ours, lines = np.array([sdr(row) for row in scores[names[0]]]), []
    before = np.array([np.mean([one.values["sdr"] for one in row.input]) for row in scores[names[0]]])
    for name in ["mixture", *names[1:]]:
        other = before if name == "mixture" else np.array([sdr(row) for row in scores[name]])
        difference = (ours - other)[np.isfinite(ours - other)]
        low, high = bootstrap(difference)
        aim = next((v for k, v in AIMS[kind].items() if (k in name if k else name == "mixture")), None)
        wanted = "" if aim is None else f"at least {aim:g}"
        lines.append([f"{names[0]} less {name}", f"{difference.mean():+.2f} [{low:.2f}, {high:.2f}]", wanted])
    return markdown(["SDR (dB) [95 %]", "difference", "aim"], lines)


def ladder(scores: Rows) -> str:
    """One line for each rung."""
    metrics = ("sdr", "si_sdr", "pesq", "estoi")
    lines = []
    for name, rows in scores.items():
        cells = [speakers.gains(rows, metric) for metric in metrics]
        means = [report.number(cell.output, metric) for cell, metric in zip(cells, metrics, strict=True)]
        gain = f"{report.number(cells[0].gain, 'sdr', sign=True)} {report.interval(cells[0], 'sdr')}"
        lines.append([name, *means, gain])
    return markdown(["rung", *(HEADINGS[metric] for metric in metrics), "SDR gain (dB) [95 %]"], lines)


def sdr(row: Row) -> float:
    """The mean SDR over the speakers of a mixture."""
    return float(np.mean([one.values["sdr"] for one in row.output]))


def speed(options: argparse.Namespace, items: list[SeparationItem], *, noise: bool) -> Speed:
    """Separation and enhancement by the same model, one after the other on some mixtures, in this process."""
    import torch

    torch.set_num_threads(1)
    separator, enhancer = make_separator(options.model), make_enhancer(options.model)
    pairs = []
    for item in spread(items, TIMED):
        task = read_task(item, 0)
        lips = [separator.voice(j).lips(speaker.video) for j, speaker in enumerate(item.speakers)]
        both = separator(task.mixture, task.rate, lips, background=noise).real_time_factor
        pairs.append((both, enhancer(task.mixture, task.rate, lips[0]).real_time_factor))
    several, one = np.array(pairs).T
    return Speed(float(np.median(several)), float(np.median(one)), float(np.median(several / one)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the sets, run every system on them, print and write the tables."""
    options = options_of(arguments)
    state, texts, trees = machine(), [], {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, items in make_sets(options, Path(folder)).items():
            noise = kind == DIFFERENT
            scores = run(systems_of(options, noise=noise), items, options)
            timed = speed(options, items, noise=noise)
            texts += [f"**Two speakers at 0 dB, {kind}** ({len(items)} mixtures):", table(scores)]
            texts += [by_speaker(scores)] * noise + [aims(kind, scores)]
            if options.ladder:
                climbed = run(rungs(options.model, noise=noise), items, options)
                texts += ["The same model, given parts of the truth:", ladder(climbed)]
                scores |= climbed
            texts.append(
                f"Real-time factor of two speakers {timed.separation:.2f}, of enhancement by the same model"
                f" {timed.enhancement:.2f}: {timed.ratio:.2f} times as long (median of {min(TIMED, len(items))} pairs)."
            )
            trees[kind] = {"speed": timed._asdict()} | {
                name: speakers.tree(rows, model=name, settings={"seed": options.seed})
                for name, rows in scores.items()
            }
            for name, rows in scores.items():
                for line in speakers.failures(rows):
                    say(f"{name}: no score for {line}")
    texts.append(f"Made by `{command()}`, seed {options.seed}, on {caution(state)}")
    show(*texts)
    if options.json:
        report.write_json(options.json, {"command": command(), "machine": state, "sets": trees})
    if options.out:
        write_between(options.out, "\n\n".join(texts), begin=BEGIN, end=END)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
