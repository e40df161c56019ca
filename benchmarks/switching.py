"""Lips that are right, missing or wrong, and a switch between voices: `python benchmarks/switching.py DATA`.

The mixtures of `benchmarks/quality.py` at -5 and 5 dB, each with good lips, none, and lips spoilt on purpose: a third
of the frames in bursts of all kinds, and for the whole clip another clip's, a picture that stands, and lips 0.2 s late
or early (`--lips`; see docs/switching.md). The first table has gains over the mixture, and how well trust in the lips
finds wrong frames; the second differences on the same mixtures. The third tells how often a switch between voices
follows the right one in noise at 10 dB, by the sound alone: voices of GRID's and LibriSpeech's validation lists, 4 s
each. A system is a model with settings, as for `benchmarks/quality.py`. DATA (default: PYRO_MINVAE_DATA) holds `grid`,
`librispeech/val`, `librispeech/SPEAKERS.TXT` and `noise`. --out gets the tables between the two marks of that file.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import (
    add_mixture_options,
    command,
    difference,
    gain,
    make_enhancer,
    markdown,
    mixtures,
    noises_of,
    parsed,
    publish,
)
from quality import run

from pyro_minvae.data.corpus import open_corpus
from pyro_minvae.errors import InputError
from pyro_minvae.evaluation import report
from pyro_minvae.evaluation.benchmark import Row, item_seed
from pyro_minvae.evaluation.corrupted import Corrupter
from pyro_minvae.evaluation.manifest import NoisyItem
from pyro_minvae.evaluation.mixing import spread
from pyro_minvae.evaluation.noisy_set import make_noisy_set, select, write_sound
from pyro_minvae.evaluation.reliability import detector
from pyro_minvae.evaluation.summary import bootstrap
from pyro_minvae.evaluation.voices import followed
from pyro_minvae.evaluation.workers import Work, stream
from pyro_minvae.media.audio import mono, read_audio
from pyro_minvae.media.corruption import Corruption
from pyro_minvae.types import Utterance

AUDIO, VISUAL = "a-vae,preset=best", "min-vae-grid,preset=best"
SYSTEMS = [AUDIO, VISUAL, "vae-mm", "sw-vae"]
SPEAKERS, NONE = "sw-speakers", "none"
CLEAN, MISSING = "clean", "missing"
LIPS = [CLEAN, MISSING, "mixed:0.333", "swapped", "frozen", "shifted"]
METRICS = ("si_sdr", "pesq", "estoi")
# What a switch is wanted to reach in SI-SDR (dB): with these lips, less another system or its own with clean lips.
AUDIO_AIMS = {MISSING: -0.2, "mixed": 0.0, "swapped": -0.5}
VISUAL_AIMS = {CLEAN: -0.2, "mixed": 0.0}
OWN_AIMS = {"mixed": -0.5}
BEGIN, END = "<!-- switching: begin -->", "<!-- switching: end -->"
# Length (s) of the voices and SNR (dB) of their mixtures.
VOICE_S, VOICE_DB = 4.0, 10.0

Scores = dict[str, dict[str, list[Row]]]
"""System, then lips, to the rows of all mixtures in one order."""


class Followed(NamedTuple):
    """One mixture of a voice of `group`: how many voiced frames follow each mode."""

    group: str
    modes: dict[str, int]

    @property
    def right(self) -> float:
        """The share that follows the mode of its group."""
        return self.modes.get(self.group, 0) / max(sum(self.modes.values()), 1)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_mixture_options(parser, clips=10)
    parser.add_argument("--system", action="append", help=f"repeatable; default: {' '.join(SYSTEMS)}")
    parser.add_argument("--audio", default=AUDIO, help=f"the reference without lips, default {AUDIO}")
    parser.add_argument("--visual", default=VISUAL, help=f"the reference with lips, default {VISUAL}")
    parser.add_argument("--lips", action="append", help=f"repeatable; default: {' '.join(LIPS)}")
    parser.add_argument(
        "--speakers", default=SPEAKERS, help=f"switch between voices, default {SPEAKERS}; or {NONE}"
    )
    parser.add_argument("--voices", type=int, default=10, help="voices of each group, default 10")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file with every score")
    parser.add_argument("--out", type=Path, help="Markdown file with the two marks")
    options = parsed(parser, arguments, snrs_db=(-5.0, 5.0))
    if options.data is None and options.speakers != NONE:
        parser.error("expected DATA or PYRO_MINVAE_DATA for the switch between voices, or --speakers none")
    options.system = list(dict.fromkeys([options.audio, options.visual, *(options.system or SYSTEMS)]))
    options.lips = list(dict.fromkeys(options.lips or LIPS))
    return options


def with_lips(items: list[NoisyItem], lips: str, folder: Path, seed: int) -> list[NoisyItem]:
    """The same mixtures with lips that are clean, missing or spoilt."""
    if lips == MISSING:
        return [item.model_copy(update={"video": None}) for item in items]
    what = Corruption("dropped", 0.0) if lips == CLEAN else Corruption.parse(lips)
    donors = {item.id: item.video for item in items if item.video is not None}
    folder.mkdir(parents=True)
    return Corrupter(what, donors, seed).all(items, folder)


def score(options: argparse.Namespace, sets: dict[str, list[NoisyItem]]) -> Scores:
    """Run every system on every set; one that never looks at lips only once."""
    scores: Scores = {}
    for system in options.system:
        videos = [item.video for items in sets.values() for item in items if item.video is not None]
        blind = not videos or make_enhancer(system).lips(videos[0]) is None
        go = partial(run, system, seed=options.seed, workers=options.workers)
        if blind:
            once = go(next(iter(sets.values())))
            scores[system] = {MISSING: once}
        else:
            scores[system] = {lips: go(items) for lips, items in sets.items()}
    return scores


def rows_of(scores: Scores, system: str, lips: str, snr_db: float | None = None) -> list[Row]:
    """The rows of a system with these lips; those of one without lips are the same for all."""
    rows = scores[system].get(lips) or scores[system][MISSING]
    return [row for row in rows if snr_db in (None, row.item.snr_db)]


def gains(scores: Scores, snr_db: float) -> str:
    """One line for each kind of lips and system, Markdown."""
    metrics = [f"{report.HEADINGS[key]} gain [95 %]" for key in METRICS]
    head = ["lips", "system", *metrics, "AUC [95 %]", "AUC, all frames"]
    lines = []
    for lips in dict.fromkeys([*max(scores.values(), key=len), MISSING]):
        for system, sets in scores.items():
            if lips in sets:
                rows = rows_of(scores, system, lips, snr_db)
                found = detector([row.detection for row in rows])
                auc = ["", ""] if found is None else [
                    f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]", f"{found.pooled:.2f}"
                ]  # fmt: skip
                lines.append([lips, system, *(gain(rows, key) for key in METRICS), *auc])
    return markdown(head, lines)


def differences(options: argparse.Namespace, scores: Scores, snrs_db: list[float]) -> str:
    """Paired differences, Markdown: from the references with the same lips, and from the system with clean ones."""
    metrics = [f"{report.HEADINGS[key]}, {snr:g} dB" for snr in snrs_db for key in METRICS]
    head = ["lips", "difference", "aim (SI-SDR)", *metrics]
    lines = []
    for system, sets in scores.items():
        for lips in sets:
            if system == options.audio:
                continue
            pairs = [(options.audio, lips, AUDIO_AIMS)]
            if system != options.visual:
                pairs.append((options.visual, lips, VISUAL_AIMS))
            if lips not in (CLEAN, MISSING) and CLEAN in sets:
                pairs.append((system, CLEAN, OWN_AIMS))
            for other, theirs, aims in pairs:
                aim = None if system == options.visual else aims.get(lips.partition(":")[0])
                cells = [
                    difference(rows_of(scores, system, lips, snr), rows_of(scores, other, theirs, snr), key)
                    for snr in snrs_db
                    for key in METRICS
                ]
                name = "its own with clean lips" if other == system else other
                goal = "" if aim is None else f"{aim:g} or more"
                lines.append([lips, f"{system} less {name}", goal, *cells])
    return markdown(head, lines)


def costs(options: argparse.Namespace, scores: Scores) -> str:
    """Processing time over that of the reference with lips, all with the first kind of lips, Markdown."""
    factors = {
        system: float(np.nanmean([row.real_time_factor for row in rows_of(scores, system, options.lips[0])]))
        for system in scores
    }
    lines = [[name, f"{own:.2f}", f"{own / factors[options.visual]:.2f}"] for name, own in factors.items()]
    return markdown(["system", "real-time factor", f"over {options.visual}"], lines)


def voices(data: Path, folder: Path, *, count: int) -> dict[str, list[Utterance]]:
    """`count` validation voices of each group, evenly spread, cut to `VOICE_S` and written below `folder`."""
    table = (data / "librispeech" / "SPEAKERS.TXT").read_text(encoding="utf-8")
    sexes = dict(re.findall(r"^(\d+)\s*\|\s*([FM])\s*\|", table, re.MULTILINE))
    groups = {"s1": select(open_corpus(data / "grid"), source=data / "grid", split="val")}
    encoder_input = open_corpus(data / "librispeech" / "val")
    for group, sex in (("female", "F"), ("male", "M")):
        groups[group] = [u for u in encoder_input if sexes[Path(u.audio).stem.partition("-")[0]] == sex]
    cut = {}
    for group, found in groups.items():
        cut[group] = []
        for utterance in spread(found, count):
            audio = read_audio(utterance.audio)
            path = folder / group / f"{utterance.audio.stem}.flac"
            write_sound(path, mono(audio, audio.rate)[: round(VOICE_S * audio.rate)], audio.rate)
            name = f"{group}/{utterance.audio.stem}"
            cut[group].append(Utterance(name, utterance.speaker, path, None, "val"))
    return cut


def follow(item: NoisyItem, enhancer: Any, *, seed: int) -> Followed:
    """Enhance one mixture from its sound and look at the path; runs in a worker."""
    mixture, clean = (read_audio(path) for path in (item.mixture, item.clean))
    result = enhancer(mixture.waveform[0], mixture.rate, seed=item_seed(seed, item))
    return Followed(item.id.partition("/")[0], followed(result.switches, clean.waveform[0], clean.rate))


def speakers(options: argparse.Namespace, folder: Path) -> tuple[str, list[Followed]]:
    """How often the switch follows the right voice, Markdown, and all counts."""
    groups = voices(options.data, folder / "voices", count=options.voices)
    utterances = [utterance for group in groups.values() for utterance in group]
    items = make_noisy_set(
        utterances, noises_of(options.data), snrs_db=[VOICE_DB], out=folder / "set", seed=options.seed
    )
    work = Work(partial(make_enhancer, options.speakers), partial(follow, seed=options.seed))
    found = list(stream(items, work, lost=_lost, workers=options.workers))
    names = list(dict.fromkeys(name for one in found for name in one.modes))
    lines = []
    for group in (*groups, "all"):
        members = [one for one in found if group in (one.group, "all")]
        low, high = bootstrap(np.array([one.right for one in members]))
        counts = np.array([[one.modes[name] for name in names] for one in members]).sum(0)
        right = np.mean([one.right for one in members])
        shares = [f"{share:.0%}" for share in counts / counts.sum()]
        lines.append([group, len(members), f"{right:.0%} [{low:.0%}, {high:.0%}]", *shares])
    return markdown(["voice", "mixtures", "right [95 %]", *names], lines), found


def _lost(item: NoisyItem, cause: str) -> Followed:
    raise InputError(f"{item.mixture}: {cause}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the sets, run the systems, print and write the tables."""
    options = options_of(arguments)
    for system in (*options.system, *([options.speakers] if options.speakers != NONE else [])):
        make_enhancer(system)  # an unknown one is answered before hours of work
    parts: list[str] = []
    tree: dict[str, Any] = {"command": command()}
    with tempfile.TemporaryDirectory() as name, mixtures(options) as items:
        folder = Path(name)
        sets = {lips: with_lips(items, lips, folder / "lips" / lips, options.seed) for lips in options.lips}
        scores = score(options, sets)
        snrs = sorted({item.snr_db for item in items})
        for snr in snrs:
            parts += [
                f"{sum(item.snr_db == snr for item in items)} mixtures at {snr:g} dB:",
                gains(scores, snr),
            ]
        parts += ["Differences on the same mixtures:", differences(options, scores, snrs)]
        parts += ["Time:", costs(options, scores)]
        settings = {"seed": options.seed, "clips": options.clips, "snr_db": snrs}
        tree["systems"] = [
            report.tree(rows, model=system, settings={**settings, "lips": lips})
            for system, kinds in scores.items()
            for lips, rows in kinds.items()
        ]
        failed = [
            line for kinds in scores.values() for rows in kinds.values() for line in report.failures(rows)
        ]
        parts += [f"No score for {line}" for line in failed]
        if options.speakers != NONE:
            table, found = speakers(options, folder)
            parts += [f"Voices at {VOICE_DB:g} dB, share of voiced frames ({options.speakers}):", table]
            tree["voices"] = [one._asdict() for one in found]
    parts.append(
        f"A system without lips stands under `{MISSING}`: all lips are the same to it. Seed {options.seed}."
        f" Made by `{command()}`."
    )
    publish(parts, tree, page=options.out, json=options.json, begin=BEGIN, end=END)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
