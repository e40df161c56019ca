"""Where the decibels of a separation are lost: systems that are given more and more of the truth.

    z of the guide       each speaker's z is the guide's mean for the mixture and the lips; gains and noise are fitted
    z of the lips        z is the mean of p(z | v): the sound only fits the gains
    start at the oracle  the whole loop, its chains begun at the oracle z
    oracle z             z is the guide's mean for the clean speaker; gains and noise are fitted
    oracle z and gains   the gains too are those of the clean speakers; only the noise is fitted
    oracle z, true noise the noise is an NMF of the true noise (where there is noise)

Beyond them is the ideal ratio mask, which has the true powers in place of sigma(z): from the last rung to it is what
the decoder cannot say.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from common import make_separator
from torch import Tensor

from pyro_minvae.config.noise import FloorConfig
from pyro_minvae.config.schema import Recipe
from pyro_minvae.evaluation.separation import Answer, System, Task
from pyro_minvae.features.stft import analyse, frame_count, synthesise
from pyro_minvae.features.stft import power as power_of
from pyro_minvae.inference.mcem.statistics import MixtureStatistics
from pyro_minvae.inference.mcem.wiener import masks
from pyro_minvae.media.audio import resample
from pyro_minvae.models.gain import GainPrior, marginal_gain
from pyro_minvae.models.noise.nmf import Nmf
from pyro_minvae.models.noisy import Source
from pyro_minvae.pipelines.mcem_solver import Block, Denoiser
from pyro_minvae.pipelines.separator import Separator
from pyro_minvae.systems.build import noise_model
from pyro_minvae.types import Visual

FITTING, TRUE_RANK = 100, 10  # of the NMF of the true noise: updates and rank
GUIDE, LIPS, START = "z of the guide, gains fitted", "z of the lips, gains fitted", "start at the oracle z"
ORACLE, GAINS = "oracle z, gains fitted", "oracle z and gains"
NOISE = "oracle z, NMF of the true noise, gains fitted"


class Truth(NamedTuple):
    """At the model's rate and at max|x| = 1: the mixture's `spectrum` [N, F] and `power`, the powers of the speakers
    [J, N, F] and of the noise [N, F], the lips, and the oracle z [J, N, L]."""

    spectrum: Tensor
    power: Tensor
    speakers: Tensor
    noise: Tensor
    visuals: tuple[Visual | None, ...]
    oracle: list[Tensor]


def rungs(model: str, *, noise: bool) -> dict[str, Callable[[], System]]:
    """Name to what makes the system, in any process."""
    names = [GUIDE, LIPS, START, ORACLE, GAINS] + [NOISE] * noise
    return {name: partial(rung_system, model, name, noise=noise) for name in names}


def rung_system(model: str, rung: str, *, noise: bool) -> System:
    """The model with that much of the truth."""
    separator = make_separator(model)
    recipe = separator.recipe if noise else separator.recipe.model_copy(update={"noise": FloorConfig()})

    def separate(task: Task) -> Answer:
        torch.manual_seed(task.seed)
        with torch.no_grad():
            truth = read_truth(task, separator, recipe)
            found = filters(rung, truth, task, separator, recipe)
            rate, samples = recipe.stft.rate, len(task.mixture)
            length = resample(np.zeros((1, samples)), task.rate, rate).shape[-1]
            signals = synthesise(found * truth.spectrum, length, recipe.stft).numpy().astype(np.float64)
        back = resample(signals, rate, task.rate)
        back = np.pad(back, ((0, 0), (0, max(0, samples - back.shape[-1]))))[:, :samples]
        return Answer(np.abs(task.mixture).max() * back, (True,) * len(back))

    return separate


def read_truth(task: Task, separator: Separator, recipe: Recipe) -> Truth:
    """A mixture, taken apart."""
    stft = recipe.stft
    parts = np.stack([task.mixture, *task.speakers, task.mixture - task.speakers.sum(0)])
    parts = resample(parts, task.rate, stft.rate) / np.abs(task.mixture).max()
    spectra = analyse(torch.as_tensor(parts, dtype=torch.float32), stft)
    powers, frames = power_of(spectra), frame_count(parts.shape[-1], stft)
    visuals: list[Visual | None] = []
    for j, speaker in enumerate(task.item.speakers):
        lips = separator.voice(j).guidance(speaker.video).lips
        visuals.append(None if lips is None else separator.voice(j).visual(lips, frames))
    oracle = [
        separator.voice(j).trained.guide.posteriors(power, visual)[-1].mean.expand(frames, -1)
        for j, (power, visual) in enumerate(zip(powers[1:-1], visuals, strict=True))
    ]
    return Truth(spectra[0], powers[0], powers[1:-1], powers[-1], tuple(visuals), oracle)


class FromOracle(Denoiser):
    """The loop with chains that begin at given places."""

    places: list[Tensor]

    def sources(self, piece: Block) -> list[Source]:
        return [
            source._replace(start=place)
            for source, place in zip(super().sources(piece), self.places, strict=True)
        ]


def filters(rung: str, truth: Truth, task: Task, separator: Separator, recipe: Recipe) -> Tensor:
    """The speakers' Wiener filters [J, N, F]."""
    denoiser = FromOracle(separator.systems, recipe, separator.device)
    piece = Block(truth.power, truth.visuals, task.seed)
    if rung == START:
        denoiser.places = truth.oracle
        return denoiser([piece])[0].masks
    sources = Denoiser.sources(denoiser, piece)
    if rung == GUIDE:
        z = [source.start for source in sources]
    elif rung == LIPS:
        z = [prior_mean(source) for source in sources]
    else:
        z = truth.oracle
    sigma = torch.stack([s.model.variance(one, s.visual) for s, one in zip(sources, z, strict=True)])
    generator = torch.Generator().manual_seed(task.seed)
    if rung == NOISE:
        noise = Nmf(truth.noise, rank=TRUE_RANK, generator=generator)
        for _ in range(FITTING):
            noise.em_step(MixtureStatistics(truth.noise))
    else:
        rate = recipe.stft.rate / recipe.stft.hop
        noise = noise_model(
            recipe.noise, truth.power, rate=rate, speech=lambda: sigma.sum(0), generator=generator
        )
    gain = torch.ones(sigma.shape[:-1])
    if rung == GAINS:
        # The most likely gain of a known power: g = mean_f |s|^2 / sigma.
        gain = (truth.speakers / sigma).mean(-1)
    # As often as the loop would: noise models learn the speech too, if they are given the time.
    for _ in range(recipe.inference.iterations):
        if rung != NOISE:
            noise.em_step(MixtureStatistics(truth.power, (gain[..., None] * sigma)[:, None]))
        if rung != GAINS and recipe.inference.gain:
            gain = next_gains(gain, sigma, noise.variance(), truth.power, recipe)
    return masks((gain[..., None] * sigma)[:, None], noise.variance())


def prior_mean(source: Source) -> Tensor:
    """The mean of p(z | v) [N, L], of the lips' component where the prior has several."""
    frames = len(source.start)
    return source.model.prior.conditionals(source.visual)[0].mean.expand(frames, source.start.shape[-1])


def next_gains(gain: Tensor, sigma: Tensor, noise: Tensor, power: Tensor, recipe: Recipe) -> Tensor:
    """One M-step of all gains [J, N], one speaker after the other."""
    gain, prior = gain.clone(), GainPrior(*recipe.inference.gain_prior)
    for j in range(len(gain)):
        inverse = ((gain[..., None] * sigma).sum(0) + noise).reciprocal()
        up, down = (sigma[j] * power * inverse**2).sum(-1), (sigma[j] * inverse).sum(-1)
        gain[j] = marginal_gain(gain[j], up, down, prior)
    return gain
