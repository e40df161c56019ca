"""The mixture of posteriors: p(z) = 1/K sum_k q(z | u_k) of whatever the guide is at the moment."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from formulas import log_gaussian, posterior_moments, prior_factors
from laws import PLAIN_GUIDES, Frames, make_frames, make_guide, make_pair, make_prior, normal_draws
from scipy import stats
from tiny_family import family_system
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_minvae.inference.svi.elbo import bound_terms
from pyro_minvae.models.distributions import normal
from pyro_minvae.models.divergences import gaussian_kl, kl
from pyro_minvae.models.priors import VampPrior
from pyro_minvae.types import Visual


def components(kind: str, prior: VampPrior, guide: torch.nn.Module) -> tuple[Tensor, Tensor]:
    """(mean, scale) [K, L] of q(z | u_k)."""
    pseudo = Frames(prior.log_power.exp(), Visual(prior.lips, torch.ones(len(prior.lips)).bool()))
    return posterior_moments(kind, guide, pseudo)[0]


@pytest.mark.parametrize("kind", PLAIN_GUIDES)
@torch.no_grad()
def test_density_is_the_mean_over_the_pseudo_inputs(kind: str) -> None:
    """(derivations, eq. 3.6), in scipy."""
    guide = make_guide(kind)
    prior, z = make_prior("vamp", guide=guide), normal_draws(5, 3, seed=1)
    mean, scale = (x.numpy() for x in components(kind, prior, guide))
    densities = stats.norm.pdf(z.numpy()[:, None], mean, scale).prod(-1)
    np.testing.assert_allclose(prior.log_prob(z, None).numpy(), np.log(densities.mean(1)), rtol=1e-10)
    # It does not look at the lips of the frames, only at those of its pseudo-inputs.
    assert torch.equal(prior.log_prob(z, make_frames(5).visual), prior.log_prob(z, None))
    assert not prior.visual


@pytest.mark.parametrize("kind", PLAIN_GUIDES)
@torch.no_grad()
def test_prior_follows_its_guide(kind: str) -> None:
    guide = make_guide(kind)
    prior, z = make_prior("vamp", guide=guide), normal_draws(5, 3, seed=2)
    before = prior.log_prob(z, None)
    for parameter in guide.parameters():
        parameter.mul_(1.5)
    after = prior.log_prob(z, None)
    assert float((after - before).abs().min()) > 1e-4
    visual = make_frames(5).visual
    torch.testing.assert_close(after, prior_factors("vamp", prior, z, visual, guide, kind)[0])


def test_only_the_pseudo_inputs_are_its_own() -> None:
    prior = make_prior("vamp")
    assert {name for name, _ in prior.named_parameters()} == {"log_power", "lips"}
    assert set(prior.state_dict()) == {"log_power", "lips"}


def test_pseudo_inputs_learn() -> None:
    """The gradient of the bound reaches the pseudo-inputs through the guide."""
    (model, guide), frames = make_pair("vamp", "concatenation"), make_frames(4)
    loss = -bound_terms(model, guide, *frames, noise=normal_draws(1, 4, 3, seed=3)).total.sum()
    for gradient in torch.autograd.grad(loss, list(model.prior.parameters())):
        assert bool((gradient != 0).any())


@torch.no_grad()
def test_no_closed_form_of_the_divergence_is_claimed() -> None:
    """K is log q - log p at the draw (eq. 3.7), unbiased, and below the bound of eq. 3.8."""
    guide = make_guide("product", latent=1)
    prior = make_prior("vamp", latent=1, guide=guide)
    (p,), q = prior.conditionals(None), normal(torch.tensor([[1.2]]).double(), torch.tensor([[0.4]]).double())
    with pytest.raises(NotImplementedError):
        kl_divergence(q, p)
    z = normal_draws(20000, 1, 1, seed=4) * q.stddev + q.mean
    draws = kl(q, p, z)
    torch.testing.assert_close(draws, log_gaussian(z, q.mean, q.stddev**2) - prior.log_prob(z, None))
    mean, scale = components("product", prior, guide)
    eps = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None, None]
    inner = log_gaussian(eps, torch.zeros(1), torch.ones(1)) - q.stddev.log().sum()
    exact = torch.trapezoid(
        eps[..., 0].square().mul(-0.5).exp()
        / math.sqrt(2 * math.pi)
        * (inner - prior.log_prob(q.mean + q.stddev * eps, None)),
        eps[:, 0, 0],
        dim=0,
    )
    error = float(draws.std() / math.sqrt(len(draws)))
    assert abs(float(draws.mean()) - float(exact)) < 4.5 * error
    assert error < 0.05 * float(exact)
    apart = gaussian_kl((q.mean, q.stddev), (mean, scale))
    assert float(exact) <= float(math.log(len(mean)) - (-apart).logsumexp(0))


def test_start_moves_the_pseudo_inputs_to_the_average_spectrum() -> None:
    prior = VampPrior(lambda s, v: normal(s[:, :2], s[:, :2]), 500, 5, 4)
    average = torch.tensor([-6.0, -3.0, 0.0, 1.0, 2.0])
    prior.start_at(average)
    torch.testing.assert_close(prior.log_power.detach().mean(0), average, atol=0.2, rtol=0)
    assert float(prior.log_power.detach().std(0).min()) > 0.8  # and they differ


def test_runaway_pseudo_inputs_stay_finite() -> None:
    prior = make_prior("vamp")
    with torch.no_grad():
        prior.log_power.fill_(1e6)
    value = prior.log_prob(normal_draws(3, 3, seed=5), None)
    assert bool(torch.isfinite(value).all())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda system: pickle.loads(pickle.dumps(system))])
def test_a_copy_of_a_system_follows_its_own_guide(duplicate) -> None:  # type: ignore[no-untyped-def]
    system = family_system("vamp", "product").eval()
    twin = duplicate(system)
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        before = system.own_prior.log_prob(z, None)
        assert torch.equal(before, twin.own_prior.log_prob(z, None))
        for parameter in twin.part("audio").parameters():
            parameter.add_(0.3)
        assert torch.equal(before, system.own_prior.log_prob(z, None))
        assert not torch.equal(before, twin.own_prior.log_prob(z, None))


def test_pseudo_inputs_of_a_system_learn_through_its_guide() -> None:
    system = family_system("vamp", "product").eval()
    value = system.own_prior.log_prob(torch.randn(3, 2), None).sum()
    through = [
        *system.own_prior.parameters(),
        *system.part("audio").parameters(),
        *system.part("visual").parameters(),
    ]
    for gradient in torch.autograd.grad(value, through):
        assert bool((gradient != 0).any())
