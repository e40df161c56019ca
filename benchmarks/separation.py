"""Separation of speakers: `python benchmarks/separation.py DATA --out docs/separation.md`.

Two sets of mixtures of validation clips at 0 dB: two GRID clips (one voice against itself, so that only the lips tell
them apart) without noise, and a GRID clip with a LibriSpeech voice without video in a cafe at 5 dB. On each of them the
model with lips, the same by sound alone, an audio-only VAE, supervised NMF, a supervised mask network with lips, and
the ideal ratio mask as the ceiling. A speaker with lips is scored by the estimate that was made with them; systems
without lips may order their estimates as fits best. What has to be trained for comparison is trained on training clips.
The sets, what was trained, and the scores of systems that are through are kept in --runs, so that a run can go on where
it stopped; the scores know the weights, not the code that made them.
DATA (default: PYRO_MINVAE_DATA) holds `grid`, `librispeech` and `noise`. --out gets the tables between the two marks of
that file. Clips that the model was developed on are left out; --development takes only them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import sys
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
    parse_system,
    publish,
)
from mask_network import mask_system, trained
from separation_baselines import ideal_mask_system, learn_bases, nmf_system
from separation_rungs import rungs
from separation_tables import Rows, aims, by_speaker, ladder, table

from pyro_minvae.cli.console import progress, say
from pyro_minvae.data.corpus import open_corpus
from pyro_minvae.errors import InputError
from pyro_minvae.evaluation import separation_report as speakers
from pyro_minvae.evaluation.manifest import SeparationItem
from pyro_minvae.evaluation.mixing import recordings, spread
from pyro_minvae.evaluation.noisy_set import select
from pyro_minvae.evaluation.separation import SpeakerRow, System, evaluate, read_task, with_separator
from pyro_minvae.evaluation.separation_set import casts, make_separation_set
from pyro_minvae.media.files import atomic
from pyro_minvae.systems.checkpoint import WEIGHTS, find_model

BEGIN, END = "<!-- separation: begin -->", "<!-- separation: end -->"
DEVELOPMENT = ("bgbbzn", "bwat3s", "lgaz7s", "lwiy6n", "pgbe3s", "pwax5s", "sbbu3a", "srbo4p")
NOISE, SNR_DB = "cafe", 5.0
SAME, DIFFERENT = "the same voice, no noise", f"different voices, {NOISE} at {SNR_DB:g} dB"
ALONE, NMF, MASK, IDEAL = "sound alone", "supervised NMF", "mask network, lips", "ideal ratio mask"
# What was to be reached: the mean SDR gain with lips, and how far it is above the others.
AIMS = {SAME: {"mixture": 4.0, ALONE: 2.0, NMF: 2.0}, DIFFERENT: {"mixture": 5.0, NMF: 2.0}}
TIMED = 6  # mixtures that are enhanced as well, to compare times


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
    parser.add_argument("--audio-model", default="a-separation", help="the audio-only VAE")
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


def scores_file(kind: str, system: str, options: argparse.Namespace) -> Path:
    """Where the scores of a system on a set are kept: another name for other weights, settings or mixtures."""
    networks: list[str] = []
    if system not in (NMF, MASK, IDEAL):
        text = options.audio_model if system == f"{options.audio_model}, {ALONE}" else options.model
        weights = (find_model(parse_system(text).name) / WEIGHTS).read_bytes()
        networks = [text, hashlib.sha256(weights).hexdigest()]
    own = [
        getattr(options, key) for key in ("mixtures", "seed", "development", "rank", "epochs", "train_clips")
    ]
    parts = map(str, [kind, system, *networks, *own])
    return options.runs / f"scores-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:16]}.pkl"


def run(
    kind: str,
    systems: dict[str, Callable[[], System]],
    items: list[SeparationItem],
    options: argparse.Namespace,
) -> Rows:
    """The scores of every system on the mixtures of one set, those that are kept as they are."""
    scores: Rows = {}
    for name, make in systems.items():
        kept, earlier = scores_file(kind, name, options), next(iter(scores.values()), [])
        if kept.is_file():
            scores[name] = pickle.loads(kept.read_bytes())
            continue
        rows: list[SpeakerRow] = []
        with progress() as bar:
            task = bar.add_task(name, total=len(items))
            for row in evaluate(items, make, workers=options.workers, seed=options.seed, earlier=earlier):
                rows.append(row)
                bar.advance(task)
        with atomic(kept) as temporary:
            Path(temporary).write_bytes(pickle.dumps(rows))
        scores[name] = rows
    return scores


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
    folder = options.runs / f"sets-{options.mixtures}-{options.seed}{'-development' * options.development}"
    for kind, items in make_sets(options, folder).items():
        noise = kind == DIFFERENT
        scores = run(kind, systems_of(options, noise=noise), items, options)
        timed = speed(options, items, noise=noise)
        texts += [f"**Two speakers at 0 dB, {kind}** ({len(items)} mixtures):", table(scores)]
        texts += [by_speaker(scores)] * noise + [aims(scores, AIMS[kind])]
        if options.ladder:
            climbed = run(kind, rungs(options.model, noise=noise), items, options)
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
    tree = {"command": command(), "machine": state, "sets": trees}
    publish(texts, tree, page=options.out, json=options.json, begin=BEGIN, end=END)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
