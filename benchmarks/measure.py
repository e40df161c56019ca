"""One measurement of time and memory in a process of its own, and where its time goes; `speed.py` asks for them."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from common import make_enhancer
from floor import Operation, bandwidth, operations, seconds_of

from pyro_minvae.errors import InputError
from pyro_minvae.features.stft import frame_count
from pyro_minvae.inference import ops
from pyro_minvae.inference.ops import choice
from pyro_minvae.pipelines.enhancer import Enhancer
from pyro_minvae.pipelines.recording import Recording
from pyro_minvae.types import MouthCrops

# The kinds of operation, by torch's names for them and by those of the compiled passes, which do several things: each
# is what most of its time goes to.
KINDS = {
    "matrix products": "mm addmm bmm baddbmm mv addmv dot linalg_eigh",
    "exp, log, tanh, roots, powers": "exp exp2 expm1 log log1p tanh sqrt rsqrt sigmoid softplus logaddexp pow lgamma "
    "tanh_backward sigmoid_backward decode_ log_likelihood log_mixture responsibility",
    "divisions": "div reciprocal slope statistics gain_statistics noise_moment speech_moment harmonic_mean filters "
    "move_chain",
    "random numbers": "normal uniform rand randn random",
    "sums": "sum mean cumsum logsumexp std var",
    "additions, products": "add sub rsub mul neg square addcmul addcdiv diff abs lerp through mixture_gradient",
    "comparisons, choices": "where clamp clamp_min clamp_max lt gt le ge eq ne maximum minimum isfinite nan_to_num "
    "logical_and bitwise_and bitwise_or bitwise_not any all masked_fill decide exchange",
    "copies": "copy cat stack clone fill zero index index_put _to_copy contiguous constant_pad_nd",
    "Fourier transforms": "_fft_r2c _fft_c2r _fft_c2c",
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}
REST, OUTSIDE = "views and other operations of torch", "outside torch (Python, NumPy)"


def recording(enhancer: Enhancer, seconds: float, seed: int) -> Recording:
    """Noise that comes and goes in syllables, and lips that move at random."""
    rate = enhancer.recipe.stft.rate
    random = np.random.default_rng(seed)
    moments = np.arange(round(seconds * rate)) / rate
    sound = random.standard_normal(len(moments)) * (0.2 + np.sin(2 * np.pi * 2 * moments) ** 2)
    size, frames = enhancer.recipe.crops.size, max(1, round(25 * seconds))
    crops = random.integers(0, 256, (frames, size, size), dtype=np.uint8)
    lips = MouthCrops(crops, np.arange(frames) / 25, np.ones(frames, bool))
    return Recording(0.1 * sound, rate, lips, seed)


def child(task: dict[str, Any]) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    torch.set_num_threads(task["threads"])
    enhancer = make_enhancer(task["system"], "inference.lips=always", *task.get("settings", []))
    recordings = [recording(enhancer, task["seconds"], seed) for seed in range(task.get("recordings", 1))]
    (warm,) = enhancer.many([recording(enhancer, 1.0, 0)])
    before = peak_mib()
    if task["what"] == "profile":
        return profile(enhancer, recordings)
    times, loops = [], []
    counted = floor_of(enhancer, task["seconds"], lips=warm.used_video) if task["what"] == "floor" else []
    ceilings: list[list[float]] = [[] for _ in counted]
    loop = Stopwatch(enhancer.denoiser)
    enhancer.denoiser = loop  # type: ignore[assignment]
    for _ in range(task["repeats"]):
        loop.seconds = 0.0
        start = time.perf_counter()
        answers = enhancer.many(recordings)
        times.append(time.perf_counter() - start)
        loops.append(loop.seconds)
        # In turn with the loop: other programs come and go.
        for own, one in zip(ceilings, counted, strict=True):
            own += seconds_of(one.kind, one.shape)
    seconds = statistics.median(times)
    found = {
        "took_s": seconds,
        "loop_s": statistics.median(loops),
        "loop_best_s": min(loops),
        "real_time_factor": seconds / (task["seconds"] * len(recordings)),
        "before_mib": before,
        "peak_mib": peak_mib(),
        "iterations": answers[0].iterations,
        "lips": answers[0].used_video,
    }
    if task["what"] == "floor":
        found["operations"] = [
            one._asdict() | {"work": one.work, "best_s": min(own), "usual_s": statistics.median(own)}
            for one, own in zip(counted, ceilings, strict=True)
        ]
        found["bandwidth"] = bandwidth()
    return found


class Stopwatch:
    """A denoiser, the EM loop with what it starts from, and the `seconds` that its calls took."""

    def __init__(self, denoiser: Any) -> None:
        self.denoiser, self.seconds = denoiser, 0.0

    def __call__(self, *arguments: Any) -> Any:
        start = time.perf_counter()
        found = self.denoiser(*arguments)
        self.seconds += time.perf_counter() - start
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)


def peak_mib() -> float:
    """The most memory that this process has held so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


class Timed:
    """The compiled passes, and the `seconds` that each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        found = choice._loaded() or {}
        names = {one.__name__ for one in ops.TABLE}
        self.passes = {name: self._timed(name, found[name]) for name in names & found.keys()}

    def _timed(self, name: str, run: Any) -> Any:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            found = run(*arguments, **named)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            return found

        return timed


def profile(enhancer: Enhancer, recordings: list[Recording]) -> dict[str, Any]:
    """Seconds of one call by kind of operation. The profiler slows small operations down a little."""
    passes, loaded = Timed(), choice._loaded
    if passes.passes:
        choice._loaded = lambda: passes.passes  # type: ignore[assignment]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        begin = time.perf_counter()
        enhancer.many(recordings)
        total = time.perf_counter() - begin
    choice._loaded = loaded
    spent = dict.fromkeys([*KINDS, REST], 0.0)
    for event in profiler.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    for name, seconds in passes.seconds.items():
        spent[kind_of(name)] += seconds
    spent[OUTSIDE] = max(0.0, total - sum(spent.values()))
    return {"took_s": total, "kinds": spent}


def kind_of(operation: str) -> str:
    """The kind of an operation of torch, "aten::add_" for example, or of a pass."""
    name = operation.removeprefix("aten::")
    return KIND_OF.get(name, KIND_OF.get(name.removesuffix("_"), REST))


def floor_of(enhancer: Enhancer, seconds: float, *, lips: bool) -> list[Operation]:
    """What the loop has to compute for one of these recordings."""
    stft = enhancer.recipe.stft
    return operations(enhancer, frame_count(round(seconds * stft.rate), stft), lips=lips)


def run(task: dict[str, Any]) -> dict[str, Any]:
    """`child` in a new process on the task's threads.

    Raises:
        InputError: if it fails, with its last line.
    """
    threads = str(task["threads"])
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(task)],
        env=os.environ | dict.fromkeys(names, threads),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"{task['system']}: {(done.stderr.strip() or 'no reason').splitlines()[-1]}")
    return task | json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    try:
        print(json.dumps(child(json.loads(sys.argv[1]))))
    except InputError as error:
        sys.exit(str(error))
