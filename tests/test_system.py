"""Systems of every combination: which parts they have, what each learns, objects in place of sections."""

from __future__ import annotations

import copy

import pytest
import torch
from laws import FAMILY, Kinds, make_decoder, make_guide, make_likelihood, make_prior
from tiny_family import family_recipe, family_system, learned_parts
from tiny_training import utterances

from pyro_minvae.config.load import parse_recipe
from pyro_minvae.config.rules import parts_of
from pyro_minvae.guides.base import Guide
from pyro_minvae.inference.svi.elbo import svi_loss
from pyro_minvae.inference.svi.trainer import EpochEvent, train
from pyro_minvae.models.distributions import normal
from pyro_minvae.models.priors import Prior
from pyro_minvae.systems.system import System
from pyro_minvae.types import Visual

# The likelihoods learn nothing, so one of them is enough where parts are counted.
PLAIN = [kinds for kinds in FAMILY if kinds[3] == "complex-gaussian"]


def names_of(system: System, part: str) -> set[str]:
    mine = {id(p) for p in system.parameters_of(part)}
    return {name for name, p in system.named_parameters() if id(p) in mine}


@pytest.mark.parametrize("kinds", PLAIN, ids="-".join)
def test_every_parameter_belongs_to_exactly_one_part(kinds: Kinds) -> None:
    system = family_system(*kinds)
    parts = parts_of(system.recipe)
    assert set(parts) == learned_parts(*kinds[:2])
    owned = [names_of(system, part) for part in parts]
    assert all(owned)
    assert sum(map(len, owned)) == len(set().union(*owned))
    assert set().union(*owned) == {name for name, _ in system.named_parameters()}


@pytest.mark.parametrize("kinds", PLAIN, ids="-".join)
def test_model_and_guide_share_no_network(kinds: Kinds) -> None:
    """The house's rule, in a system too, where both come from one set of parts; what is trained is in one of them."""
    system = family_system(*kinds)
    model, guide = system.model(), system.guide()
    mine, yours = ({id(p) for p in part.parameters()} for part in (model, guide))
    assert mine.isdisjoint(yours)
    assert mine | yours == {id(p) for p in system.parameters()}


@pytest.mark.parametrize("kinds", [kinds for kinds in FAMILY if kinds[2] == "lips"], ids="-".join)
def test_kinds_of_a_recipe_are_those_of_the_laws(kinds: Kinds) -> None:
    """Sections and the constructors that the laws use make the same classes with the same traits."""
    prior, kind, decoder, likelihood = kinds
    system = family_system(*kinds)
    guide = make_guide(kind)
    wanted = (make_prior(prior, guide=guide), guide, make_decoder(decoder), make_likelihood(likelihood))
    got = (system.own_prior, system.own_guide, system.decoder, system.likelihood)
    for one, other in zip(got, wanted, strict=True):
        assert type(one) is type(other)
    section = system.recipe.model.prior
    assert (section.mixed, section.sees, section.coupled) == (
        system.own_prior.mixed,
        system.own_prior.visual,
        system.own_prior.coupled,
    )
    assert (system.recipe.guide.mixed, system.recipe.guide.sees) == (guide.mixed, guide.visual)
    assert system.recipe.model.decoder.sees == system.decoder.visual
    assert system.recipe.model.decoder.reach == system.decoder.reach
    assert ("+amortised" in kind) == ("responsibility" in system.networks)


def test_settings_of_the_sections_arrive() -> None:
    def with_prior(
        *overrides: str, prior: str, decoder: str = "plain", likelihood: str = "complex-gaussian"
    ) -> System:
        return System(family_recipe(prior, "audio", decoder, likelihood, *overrides))

    assert with_prior("model.prior.count=7", prior="vamp").own_prior.log_power.shape == (7, 17)
    torch.testing.assert_close(
        with_prior("model.prior.coefficient=0.3", prior="ar1").own_prior.coefficient, torch.full((2,), 0.3)
    )
    torch.testing.assert_close(
        with_prior("model.prior.step=0.7", prior="random-walk").own_prior.log_step.exp(),
        torch.full((2,), 0.7),
    )
    wide = with_prior("model.decoder.context=3", prior="standard", decoder="context")
    assert wide.decoder.reach == 3
    assert wide.model().reach == (3, 3)
    deep = with_prior("model.decoder.hidden=[9,8,7]", "model.decoder.floor=0.5", prior="standard")
    assert [layer.out_features for layer in deep.decoder.trunk[::2]] == [9, 8, 7]
    assert float(deep.decoder.variance(torch.zeros(1, 2)).detach().min()) > 0.5
    lips = with_prior("model.decoder.embedding=[5,4]", prior="standard", decoder="lips")
    assert lips.decoder.width == 4
    assert lips.decoder.trunk[0].in_features == 2 + 4
    tails = with_prior("model.likelihood.dof=7", prior="standard", likelihood="student-t")
    assert tails.likelihood.shape == 3.5


def given_parts() -> tuple[Prior, Guide]:
    """Objects that fit the shapes of `family_recipe`, with random weights."""

    class Shifted(Prior):
        """N(mu, I) with a learned mu."""

        def __init__(self) -> None:
            super().__init__()
            self.mu = torch.nn.Parameter(torch.ones(2))

        def conditionals(self, visual):  # type: ignore[no-untyped-def]
            return (normal(self.mu, torch.ones(2)),)

    class Linear(Guide):
        """N(A log s, I)."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(17, 2)

        def posteriors(self, power, visual, encoder_input=None):  # type: ignore[no-untyped-def]
            mean = self.layer(((power if encoder_input is None else encoder_input) + 1e-3).log())
            return (normal(mean, torch.ones_like(mean)),)

    return Shifted(), Linear()


def test_objects_take_the_place_of_sections_and_learn() -> None:
    torch.manual_seed(0)
    prior, guide = given_parts()
    tree = family_recipe().model_dump(mode="json")
    tree["training"]["stages"][0].pop("learn")
    system = System(parse_recipe(tree, source="test"), prior=prior, guide=guide)
    assert system.model().prior is prior
    assert system.guide().network is guide
    before = copy.deepcopy(system.state_dict())
    data = utterances(5)
    events = [e for e in train(system, data[:4], data[4:]) if isinstance(e, EpochEvent)]
    assert all(torch.isfinite(torch.tensor(e.loss)) for e in events)
    for name in ("own_prior.mu", "own_guide.layer.weight", "decoder.output.weight"):
        assert not torch.equal(before[name], system.state_dict()[name]), name


def test_a_vamp_prior_goes_through_the_guide_that_is_given() -> None:
    guide = make_guide("audio", latent=2).float()
    guide.audio.trunk[1][0] = torch.nn.Linear(17, 6)
    system = System(family_recipe("vamp", "audio"), guide=guide).eval()
    z = torch.randn(3, 2)
    before = system.own_prior.log_prob(z, None).detach()
    with torch.no_grad():
        guide.audio.mean.bias.add_(1.0)
    assert not torch.equal(before, system.own_prior.log_prob(z, None).detach())


@pytest.mark.parametrize(
    ("kinds", "sees"),
    [
        (("standard", "audio", "plain"), False),
        (("ar1", "audio", "context"), False),
        (("vamp", "audio", "plain"), False),
        (("standard", "audio", "lips"), True),
        (("visual", "audio", "plain"), True),
        (("standard", "concatenation", "plain"), True),
    ],
)
def test_a_system_has_eyes_if_any_part_needs_them(kinds: tuple[str, str, str], sees: bool) -> None:
    system = family_system(*kinds)
    assert (system.lips is not None) == sees
    model, guide = system.model(), system.guide()
    assert (model.visual or guide.visual) == sees
    power = torch.rand(4, system.recipe.stft.bins)
    lips = Visual(torch.randn(4, system.recipe.lips.dimension), torch.ones(4, dtype=torch.bool))
    for visual in (None, lips):
        assert svi_loss(model, guide)(power, visual).isfinite()
