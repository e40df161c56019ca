"""The EM loop of this checkout against another one's: `python benchmarks/against.py ../other --lengths 3 20`.

Both run in processes of their own that are asked in turn, one recording after another, so that what else the machine
does meets both. The first call of each does not count, but for `--first`, which tells how long the first call of a
new process takes, imports, weights and compiled passes included. Recordings are made up, since time does not depend
on what is said.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class Stopwatch:
    """The EM loop with what it starts from, and the `seconds` that its calls took."""

    def __init__(self, loop: Any) -> None:
        self.loop, self.seconds = loop, 0.0

    def __call__(self, *arguments: Any) -> Any:
        start = time.perf_counter()
        found = self.loop(*arguments)
        self.seconds += time.perf_counter() - start
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)


def child(task: dict[str, Any]) -> None:
    """Answers every line of the input with the seconds of the EM loop on one recording, and of the whole call."""
    start = time.perf_counter()
    import numpy as np
    import torch

    import pyro_minvae
    from pyro_minvae import types

    crops_of = getattr(types, "MouthCrops", None) or types.Lips  # type: ignore[attr-defined]  # as older ones call it
    torch.set_num_threads(task["threads"])
    settings = ["inference.lips=always", *task["settings"]]
    enhancer = pyro_minvae.Enhancer.from_pretrained(task["system"], preset=task["preset"], overrides=settings)
    random = np.random.default_rng(0)
    rate, size = enhancer.recipe.stft.rate, enhancer.recipe.crops.size
    moments = np.arange(round(task["seconds"] * rate)) / rate
    sound = 0.1 * random.standard_normal(len(moments)) * (0.2 + np.sin(4 * np.pi * moments) ** 2)
    frames = max(1, round(25 * task["seconds"]))
    crops = random.integers(0, 256, (frames, size, size), dtype=np.uint8)
    lips = crops_of(crops, np.arange(frames) / 25, np.ones(frames, bool))
    enhancer.denoiser = loop = Stopwatch(enhancer.denoiser)  # type: ignore[assignment]
    for _ in sys.stdin:
        loop.seconds, began = 0.0, time.perf_counter()
        found = enhancer(sound, rate, lips)
        ended = time.perf_counter()
        print(
            json.dumps(
                {
                    "loop": loop.seconds,
                    "call": ended - began,
                    "process": ended - start,
                    "speech": float(np.square(found.speech).sum()),
                }
            ),
            flush=True,
        )


class Checkout:
    """A process that runs one checkout's loop."""

    def __init__(self, folder: Path, task: dict[str, Any]) -> None:
        threads = str(task["threads"])
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, threads) | {"PYTHONPATH": str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--child", json.dumps(task)],
            env=environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self) -> dict[str, float]:
        """One recording.

        Raises:
            RuntimeError: if the process has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"expected seconds, found that the process ended with {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate("")


def compare(folders: Sequence[Path], task: dict[str, Any], repeats: int) -> list[list[dict[str, float]]]:
    """What the checkouts answer, the first call and `repeats` more of each."""
    both = [Checkout(folder, task) for folder in folders]
    try:
        found: list[list[dict[str, float]]] = [[one.ask()] for one in both]
        for turn in range(repeats):
            order = list(zip(both, found, strict=True))
            for one, own in order if turn % 2 else order[::-1]:
                own.append(one.ask())
    finally:
        for one in both:
            one.close()
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--system", default="min-vae-grid")
    parser.add_argument("--presets", nargs="+", default=["fast", "best"])
    parser.add_argument("--lengths", type=float, nargs="+", default=[3.0, 20.0], help="s")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, repeatable")
    parser.add_argument("--first", action="store_true", help="the first call of a new process, nothing else")
    options = parser.parse_args(arguments)
    key = "process" if options.first else "loop"
    print(
        f"| preset | s | threads | this, {key} s | other | ratio of medians | of quickest | energy of speech |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for preset in options.presets:
        for seconds in options.lengths:
            for threads in options.threads:
                task = {"system": options.system, "preset": preset, "seconds": seconds, "threads": threads}
                task["settings"] = options.set
                folders = [ROOT, options.other.resolve()]
                if options.first:
                    rounds = [compare(folders, task, 0) for _ in range(options.repeats)]
                    found = [[one for round_ in rounds for one in round_[k]] for k in (0, 1)]
                else:
                    found = [own[1:] for own in compare(folders, task, options.repeats)]
                times = [[one[key] for one in own] for own in found]
                usual, least = [statistics.median(t) for t in times], [min(t) for t in times]
                energy = found[0][0]["speech"] / found[1][0]["speech"]
                print(
                    f"| {preset} | {seconds:g} | {threads} | {usual[0]:.4f} | {usual[1]:.4f} "
                    f"| {usual[0] / usual[1]:.3f} | {least[0] / least[1]:.3f} | {energy:.6f} |",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(json.loads(sys.argv[2]))
    else:
        main()
