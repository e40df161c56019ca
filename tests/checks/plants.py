"""Errors to plant: each replaces one function by a version with a fault that such code has had, or could have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from small import ANY_STAGE
from torch import Tensor

from pyro_minvae.checks import importance, posterior, terms, toy
from pyro_minvae.guides import responsibility
from pyro_minvae.guides import speech as guides
from pyro_minvae.guides.mixture import MixtureGuide
from pyro_minvae.inference.svi import elbo
from pyro_minvae.inference.svi.importance import log_weights
from pyro_minvae.models import divergences, likelihoods
from pyro_minvae.models.distributions import MarkovNormal, factors, normal, pick
from pyro_minvae.models.likelihoods import StudentT
from pyro_minvae.models.priors import MixturePrior, VampPrior
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual

Patch = pytest.MonkeyPatch
Gaussian = tuple[Tensor, Tensor]


class Scaled(Messenger):
    """Inside this context the log density of one site counts by a factor, as if some of its sum were missing."""

    def __init__(self, site: str, factor: float) -> None:
        super().__init__()
        self.site, self.factor = site, factor

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.site:
            msg["scale"] = msg["scale"] * self.factor


def log_s_for_half_log_s(patch: Patch) -> None:
    """KL with log s where 1/2 log s belongs: the published fault."""
    right = divergences.gaussian_kl

    def wrong(q: Gaussian, p: Gaussian) -> Tensor:
        return right(q, p) + p[1].log().expand_as(q[0]).sum(-1)

    patch.setattr(divergences, "gaussian_kl", wrong)


def log_s_in_the_responsibility(patch: Patch) -> None:
    """The same fault in the log odds of alpha alone, as published."""
    right = responsibility.responsibility_of

    def wrong(pairs: list[Gaussian], prior: Tensor, visual: Visual | None) -> Tensor:
        (off, on) = pairs
        return right([off, (on[0], on[1] + 0.3)], prior, visual)

    for place in (elbo, responsibility):
        patch.setattr(place, "responsibility_of", wrong)
    patch.setattr(terms, "responsibility_of", wrong)
    patch.setattr("pyro_minvae.checks.check.responsibility_of", wrong)


def no_kl_of_alpha(patch: Patch) -> None:
    patch.setattr(elbo, "bernoulli_kl", lambda q, p: torch.zeros_like(q))


def no_kl_of_alpha_in_pyro(patch: Patch) -> None:
    """The model's alpha does not count."""
    _scale_in_model(patch, "alpha", 0.0)


def mean_over_bins(patch: Patch) -> None:
    def wrong(self: SpeechModel, power: Tensor, z: Tensor, visual: Visual | None = None) -> Tensor:
        return self.likelihood.log_prob(power, self.decoder.log_variance(z, visual)).mean(-1)

    patch.setattr(SpeechModel, "log_likelihood", wrong)


def mean_over_latent_dimensions(patch: Patch) -> None:
    right = divergences.gaussian_kl
    patch.setattr(divergences, "gaussian_kl", lambda q, p: right(q, p) / q[0].shape[-1])


def half_log_variance_of_a_complex_gaussian(patch: Patch) -> None:
    """The density of a real Gaussian's amplitude in place of the complex one's power, in every column of the model."""
    patch.setattr(
        likelihoods, "log_power_density", lambda power, log_v: -0.5 * log_v - power * (-log_v).exp()
    )


def wrong_sign_of_kl(patch: Patch) -> None:
    right = divergences.kl
    patch.setattr(responsibility, "kl", lambda q, p, z: -right(q, p, z))


def kl_added_to_the_total(patch: Patch) -> None:
    right = terms.bound_terms

    def wrong(*args: Any, **kwargs: Any) -> elbo.BoundTerms:
        found = right(*args, **kwargs)
        return found._replace(total=found.likelihood + found.kl)

    patch.setattr(terms, "bound_terms", wrong)


def wrong_branch_of_the_optimum(patch: Patch) -> None:
    """q(alpha = 0) for q(alpha = 1): still a bound, but not the best."""
    right = responsibility.responsibility_of
    for place in (
        "pyro_minvae.guides.responsibility",
        "pyro_minvae.inference.svi.elbo",
        "pyro_minvae.checks.terms",
        "pyro_minvae.checks.check",
    ):
        patch.setattr(f"{place}.responsibility_of", lambda *args: 1 - right(*args))


def wrong_branch_in_the_guide(patch: Patch) -> None:
    right = guides.at_valid
    patch.setattr(guides, "at_valid", lambda weight, visual: 1 - right(weight, visual))


def wrong_branch_in_the_total(patch: Patch) -> None:
    right = terms.bound_terms

    def wrong(*args: Any, **kwargs: Any) -> elbo.BoundTerms:
        found = right(*args, **kwargs)
        on, off = found.likelihood - found.kl, found.likelihood_visual - found.kl_visual
        weight = found.responsibility
        return found._replace(total=(1 - weight) * on + weight * off - found.kl_alpha)

    patch.setattr(terms, "bound_terms", wrong)


def half_the_likelihood_in_pyro(patch: Patch) -> None:
    """The site "s" counts half."""
    _scale_in_model(patch, "s", 0.5)


def one_latent_dimension_in_pyro(patch: Patch) -> None:
    """The model's site "z" lacks the sum over its dimensions."""
    _scale_in_model(patch, "z", 0.5)


def student_t_without_its_weight_in_the_exponent(patch: Patch) -> None:
    """(1 + |s|^2 / (a sigma))^-a in place of -(a + 1)."""

    def wrong(self: StudentT, power: Tensor, log_variance: Tensor) -> Tensor:
        ratio = power * (-log_variance).exp() / self.shape
        return -log_variance - self.shape * ratio.log1p()

    patch.setattr(StudentT, "log_prob", wrong)


def weight_posterior_with_the_prior_shape(patch: Patch) -> None:
    """q(w | s, z) = Gamma(a, ...) in place of Gamma(a + 1, ...): w no longer cancels."""
    right = StudentT.weight_posterior

    def wrong(self: StudentT, ratio: Tensor) -> TorchDistribution:
        q = right(self, ratio)
        return type(q)(q.concentration - 1, q.rate)

    patch.setattr(StudentT, "weight_posterior", wrong)


def markov_kl_of_a_certain_past(patch: Patch) -> None:
    """E (z_n - c z_(n-1))^2 without the term c^2 v_(n-1)."""
    right = divergences.markov_kl

    def wrong(q: Gaussian, p: MarkovNormal) -> Tensor:
        missing = (p.coefficient * q[1][..., :-1, :] / p.innovation) ** 2
        return right(q, p) - torch.nn.functional.pad(0.5 * missing.sum(-1), (1, 0))

    patch.setattr(divergences, "markov_kl", wrong)


def prior_variances_for_scales_in_closed_form(patch: Patch) -> None:
    right = divergences.gaussian_kl
    patch.setattr(divergences, "gaussian_kl", lambda q, p: right(q, (p[0], p[1] ** 2)))


def prior_variances_for_scales_in_pyro(patch: Patch) -> None:
    def wrong(self: MixturePrior, alpha: Tensor, visual: Visual | None, frames: int) -> TorchDistribution:
        off, on = (normal(c.mean, c.variance) for c in self.conditionals(visual))
        return pick(alpha, off, on)

    patch.setattr(MixturePrior, "given", wrong)


def vamp_prior_without_its_weights(patch: Patch) -> None:
    """A sum over pseudo-inputs in place of their mean, where the divergence is sampled."""
    right = divergences.kl
    patch.setattr(responsibility, "kl", lambda q, p, z: right(q, p, z) - 1.0)


def vamp_prior_that_is_no_density(patch: Patch) -> None:
    """The same in the prior itself, so that all columns have it."""
    right = VampPrior.conditionals

    def wrong(self: VampPrior, visual: Visual | None) -> tuple[TorchDistribution, ...]:
        (prior,) = right(self, visual)
        density = prior.log_prob
        prior.log_prob = lambda z: density(z) + 1.0
        return (prior,)

    patch.setattr(VampPrior, "conditionals", wrong)


def components_swapped_in_the_guide(patch: Patch) -> None:
    """Pyro's alpha = 1 draws from the visual network."""
    patch.setattr(guides, "pick", lambda alpha, off, on: pick(alpha, on, off))


def amortised_weight_of_the_other_component(patch: Patch) -> None:
    """The network's output is taken for q(alpha = 0) by the closed form alone."""
    right = elbo.bound_terms

    def wrong(model: Any, guide: MixtureGuide, power: Tensor, *args: Any, **kwargs: Any) -> elbo.BoundTerms:
        if kwargs.get("responsibility") is not None:
            kwargs["responsibility"] = 1 - kwargs["responsibility"]
        return right(model, guide, power, *args, **kwargs)

    patch.setattr(terms, "bound_terms", wrong)


def detached_prior(patch: Patch) -> None:
    """Right values, but no gradient through the prior."""
    right = divergences.gaussian_kl
    patch.setattr(divergences, "gaussian_kl", lambda q, p: right(q, tuple(x.detach() for x in p)))


def iwae_without_the_mean(patch: Patch) -> None:
    """The sum of the weights in place of their mean."""
    right = importance.iwae

    def wrong(model: Any, guide: Any, power: Tensor, visual: Visual | None, k: int) -> Tensor:
        return right(model, guide, power, visual, k) + torch.tensor(float(k)).log()

    patch.setattr(importance, "iwae", wrong)
    patch.setattr(toy, "iwae", wrong)


def iwae_of_harmonic_means(patch: Patch) -> None:
    """1 / mean(1 / w) in place of mean w: it becomes looser with every draw."""

    def wrong(model: Any, guide: Any, power: Tensor, visual: Visual | None, k: int) -> Tensor:
        inverse = (-log_weights(model, guide, power, visual, k)).logsumexp(0)
        return torch.tensor(float(k)).log() - inverse

    patch.setattr(importance, "iwae", wrong)


def posterior_that_is_none(patch: Patch) -> None:
    """A "true posterior" whose density is the prior's."""

    def wrong(subject: Any, frames: Any, truth: Any, alpha: int) -> TorchDistribution:
        found = right(subject, frames, truth, alpha)
        (prior,) = subject.model.prior.conditionals(frames.visual)
        return posterior.GridPosterior(
            lambda z: factors(prior, z), found.nodes, found.log_mass, found.event_dim
        )

    right = posterior.posterior
    patch.setattr(posterior, "posterior", wrong)


def _scale_in_model(patch: Patch, site: str, factor: float) -> None:
    right = SpeechModel.forward

    def wrong(self: SpeechModel, *args: Any, **kwargs: Any) -> Tensor:
        with Scaled(site, factor):
            return right(self, *args, **kwargs)

    patch.setattr(SpeechModel, "forward", wrong)


Plant = Callable[[Patch], None]
# The error, the recipe and settings that show it, and the terms that must be named among those that disagree.
MIN, AR1 = ("min-vae",), ("a-vae", "model.prior.kind=ar1")
STUDENT, VAMP = ("a-vae", "model.likelihood.kind=student-t"), ("a-vae", "model.prior.kind=vamp")
AMORTISED = ("min-vae", "guide.responsibility=amortised", ANY_STAGE)
PLANTS: list[tuple[Plant, tuple[str, ...], list[str]]] = [
    (log_s_for_half_log_s, MIN, ["KL of z, alpha = 1", "KL of z, alpha = 0", "ELBO", "gap of the toy"]),
    (log_s_in_the_responsibility, MIN, ["q(alpha = 1)", "q(alpha) of the toy"]),
    (no_kl_of_alpha, MIN, ["KL of alpha", "ELBO", "gap of the toy"]),
    (no_kl_of_alpha_in_pyro, MIN, ["KL of alpha", "gap of the toy"]),
    (mean_over_bins, ("a-vae",), ["E log p(s|z)", "gap of the toy"]),
    (mean_over_bins, ("moe-poe",), ["E log p(s|z), alpha = 1", "E log p(s|z), alpha = 0"]),
    (mean_over_latent_dimensions, ("av-vae",), ["KL of z", "ELBO"]),
    (
        half_log_variance_of_a_complex_gaussian,
        ("a-vae",),
        ["E log p(s|z)", "density p(s|z)", "gap of the toy"],
    ),
    (wrong_sign_of_kl, ("av-cvae",), ["KL of z", "ELBO", "gap of the toy"]),
    (wrong_sign_of_kl, VAMP, ["KL of z", "gap of the toy"]),
    (kl_added_to_the_total, ("a-vae",), ["ELBO", "ELBO of the toy", "gap of the toy"]),
    (wrong_branch_of_the_optimum, MIN, ["q(alpha = 1)", "q(alpha) of the toy"]),
    (wrong_branch_in_the_guide, MIN, ["KL of alpha", "ELBO", "gap of the toy"]),
    (wrong_branch_in_the_total, MIN, ["ELBO", "gap of the toy"]),
    (
        half_the_likelihood_in_pyro,
        ("a-vae",),
        ["E log p(s|z)", "gap of the toy", "ELBO at the true posterior"],
    ),
    (half_the_likelihood_in_pyro, AR1, ["E log p(s|z)", "ELBO at the true posterior"]),
    (one_latent_dimension_in_pyro, MIN, ["KL of z, alpha = 1", "KL of z, alpha = 0"]),
    (student_t_without_its_weight_in_the_exponent, STUDENT, ["E log p(s|z)", "density p(s|z)"]),
    (weight_posterior_with_the_prior_shape, STUDENT, ["E log p(s|z)", "gap of the toy"]),
    (markov_kl_of_a_certain_past, AR1, ["KL of z", "ELBO", "gap of the toy"]),
    (prior_variances_for_scales_in_closed_form, MIN, ["KL of z, alpha = 1", "KL of z, alpha = 0"]),
    (prior_variances_for_scales_in_pyro, MIN, ["KL of z, alpha = 1", "KL of z, alpha = 0"]),
    (vamp_prior_without_its_weights, VAMP, ["KL of z", "gap of the toy"]),
    (vamp_prior_that_is_no_density, VAMP, ["density p(z)"]),
    (components_swapped_in_the_guide, MIN, ["KL of z, alpha = 1", "KL of z, alpha = 0"]),
    (amortised_weight_of_the_other_component, AMORTISED, ["KL of alpha", "ELBO"]),
    (detached_prior, MIN, ["gradient of model.prior.means", "gradient of model.prior.log_variances"]),
    (iwae_without_the_mean, ("a-vae",), ["IWAE bound of the toy, K = 1000"]),
    (iwae_of_harmonic_means, ("a-vae",), ["IWAE bound, K = 10", "IWAE bound, K = 100"]),
    (posterior_that_is_none, ("a-vae",), ["ELBO at the true posterior"]),
]
