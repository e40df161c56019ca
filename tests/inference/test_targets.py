"""How far a latent vector reaches into the targets of samplers: exactly as far as they say."""

from __future__ import annotations

import pytest
import torch
from laws import BINS, CONTEXT, COUPLED, MODELS, make_frames, make_model, normal_draws
from torch import Tensor

from pyro_minvae.inference.kernels.base import Target
from pyro_minvae.inference.targets import marginal_target, mean_field_target
from pyro_minvae.models.decoders import ContextDecoder
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
        mean_field_target(speech, scale=scale, expected=power, weight=weight if model.prior.mixed else None),
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
    target = mean_field_target(model.given(visual), scale=scale, expected=power, weight=weight)
    if weight is None:
        of_z = model.log_prior(z, visual)
    else:
        lips, audio = (p.log_prob(z) for p in model.prior.conditionals(visual))
        of_z = weight * audio + (1 - weight) * lips
    variance = scale * model.variance(z, visual)
    torch.testing.assert_close(target(z), of_z - (variance.log() + power / variance).sum(-1))
