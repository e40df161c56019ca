"""Independence proposals: their ratio, and Laplace's approximation at the mode."""

from __future__ import annotations

import pytest
import torch
from chains import acceptance, autoregressive, covariance_off, gaussian_of, log_gamma, walk
from torch import Tensor

from pyro_minvae.inference.mcmc.base import ChainState, FrameGaussian, Target
from pyro_minvae.inference.mcmc.independence import Independence
from pyro_minvae.inference.mcmc.laplace import Laplace, frame_hessians

FRAMES, LATENT = 3, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated() -> Target:
    """Another Gaussian with strong correlations within each frame; frames are independent."""
    mixing, mean = drawn(FRAMES, LATENT, LATENT), 5 * drawn(FRAMES, LATENT, seed=1)
    return Target(lambda z: -0.5 * torch.einsum("nij,...nj->...ni", mixing, z - mean).square().sum(-1))


def covariance_of(gaussian: FrameGaussian) -> Tensor:
    assert gaussian.basis is not None
    return gaussian.basis @ torch.diag_embed(gaussian.scale**2) @ gaussian.basis.mT


def test_on_a_gaussian_laplace_draws_independently_and_is_never_refused() -> None:
    """From a start far off, without a search: one Newton step is exact, and one step of the chain forgets all."""
    mean, covariance = gaussian_of(correlated(), FRAMES, LATENT)
    start = drawn(10000, FRAMES, LATENT, seed=2) + 30
    kernel = Laplace(start[0], search=0, inflate=1.0)
    state, infos = walk(kernel, correlated(), start, steps=1)
    assert float(acceptance(infos).min()) == 1.0
    assert covariance_off(state.position, mean, covariance) < 4.8
    assert state.proposal is not None
    assert state.proposal.mean.shape == (FRAMES, LATENT)  # searched once for all chains


def test_proposal_is_the_curvature_at_the_mode() -> None:
    """Of log-Gamma frames: mode log a, precision a, in closed form."""
    shape = 0.5 + 4 * drawn(FRAMES, LATENT).abs()
    start = drawn(6, FRAMES, LATENT, seed=3)
    gaussian = Laplace(search=300, rate=0.05, inflate=1.3).init(log_gamma(shape), start).proposal
    assert gaussian is not None
    expected = shape.log().expand(6, FRAMES, LATENT)
    torch.testing.assert_close(gaussian.mean, expected, rtol=0, atol=1e-4)
    exact = torch.diag_embed(1.3**2 / shape).expand(6, FRAMES, LATENT, LATENT)
    torch.testing.assert_close(covariance_of(gaussian), exact, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("reach", [(0, 0), (1, 1)])
def test_hessian_is_that_of_autograd(reach: tuple[int, int]) -> None:
    """Of a small network, each frame's block of the Hessian of the whole sum."""
    into, out = drawn(LATENT, 6), drawn(6, 5, seed=1)

    def factors(z: Tensor) -> Tensor:
        seen = z
        if reach != (0, 0):
            seen = z + 0.5 * torch.cat([z[1:], z[:1] * 0]) - 0.3 * torch.cat([z[:1] * 0, z[:-1]])
        return -((seen @ into).tanh() @ out).exp().sum(-1)

    z = 0.5 * drawn(FRAMES, LATENT, seed=2)
    whole = torch.autograd.functional.hessian(lambda z: factors(z).sum(), z)
    blocks = torch.stack([whole[n, :, n] for n in range(FRAMES)])
    with torch.no_grad():
        torch.testing.assert_close(frame_hessians(Target(factors, reach), z), blocks)


def test_proposal_stays_proper_where_the_density_is_not_concave() -> None:
    """Double wells at their saddle, a flat density, a linear one, and NaN: finite deviations below the bound."""

    def factors(z: Tensor) -> Tensor:
        x = z[..., 0]
        rows = [-(x.square() - 1).square(), 0 * x, 3 * x, x * torch.nan]
        return torch.stack([row[..., n] for n, row in enumerate(rows)], -1)

    kernel = Laplace(inflate=1.0, floor=0.04)
    state = kernel.init(factors, torch.zeros(2, 4, 1, dtype=torch.float64))
    assert state.proposal is not None
    assert bool(torch.isfinite(state.proposal.mean).all())
    bounded = torch.tensor([0.5, 5.0, 5.0, 5.0], dtype=torch.float64)  # curvature 4 at the saddle, floor 1/25
    torch.testing.assert_close(state.proposal.scale[..., 0], bounded.expand(2, 4))
    state = Laplace(floor=0.04).init(lambda z: 2 * z.sum(-1), torch.zeros(2, 1, dtype=torch.float64))
    assert state.proposal is not None
    torch.testing.assert_close(state.proposal.scale, torch.full((2, 1), 5.5, dtype=torch.float64))


def test_a_proposal_equal_to_the_target_is_always_accepted() -> None:
    mean, scale = drawn(FRAMES, LATENT), drawn(FRAMES, LATENT, seed=1).abs() + 0.1
    kernel = Independence(mean, scale / 3, inflate=3.0)
    start = drawn(50, FRAMES, LATENT, seed=2)
    state, infos = walk(kernel, lambda z: -0.5 * ((z - mean) / scale).square().sum(-1), start, steps=3)
    assert float(acceptance(infos).min()) == 1.0
    assert state.age == 3


def test_acceptance_is_the_ratio_of_importance_weights() -> None:
    """min(1, p(z') q(z) / (p(z) q(z'))) with torch's densities, in each frame of a coupled target."""
    target = Target(autoregressive, (0, 1))
    mean, scale = drawn(FRAMES, LATENT), drawn(FRAMES, LATENT, seed=1).abs() + 0.5
    start = drawn(200, FRAMES, LATENT, seed=2)
    kernel = Independence(mean, scale)
    state = kernel.init(target, start)
    generator = torch.Generator().manual_seed(3)
    z = mean + scale * torch.randn(start.shape, generator=generator, dtype=torch.float64)
    _, info = kernel.step(target, state, torch.Generator().manual_seed(3))
    # The first colour: frames 0 and 2 move, frame 1 stays.
    moved = start.clone()
    moved[:, [0, 2]] = z[:, [0, 2]]
    q = torch.distributions.Normal(mean, scale)
    ratio = (q.log_prob(start) - q.log_prob(z)).sum(-1)
    change = autoregressive(moved) - autoregressive(start)
    first = (change[:, 0] + change[:, 1]).clone()
    # The factor of frame 1 changes with frame 0 alone: frame 2 enters its own factor only.
    torch.testing.assert_close(info.probability[:, 0], (first + ratio[:, 0]).exp().clamp_max(1.0))
    torch.testing.assert_close(info.probability[:, 2], (change[:, 2] + ratio[:, 2]).exp().clamp_max(1.0))


def test_state_without_a_proposal_is_a_programming_error() -> None:
    kernel = Independence(torch.zeros(1), torch.ones(1))
    state = ChainState(torch.zeros(2, 1), torch.zeros(2))
    with pytest.raises(AssertionError):
        kernel.step(lambda z: z.sum(-1), state, torch.Generator())
