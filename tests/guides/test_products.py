"""Products of experts against the product of the densities on a grid, and mixtures of products of their parts."""

from __future__ import annotations

import pytest
import torch
from laws import make_frames, make_guide
from torch import Tensor
from torch.distributions import Normal

from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.mixture import MixtureOfProductsGuide
from pyro_minvae.guides.single import ProductGuide, VisualGuide

GRID = torch.linspace(-12, 12, 24001, dtype=torch.float64)[:, None]


def on_the_grid(guide: Guide, power: Tensor, features: Tensor, valid: Tensor) -> Tensor:
    """N(0, 1) q_a q_v / Z [grid, N] of one dimension, N(0, 1) q_a / Z where there are no lips."""
    audio, lips = guide.audio(power), guide.visual_network(features)
    density = Normal(0.0, 1.0).log_prob(GRID) + Normal(*(x[:, 0] for x in audio)).log_prob(GRID)
    density = density + torch.where(valid, Normal(*(x[:, 0] for x in lips)).log_prob(GRID), 0.0)
    density = (density - density.max(0).values).exp()
    return density / torch.trapezoid(density, GRID, dim=0)


@pytest.mark.parametrize("kind", ["product", "mixture-of-products"])
@torch.no_grad()
def test_density_is_the_normalised_product(kind: str) -> None:
    """(derivations, eq. 3.22; 3.24 on frames without lips)."""
    guide, (power, visual) = make_guide(kind, latent=1), make_frames(6)
    expected = on_the_grid(guide, power, visual.features, visual.valid)
    got = guide.posteriors(power, visual)[-1].log_prob(GRID[..., None].expand(-1, 6, 1)).exp()
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)
    alone = on_the_grid(guide, power, visual.features, torch.zeros_like(visual.valid))
    got = guide.posteriors(power, None)[-1].log_prob(GRID[..., None].expand(-1, 6, 1)).exp()
    torch.testing.assert_close(got, alone, rtol=1e-6, atol=1e-9)


@torch.no_grad()
def test_a_product_is_surer_than_each_expert() -> None:
    guide, (power, visual) = make_guide("product"), make_frames(6, valid=1.0)
    (q,) = guide.posteriors(power, visual)
    for _, scale in (guide.audio(power), guide.visual_network(visual.features)):
        assert bool((q.stddev < scale).all())
    assert bool((q.stddev < 1).all())


@torch.no_grad()
def test_a_mixture_of_products_is_made_of_a_product_and_of_the_lips() -> None:
    guide, frames = make_guide("mixture-of-products"), make_frames(6)
    assert isinstance(guide, MixtureOfProductsGuide)
    off, on = guide.posteriors(*frames)
    (product,) = ProductGuide(guide.audio, guide.visual_network).posteriors(*frames)
    (lips,) = VisualGuide(guide.visual_network).posteriors(*frames)
    for got, wanted in ((on, product), (off, lips)):
        assert torch.equal(got.mean, wanted.mean)
        assert torch.equal(got.stddev, wanted.stddev)


@pytest.mark.parametrize("kind", ["product", "mixture-of-products"])
def test_both_experts_learn_from_a_product(kind: str) -> None:
    guide, (power, visual) = make_guide(kind), make_frames(6)
    q = guide.posteriors(power, visual)[-1]
    value = q.mean.square().sum() + q.stddev.log().sum()
    for gradient in torch.autograd.grad(
        value, [*guide.audio.parameters(), *guide.visual_network.parameters()]
    ):
        assert bool(torch.isfinite(gradient).all())
        assert bool((gradient != 0).any())


def test_the_learned_responsibility_is_a_function_of_sound_and_lips() -> None:
    guide, (power, visual) = make_guide("mixture+amortised"), make_frames(6)
    weight = guide.audio_weight(power, visual)
    assert weight.shape == (6,)
    assert bool(((weight > 0) & (weight < 1)).all())
    assert bool((guide.audio_weight(9 * power, visual) != weight).all())
    other = guide.audio_weight(power, visual._replace(features=-visual.features))
    assert torch.equal(other != weight, visual.valid)
    spoilt = torch.where(visual.valid[:, None], visual.features, torch.nan)
    assert torch.equal(guide.audio_weight(power, visual._replace(features=spoilt)), weight)
