"""Time and memory of the enhancement: `python benchmarks/speed.py --system min-vae-grid,preset=fast`.

Real-time factor (processing over playing time) and peak memory against the length of a recording, the number of chains,
of threads, and of blocks side by side; where the time goes (torch's profiler, by kind of operation); what this machine
can do at best and usually does, in turn with the loop, and the loop's floor made of it (see `floor.py`). Recordings are
made up, since time does not depend on what is said (but for `inference.tolerance`), so no data is needed. Every figure
comes from a process of its own, whose first call, on one second of sound, does not count. On a machine that does other
work too, the threads of one process wait for each other, and figures for more than one thread say nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common import caution, command, machine, markdown, show
from measure import run

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation import report

LENGTHS = (1, 3, 10, 30, 60, 180, 600)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--system", action="append", help="repeatable; default: min-vae-grid with preset fast, and best"
    )
    parser.add_argument("--longest", type=float, default=60, help="s; lengths go up to 600, default 60")
    parser.add_argument("--clip", type=float, default=3.0, help="s, for all but the lengths; default 3")
    parser.add_argument("--chains", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="the last one is for all else")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 2, 4, 8, 32], help="blocks side by side")
    parser.add_argument("--recordings", type=int, default=32, help="clips that the batches are made of")
    parser.add_argument("--repeats", type=int, default=5, help="calls; the median counts")
    parser.add_argument("--out", type=Path, help="JSON file with every figure")
    return parser.parse_args(arguments)


def sweeps(system: str, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """All measurements of time and memory, by what changes."""
    threads = options.threads[-1]
    usual = {"what": "time", "system": system, "threads": threads, "repeats": options.repeats}
    clip = usual | {"seconds": options.clip}
    lengths = [length for length in LENGTHS if length <= options.longest]
    return {
        "length": [
            run(usual | {"seconds": s, "repeats": options.repeats if s <= 30 else 1}) for s in lengths
        ],
        "chains": [
            run(clip | {"settings": [f"inference.chains={c}"]}) | {"chains": c} for c in options.chains
        ],
        "threads": [run(clip | {"threads": t}) for t in options.threads],
        "batch": [
            run(clip | {"settings": [f"inference.batch={b}"], "recordings": options.recordings, "repeats": 1})
            | {"batch": b}
            for b in options.batch
        ],
    }


def sweep_table(found: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> str:
    """Real-time factors and memory, one line for each measurement."""
    labels = {
        "length": lambda one: f"{one['seconds']:g} s",
        "chains": lambda one: f"{options.clip:g} s, chains: {one['chains']}",
        "threads": lambda one: f"{options.clip:g} s, threads: {one['threads']}",
        "batch": lambda one: f"{options.recordings} x {options.clip:g} s, side by side: {one['batch']}",
    }
    lines = [
        [
            labels[name](one),
            f"{one['took_s']:.2f}",
            f"{one['real_time_factor']:.3f}",
            f"{one['peak_mib']:.0f}",
            f"{one['peak_mib'] - one['before_mib']:.0f}",
        ]
        for name, several in found.items()
        for one in several
    ]
    head = ["recording", "time (s)", "real-time factor", "peak memory (MiB)", "of which for the recording"]
    return markdown(head, lines)


def share_table(found: dict[str, Any]) -> str:
    """Where the time goes."""
    lines = [
        [kind, f"{1000 * seconds:.1f}", f"{100 * seconds / found['took_s']:.0f} %"]
        for kind, seconds in found["kinds"].items()
    ]
    return markdown(["operations", "ms", "share"], lines)


def floor_table(found: dict[str, Any]) -> str:
    """Each operation at its best and as it usually is, their sums, and how far the enhancer is from either."""
    lines = []
    totals = {"best_s": 0.0, "usual_s": 0.0}
    for one in found["operations"]:
        seconds = {name: one["calls"] * one[name] for name in totals}
        totals = {name: total + seconds[name] for name, total in totals.items()}
        unit = "GFLOP/s" if one["kind"] == "matmul" else "million/s"
        rate = one["work"] / one["best_s"] / (1e9 if one["kind"] == "matmul" else 1e6)
        shape = " x ".join(str(size) for size in one["shape"])
        label = f"{one['part']}: {one['kind']}"
        lines.append([label, shape, one["calls"], f"{rate:,.0f} {unit}", *_milliseconds(seconds.values())])
    lines.append(["floor", "", "", "", *_milliseconds(totals.values())])
    loops = found["loop_best_s"], found["loop_s"]
    lines.append(["EM loop", "", "", "", *_milliseconds(loops)])
    ratios = [loop / total for loop, total in zip(loops, totals.values(), strict=True)]
    lines.append(["EM loop, times the floor", "", "", "", *(f"{ratio:.1f}" for ratio in ratios)])
    lines.append(["all, with STFT and lips", "", "", "", "", *_milliseconds([found["took_s"]])])
    table = markdown(["operation", "shape", "calls", "at best", "ms at best", "ms usually"], lines)
    return f"{table}\n\nMemory: {found['bandwidth'] / 1e9:.1f} GB/s, a copy read and written."


def _milliseconds(seconds: Iterable[float]) -> list[str]:
    return [f"{1000 * one:.1f}" for one in seconds]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every system and print its tables."""
    options = options_of(arguments)
    state = machine()
    texts, results = [], {}
    for system in options.system or [f"min-vae-grid,preset={preset}" for preset in ("fast", "best")]:
        clip = {
            "system": system,
            "threads": options.threads[-1],
            "seconds": options.clip,
            "repeats": options.repeats,
        }
        found: dict[str, Any] = sweeps(system, options)
        texts += [f"### {system}", sweep_table(found, options)]
        found["profile"] = run(clip | {"what": "profile"})
        texts += [f"Where the time goes, {options.clip:g} s:", share_table(found["profile"])]
        try:
            found["floor"] = run(clip | {"what": "floor"})
            texts += [f"The floor, {options.clip:g} s:", floor_table(found["floor"])]
        except InputError as error:
            texts.append(f"No floor: {error}")
        results[system] = found
    show(*texts, f"{options.threads[-1]} threads where nothing else is said: `{command()}`. {caution(state)}")
    if options.out:
        report.write_json(options.out, {"command": command(), "machine": state, "systems": results})


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
