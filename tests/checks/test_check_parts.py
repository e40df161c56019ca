"""The tools of the check: draws of exact moments, the grid's posterior, comparisons that can fail."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_minvae.checks.compare import Estimate, equal, estimate, not_above, within_error
from pyro_minvae.checks.draws import Draws, draws_for, moment_matched
from pyro_minvae.checks.gradients import check_gradients, parameters
from pyro_minvae.checks.grid import exact, grid_for, guide_densities
from pyro_minvae.checks.integrals import integrals
from pyro_minvae.checks.posterior import ExactGuide
from pyro_minvae.checks.subject import synthetic, toy, untrained
from pyro_minvae.checks.terms import closed_terms, monte_carlo_terms, pyro_terms
from pyro_minvae.config.load import load_recipe
from pyro_minvae.models.distributions import MarkovNormal, normal
from pyro_minvae.models.divergences import gaussian_kl, markov_kl
from pyro_minvae.models.priors import at_valid

SMALL = ["stft.window=16", "stft.hop=8", "model.latent=2"]


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("count", [4, 5, 64])
def test_moments_of_matched_draws_are_exact(count: int) -> None:
    eps = moment_matched(2, count, 6, 3, seed=0)
    assert eps.shape == (2, count, 6, 3)
    torch.testing.assert_close(eps.mean(1), torch.zeros(2, 6, 3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(eps.square().mean(1), torch.ones(2, 6, 3, dtype=torch.float64))
    neighbours = (eps[:, :, 1:] * eps[:, :, :-1]).mean(1)
    torch.testing.assert_close(neighbours, torch.zeros_like(neighbours), rtol=0, atol=1e-12)
    assert not torch.equal(eps, moment_matched(2, count, 6, 3, seed=1))


def test_too_few_draws_cannot_be_matched() -> None:
    with pytest.raises(ValueError, match="at least 4 draws, got 3"):
        moment_matched(1, 3, 2, 1, seed=0)


def test_matched_draws_average_to_closed_divergences() -> None:
    """Any Gaussian pair, frame by frame, and a Markov prior over all frames."""
    eps = moment_matched(1, 8, 5, 3, seed=2)[0]
    mean, scale = random(5, 3, seed=3), random(5, 3, seed=4).exp()
    q = normal(mean, scale)
    z = mean + scale * eps
    p = (random(3, seed=5), random(3, seed=6).exp())
    torch.testing.assert_close(
        (q.log_prob(z) - normal(*p).log_prob(z)).mean(0), gaussian_kl((mean, scale), p)
    )
    chain = MarkovNormal(random(3, seed=7), random(3, seed=8).exp(), 5)
    sampled = (q.log_prob(z) - chain.factors(z)).mean(0)
    torch.testing.assert_close(sampled, markov_kl((mean, scale), chain))


def test_a_guide_that_is_not_the_posterior_has_a_gap() -> None:
    """0 < log p(s) - ELBO = KL(q || p(.|s)), frame by frame."""
    for name in ("a-vae", "min-vae"):
        subject = toy(load_recipe(name), 3)
        frames = synthetic(subject, 4, 3)
        draws = draws_for(subject, frames, 16, 0)
        weight = None
        if subject.guide.mixed:
            weight = at_valid(torch.full((4,), 0.4, dtype=torch.float64), frames.visual)
        found, truth = integrals(subject, frames, draws, weight)
        assert float(found.gap.min()) > 1e-4
        torch.testing.assert_close(found.evidence - found.pyro, found.gap)
        # The posterior itself has none.
        densities = guide_densities(
            subject._replace(guide=ExactGuide(subject, frames, truth)), frames, truth.grid
        )
        posterior = truth.log_joint - truth.log_conditional[:, None]
        torch.testing.assert_close(densities, posterior)


def test_samples_of_the_posterior_have_its_moments() -> None:
    subject = toy(load_recipe("a-vae"), 0)
    frames = synthetic(subject, 3, 0)
    truth = exact(subject, frames)
    (posterior,) = ExactGuide(subject, frames, truth).posteriors(*frames)
    torch.manual_seed(0)
    z = posterior.sample((3000,))[..., 0]
    nodes = truth.grid.z[..., 0]
    density = truth.log_joint[0] - truth.log_conditional[0]
    mean = truth.grid.expectation(density, nodes)
    spread = (truth.grid.expectation(density, nodes**2) - mean**2).sqrt()
    assert bool(((z.mean(0) - mean).abs() < 5 * spread / 3000**0.5).all())
    torch.testing.assert_close(z.std(0), spread, rtol=0.05, atol=0)


def test_the_grid_knows_a_gaussian_integral() -> None:
    """log p(s) of a decoder that ignores z is its log density, whatever the prior."""
    for name, settings in (("a-vae", []), ("min-vae", []), ("a-vae", ["model.prior.kind=ar1"])):
        subject = toy(load_recipe(name, settings), 1)
        with torch.no_grad():
            subject.model.decoder.output.weight.zero_()
        frames = synthetic(subject, 2, 1)
        sigma = subject.model.decoder.output.bias.exp() + subject.model.decoder.floor
        expected = subject.per_unit(-(sigma.log() + frames.power / sigma).sum(-1))
        torch.testing.assert_close(exact(subject, frames).log_evidence, expected.detach())


def test_the_grid_is_for_toys_only() -> None:
    large = untrained(load_recipe("a-vae", SMALL), 0)
    with pytest.raises(ValueError, match="expected one latent dimension"):
        grid_for(large, synthetic(large, 2, 0))
    coupled = toy(load_recipe("a-vae", ["model.prior.kind=ar1"]), 0)
    with pytest.raises(ValueError, match="two coupled frames, got 1 and 3"):
        grid_for(coupled, synthetic(coupled, 3, 0))


def test_every_column_is_the_same_bound_on_average() -> None:
    """Matched draws and fresh ones estimate the same likelihood term, which has no closed form."""
    subject = untrained(load_recipe("min-vae", SMALL), 0)
    frames = synthetic(subject, 4, 0)
    weight = torch.full((4,), 0.3, dtype=torch.float64)
    draws = draws_for(subject, frames, 2000, 0)
    with torch.no_grad():
        pyro_side = pyro_terms(subject, frames, draws.place(subject, frames), weight)
        closed = closed_terms(subject, frames, draws, weight)
        torch.manual_seed(1)
        fresh = monte_carlo_terms(subject, frames, 2000, weight)
    for name in ("likelihood", "likelihood_visual", "total"):
        error = (getattr(fresh, name).var(0) / 1000).sqrt()
        difference = getattr(closed, name).mean(0) - getattr(fresh, name).mean(0)
        assert bool((difference.abs() < 5 * error).all()), name
        torch.testing.assert_close(getattr(pyro_side, name).mean(0), getattr(closed, name).mean(0))


def test_gradients_cover_every_parameter_and_leave_it_as_it_was() -> None:
    subject = untrained(load_recipe("min-vae-visual-prior", SMALL), 0)
    frames = synthetic(subject, 4, 0)
    before = {name: p.detach().clone() for name, p in parameters(subject).items()}
    wanted = {id(p) for p in (*subject.model.parameters(), *subject.guide.parameters())}
    assert {id(p) for p in parameters(subject).values()} == wanted
    figures, found = check_gradients(subject, frames, draws_for(subject, frames, 8, 0), 0)
    assert figures.tensors == len(wanted)
    assert len(found) == 2 * len(wanted)
    for name, parameter in parameters(subject).items():
        assert torch.equal(before[name], parameter), name


def test_comparisons_can_fail() -> None:
    one = torch.ones(3, dtype=torch.float64)
    assert equal("t", ("a", one), ("b", one + 1e-10)).agrees
    assert not equal("t", ("a", one), ("b", one + 1e-8)).agrees
    assert equal("t", ("a", one), ("b", one + 1e-8), 1e-9, slack=1e-7).agrees
    # One frame that is off is enough, even where the mean is not.
    off = one + torch.tensor([1e-3, -1e-3, 0.0])
    assert not equal("t", ("a", one), ("b", off)).agrees
    assert not equal("t", ("a", one), ("b", one * math.nan)).agrees
    assert not_above("t", ("a", one), ("b", one + 1), 1e-9, 0.0).agrees
    assert not not_above("t", ("a", one), ("b", one - 1e-6), 1e-9, 0.0).agrees
    assert within_error("t", ("a", Estimate(1.0, 0.1)), ("b", Estimate(1.4, 0.0))).agrees
    assert not within_error("t", ("a", Estimate(1.0, 0.1)), ("b", Estimate(1.6, 0.0))).agrees
    assert within_error("t", ("a", Estimate(1.0, 0.1)), ("b", Estimate(9.0, 0.1)), ordered=True).agrees
    assert not within_error("t", ("a", Estimate(9.0, 0.1)), ("b", Estimate(1.0, 0.1)), ordered=True).agrees
    assert not within_error("t", ("a", Estimate(math.nan, 0.1)), ("b", Estimate(1.0, 0.1))).agrees


def test_estimates_have_standard_errors_of_the_mean() -> None:
    values = random(4000, 5, seed=0) * 2 + 3
    found = estimate(values, 5)
    assert found.value == pytest.approx(float(values.mean()))
    assert found.error == pytest.approx(2 / (4000 * 5) ** 0.5, rel=0.05)


def test_draws_that_are_not_gaussian_are_not_matched() -> None:
    subject = untrained(load_recipe("a-vae", SMALL), 0)
    frames = synthetic(subject, 3, 0)
    fresh = Draws(None, 5, 7, matched=False)
    first, second = (fresh.place(subject, frames)[0] for _ in range(2))
    assert first.shape == (7, 3, 2)
    assert torch.equal(first, second)
