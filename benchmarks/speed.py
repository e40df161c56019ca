"""Time and memory of the enhancement: `python benchmarks/speed.py --system min-vae-grid,preset=fast`.

Real-time factor (processing over playing time) and peak memory against the length of a recording, the number of chains,
of threads, and of blocks side by side; where the time goes (torch's profiler, by kind of operation); what this machine
can do at best, and the loop's floor made of it (see `floor.py`). Recordings are made up, since time does not depend
on what is said (but for `inference.tolerance`), so no data is needed. Every figure comes from a process of its own,
whose first call, on one second of sound, does not count. On a machine that does other work too, the threads of one
process wait for each other, and figures for more than one thread say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import caution, command, machine, make_enhancer, markdown, show
from floor import bandwidth, ceiling, operations

from pyro_minvae.enhancer import Enhancer
from pyro_minvae.errors import InputError
from pyro_minvae.evaluation import report
from pyro_minvae.features.stft import frame_count
from pyro_minvae.recording import Recording
from pyro_minvae.types import Lips

LENGTHS = (1, 3, 10, 30, 60, 180, 600)
# The kinds of operation, by parts of torch's names for them.
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mv", "mkldnn_linear"),
    "exp, log, tanh, sqrt": ("exp", "log", "tanh", "sqrt", "sigmoid", "softplus", "aten::pow"),
    "divisions": ("aten::div", "aten::reciprocal"),
    "random numbers": ("normal", "uniform", "rand"),
    "sums": ("aten::sum", "aten::mean", "aten::cumsum"),
}
REST, OUTSIDE = "other operations of torch", "outside torch (Python, NumPy)"


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
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2], help="the last one is for all else")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 2, 4, 8, 32], help="blocks side by side")
    parser.add_argument("--recordings", type=int, default=32, help="clips that the batches are made of")
    parser.add_argument("--repeats", type=int, default=5, help="calls; the median counts")
    parser.add_argument("--out", type=Path, help="JSON file with every figure")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def recording(enhancer: Enhancer, seconds: float, seed: int) -> Recording:
    """Noise that comes and goes in syllables, and lips that move at random."""
    rate = enhancer.recipe.stft.rate
    random = np.random.default_rng(seed)
    moments = np.arange(round(seconds * rate)) / rate
    sound = random.standard_normal(len(moments)) * (0.2 + np.sin(2 * np.pi * 2 * moments) ** 2)
    size, frames = enhancer.recipe.crops.size, max(1, round(25 * seconds))
    crops = random.integers(0, 256, (frames, size, size), dtype=np.uint8)
    lips = Lips(crops, np.arange(frames) / 25, np.ones(frames, bool))
    return Recording(0.1 * sound, rate, lips, seed)


def child(task: dict[str, Any]) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    torch.set_num_threads(task["threads"])
    enhancer = make_enhancer(task["system"], "inference.lips=always", *task.get("settings", []))
    recordings = [recording(enhancer, task["seconds"], seed) for seed in range(task.get("recordings", 1))]
    enhancer.many([recording(enhancer, 1.0, 0)])
    before = peak_mib()
    if task["what"] == "profile":
        return profile(enhancer, recordings)
    times = []
    for _ in range(task["repeats"]):
        start = time.perf_counter()
        answers = enhancer.many(recordings)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    found = {
        "took_s": seconds,
        "real_time_factor": seconds / (task["seconds"] * len(recordings)),
        "before_mib": before,
        "peak_mib": peak_mib(),
        "iterations": answers[0].iterations,
        "lips": answers[0].used_video,
    }
    if task["what"] == "floor":
        found["operations"] = ceilings(enhancer, task["seconds"], lips=answers[0].used_video)
        found["bandwidth"] = bandwidth()
    return found


def peak_mib() -> float:
    """The most memory that this process has held so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def profile(enhancer: Enhancer, recordings: list[Recording]) -> dict[str, Any]:
    """Seconds of one call by kind of operation. The profiler slows small operations down a little."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        begin = time.perf_counter()
        enhancer.many(recordings)
        total = time.perf_counter() - begin
    spent = dict.fromkeys([*KINDS, REST], 0.0)
    for event in profiler.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    spent[OUTSIDE] = max(0.0, total - sum(spent.values()))
    return {"took_s": total, "kinds": spent}


def kind_of(operation: str) -> str:
    """The kind of an operation of torch."""
    for kind, parts in KINDS.items():
        if any(part == operation if part.startswith("aten::m") else part in operation for part in parts):
            return kind
    return REST


def ceilings(enhancer: Enhancer, seconds: float, *, lips: bool) -> list[dict[str, Any]]:
    """The loop's operations with the time of each at its best."""
    stft = enhancer.recipe.stft
    frames = frame_count(round(seconds * stft.rate), stft)
    return [
        operation._asdict() | {"work": operation.work, "best_s": ceiling(operation.kind, operation.shape)}
        for operation in operations(enhancer, frames, lips=lips)
    ]


def run(task: dict[str, Any]) -> dict[str, Any]:
    """`child` in a new process on the task's threads.

    Raises:
        InputError: if it fails, with its last line.
    """
    threads = str(task["threads"])
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(task)],
        env=os.environ | dict.fromkeys(names, threads),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"{task['system']}: {(done.stderr.strip() or 'no reason').splitlines()[-1]}")
    return task | json.loads(done.stdout.strip().splitlines()[-1])


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
    """Each operation at its best, their sum, and how far the enhancer is from it."""
    lines, total = [], 0.0
    for one in found["operations"]:
        seconds = one["calls"] * one["best_s"]
        total += seconds
        unit = "GFLOP/s" if one["kind"] == "matmul" else "million/s"
        rate = one["work"] / one["best_s"] / (1e9 if one["kind"] == "matmul" else 1e6)
        shape = " x ".join(str(size) for size in one["shape"])
        lines.append([
            f"{one['part']}: {one['kind']}", shape, one["calls"], f"{rate:,.0f} {unit}", f"{1000 * seconds:.1f}"
        ])  # fmt: skip
    lines.append(["floor", "", "", "", f"{1000 * total:.1f}"])
    ratio = f"{found['took_s'] / total:.1f} times"
    lines.append([f"enhancer ({ratio} the floor)", "", "", "", f"{1000 * found['took_s']:.1f}"])
    table = markdown(["operation", "shape", "calls", "at best", "ms"], lines)
    return f"{table}\n\nMemory: {found['bandwidth'] / 1e9:.1f} GB/s, a copy read and written."


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every system and print its tables."""
    options = options_of(arguments)
    if options.child:
        print(json.dumps(child(json.loads(options.child))))
        return
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
