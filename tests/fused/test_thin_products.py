"""Products with spectra and activations: those of torch to rounding, of any shapes and any statistics."""

from __future__ import annotations

import pytest
import torch
from arrays import SIZES, close, scene
from torch import Tensor

from pyro_minvae import fused
from pyro_minvae.fused import products
from pyro_minvae.models.noise.base import TINY

pytestmark = pytest.mark.skipif(not fused.compiled, reason="the library was installed without a C compiler")


# More columns than a vector, than two, and as many as the loop has; frames of several stretches among SIZES.
@pytest.mark.parametrize("rank", [1, 5, 16, 21])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize("size", [*SIZES, (200, 33)])
def test_products(size: tuple[int, int], lead: tuple[int, ...], rank: int) -> None:
    """Of given P and Q, of the noise alone, and of draws beside it."""
    (frames, bins), draws = size, 2
    W, H = torch.rand(*lead, bins, rank) + 0.1, torch.rand(*lead, rank, frames) + 0.1
    variance = torch.full((*lead, *size), torch.nan)
    assert products.product(W, H, variance)
    close(variance, (W.double() @ H.double()).mT + TINY)
    sigma, gain, level, power = scene(2, draws, lead, size)
    p, q = power.double(), level.double()
    total = (sigma.double() * gain.double()[:, None, ..., None]).sum(0) + q
    alone = (sigma[:, :1].double()).sum(0) + q
    asked: list[tuple[Tensor | products.Total, Tensor, Tensor]] = [
        (level, p, q),
        (products.Total(level), p / q**2, 1 / q),
        (products.Total(level, sigma, gain), (p / total**2).mean(0), (1 / total).mean(0)),
        (products.Total(level, sigma[:, :1].contiguous()), p / alone[0] ** 2, 1 / alone[0]),
    ]
    for given, up, down in asked:
        spectra = products.onto_spectra(H, power, given) or ()
        activations = products.onto_activations(W, power, given) or ()
        for found, wanted in zip(spectra, (up, down), strict=True):
            close(found / found.amax(), (H.double() @ wanted).mT / found.amax(), 1e-5)
        for found, wanted in zip(activations, (up, down), strict=True):
            close(found / found.amax(), (wanted @ W.double()).mT / found.amax(), 1e-5)


def test_products_do_not_depend_on_threads() -> None:
    """Bit by bit."""
    W, H = torch.rand(129, 21), torch.rand(21, 301)
    _, _, level, power = scene(1, 1, (), (301, 129))
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        out = torch.empty(301, 129)
        assert products.product(W, H, out)
        pairs = products.onto_spectra(H, power, products.Total(level)) or ()
        found.append([out, *pairs, *(products.onto_activations(W, power, level) or ())])
    assert len(found[0]) == 5
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_products_of_what_does_not_fit() -> None:
    W, H, power = torch.rand(7, 3), torch.rand(3, 11), torch.rand(11, 7)
    assert products.onto_spectra(H, power, power) is not None
    assert products.onto_spectra(H, power, power[:5]) is None
    assert products.onto_spectra(H[:, :5], power, power) is None
    assert products.onto_spectra(H, power, products.Total(power[:5])) is None
    assert products.onto_spectra(H, power, products.Total(power, torch.rand(1, 2, 5, 7))) is None
    assert (
        products.onto_spectra(H, power, products.Total(power, torch.rand(1, 2, 11, 7), torch.rand(2, 11)))
        is None
    )
    assert products.onto_activations(W.mT, power, power) is None
    assert products.onto_activations(W[:5], power, power) is None
    assert not products.product(W, H, power.mT)
    assert not products.product(W[:, :2], H, power)
    assert products.onto_spectra(torch.rand(257, 11), power, power) is None
