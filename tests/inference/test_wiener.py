"""Wiener filtering: shares of one, and the moments of the complex Gaussian posterior."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import normal_draws

from pyro_minvae.inference.mcem.wiener import masks, second_moment


@given(st.integers(1, 3), st.integers(1, 4), st.sampled_from([(), (2,)]), st.integers(0, 99))
def test_masks_and_the_share_of_the_noise_make_one(
    sources: int, draws: int, batch: tuple[int, ...], seed: int
) -> None:
    variances = (4 * normal_draws(sources, draws, *batch, 6, 5, seed=seed)).exp()
    noise = (4 * normal_draws(*batch, 6, 5, seed=seed + 100)).exp()
    got = masks(variances, noise)
    assert got.shape == (sources, *batch, 6, 5)
    assert 0 <= float(got.min()) <= float(got.max()) <= 1
    rest = (noise / (variances.sum(0) + noise)).mean(0)
    torch.testing.assert_close(got.sum(0) + rest, torch.ones_like(rest))


def test_mask_is_the_posterior_mean_over_draws() -> None:
    """E[s | x] = mean_r [v_r / (v_r + WH)] x: the mean of the ratios, not the ratio of the means."""
    variances, noise = torch.tensor([[[[1.0]], [[9.0]]]]), torch.tensor([[1.0]])
    assert masks(variances, noise).item() == np.float32((1 / 2 + 9 / 10) / 2)


def test_silence_gets_no_nan() -> None:
    assert masks(torch.zeros(1, 2, 3, 4), torch.full((3, 4), 1e-12)).abs().max() == 0


def posterior_by_quadrature(v: float, b: float, x: complex) -> tuple[complex, float]:
    """E[s | x] and E[|s|^2 | x] for x = s + b, both complex Gaussian, on a grid over the complex plane."""
    axis = np.linspace(-12, 12, 1201)
    s = axis[:, None] + 1j * axis
    weight = np.exp(-(np.abs(s) ** 2) / v - np.abs(x - s) ** 2 / b)
    weight /= weight.sum()
    return complex((weight * s).sum()), float((weight * np.abs(s) ** 2).sum())


def test_moments_are_those_of_the_exact_posterior() -> None:
    for v, b, x in ((1.0, 0.5, 2 - 1j), (0.2, 3.0, 0.5 + 0.5j), (2.0, 2.0, 0j)):
        mean, square = posterior_by_quadrature(v, b, x)
        component, total = torch.tensor(v, dtype=torch.float64), torch.tensor(v + b, dtype=torch.float64)
        power = torch.tensor(abs(x) ** 2, dtype=torch.float64)
        np.testing.assert_allclose(second_moment(component, total, power).item(), square, rtol=1e-8)
        mask = masks(component.reshape(1, 1, 1, 1), (total - component).reshape(1, 1))
        np.testing.assert_allclose(mask.item() * x, mean, rtol=1e-8, atol=1e-8)


def test_second_moments_of_speech_and_noise_explain_the_mixture() -> None:
    """|x|^2 = E|s|^2 + E|b|^2 + 2 Re E[s b*], and Re E[s b*] = v b |x|^2 / V^2 - v b / V."""
    v, b, power = (normal_draws(3, 7, seed=1)).exp()
    total = v + b
    cross = v * b * power / total**2 - v * b / total
    torch.testing.assert_close(
        second_moment(v, total, power) + second_moment(b, total, power) + 2 * cross, power
    )
