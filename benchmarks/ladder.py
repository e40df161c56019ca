"""Where the decibels are lost: `python benchmarks/ladder.py DATA --system min-vae-grid`.

Every mixture is enhanced with more and more of the truth given away, so that the steps between the rungs tell which
part loses how much:

    mixture
    model            as it is, from either start, with the gain fixed, with other ranks of the noise model
    oracle z         z is the audio encoder's mean for the clean speech; noise and gain are learnt
    true noise       W H is fitted to the power of the noise alone (plain NMF); z from the lips or the oracle
    true speech      the power of the clean speech in place of sigma(z), and the NMF of the true noise

The last column is the share of the SI-SDR gain of the rung "oracle z, NMF of the true noise", which is as far as these
networks and this rank could go if inference were perfect. --system takes a checkpoint and its settings as in
`quality.py`; the presets are measured on the same mixtures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from common import (
    add_mixture_options,
    command,
    make_enhancer,
    markdown,
    mixtures,
    parse_system,
    parsed,
    show,
)
from torch import Tensor

from pyro_minvae.config.load import preset_names
from pyro_minvae.errors import InputError
from pyro_minvae.evaluation import report
from pyro_minvae.evaluation.benchmark import item_seed
from pyro_minvae.evaluation.manifest import NoisyItem
from pyro_minvae.evaluation.metrics import score
from pyro_minvae.evaluation.summary import bootstrap
from pyro_minvae.features.stft import analyse, frame_count, synthesise
from pyro_minvae.features.stft import power as power_of
from pyro_minvae.inference.mcem.statistics import MixtureStatistics
from pyro_minvae.inference.mcem.wiener import masks
from pyro_minvae.media.audio import mono, read_audio, resample
from pyro_minvae.models.gain import GainPrior, marginal_gain
from pyro_minvae.models.noise.nmf import Nmf
from pyro_minvae.pipelines.enhancer import Enhancer
from pyro_minvae.systems.build import noise_model
from pyro_minvae.types import MouthCrops, Visual

METRICS = ("si_sdr", "pesq", "estoi")
CEILING = "oracle z, NMF of the true noise"
FITTING = 100  # updates of the NMF of the true noise, and of the gain beside it

Values = dict[str, dict[str, float]]


class Plan(NamedTuple):
    """What to measure: the `system`, `presets`, `ranks` of the noise model, `true_rank` of the true noise's NMF."""

    system: str
    presets: tuple[str, ...]
    ranks: tuple[int, ...]
    true_rank: int
    seed: int


class Truth(NamedTuple):
    """A mixture and what it is made of: `clean` and `mixture` [S] at `rate` Hz; at the model's rate and at max|x| = 1
    the mixture's `spectrum` [N, F], its `power` and those of the speech and of the noise [N, F]; lips or None."""

    clean: np.ndarray
    mixture: np.ndarray
    rate: int
    spectrum: Tensor
    power: Tensor
    speech: Tensor
    noise: Tensor
    lips: MouthCrops | None
    visual: Visual | None


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_mixture_options(parser, clips=10)
    parser.add_argument("--system", default="min-vae-grid", help="default: min-vae-grid")
    parser.add_argument("--preset", action="append", choices=preset_names(), help="default: all")
    parser.add_argument("--rank", type=int, action="append", help="of the noise model; default: 2, 4, 8, 16")
    parser.add_argument("--true-rank", type=int, default=10, help="of the NMF of the true noise")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--out", type=Path, help="JSON file with every score")
    return parsed(parser, arguments)


def read_truth(item: NoisyItem, enhancer: Enhancer) -> Truth:
    """A mixture, taken apart."""
    read, stft = read_audio(item.mixture), enhancer.recipe.stft
    mixture = mono(read, read.rate).astype(np.float64)
    clean = mono(read_audio(item.clean), read.rate).astype(np.float64) * item.scale
    parts = resample(np.stack([mixture, clean, mixture - clean]), read.rate, stft.rate)
    spectra = analyse(torch.as_tensor(parts / np.abs(parts[0]).max(), dtype=torch.float32), stft)
    lips = enhancer.lips(item.video)
    lips = None if enhancer.unusable(lips) else lips
    visual = None if lips is None else enhancer.visual(lips, frame_count(parts.shape[-1], stft))
    mixed, speech, noise = power_of(spectra)
    return Truth(clean, mixture, read.rate, spectra[0], mixed, speech, noise, lips, visual)


def climb(item: NoisyItem, plan: Plan) -> Values:
    """The scores of one mixture on every rung."""
    torch.set_num_threads(1)
    seed, enhancer = item_seed(plan.seed, item), make_enhancer(plan.system)
    truth = read_truth(item, enhancer)
    values = {"mixture": score(truth.clean, truth.mixture, truth.rate).values}
    for rung, system in enhanced_rungs(enhancer, plan, truth.lips is not None).items():
        speech = make_enhancer(*system)(truth.mixture, truth.rate, truth.lips, seed=seed).speech
        values[rung] = score(truth.clean, speech, truth.rate).values
    with torch.no_grad():
        for rung, mask in oracle_masks(enhancer, plan, truth, seed).items():
            values[rung] = score(truth.clean, filtered(mask, truth, enhancer), truth.rate).values
    return values


def enhanced_rungs(enhancer: Enhancer, plan: Plan, lips: bool) -> dict[str, tuple[str, ...]]:
    """Rungs that are the enhancer with other settings: what `make_enhancer` gets."""
    guide, prior = enhancer.trained.guide, enhancer.trained.model.prior
    start: tuple[str, ...] = ()
    label, rungs = "model", {}
    if enhancer.recipe.guide.kind != "visual":
        start, label = ("inference.start=audio",), "audio start"
        rungs["model, audio start"] = (plan.system, *start)
    if lips and (guide.visual or prior.visual):
        start, label = ("inference.start=guide" if guide.visual else "inference.start=prior",), "lips start"
        rungs["model, lips start"] = (plan.system, *start)
    rungs[f"{label}, gain fixed to 1"] = (plan.system, *start, "inference.gain=false")
    if hasattr(enhancer.recipe.noise, "rank"):
        for rank in plan.ranks:
            rungs[f"{label}, noise of rank {rank}"] = (plan.system, *start, f"noise.rank={rank}")
    name = parse_system(plan.system).name
    return rungs | {f"preset {preset}": (f"{name},preset={preset}",) for preset in plan.presets}


def oracle_masks(enhancer: Enhancer, plan: Plan, truth: Truth, seed: int) -> dict[str, Tensor]:
    """Wiener filters [N, F] of the rungs that are given something."""
    model, recipe = enhancer.trained.model, enhancer.recipe
    generator = torch.Generator().manual_seed(seed)
    true_noise = Nmf(truth.noise, rank=plan.true_rank, generator=generator)
    for _ in range(FITTING):
        true_noise.em_step(MixtureStatistics(truth.noise))
    variance = true_noise.variance()
    found = {}
    if recipe.guide.kind != "visual":
        oracle = enhancer.trained.guide.posteriors(truth.speech, truth.visual)[-1].mean
        sigma = model.variance(oracle.expand(len(truth.power), -1), truth.visual)
        rate = recipe.stft.rate / recipe.stft.hop
        learnt = noise_model(recipe.noise, truth.power, rate=rate, speech=lambda: sigma, generator=generator)
        found["oracle z, noise learnt"] = with_known_speech(sigma, learnt, truth.power, enhancer)
        found[CEILING] = with_known_noise(sigma, variance, truth.power, enhancer)
    seen = lips_only(enhancer, truth.visual, len(truth.power))
    if seen is not None:
        sigma = model.variance(seen, truth.visual)
        mask = with_known_noise(sigma, variance, truth.power, enhancer)
        found = {"z from the lips alone, NMF of the true noise": mask} | found
    return found | {"true speech power, NMF of the true noise": truth.speech / (truth.speech + variance)}


def lips_only(enhancer: Enhancer, visual: Visual | None, frames: int) -> Tensor | None:
    """The mean of q(z | v) or p(z | v) [N, L]; None where the model has neither, or there are no lips."""
    guide, prior = enhancer.trained.guide, enhancer.trained.model.prior
    if visual is None:
        return None
    if guide.mixed or enhancer.recipe.guide.kind == "visual":
        power = torch.ones(frames, enhancer.recipe.stft.bins)
        return guide.posteriors(power, visual)[0].mean.expand(frames, -1)
    return prior.conditionals(visual)[0].mean.expand(frames, -1) if prior.visual else None


def with_known_speech(sigma: Tensor, noise: Nmf, power: Tensor, enhancer: Enhancer) -> Tensor:
    """The filter after EM's M-steps of noise and gain at fixed sigma [N, F]."""
    gain, variance = torch.ones(len(power)), noise.variance()
    for _ in range(enhancer.recipe.inference.iterations):
        noise.em_step(MixtureStatistics(power, (gain[:, None] * sigma)[None, None]))
        variance = noise.variance()
        gain = next_gain(gain, sigma, variance, power, enhancer)
    return masks((gain[:, None] * sigma)[None, None], variance)[0]


def with_known_noise(sigma: Tensor, noise: Tensor, power: Tensor, enhancer: Enhancer) -> Tensor:
    """The filter after EM's M-steps of the gain at fixed sigma and noise [N, F]."""
    gain = torch.ones(len(power))
    for _ in range(FITTING):
        gain = next_gain(gain, sigma, noise, power, enhancer)
    return masks((gain[:, None] * sigma)[None, None], noise)[0]


def next_gain(gain: Tensor, sigma: Tensor, noise: Tensor, power: Tensor, enhancer: Enhancer) -> Tensor:
    """One update of g [N], if the settings let it vary."""
    inference = enhancer.recipe.inference
    if not inference.gain:
        return gain
    inverse = (gain[:, None] * sigma + noise).reciprocal()
    up, down = (sigma * power * inverse**2).sum(-1), (sigma * inverse).sum(-1)
    return marginal_gain(gain, up, down, GainPrior(*inference.gain_prior))


def filtered(mask: Tensor, truth: Truth, enhancer: Enhancer) -> np.ndarray:
    """The speech [S] that a filter lets through, at the mixture's rate, at max|x| = 1."""
    stft, samples = enhancer.recipe.stft, len(truth.mixture)
    length = resample(np.zeros((1, samples)), truth.rate, stft.rate).shape[-1]
    speech = synthesise(mask * truth.spectrum, length, stft).numpy().astype(np.float64)
    back = resample(speech[None], stft.rate, truth.rate)[0]
    return np.pad(back, (0, max(0, samples - len(back))))[:samples]


def table(climbs: Sequence[Values]) -> str:
    """Means over the mixtures, the SI-SDR gain with its 95 % interval, and its share of the ceiling's."""
    gains = {
        rung: np.array([values[rung]["si_sdr"] - values["mixture"]["si_sdr"] for values in climbs])
        for rung in climbs[0]
    }
    ceiling = np.nanmean(gains[CEILING]) if CEILING in gains else np.nan
    lines = []
    for rung, gain in gains.items():
        means = [
            report.number(float(np.nanmean([values[rung][key] for values in climbs])), key) for key in METRICS
        ]
        low, high = bootstrap(gain[np.isfinite(gain)])
        shown = f"{np.nanmean(gain):+.2f} [{low:.2f}, {high:.2f}]"
        share = f"{100 * np.nanmean(gain) / ceiling:.0f} %" if np.isfinite(ceiling) else "-"
        lines.append([rung, *means, *(("", "") if rung == "mixture" else (shown, share))])
    head = ["rung", "SI-SDR (dB)", "PESQ (wide band)", "ESTOI", "SI-SDR gain (dB) [95 %]"]
    return markdown([*head, "share of the ceiling's gain"], lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Climb with every mixture and print the table."""
    options = options_of(arguments)
    plan = Plan(
        options.system,
        tuple(options.preset or preset_names()),
        tuple(options.rank or (2, 4, 8, 16)),
        options.true_rank,
        options.seed,
    )
    with mixtures(options) as items:
        if options.workers > 1:
            with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
                climbs = list(pool.map(partial(climb, plan=plan), items))
        else:
            climbs = [climb(item, plan) for item in items]
        names = [f"{item.id} {item.noise} {item.snr_db:g} dB" for item in items]
    rungs = [rung for rung in climbs[0] if all(rung in values for values in climbs)]
    climbs = [{rung: values[rung] for rung in rungs} for values in climbs]
    note = (
        f"{plan.system}, {len(climbs)} mixtures, seed {plan.seed}: `{command()}`; the ceiling is {CEILING!r}."
    )
    show(table(climbs), note)
    if options.out:
        contents = {
            "command": command(),
            "plan": plan._asdict(),
            "rows": dict(zip(names, climbs, strict=True)),
        }
        report.write_json(options.out, contents)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
