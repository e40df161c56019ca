"""What goes together: the same verdict on sections and on objects, and every refusal a sentence that says why."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
import torch
from laws import DECODERS, GUIDES, MIXED, MIXED_GUIDES, PRIORS, make_decoder, make_guide, make_prior
from tiny_family import family_recipe

from pyro_minvae.config.load import override_recipe, parse_recipe
from pyro_minvae.config.rules import incompatibility
from pyro_minvae.errors import InputError
from pyro_minvae.guides.speech import SpeechGuide
from pyro_minvae.inference.svi.elbo import svi_loss
from pyro_minvae.models.decoders import ContextDecoder
from pyro_minvae.models.priors import Prior
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.systems.system import System

PAIR = "expected a mixture prior and a mixture guide together, found {} and {}: "
ONLY_GUIDE = PAIR + "the guide enumerates a switch alpha that the prior does not have"
ONLY_PRIOR = PAIR + "the prior has a switch alpha that the guide does not infer"
CONTEXT = (
    "expected independent frames under a mixture prior, found {} and {}: "
    "alpha is enumerated frame by frame, which a decoder with context over frames does not allow"
)
EVERY = list(itertools.product(PRIORS, GUIDES, DECODERS))


def verdict(prior: str, guide: str, decoder: str) -> str | None:
    """The rule in short: alpha on both sides or on none, and then frames are independent."""
    mixed = prior in MIXED
    if mixed != (guide in MIXED_GUIDES):
        return ONLY_PRIOR if mixed else ONLY_GUIDE
    return CONTEXT if mixed and decoder == "context" else None


@pytest.mark.parametrize("kinds", EVERY, ids="-".join)
def test_sections_and_objects_are_judged_alike(kinds: tuple[str, str, str]) -> None:
    wanted = verdict(*kinds)
    prior, guide, decoder = make_prior(kinds[0]), make_guide(kinds[1]), make_decoder(kinds[2])
    names = (type(prior).__name__, type(guide).__name__)
    if wanted is None:
        assert incompatibility(prior=prior, guide=guide, decoder=decoder) is None
        family_recipe(*kinds)
        svi_loss(SpeechModel(prior, decoder), guide)
        return
    second = type(decoder).__name__ if wanted is CONTEXT else names[1]
    assert incompatibility(prior=prior, guide=guide, decoder=decoder) == wanted.format(names[0], second)
    with pytest.raises(InputError) as refusal:
        family_recipe(*kinds)
    sections = (kinds[0], "context" if wanted is CONTEXT else kinds[1].partition("+")[0])
    assert str(refusal.value) == "tests/tiny_family.py: model: " + wanted.format(*sections)


@pytest.mark.parametrize(("prior", "guide"), [("mixture", "audio"), ("standard", "mixture")])
def test_models_and_guides_that_do_not_fit_are_refused_at_construction(prior: str, guide: str) -> None:
    model = SpeechModel(make_prior(prior), make_decoder())
    for build in (SpeechGuide, svi_loss):
        with pytest.raises(ValueError, match="expected a mixture prior and a mixture guide together"):
            build(model, make_guide(guide))


@pytest.mark.parametrize("prior", MIXED)
def test_a_switch_needs_independent_frames(prior: str) -> None:
    with pytest.raises(ValueError, match="expected independent frames under a mixture prior"):
        SpeechModel(make_prior(prior), make_decoder("context"))


def test_a_switch_over_coupled_frames_is_refused() -> None:
    class CoupledMixture(Prior):
        mixed = True
        coupled = True

    with pytest.raises(ValueError, match="alpha is enumerated frame by frame"):
        SpeechModel(CoupledMixture(), make_decoder())


class Objects(NamedTuple):
    """Parts to give to a system of the audio-only recipe, and why it refuses them."""

    prior: str | None
    guide: str | None
    context: bool
    reason: str


@pytest.mark.parametrize(
    "objects",
    [
        Objects("mixture", None, False, ONLY_PRIOR.format("MixturePrior", "AudioGuide")),
        Objects(None, "mixture", False, ONLY_GUIDE.format("StandardPrior", "MixtureGuide")),
        Objects("mixture", "mixture", True, CONTEXT.format("MixturePrior", "ContextDecoder")),
    ],
)
def test_systems_refuse_objects_that_do_not_fit(objects: Objects) -> None:
    with pytest.raises(InputError) as refusal:
        System(
            family_recipe(),
            prior=None if objects.prior is None else make_prior(objects.prior),
            guide=None if objects.guide is None else make_guide(objects.guide),
            decoder=ContextDecoder(17, 2, (4,), 1e-4, context=1) if objects.context else None,
        )
    assert str(refusal.value) == f"family: {objects.reason}"


STAGE = "training.stages.0"
# Recipe kinds, what is changed, and what is said of it.
STAGES = {
    "a stage without a switch": (
        ("mixture", "mixture"),
        f"{STAGE}.prior=standard",
        f"{STAGE}.guide: " + ONLY_GUIDE.format("standard", "mixture"),
    ),
    "a stage with half a switch": (
        ("mixture", "mixture"),
        f"{STAGE}.guide=audio",
        f"{STAGE}.guide: " + ONLY_PRIOR.format("mixture", "audio"),
    ),
    "another prior than the model's": (
        ("ar1", "product"),
        f"{STAGE}.prior=random-walk",
        f"{STAGE}.prior: expected one of standard, visual, ar1 in this model, found random-walk",
    ),
    "another guide than the model's": (
        ("ar1", "concatenation"),
        f"{STAGE}.guide=product",
        f"{STAGE}.guide: expected one of audio, visual, concatenation in this model, found product",
    ),
    "lips in a model without": (
        ("standard", "audio"),
        f"{STAGE}.guide=visual",
        f"{STAGE}.guide: expected one of audio in this model, found visual",
    ),
    "a part that is not there": (
        ("standard", "concatenation"),
        f"{STAGE}.learn=['decoder','audio']",
        f"{STAGE}.learn: expected one of decoder, joint in this model, found audio",
    ),
    "a prior without numbers": (
        ("visual", "product"),
        f"{STAGE}.learn=['prior']",
        f"{STAGE}.learn: expected one of decoder, audio, visual, visual-prior in this model, found prior",
    ),
    "a learned responsibility that is closed": (
        ("mixture", "mixture"),
        f"{STAGE}.learn=['responsibility']",
        f"{STAGE}.learn: expected one of decoder, audio, visual, prior in this model, found responsibility",
    ),
    "nothing to learn": (
        ("standard", "audio"),
        f"{STAGE}.learn=[]",
        f"{STAGE}.learn: expected one of decoder, audio in this model, found nothing",
    ),
    "a vamp prior through another guide": (
        ("vamp", "product"),
        f"{STAGE}.guide=audio",
        f"{STAGE}.guide: expected the model's own, through which a vamp prior's pseudo-inputs go, found audio",
    ),
    "a visual guide on frames without lips": (
        ("standard", "visual"),
        f"{STAGE}.data=all",
        f"{STAGE}.data: expected video, because a visual guide knows nothing of a frame without lips, found all",
    ),
}


@pytest.mark.parametrize("case", STAGES)
def test_a_stage_that_cannot_be_is_refused_with_the_reason(case: str) -> None:
    kinds, override, reason = STAGES[case]
    with pytest.raises(InputError) as refusal:
        override_recipe(family_recipe(*kinds), [override])
    assert str(refusal.value) == f"--set: {reason}"


@pytest.mark.parametrize(
    ("prior", "guide"), [("standard", "product"), ("visual-mixture", "mixture"), ("ar1", "audio")]
)
def test_a_stage_may_start_with_simple_parts(prior: str, guide: str) -> None:
    """Standard or visual priors and audio or visual guides, in front of the stage with the model's own."""
    recipe = family_recipe(prior, guide)
    own = recipe.training.stages[0].model_dump(mode="json")
    first = own | {"name": "first", "prior": "standard", "guide": "audio", "learn": ["decoder", "audio"]}
    tree = recipe.model_dump(mode="json")
    tree["training"]["stages"] = [first, own]
    system = System(parse_recipe(tree, source="test"))
    model, simple = system.model("standard"), system.guide_network("audio")
    assert svi_loss(model, simple)(torch.rand(4, 17)).isfinite()
    assert system.guide_network() is system.own_guide
    assert system.prior() is system.own_prior
