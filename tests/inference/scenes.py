"""Noisy recordings drawn from the model itself, and kernels that make the EM loop predictable."""

from __future__ import annotations

from typing import NamedTuple

import pyro.poutine as poutine
import pytest
import torch
from laws import make_decoder, make_likelihood, make_prior, random_parameters
from torch import Tensor

from pyro_minvae.config.schema import Inference
from pyro_minvae.inference.mcem import loop as module
from pyro_minvae.inference.mcmc.base import ChainInfo, ChainState, LogDensity
from pyro_minvae.models.noise.nmf import Nmf
from pyro_minvae.models.noisy import Source
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual

FRAMES, BINS, LATENT = 40, 24, 2


class Scene(NamedTuple):
    """`speech` [J, N, F] and `noise` [N, F] complex, their sum's `power`, and the speakers."""

    speech: Tensor
    noise: Tensor
    sources: list[Source]

    @property
    def mixture(self) -> Tensor:
        return self.speech.sum(0) + self.noise

    @property
    def power(self) -> Tensor:
        return self.mixture.abs() ** 2

    def nmf(self, rank: int = 2, seed: int = 0) -> Nmf:
        return Nmf(self.power, rank=rank, smooth=10.0, generator=torch.Generator().manual_seed(seed))


def vivid_model(kind: str, seed: int) -> SpeechModel:
    """A model whose spectra differ a lot between latent vectors.

    `kind` is a prior, then if need be a decoder and a likelihood: "ar1+context", "mixture+lips+student-t".
    """
    prior, decoder, likelihood = (kind.split("+") + ["plain", "complex-gaussian"][kind.count("+") :])[:3]
    vivid = make_decoder(decoder, latent=LATENT, floor=1e-3, bins=BINS, hidden=16)
    random_parameters(vivid, torch.Generator().manual_seed(seed + 7), 1.0)
    made = SpeechModel(make_prior(prior, latent=LATENT, seed=seed), vivid, make_likelihood(likelihood))
    return made.requires_grad_(False)


def complex_normal(variance: Tensor, generator: torch.Generator) -> Tensor:
    parts = torch.randn((2, *variance.shape), generator=generator, dtype=torch.float64)
    return torch.complex(parts[0], parts[1]) * (variance / 2).sqrt()


def draw_scene(kinds: tuple[str, ...], *, snr_db: float = 0.0, seed: int = 0, frames: int = FRAMES) -> Scene:
    """z from the prior, speech from the decoder, steady noise of rank 1; chains start near the true z."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(frames, 4, generator=generator, dtype=torch.float64)
    visual = Visual(features, torch.rand(frames, generator=generator) < 0.8)
    speech, sources = [], []
    for j, kind in enumerate(kinds):
        model = vivid_model(kind, seed + 10 * j)
        trace = poutine.trace(model).get_trace(torch.ones(frames, BINS, dtype=torch.float64), visual)
        z = trace.nodes["z"]["value"]
        weight = trace.nodes["w"]["value"] if model.likelihood.weighted else 1.0
        speech.append(complex_normal(model.variance(z, visual) / weight, generator))
        start = z + 0.5 * torch.randn(z.shape, generator=generator, dtype=z.dtype)
        sources.append(Source(model, visual, start))
    spectrum = torch.rand(BINS, generator=generator, dtype=torch.float64) + 0.05
    noise = complex_normal(spectrum.expand(frames, -1), generator)
    encoder_input = torch.stack(speech)
    ratio = (encoder_input.abs() ** 2).sum() / (noise.abs() ** 2).sum() / 10 ** (snr_db / 10)
    return Scene(encoder_input, noise * ratio.sqrt(), sources)


def si_sdr(estimate: Tensor, target: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in dB of complex spectra."""
    scale = (target.conj() * estimate).real.sum() / (target.abs() ** 2).sum()
    error = ((estimate - scale * target).abs() ** 2).sum()
    return float(10 * torch.log10((scale * target).abs().square().sum() / error))


def settings(**changes: object) -> Inference:
    """A short EM loop."""
    return Inference.model_validate(
        {
            "e_step": "marginal",
            "iterations": 6,
            "kernel": "metropolis",
            "steps": 4,
            "keep": 2,
            "step_size": 0.3,
            **changes,
        }
    )


class Frozen:
    """Never moves: EM then works on fixed draws."""

    def init(self, log_density: LogDensity, z: Tensor) -> ChainState:
        return ChainState(z, log_density(z))

    def step(
        self, log_density: LogDensity, state: ChainState, generator: torch.Generator
    ) -> tuple[ChainState, ChainInfo]:
        return state, ChainInfo(torch.zeros(state.position.shape[:-1], dtype=torch.bool))


class Recording(Frozen):
    """Moves by a fixed amount and notes what each target that it is given says of two points."""

    def __init__(self) -> None:
        self.notes: list[tuple[Tensor, Tensor]] = []

    def init(self, log_density: LogDensity, z: Tensor) -> ChainState:
        a, b = points(z[:1])
        self.notes.append((log_density(a)[0], log_density(b)[0]))
        return super().init(log_density, z)

    def step(
        self, log_density: LogDensity, state: ChainState, generator: torch.Generator
    ) -> tuple[ChainState, ChainInfo]:
        z = state.position + 0.3
        return ChainState(z, log_density(z)), ChainInfo(torch.ones(z.shape[:-1], dtype=torch.bool))


def points(like: Tensor) -> tuple[Tensor, Tensor]:
    """Two random points of that shape."""
    a, b = torch.randn((2, *like.shape), generator=torch.Generator().manual_seed(5), dtype=like.dtype)
    return a, b


def use_kernel(patch: pytest.MonkeyPatch, kernel: Frozen) -> None:
    patch.setattr(module, "make_kernel", lambda *_: kernel)
