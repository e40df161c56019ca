"""How far a latent vector reaches into the targets of samplers: exactly as far as they say."""

from __future__ import annotations

import pytest
import torch
from laws import BINS, CONTEXT, COUPLED, MODELS, make_frames, make_model, normal_draws
from torch import Tensor

from pyro_minvae.inference.mcem.targets import joint_target, marginal_target, mean_field_target
from pyro_minvae.inference.mcem.wiener import second_moment
from pyro_minvae.inference.mcmc.base import Target
from pyro_minvae.models.decoders import ContextDecoder
from pyro_minvae.models.distributions import gradient_of
from pyro_minvae.models.priors import Ar1Prior, StandardPrior
from pyro_minvae.models.speech import SpeechModel

COUNT = 7


def targets(model: SpeechModel) -> list[Target]:
    """Both targets of a random recording."""
    power, visual = make_frames(COUNT)
    scale = normal_draws(COUNT, BINS, seed=1).exp()
    others, weight = normal_draws(COUNT, BINS, seed=2).exp(), torch.rand(COUNT).double()
    speech = model.given(visual)
    return [
        marginal_target(speech, scale=scale, others=others, power=power),
        mean_field_target(
            speech, scale=scale, ratio=power / scale, weight=weight if model.prior.mixed else None
        ),
    ]


def moved_factors(target: Target, n: int, by: float = 0.4) -> list[int]:
    """Which factors change when z_n does."""
    z: Tensor = normal_draws(COUNT, 3, seed=3)
    other = z.clone()
    other[n] += by
    return (target(other) != target(z)).nonzero()[:, 0].tolist()


@pytest.mark.parametrize(("prior", "decoder", "likelihood"), MODELS)
@torch.no_grad()
def test_the_factors_that_move_are_those_within_reach(prior: str, decoder: str, likelihood: str) -> None:
    """z_n enters phi_(n - before) .. phi_(n + after), all of them and no others (derivations, sec. 11)."""
    model = make_model(prior, decoder, likelihood)
    c, step = CONTEXT * (decoder == "context"), int(prior in COUPLED)
    assert model.reach == (c, max(c, step))
    for target in targets(model):
        assert target.reach == model.reach
        before, after = target.reach
        for n in range(COUNT):
            assert moved_factors(target, n) == [m for m in range(COUNT) if n - before <= m <= n + after]


@pytest.mark.parametrize("coupled", [True, False])
@torch.no_grad()
def test_a_wide_context_reaches_further_than_the_prior(coupled: bool) -> None:
    decoder = ContextDecoder(BINS, 3, (7,), 1e-2, context=2).double()
    model = SpeechModel((Ar1Prior(3) if coupled else StandardPrior(3)).double(), decoder)
    assert model.reach == (2, 2)
    for target in targets(model):
        assert moved_factors(target, 3) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("prior", "decoder", "likelihood"), MODELS)
@torch.no_grad()
def test_mean_field_target_is_the_expected_log_density(prior: str, decoder: str, likelihood: str) -> None:
    """E_q(alpha)[log p(z | alpha, v)] - sum_f [log v + E|c|^2 / v] with v = scale sigma (derivations, eq. 6.27)."""
    model, (power, visual) = make_model(prior, decoder, likelihood), make_frames(COUNT)
    scale, z = normal_draws(COUNT, BINS, seed=4).exp(), normal_draws(COUNT, 3, seed=5)
    weight = torch.linspace(0.1, 0.9, COUNT, dtype=torch.float64) if model.prior.mixed else None
    target = mean_field_target(model.given(visual), scale=scale, ratio=power / scale, weight=weight)
    if weight is None:
        of_z = model.log_prior(z, visual)
    else:
        lips, audio = (p.log_prob(z) for p in model.prior.conditionals(visual))
        of_z = weight * audio + (1 - weight) * lips
    variance = scale * model.variance(z, visual)
    torch.testing.assert_close(target(z), of_z - (variance.log() + power / variance).sum(-1))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(("prior", "decoder", "likelihood"), MODELS)
def test_the_gradient_is_that_of_the_factors(prior: str, decoder: str, likelihood: str, grad: bool) -> None:
    """Of several chains at once, whatever the network; without a graph it is written out in another way."""
    model, z = make_model(prior, decoder, likelihood), normal_draws(2, COUNT, 3, seed=6)
    with torch.set_grad_enabled(grad):
        for target in targets(model):
            assert target.gradient is not None
            expected = gradient_of(target.factors, z)[1]
            found = target.gradient(z).detach()
            torch.testing.assert_close(found, expected)
            # The arrays that it works in are used again.
            torch.testing.assert_close(target.gradient(z + 1).detach(), gradient_of(target.factors, z + 1)[1])
            assert float(found.abs().max()) > 0.1


@torch.no_grad()
def test_the_gradient_of_several_speakers_is_that_of_the_factors() -> None:
    models = [
        make_model("visual-mixture", "lips"),
        make_model("standard", "plain"),
        make_model("ar1", "context"),
    ]
    power, visual = make_frames(COUNT)
    target = joint_target(
        [model.given(visual) for model in models],
        scales=[normal_draws(COUNT, 1, seed=j).exp() for j in range(3)],
        others=normal_draws(COUNT, BINS, seed=3).exp(),
        power=power,
        prior=2.5,
    )
    z = normal_draws(2, COUNT, 9, seed=4)
    assert target.gradient is not None
    torch.testing.assert_close(target.gradient(z), gradient_of(target.factors, z)[1])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize(("prior", "decoder", "likelihood"), MODELS)
@torch.no_grad()
def test_frames_without_a_density_are_told(prior: str, decoder: str, likelihood: str, bad: float) -> None:
    """`finite` is not finite in the frame whose z is not, and finite wherever nothing of it enters."""
    model, z = make_model(prior, decoder, likelihood), normal_draws(COUNT, 3, seed=7)
    for target in targets(model):
        assert target.finite is not None
        assert bool(target.finite(z).isfinite().all())
        spoilt = z.clone()
        spoilt[3, 1] = bad
        told = target.finite(spoilt).isfinite()
        assert not bool(told[3])
        before, after = target.reach
        away = [n for n in range(COUNT) if n < 3 - before or n > 3 + after]
        assert bool(told[away].all())
        assert bool(target(spoilt)[away].isfinite().all())


@torch.no_grad()
def test_one_draw_gives_both_targets_one_slope() -> None:
    """Fisher's identity: where E|c|^2 was taken at z itself, both likelihoods rise alike (derivations, sec. 11)."""
    model, (power, visual) = make_model("standard", "plain"), make_frames(COUNT)
    gain, noise = normal_draws(COUNT, 1, seed=1).exp(), normal_draws(COUNT, BINS, seed=2).exp()
    speech, z = model.given(visual), normal_draws(COUNT, 3, seed=3)
    own = gain * speech.variance(z)
    expected = second_moment(own, own + noise, power)
    mean_field = mean_field_target(speech, scale=gain, ratio=expected / gain, weight=None)
    marginal = marginal_target(speech, scale=gain, others=noise, power=power)
    assert mean_field.gradient is not None
    assert marginal.gradient is not None
    torch.testing.assert_close(mean_field.gradient(z), marginal.gradient(z))
    assert not torch.allclose(mean_field.gradient(z + 0.5), marginal.gradient(z + 0.5), rtol=0.01)
