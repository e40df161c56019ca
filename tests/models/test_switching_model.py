"""Pyro's bound on switching speech, modes enumerated, is log Z of our chain (derivations, eq. 9.5)."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from laws import BINS, make_frames, make_model, normal_draws
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from pyro_minvae.inference.switching.hmm import forward_backward
from pyro_minvae.inference.switching.posterior import ModePosterior
from pyro_minvae.models.gain import GainPrior
from pyro_minvae.models.noisy import Source
from pyro_minvae.models.switching import switching_guide, switching_speech

COUNT, LATENT = 4, 3


class Scene:
    """Three modes at a noisy recording; r(z | m) at one draw each, with their bounds `emissions` [N, M]."""

    def __init__(self, *priors: str) -> None:
        self.power = 3 * make_frames(COUNT, seed=40).power
        self.noise = normal_draws(COUNT, BINS, seed=41).exp()
        self.transition = normal_draws(len(priors), len(priors), seed=42).softmax(-1)
        self.initial = normal_draws(len(priors), seed=43).softmax(-1)
        self.modes = [
            Source(
                make_model(prior, "plain", "complex-gaussian", seed=k),
                make_frames(COUNT, seed=k).visual,
                normal_draws(COUNT, LATENT, seed=50 + k),
                normal_draws(COUNT, LATENT, seed=60 + k).exp(),
            )
            for k, prior in enumerate(priors)
        ]
        self.fits = []
        for k, mode in enumerate(self.modes):
            fit = ModePosterior(mode, self.power, draws=1, gain_prior=GainPrior(1.0, 0.0))
            fit.renew(torch.Generator().manual_seed(k))
            fit.gain = normal_draws(COUNT, seed=70 + k).exp()
            self.fits.append(fit)
        with torch.no_grad():
            self.emissions = torch.stack([fit.bound(self.noise) for fit in self.fits], -1)

    def draw(self, n: int, m: Tensor) -> dist.TorchDistribution:
        """The draws as a distribution whose log density makes log p - log r minus the closed divergence."""
        draws, densities = [], []
        for fit in self.fits:
            z = (fit.mean + fit.log_scale.exp() * fit.epsilon[0])[n]
            prior = fit.speech.prior.conditionals[0]
            kl = torch.distributions.kl_divergence(
                dist.Normal(fit.mean, fit.log_scale.exp()).to_event(1), prior.expand((COUNT,))
            )
            draws.append(z)
            densities.append(prior.expand((COUNT,)).log_prob(z.expand(COUNT, -1))[n] + kl[n])
        return dist.Delta(torch.stack(draws)[m], log_density=torch.stack(densities)[m], event_dim=1)

    @torch.no_grad()
    def elbo(self, pairwise: Tensor, first: Tensor) -> float:
        def model() -> None:
            gain = torch.stack([fit.gain for fit in self.fits])
            switching_speech(
                self.modes,
                self.noise,
                gain,
                transition=self.transition,
                initial=self.initial,
                power=self.power,
            )

        def guide() -> None:
            switching_guide(self.draw, pairwise=pairwise, first=first)

        return -float(TraceEnum_ELBO(max_plate_nesting=0).loss(model, guide))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene("standard", "visual", "visual")


def test_the_enumerated_bound_is_the_evidence_of_the_chain(scene: Scene) -> None:
    found = forward_backward(scene.emissions, scene.transition.log(), scene.initial.log())
    assert scene.elbo(found.pairwise, found.posterior[0]) == pytest.approx(
        float(found.log_evidence), rel=1e-9
    )


def test_any_other_chain_has_a_lower_bound_by_its_divergence(scene: Scene) -> None:
    best = forward_backward(scene.emissions, scene.transition.log(), scene.initial.log())
    other = forward_backward(0 * scene.emissions, scene.transition.log(), scene.initial.log())
    bound = scene.elbo(other.pairwise, other.posterior[0])
    # The prior as r(m): E_p[sum log b], no divergence.
    expected = float((other.posterior * scene.emissions).sum())
    assert bound == pytest.approx(expected, rel=1e-9)
    assert bound < float(best.log_evidence) - 1e-3


def test_a_mixture_prior_is_refused() -> None:
    made = Scene("standard", "mixture")
    with pytest.raises(ValueError, match="one Gaussian"):
        made.elbo(torch.full((COUNT - 1, 2, 2), 0.25).double(), torch.full((2,), 0.5).double())
