"""The published loop, written plainly, beside ours in one run: `python benchmarks/paper_loop.py DATA`.

The loop is that of the papers, in NumPy: Metropolis-Hastings with a random walk of variance 0.01, 40 steps of which 10
are kept, 100 EM iterations, NMF of rank 10 with multiplicative updates and columns that sum to one; chains go on from
one iteration to the next and start at the lips' encoder (mixture models) or at the audio encoder (others). Of the
package it uses the trained networks and the STFT alone. It decodes each proposal once, where the published programs
decode the chain again after each step and the kept draws once more: it is faster than they are.

Systems are written as in `quality.py`. Each mixture goes through all systems in turn, so that a busy machine slows all
of them; times are those of a call on --threads threads, after one call that does not count.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import (
    add_mixture_options,
    caution,
    command,
    machine,
    make_enhancer,
    markdown,
    mixtures,
    parsed,
    show,
)
from published import Array, Prior, Result, Settings, marginal, mean_field
from pyro.distributions import Normal

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation import report
from pyro_minvae.evaluation.benchmark import Row, evaluate_item, item_seed
from pyro_minvae.evaluation.manifest import NoisyItem
from pyro_minvae.evaluation.summary import bootstrap, summarise
from pyro_minvae.features.stft import analyse, frame_count, synthesise
from pyro_minvae.features.stft import power as power_of
from pyro_minvae.media.audio import mono, read_audio, resample
from pyro_minvae.pipelines.enhancer import Enhancer
from pyro_minvae.systems.checkpoint import Trained
from pyro_minvae.types import Visual

METRICS = ("si_sdr", "pesq", "estoi")
PRESETS = ("fast", "best", "paper")
Enhance = Callable[..., Any]


class Answer(NamedTuple):
    """What `evaluation.benchmark` reads of an enhancer's answer."""

    speech: Array
    iterations: int
    acceptance: float
    responsibility: float | None
    real_time_factor: float
    used_video: bool
    switches: None = None


class PublishedLoop:
    """The published loop as an enhancer: `loop(waveform, rate, video=..., seed=...)`.

    `e_step` "auto" is "mean-field" where the prior has alpha, "marginal" elsewhere.
    """

    def __init__(self, model: str, *, settings: Settings | None = None, e_step: str = "auto") -> None:
        self.enhancer = Enhancer.from_pretrained(model)  # for the lips of a video
        self.trained: Trained = self.enhancer.trained
        self.settings, self.e_step = settings or Settings(), e_step
        speech = self.trained.model
        if speech.coupled or speech.likelihood.weighted:
            raise InputError(
                f"{model}: expected independent frames and complex Gaussian speech, found others"
            )

    def shortened(self, **changes: Any) -> PublishedLoop:
        """The same with other settings."""
        other = PublishedLoop.__new__(PublishedLoop)
        other.__dict__ = self.__dict__ | {"settings": self.settings._replace(**changes)}
        return other

    @torch.no_grad()
    def __call__(self, waveform: Array, rate: int, video: Any = None, *, seed: int = 0) -> Answer:
        """The speech in a waveform [S]; the time to find lips in the video is not counted."""
        lips = self.enhancer.lips(video)
        lips = None if self.enhancer.unusable(lips) else lips
        begin, stft = time.perf_counter(), self.trained.recipe.stft
        sound = resample(np.asarray(waveform, np.float64)[None], rate, stft.rate)[0]
        mixture = torch.as_tensor(sound, dtype=torch.float32)
        visual = None if lips is None else self.enhancer.visual(lips, frame_count(len(mixture), stft))
        spectrum = analyse(mixture, stft)
        power = power_of(spectrum / mixture.abs().max().clamp_min(1e-30))
        result = self.estimate(power, visual, np.random.default_rng(seed))
        mask = torch.as_tensor(result.mask.T, dtype=torch.float32)
        speech = resample(synthesise(mask * spectrum, len(mixture), stft).numpy()[None], stft.rate, rate)[0]
        speech = np.pad(speech, (0, max(0, len(waveform) - len(speech))))[: len(waveform)]
        seconds = len(waveform) / rate
        return Answer(
            speech,
            self.settings.iterations,
            result.chain.acceptance,
            None if result.pi is None else float(result.pi.mean()),
            (time.perf_counter() - begin) / seconds,
            visual is not None,
        )

    def estimate(self, power: torch.Tensor, visual: Visual | None, random: np.random.Generator) -> Result:
        """The loop on the power spectrogram [N, F] of a mixture at max|x| = 1."""
        kind = np.dtype(self.settings.precision)
        speech = self.trained.model
        prior = numbers(self.trained, visual, len(power))
        start = self.trained.guide.propose(power, visual).mean.expand(len(power), -1).numpy().astype(kind)

        def decode(z: Array) -> Array:
            # The network as it is, not as our loop rewrites it.
            return speech.variance(torch.from_numpy(z.astype(np.float32)), visual).numpy().T.astype(kind)

        mixed = self.e_step == "auto" and prior.weight is not None
        loop = mean_field if mixed or self.e_step == "mean-field" else marginal
        observed = power.numpy().T.astype(kind)
        return loop(observed, decode, prior, start, settings=self.settings, random=random)


def numbers(trained: Trained, visual: Visual | None, frames: int) -> Prior:
    """The networks' prior as numbers."""
    components = trained.model.prior.components(visual)
    shape = frames, trained.recipe.model.latent
    if not all(isinstance(getattr(one, "base_dist", None), Normal) for one in components.conditionals):
        raise InputError(
            f"{trained.recipe.name}: expected a Gaussian prior or a mixture of two, found another"
        )
    means = np.stack([one.mean.expand(shape).numpy() for one in components.conditionals])
    variances = np.stack([one.variance.expand(shape).numpy() for one in components.conditionals])
    weight = None if components.weight is None else components.weight.expand(frames).numpy()
    return Prior(means, variances, weight)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_mixture_options(parser, clips=10)
    usual = Settings()
    parser.add_argument("--model", default="min-vae-grid", help="whose networks the published loop uses")
    parser.add_argument("--system", action="append", help="repeatable; default: the presets of the model")
    parser.add_argument("--e-step", choices=["auto", "mean-field", "marginal"], default="auto")
    parser.add_argument("--iterations", type=int, default=usual.iterations)
    parser.add_argument("--steps", type=int, default=usual.steps)
    parser.add_argument("--keep", type=int, default=usual.keep)
    parser.add_argument("--rank", type=int, default=usual.rank)
    parser.add_argument("--precision", choices=["float64", "float32"], default="float64", help="NumPy's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file with every score")
    return parsed(parser, arguments)


def limit_threads(threads: int) -> None:
    """Torch and NumPy on that many threads. NumPy reads its number once, so this program has to start anew."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    if __name__ == "__main__" and any(os.environ.get(name) != str(threads) for name in names):
        os.environ.update(dict.fromkeys(names, str(threads)))
        os.execv(sys.executable, [sys.executable, *sys.argv])
    torch.set_num_threads(threads)


def compare(systems: dict[str, Enhance], items: list[NoisyItem], *, seed: int) -> dict[str, list[Row]]:
    """The rows of every system, mixture by mixture."""
    rows: dict[str, list[Row]] = {name: [] for name in systems}
    for number, item in enumerate(items, start=1):
        for name, enhance in systems.items():
            start = time.perf_counter()
            rows[name].append(evaluate_item(item, enhance, seed=item_seed(seed, item)))
            seconds = time.perf_counter() - start
            print(f"{number} of {len(items)}, {name}: {seconds:.1f} s with scores", file=sys.stderr)
    return rows


def speed(rows: Sequence[Row]) -> float:
    """The median real-time factor."""
    return float(np.nanmedian([row.real_time_factor for row in rows]))


def table(rows: dict[str, list[Row]], published: str) -> str:
    """Means and speed of each system, with the 95 % interval of the gains over the mixture."""
    head = ["system", "SI-SDR (dB)", "PESQ (wide band)", "ESTOI"]
    head += ["SI-SDR gain (dB) [95 %]", "ESTOI gain [95 %]", "real-time factor", "times as fast as published"]
    cells = summarise(rows[published])[-1].cells
    lines = [["mixture", *(report.number(cells[key].input, key) for key in METRICS), "", "", "", ""]]
    for name, own in rows.items():
        cells = summarise(own)[-1].cells
        gains = [
            f"{report.number(cells[key].gain, key, sign=True)} {report.interval(cells[key], key)}"
            for key in ("si_sdr", "estoi")
        ]
        factor = speed(rows[published]) / speed(own)
        scores = [report.number(cells[key].output, key) for key in METRICS]
        lines.append([name, *scores, *gains, f"{speed(own):.3f}", f"{factor:.1f}"])
    return markdown(head, lines)


def differences(rows: dict[str, list[Row]], published: str) -> str:
    """Each system less the published loop, on the same mixtures."""
    lines = []
    for name, own in rows.items():
        if name == published:
            continue
        cells = []
        for key in METRICS:
            pairs = zip(own, rows[published], strict=True)
            values = np.array([a.output.values[key] - b.output.values[key] for a, b in pairs])
            values = values[np.isfinite(values)]
            low, high = bootstrap(values)
            mean = report.number(float(values.mean()) if len(values) else np.nan, key, sign=True)
            cells.append(f"{mean} [{report.number(low, key)}, {report.number(high, key)}]")
        lines.append([name, *cells])
    return markdown(["less the published loop", "SI-SDR (dB) [95 %]", "PESQ [95 %]", "ESTOI [95 %]"], lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the published loop and the systems on the same mixtures, print the tables."""
    options = options_of(arguments)
    limit_threads(options.threads)
    state = machine()
    names = options.system or [f"{options.model},preset={preset}" for preset in PRESETS]
    settings = Settings(
        options.iterations, options.steps, options.keep, options.rank, precision=options.precision
    )
    loop = PublishedLoop(options.model, settings=settings, e_step=options.e_step)
    published = f"published loop, {options.model} ({settings.iterations} x {settings.steps})"
    systems: dict[str, Enhance] = {published: loop} | {name: make_enhancer(name) for name in names}
    with mixtures(options) as items:
        first = read_audio(items[0].mixture)
        for name, enhance in systems.items():
            # The first call of each is slower: libraries load, memory is mapped, kernels are compiled.
            warm = loop.shortened(iterations=1) if name == published else enhance
            warm(mono(first, first.rate), first.rate, video=items[0].video, seed=0)
        rows = compare(systems, items, seed=options.seed)
    note = f"{len(items)} mixtures, seed {options.seed}, {options.threads} threads: `{command()}`. {caution(state)}"
    faults = [f"{name}: no score for {line}" for name, own in rows.items() for line in report.failures(own)]
    show(table(rows, published), differences(rows, published), note, *faults)
    if options.out:
        contents = {
            "command": command(),
            "machine": state,
            "threads": options.threads,
            "published": settings._asdict(),
            "speed": {name: speed(own) for name, own in rows.items()},
            "systems": [report.tree(own, model=name, settings={}) for name, own in rows.items()],
        }
        report.write_json(options.out, contents)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
