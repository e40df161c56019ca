"""What separation is compared with: NMF with bases of each speaker's training clips, and the ideal ratio mask."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_minvae.config.schema import Stft
from pyro_minvae.data.corpus import open_corpus
from pyro_minvae.evaluation.mixing import segment
from pyro_minvae.evaluation.noisy_set import select
from pyro_minvae.evaluation.separation import Answer, System, Task
from pyro_minvae.features.stft import analyse, synthesise
from pyro_minvae.features.stft import power as power_of
from pyro_minvae.inference.mcem.statistics import MixtureStatistics
from pyro_minvae.inference.ops.minimisers import root_ratio
from pyro_minvae.media.audio import mono, read_audio
from pyro_minvae.media.files import atomic
from pyro_minvae.models.noise.nmf import Nmf
from pyro_minvae.types import Utterance

STFT = Stft()
CLIPS, VOICE_S = 80, 2.0  # GRID clips, and the stretch of each LibriSpeech voice, that bases are learnt from
UPDATES = 150
# The best of 30 and 150 updates, and of ranks 1, 2, 4 and 8 of the noise, on the clips for development.
SEPARATING, NOISE_RANK = 30, 2
QUIETEST = 1e-4  # of the power at max|x| = 1: Itakura-Saito NMF would else describe silence


class SpeakerNmf(Nmf):
    """NMF whose spectra are given, but for the last `free` columns of W, which are the noise's."""

    def __init__(self, power: Tensor, *, spectra: Tensor, free: int, generator: torch.Generator) -> None:
        self.free = free
        own = 0.5 + torch.rand(spectra.shape[0], free, generator=generator)
        both = torch.cat([spectra / spectra.sum(0), own / own.sum(0)], -1)
        super().__init__(power, rank=both.shape[-1], generator=generator, spectra=both)

    def _move_spectra(self, up: Tensor, down: Tensor) -> None:
        moved = self.W * root_ratio(up, down)
        kept = self.W.shape[-1] - self.free
        self.W = torch.cat([self.W[..., :kept], moved[..., kept:]], -1)
        self._normalise()


def learn_bases(data: Path, file: Path, *, rank: int) -> Path:
    """W [F, rank] of GRID's speaker and of LibriSpeech's training speakers, learnt unless they are in `file`."""
    if not file.is_file():
        grid, libri = (
            select(open_corpus(data / name), source=data / name, split="train", limit=limit)
            for name, limit in (("grid", CLIPS), ("librispeech", None))
        )
        bases = {"s1": _basis(grid, rank, None), "": _basis(libri, rank, VOICE_S)}
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic(file) as temporary:
            torch.save(bases, temporary)
    return file


def _basis(utterances: list[Utterance], rank: int, seconds: float | None) -> Tensor:
    """Itakura-Saito NMF of the power of training speech, at max|x| = 1 each."""
    random = np.random.default_rng(0)
    frames = []
    for utterance in utterances:
        signal = mono(read_audio(utterance.audio), STFT.rate)
        if seconds is not None:
            signal = segment(signal, round(seconds * STFT.rate), random)
        signal = signal / max(float(np.abs(signal).max()), 1e-9)
        frames.append(power_of(analyse(torch.as_tensor(signal, dtype=torch.float32), STFT)))
    power = torch.cat(frames) + QUIETEST
    nmf = Nmf(power, rank=rank, generator=torch.Generator().manual_seed(0))
    for _ in range(UPDATES):
        nmf.em_step(MixtureStatistics(power))
    return nmf.W


def nmf_system(file: Path) -> System:
    """Supervised NMF: each speaker has the bases of its voice, or of other people's, and only activations are found.

    With noise in the mixture, more columns are learnt from it. Where all speakers have the same bases it cannot know
    who is who, so the best order counts.
    """
    bases: dict[str, Tensor] = torch.load(file, weights_only=True)

    def separate(task: Task) -> Answer:
        start = time.perf_counter()
        names = [speaker.speaker if speaker.speaker in bases else "" for speaker in task.item.speakers]
        free = 0 if task.item.noise is None else NOISE_RANK
        spectrum, peak = _spectrum(task.mixture)
        power = power_of(spectrum) + QUIETEST
        generator = torch.Generator().manual_seed(task.seed)
        spectra = torch.cat([bases[name] for name in names], -1)
        nmf = SpeakerNmf(power, spectra=spectra, free=free, generator=generator)
        for _ in range(SEPARATING):
            nmf.em_step(MixtureStatistics(power))
        sizes = [bases[name].shape[-1] for name in names] + [free]
        parts = [(W @ H).mT for W, H in zip(nmf.W.split(sizes, -1), nmf.H.split(sizes, -2), strict=True)]
        masks = torch.stack(parts[:-1]) / torch.stack(parts).sum(0)
        estimates = peak * synthesise(masks * spectrum, len(task.mixture), STFT).numpy().astype(np.float64)
        told = len(set(names)) == len(names)
        took = (time.perf_counter() - start) * task.rate / len(task.mixture)
        return Answer(estimates, (told,) * len(names), SEPARATING, real_time_factor=took)

    return separate


def ideal_mask_system() -> System:
    """The ideal ratio mask |s_j|^2 / (sum_i |s_i|^2 + |b|^2): what no filter of this kind can be expected to beat."""

    def separate(task: Task) -> Answer:
        spectrum, peak = _spectrum(task.mixture)
        noise = task.mixture - task.speakers.sum(0)
        parts = torch.as_tensor(np.stack([*task.speakers, noise]) / peak, dtype=torch.float32)
        powers = power_of(analyse(parts, STFT))
        masks = powers[:-1] / powers.sum(0).clamp_min(1e-20)
        estimates = peak * synthesise(masks * spectrum, len(task.mixture), STFT).numpy().astype(np.float64)
        return Answer(estimates, (True,) * len(task.speakers))

    return separate


def _spectrum(mixture: np.ndarray) -> tuple[Any, float]:
    """The mixture [N, F] at max|x| = 1, and its peak."""
    peak = float(np.abs(mixture).max())
    return analyse(torch.as_tensor(mixture / peak, dtype=torch.float32), STFT), peak
