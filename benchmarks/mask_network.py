"""A small supervised network to compare with: mixed speech and the lips of one speaker in, that speaker's mask out.

It is trained on mixtures of training clips alone, and on no noise: each GRID clip with another one, or with a voice of
LibriSpeech, at a random level. The mask minimises the error of the magnitude that it lets through, towards the part of
the speaker's that is in phase (phase-sensitive spectrum approximation; Erdogan et al., ICASSP 2015).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pyro_minvae.config.schema import CropConfig, Stft
from pyro_minvae.data.cache import default_cache, prepare
from pyro_minvae.data.corpus import open_corpus
from pyro_minvae.data.split import hold_out
from pyro_minvae.evaluation.mixing import segment
from pyro_minvae.evaluation.noisy_set import select
from pyro_minvae.evaluation.separation import Answer, System, Task
from pyro_minvae.features.stft import analyse, frame_count, frame_times, synthesise
from pyro_minvae.features.visual import LipProjection
from pyro_minvae.media.files import atomic
from pyro_minvae.media.mouths import read_lips
from pyro_minvae.systems.checkpoint import load_model
from pyro_minvae.types import MouthCrops, Prepared

STFT = Stft()
FLOOR = 1e-6  # of the power at max|x| = 1, before the logarithm
LEVELS_DB = (-5.0, 5.0)
BATCH = 16
LIPS = "min-vae-grid"  # whose principal components of the lips it sees


class MaskNetwork(nn.Module):
    """m_n in (0, 1)^F from log |x_n|^2 [B, N, F] and lips [B, N, M]: a layer, a bidirectional GRU, a layer."""

    def __init__(self, bins: int, lips: int, *, hidden: int = 128) -> None:
        super().__init__()
        self.entry = nn.Linear(bins + lips, 2 * hidden)
        self.memory = nn.GRU(2 * hidden, hidden, batch_first=True, bidirectional=True)
        self.leave = nn.Linear(2 * hidden, bins)

    def forward(self, power: Tensor, lips: Tensor) -> Tensor:
        """The mask [B, N, F] for a mixture's `power` [B, N, F] at max|x| = 1."""
        level = ((power + FLOOR).log() + 8) / 4  # about standardised
        state = torch.tanh(self.entry(torch.cat([level, lips], -1)))
        return torch.sigmoid(self.leave(self.memory(state)[0]))


class Material(NamedTuple):
    """Training speech: clips [S] with their lips [N, M], and voices [S] without."""

    clips: list[np.ndarray]
    lips: list[Tensor]
    voices: list[np.ndarray]


def lips_on_clock(lips: MouthCrops, samples: int, projection: LipProjection) -> Tensor:
    """The principal components of the lips at the frames of a signal [N, M]; the GRU sees the context by itself."""
    with torch.no_grad():
        visual = projection.visual(lips, frame_times(frame_count(samples, STFT), STFT))
    components, context = projection.lips.components, projection.lips.context
    return visual.features[:, context * components : (context + 1) * components]


def gather(data: Path, projection: LipProjection, clips: int | None) -> tuple[Material, Material]:
    """What to train on and what to stop by, both of the training lists: GRID with lips, LibriSpeech without."""
    found: list[list[Prepared]] = []
    for folder, split in ((data / "grid", "train"), (data / "librispeech", "train")):
        utterances = select(open_corpus(folder), source=folder, split=split, limit=clips)
        crops = CropConfig(size=projection.size)
        prepared, _ = prepare(utterances, stft=STFT, crops=crops, cache=default_cache())
        found.append([one for one in prepared if one.waveform.any()])
    (seen, unseen), (voices, others) = (hold_out(group, 0.05, 0) for group in found)
    fit, held = ((seen, voices), (unseen, others))
    first, second = (
        Material(
            [one.waveform for one in grid],
            [lips_on_clock(one.lips, len(one.waveform), projection) for one in grid if one.lips],
            [one.waveform for one in libri],
        )
        for grid, libri in (fit, held)
    )
    return first, second


def batch(
    material: Material, chosen: np.ndarray, generator: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixtures of the clips with these numbers: spectra of mixture and target [B, N, F], lips [B, N, M]."""
    samples = min(len(material.clips[n]) for n in chosen)
    mixed, targets = [], []
    for n in chosen:
        pool = material.clips if generator.random() < 0.5 else material.voices
        target = material.clips[n][:samples]
        other = segment(pool[int(generator.integers(len(pool)))], samples, generator)
        level = 10 ** (-generator.uniform(*LEVELS_DB) / 20)
        other = other * level * np.sqrt((target**2).mean() / max((other**2).mean(), 1e-12))
        peak = np.abs(target + other).max()
        mixed.append((target + other) / peak)
        targets.append(target / peak)
    frames = frame_count(samples, STFT)
    spectra = analyse(torch.as_tensor(np.stack([mixed, targets]), dtype=torch.float32), STFT)
    return spectra[0], spectra[1], torch.stack([material.lips[n][:frames] for n in chosen])


def loss_of(network: MaskNetwork, mixture: Tensor, target: Tensor, lips: Tensor) -> Tensor:
    """mean (m |x| - |s| cos(angle between s and x))^2 over the mean power of the target."""
    magnitude = mixture.abs()
    aim = ((target * mixture.conj()).real / magnitude.clamp_min(1e-8)).clamp_min(0)
    error = network(magnitude**2, lips) * magnitude - aim
    return error.square().mean() / target.abs().square().mean()


def train(
    fit: Material, held: Material, *, epochs: int, seed: int, tell: Callable[[str], None]
) -> MaskNetwork:
    """Adam with a falling rate; the weights of the epoch with the least loss on the clips held out."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    network = MaskNetwork(STFT.bins, fit.lips[0].shape[-1])
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    best, weights = np.inf, network.state_dict()
    for epoch in range(epochs):
        start, order = time.perf_counter(), generator.permutation(len(fit.clips))
        for first in range(0, len(order), BATCH):
            loss = loss_of(network, *batch(fit, order[first : first + BATCH], generator))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
        rate.step()
        with torch.no_grad():
            judge = np.random.default_rng(0)
            value = float(loss_of(network, *batch(held, np.arange(len(held.clips)), judge)))
        tell(f"mask network, epoch {epoch + 1} of {epochs}: {value:.3f}, {time.perf_counter() - start:.0f} s")
        if value < best:
            best, weights = value, {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(weights)
    return network.eval()


def trained(data: Path, folder: Path, *, epochs: int, clips: int | None, tell: Callable[[str], None]) -> Path:
    """The file of the network, trained unless it is there."""
    file = folder / f"mask-{epochs}-{clips or 'all'}.pt"
    if not file.is_file():
        projection = load_model(LIPS).lips
        assert projection is not None
        network = train(*gather(data, projection, clips), epochs=epochs, seed=0, tell=tell)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(file) as temporary:
            torch.save(network.state_dict(), temporary)
    return file


def mask_system(file: Path) -> System:
    """The trained network as a system: a mask from each speaker's lips; one without lips gets what is left."""
    projection = load_model(LIPS).lips
    assert projection is not None
    network = MaskNetwork(STFT.bins, projection.lips.components)
    network.load_state_dict(torch.load(file, weights_only=True))

    def separate(task: Task) -> Answer:
        lips = [
            None if speaker.video is None else read_lips(speaker.video, size=projection.size)
            for speaker in task.item.speakers
        ]
        start, samples = time.perf_counter(), len(task.mixture)
        peak = np.abs(task.mixture).max()
        spectrum = analyse(torch.as_tensor(task.mixture / peak, dtype=torch.float32), STFT)
        with torch.no_grad():
            masks = [
                None
                if one is None
                else network(spectrum.abs()[None] ** 2, lips_on_clock(one, samples, projection)[None])[0]
                for one in lips
            ]
        known = [mask for mask in masks if mask is not None]
        rest = (1 - torch.stack(known).sum(0)).clamp_min(0) / max(1, len(masks) - len(known))
        whole = torch.stack([rest if mask is None else mask for mask in masks])
        estimates = peak * synthesise(whole * spectrum, samples, STFT).numpy().astype(np.float64)
        took = (time.perf_counter() - start) * task.rate / samples
        return Answer(estimates, (True,) * len(lips), real_time_factor=took)

    return separate
