"""The decoder for inner loops: the same network, its gradient written out, and what it does with a known sigma."""

from __future__ import annotations

import pytest
import torch
from laws import DECODERS, make_decoder, make_frames, normal_draws
from torch import Tensor, nn

from pyro_minvae.inference.ops.fused_decoder import LARGEST, folded
from pyro_minvae.models.decoders import SpectralDecoder, Variance


def fixed(decoder: SpectralDecoder, kind: str) -> Variance:
    """The decoder as samplers get it."""
    with torch.no_grad():
        return decoder.given(make_frames(6).visual if kind == "lips" else None)


def slopes(
    variance: Variance, z: Tensor, weight: Tensor, known: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradient of sum(weight sigma) [N, L], and the curvature of its sum along ones [N, L]."""
    leaf = z.clone().requires_grad_()
    total = (weight * variance(leaf, known).square()).sum()
    (gradient,) = torch.autograd.grad(total, leaf, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient.sum(), leaf)
    return gradient.detach(), curvature


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize("kind", DECODERS)
def test_gradient_and_curvature_are_those_of_the_network(kind: str, remembered: bool) -> None:
    decoder, z = make_decoder(kind), normal_draws(6, 3, seed=4)
    visual = make_frames(6).visual if kind == "lips" else None
    sigma = decoder.variance(z, visual).detach()
    weight = normal_draws(*sigma.shape, seed=5)
    expected = slopes(lambda z, known=None: decoder.variance(z, visual), z, weight)
    found = slopes(fixed(decoder, kind), z, weight, sigma if remembered else None)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])
    # Without a graph of its own the gradient goes other ways, in place.
    leaf = z.clone().requires_grad_()
    (plain,) = torch.autograd.grad((weight * fixed(decoder, kind)(leaf).square()).sum(), leaf)
    torch.testing.assert_close(plain, expected[0])


def test_a_known_sigma_is_taken_as_it_is() -> None:
    variance, z, marked = fixed(make_decoder("plain"), "plain"), normal_draws(6, 3, seed=6), torch.ones(6, 5)
    assert variance(z, marked) is marked
    with torch.enable_grad():
        assert torch.equal(variance(z.clone().requires_grad_(), marked.double()), marked.double())


def test_beyond_the_largest_exponent_nothing_moves() -> None:
    decoder = make_decoder("plain")
    with torch.no_grad():
        decoder.output.bias[0] = LARGEST + 100
    z, weight = normal_draws(6, 3, seed=7), torch.zeros(6, 5, dtype=torch.float64)
    weight[:, 0] = 1.0
    variance = fixed(decoder, "plain")
    with torch.no_grad():
        torch.testing.assert_close(variance(z), decoder.variance(z))
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((weight * variance(leaf)).sum(), leaf)
    assert torch.equal(gradient, torch.zeros_like(z))


@pytest.mark.parametrize(
    "trunk",
    [nn.Identity(), nn.Sequential(), nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Sequential(nn.Tanh())],
)
def test_other_networks_stay_as_they_are(trunk: nn.Module) -> None:
    assert folded(trunk, nn.Linear(4, 5), 0.01) is None
