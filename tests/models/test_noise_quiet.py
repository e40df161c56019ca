"""Noise spectra from the frames without speech."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyro_minvae.models.noise.low_energy import low_energy_frames, low_energy_spectra
from pyro_minvae.models.noise.nmf import Nmf


def speech_and_noise() -> tuple[Tensor, Tensor, Tensor]:
    """Noise of spectrum (8, 1, 1, 1) in all frames and speech of spectrum (0, 0, 0, 30) in the last thirty of forty."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.tensor([8.0, 1.0, 1.0, 1.0]) * (0.5 + torch.rand(40, 4, generator=generator))
    speech = torch.full((40, 4), 1e-3)
    speech[10:, 3] = 30.0
    return speech, noise, noise + speech


def test_spectra_are_those_of_the_noise() -> None:
    speech, noise, power = speech_and_noise()
    weights = low_energy_frames(speech)
    assert torch.equal(weights, torch.cat([torch.ones(10), torch.zeros(30)]))
    spectra = low_energy_spectra(power, weights, rank=5, generator=torch.Generator().manual_seed(1))
    expected = noise.mean(0) / noise.sum(1).mean()
    assert float((spectra - expected[:, None]).abs().max()) < 0.1
    # Not without the weights: the speech is in them then.
    everywhere = low_energy_spectra(power, torch.ones(40), rank=5, generator=torch.Generator().manual_seed(1))
    assert float(everywhere[3].min()) > 0.5


def test_a_noise_model_starts_there() -> None:
    speech, _, power = speech_and_noise()
    spectra = low_energy_spectra(
        power, low_energy_frames(speech), rank=3, generator=torch.Generator().manual_seed(0)
    )
    model = Nmf(power, rank=3, spectra=spectra)
    torch.testing.assert_close(model.W, spectra)


@given(st.integers(1, 30), st.floats(0.01, 1.0), st.integers(0, 1000))
def test_the_quietest_share_is_chosen(frames: int, share: float, seed: int) -> None:
    speech = torch.rand(2, frames, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights = low_energy_frames(speech, share=share)
    assert weights.shape == (2, frames)
    loudness = speech.sum(-1)
    for chosen, loud in zip(weights > 0, loudness, strict=True):
        assert int(chosen.sum()) == max(1, round(share * frames))
        assert float(loud[chosen].max()) <= float(loud[~chosen].min() if not chosen.all() else torch.inf)
    # The speech's scale is of no account.
    assert torch.equal(low_energy_frames(1e-6 * speech, share=share), weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_sum_to_one_and_differ(dtype: torch.dtype) -> None:
    power = torch.rand(2, 3, 12, 5, generator=torch.Generator().manual_seed(0)).to(dtype) ** 4
    spectra = low_energy_spectra(power, torch.ones(2, 3, 12, dtype=dtype), rank=4)
    assert spectra.shape == (2, 3, 5, 4)
    assert spectra.dtype == dtype
    assert float(spectra.min()) > 0
    torch.testing.assert_close(spectra.sum(-2), torch.ones(2, 3, 4, dtype=dtype))
    assert float((spectra[..., 0] - spectra[..., 1]).abs().amax(-1).min()) > 1e-3


def test_silence_gives_flat_spectra() -> None:
    weights = low_energy_frames(torch.zeros(6, 4))
    assert torch.equal(weights, torch.ones(6))
    spectra = low_energy_spectra(torch.zeros(6, 4), weights, rank=2)
    torch.testing.assert_close(spectra, torch.full((4, 2), 0.25))


def test_bad_arguments_are_refused() -> None:
    power = torch.ones(4, 3)
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"expected a share in \(0, 1\], got"):
            low_energy_frames(power, share=share)
    with pytest.raises(ValueError, match="finite speech variance"):
        low_energy_frames(power * torch.nan)
    with pytest.raises(ValueError, match=r"expected weights of shape \[4\], got \[3\]"):
        low_energy_spectra(power, torch.ones(3), rank=1)
    for weights in (torch.zeros(4), torch.tensor([1.0, -1.0, 1.0, 1.0])):
        with pytest.raises(ValueError, match="weights of at least 0"):
            low_energy_spectra(power, weights, rank=1)
