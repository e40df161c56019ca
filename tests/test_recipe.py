"""Recipes whose keys are all valid but do not go together are refused before anything runs."""

from __future__ import annotations

import re

import pytest
from tiny_training import tiny_recipe

from pyro_minvae.config import components, noise, schema
from pyro_minvae.config.load import load_recipe, override_recipe, recipe_names
from pyro_minvae.errors import InputError

STAGE = "training.stages"
MISFITS = {
    "inference.keep=99": "inference.keep: expected at most inference.steps",
    'noise={kind="nmf",start="published",quiet=0.2}': "noise.start: expected loud with noise.quiet",
    "inference.mean_field=published": "inference.mean_field: expected noise.kind nmf",
    "inference.gain_prior=[99, 0]": "inference.gain_prior: expected a shape below",
    "training.level_db=[0, -20]": "training.level_db: expected the lower level first, found 0 and -20",
    "stft.window=33": "expected an even window",
    "stft.hop=40": "no shorter than the hop",
    f"{STAGE}=[]": "expected at least one",
    f"{STAGE}.0.learn=[]": "training.stages.0.learn: expected one of decoder, audio",
    f"{STAGE}.0.guide=mixture": "training.stages.0.guide: expected a mixture prior and a mixture guide",
    f"{STAGE}.2.prior=standard": "training.stages.2.guide: expected a mixture prior and a mixture guide",
    f"{STAGE}.2.prior=visual-mixture": "training.stages.2.prior: expected one of standard, visual, mixture",
    f"{STAGE}.2.warm_start={{visual='audio'}}": "warm_start: expected visual and visual-prior",
    f"{STAGE}.2.warm_start.visual=nowhere": "warm_start: expected visual and visual-prior",
}
WITHOUT_LIPS = {
    f"{STAGE}.0.learn=['visual']": "expected one of decoder, audio in this model, found visual",
    f"{STAGE}.0.learn=['prior']": "expected one of decoder, audio in this model, found prior",
    f"{STAGE}.0.prior=visual": "expected one of standard in this model, found visual",
    f"{STAGE}.0.guide=mixture": "expected one of audio in this model, found mixture",
    f"{STAGE}.0.warm_start={{visual='visual-prior'}}": "expected visual and visual-prior of this model, "
    "found no visual and no visual-prior",
}


INVALID = {
    "model.prior.foo=1": "unknown key model.prior.foo",
    "guide.visual.foo=1": "unknown key guide.visual.foo",
    "model.prior.kind=foo": "model.prior.kind: expected one of standard, mixture, visual, visual-mixture, "
    "vamp, ar1, random-walk, import, found foo",
    "guide={}": "guide.kind: expected one of audio, visual, concatenation, mixed-speech, product, mixture, "
    "mixture-of-products, import, found none",
    "noise={kind='ard', shape=2}": "noise.shape: input should be greater than 2",
    "model.prior={kind='import', target='Prior'}": "[A-Za-z_]\\w*$', found 'Prior'",
    "crops.face=middle": "crops.face: input should be",
    "seed=-1": "seed: input should be greater than or equal to 0",
    "seed=2147483648": "seed: input should be less than or equal to 2147483647",
    "training.clip_norm=inf": "training.clip_norm: input should be a finite number",
    "training.level_db=[-inf, 0]": "training.level_db.0: input should be a finite number",
    "guide.visual.dropout=nan": "guide.visual.dropout: input should be a finite number",
    "guide.visual.hidden=[]": "guide.visual.hidden: tuple should have at least 1 item",
    "guide.audio.hidden=[8, 0]": "guide.audio.hidden.1: input should be greater than or equal to 1",
    "model.decoder.hidden=[]": "model.decoder.hidden: tuple should have at least 1 item",
    "model.prior={kind='visual', hidden=[]}": "model.prior.hidden: tuple should have at least 1 item",
    "model.prior={kind='visual-mixture', hidden=[0]}": "model.prior.hidden.0: input should be greater",
}


@pytest.mark.parametrize("override", INVALID)
def test_wrong_keys_and_values_are_refused_by_their_dotted_key(override: str) -> None:
    with pytest.raises(InputError) as refusal:
        override_recipe(tiny_recipe("min-vae"), [override])
    assert INVALID[override] in str(refusal.value)
    assert "\n" not in str(refusal.value)


def sections(base: type[schema.Section] = schema.Section) -> list[type[schema.Section]]:
    below = base.__subclasses__()
    return below + [section for part in below for section in sections(part)]


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.__name__)
def test_every_key_is_explained_where_it_stands(section: type[schema.Section]) -> None:
    docs = " ".join(base.__doc__ or "" for base in section.__mro__ if issubclass(base, schema.Section))
    words = set(re.findall(r"`(\w+)`", docs))
    assert set(section.model_fields) - {"kind"} - words == set()


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_fit(name: str) -> None:
    assert load_recipe(name).name == name


@pytest.mark.parametrize("override", MISFITS)
def test_settings_that_clash_are_refused(override: str) -> None:
    with pytest.raises(InputError) as refusal:
        override_recipe(tiny_recipe("min-vae"), [override])
    assert MISFITS[override] in str(refusal.value)


@pytest.mark.parametrize(
    ("override", "found"),
    {
        f"{STAGE}.0.prior=foo": "standard, visual, mixture",
        f"{STAGE}.1.guide=product": "audio, visual, mixture",
    }.items(),
)
def test_an_unknown_kind_in_a_stage_that_lists_no_parts_is_refused(override: str, found: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(InputError, match=f"{key}: expected one of {found} in this model, found {value}$"):
        load_recipe("min-vae", [override])


def test_blocks_are_longer_than_both_overlaps_in_whole_hops() -> None:
    """4.1 hops are more than twice 1.5, but 4 are not more than twice 2."""
    hop = 16 / 1000
    settings = [f"inference.block_s={4.1 * hop}", f"inference.overlap_s={1.5 * hop}"]
    with pytest.raises(InputError, match=r"inference\.block_s: expected more than twice"):
        override_recipe(tiny_recipe("a-vae"), settings)
    settings[0] = f"inference.block_s={5 * hop}"
    assert override_recipe(tiny_recipe("a-vae"), settings).stft.hops(5 * hop) == 5


@pytest.mark.parametrize("backwards", [False, True])
def test_what_is_set_beside_another_kind_stays_in_any_order(backwards: bool) -> None:
    settings = ["noise.kind=nmf", "noise.rank=3", "model.prior.kind=ar1", "model.prior.coefficient=0.5"]
    recipe = load_recipe("a-vae", settings[::-1] if backwards else settings)
    assert recipe.noise == noise.NmfConfig(rank=3)
    assert recipe.model.prior == components.Ar1PriorConfig(coefficient=0.5)


@pytest.mark.parametrize("override", WITHOUT_LIPS)
def test_parts_that_the_model_lacks_are_refused(override: str) -> None:
    with pytest.raises(InputError) as refusal:
        override_recipe(tiny_recipe("a-vae"), [override])
    assert WITHOUT_LIPS[override] in str(refusal.value)


def test_a_warm_start_needs_equal_layers() -> None:
    recipe = tiny_recipe("min-vae-visual-prior")
    for override in ("model.prior.hidden=[7]", "guide.visual.dropout=0"):
        with pytest.raises(InputError, match="of the same layers"):
            override_recipe(recipe, [override])
