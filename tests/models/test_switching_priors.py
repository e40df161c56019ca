"""Sides of a mixture prior as priors of modes, and their divergences against integrals by draws."""

from __future__ import annotations

import pytest
import torch
from laws import make_frames, make_prior, normal_draws
from torch import Tensor

from pyro_minvae.inference.switching.posterior import divergence
from pyro_minvae.models.distributions import gaussian_parameters, normal
from pyro_minvae.models.priors.component import (
    AUDIO_SHARE,
    NARROW,
    OTHERS,
    CarriedPrior,
    ComponentPrior,
    UnpairedPrior,
)
from pyro_minvae.types import Visual

FRAMES, LATENT = 40, 3


def lips(valid: Tensor | None = None) -> Visual:
    visual = make_frames(FRAMES, seed=3).visual
    return visual._replace(valid=torch.ones(FRAMES, dtype=torch.bool) if valid is None else valid)


@pytest.mark.parametrize("alpha", [0, 1])
def test_a_component_is_the_mixtures_own(alpha: int) -> None:
    mixture, visual = make_prior("visual-mixture", latent=LATENT, seed=0), lips()
    z = normal_draws(FRAMES, LATENT, seed=1)
    (alone,) = ComponentPrior(mixture, alpha).conditionals(visual)
    torch.testing.assert_close(alone.log_prob(z), mixture.conditionals(visual)[alpha].log_prob(z))
    assert ComponentPrior(mixture, alpha).visual is (alpha == 0)


def test_carried_lips_hold_on_to_what_they_say() -> None:
    """The mean stays, the standard deviation is a quarter, on those frames alone (derivations, eq. 9.31)."""
    mixture, visual = make_prior("visual-mixture", latent=LATENT, seed=0), lips()
    frames = torch.arange(FRAMES) % 3 == 0
    (found,) = CarriedPrior(ComponentPrior(mixture, 0), frames).conditionals(visual)
    mean, scale = gaussian_parameters(mixture.conditionals(visual)[0])  # type: ignore[misc]
    z = normal_draws(FRAMES, LATENT, seed=1)
    for n in range(FRAMES):
        width = NARROW * scale[n] if frames[n] else scale[n]
        torch.testing.assert_close(found.log_prob(z)[n], normal(mean[n], width).log_prob(z[n]))


def test_unpaired_lips_are_those_of_other_times() -> None:
    """log p by its formula, frame by frame (derivations, eq. 9.23); invalid lips are left out."""
    valid = torch.arange(FRAMES) % 4 > 0
    mixture, visual = make_prior("visual-mixture", latent=LATENT, seed=0), lips(valid)
    z = normal_draws(FRAMES, LATENT, seed=1)
    (found,) = UnpairedPrior(mixture).conditionals(visual)
    seen, audio = mixture.conditionals(visual)
    mean, scale = gaussian_parameters(seen)  # type: ignore[misc]
    for n in range(FRAMES):
        places = [(n + s * FRAMES // (OTHERS + 1)) % FRAMES for s in range(1, OTHERS + 1)]
        counted = [place for place in places if valid[place]]
        assert n not in places
        density = AUDIO_SHARE * audio.log_prob(z[n]).exp()
        for place in counted:
            density = (
                density
                + (1 - AUDIO_SHARE) / len(counted) * normal(mean[place], scale[place]).log_prob(z[n]).exp()
            )
        torch.testing.assert_close(found.log_prob(z)[n], density.log())


@pytest.mark.parametrize("visual", [None, lips(torch.zeros(FRAMES, dtype=torch.bool))])
def test_without_lips_there_is_the_audio_component(visual: Visual | None) -> None:
    mixture = make_prior("visual-mixture", latent=LATENT, seed=0)
    z = normal_draws(FRAMES, LATENT, seed=1)
    (found,) = UnpairedPrior(mixture).conditionals(visual)
    torch.testing.assert_close(found.log_prob(z), mixture.conditionals(None)[1].log_prob(z))


@pytest.mark.parametrize("kind", ["standard", "visual", "visual-mixture", "vamp", "unpaired"])
def test_divergences_are_exact_or_above(kind: str) -> None:
    mixture = make_prior("visual-mixture", latent=LATENT, seed=0)
    prior = UnpairedPrior(mixture) if kind == "unpaired" else make_prior(kind, latent=LATENT, seed=0)
    mean, scale = normal_draws(FRAMES, LATENT, seed=1), normal_draws(FRAMES, LATENT, seed=2).exp()
    generator = torch.Generator().manual_seed(0)
    epsilon = torch.randn(40_000, FRAMES, LATENT, generator=generator, dtype=torch.float64)
    draws = mean + scale * epsilon
    with torch.no_grad():
        components = prior.components(lips())
        found = divergence(components, mean, scale, draws)
        samples = normal(mean, scale).log_prob(draws) - components.log_prob(draws)
    error = 4 * samples.std(0) / len(draws) ** 0.5
    assert (found > samples.mean(0) - error).all()
    if kind in ("standard", "visual"):
        assert (found < samples.mean(0) + error).all()
    else:
        # At most what the weights of the components can hide.
        assert (found < samples.mean(0) + error + torch.tensor(2.0 * (OTHERS + 1)).log()).all()
