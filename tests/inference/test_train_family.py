"""Training, resuming and storing systems of other kinds: coupled frames, heavy tails, pseudo-inputs, learned alphas."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_family import family_recipe
from tiny_training import utterances
from torch import Tensor

from pyro_minvae.config.load import override_recipe, parse_recipe
from pyro_minvae.config.schema import Recipe
from pyro_minvae.data.loader import frame_set
from pyro_minvae.errors import InputError
from pyro_minvae.inference.svi import trainer
from pyro_minvae.inference.svi.elbo import bound_terms
from pyro_minvae.inference.svi.trainer import EpochEvent, StepEvent, train
from pyro_minvae.pipelines.train_run import Run, Speech
from pyro_minvae.systems.checkpoint import load_model, save_model
from pyro_minvae.systems.system import System
from pyro_minvae.types import Prepared

KINDS = [
    ("ar1", "product"),
    ("random-walk", "concatenation", "context", "student-t"),
    ("vamp", "product", "lips"),
    ("visual-mixture", "mixture-of-products+amortised", "lips", "student-t"),
    ("standard", "visual", "context"),
]
COUPLED = [KINDS[0], KINDS[1], KINDS[4]]


def speech(count: int = 5) -> tuple[list[Prepared], list[Prepared]]:
    data = utterances(count)
    return data[:-2], data[-2:]


def trained(recipe: Recipe) -> tuple[System, list[EpochEvent]]:
    torch.manual_seed(0)
    system = System(recipe)
    return system, [event for event in train(system, *speech()) if isinstance(event, EpochEvent)]


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
def test_loss_falls_and_the_bound_rises(kinds: tuple[str, ...]) -> None:
    long = "training.stages.0.epochs=12"
    _, events = trained(family_recipe(*kinds, *defaults(kinds), long, "training.level_db=[0, 0]"))
    assert events[-1].loss < events[0].loss
    assert max(event.terms["total"] for event in events) > events[0].terms["total"]


def defaults(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds that were left out."""
    return ("standard", "audio", "plain", "complex-gaussian")[len(kinds) :]


@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
def test_resuming_gives_the_same_weights(kinds: tuple[str, ...]) -> None:
    recipe = family_recipe(*kinds, *defaults(kinds), "training.stages.0.epochs=3")
    whole, kept = trained(recipe)
    for event in kept[:-1]:
        torch.manual_seed(99)  # the state alone must do
        resumed = System(recipe)
        list(train(resumed, *speech(), resume=event.state))
        assert_same(whole.state_dict(), resumed.state_dict())


@pytest.mark.parametrize("kinds", COUPLED, ids="-".join)
def test_an_interrupted_folder_of_a_coupled_model_goes_on(kinds: tuple[str, ...], tmp_path: Path) -> None:
    recipe, data = family_recipe(*kinds, *defaults(kinds)), Speech(*speech())
    list(Run.open(tmp_path / "whole", recipe).events(data))
    events = Run.open(tmp_path / "cut", recipe).events(data)
    next(event for event in events if isinstance(event, EpochEvent))
    events.close()
    list(Run.open(tmp_path / "cut", recipe, resume=True).events(data))
    whole, resumed = load_model(tmp_path / "whole"), load_model(tmp_path / "cut")
    assert_same(whole.model.state_dict(), resumed.model.state_dict())
    assert_same(whole.guide.state_dict(), resumed.guide.state_dict())


@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
def test_what_is_stored_is_what_was_trained(kinds: tuple[str, ...], tmp_path: Path) -> None:
    system, _ = trained(family_recipe(*kinds, *defaults(kinds)))
    system.eval()
    save_model(tmp_path, system, {})
    stored = load_model(tmp_path)
    frames = frame_set(speech()[0], system.recipe.stft)
    assert system.lips is not None
    visual = frames.visual(system.lips)
    bounds = []
    for model, guide in ((system.model(), system.guide()), (stored.model, stored.guide)):
        torch.manual_seed(0)
        with torch.no_grad():
            bounds.append(bound_terms(model, guide, frames.power, visual).total)
    assert torch.equal(*bounds)


@pytest.mark.parametrize("kinds", COUPLED, ids="-".join)
def test_coupled_frames_come_in_stretches(kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches [B, segment, F] within the frames of `batch`; validation takes an utterance at a time, whole."""
    shapes: dict[str, list[torch.Size]] = {"loss": [], "bound": []}
    loss_of, bound = trainer.per_frame, trainer.bound_terms

    def noted(name: str, function):  # type: ignore[no-untyped-def]
        def call(*args, **rest):  # type: ignore[no-untyped-def]
            shapes[name].append(args[-2].shape)
            return function(*args, **rest)

        return call

    monkeypatch.setattr(trainer, "per_frame", lambda elbo: noted("loss", loss_of(elbo)))
    monkeypatch.setattr(trainer, "bound_terms", noted("bound", bound))
    recipe = family_recipe(*kinds, *defaults(kinds))
    fit, held_out = speech()
    events = list(train(System(recipe), fit, held_out))
    assert {shape[1:] for shape in shapes["loss"]} == {(8, 17)}
    assert max(shape[0] for shape in shapes["loss"]) == 32 // 8
    lengths = [len(span) for span in frame_set(held_out, recipe.stft).spans()]
    assert [shape[0] for shape in shapes["bound"]] == 2 * lengths
    # Losses are per frame, as those of independent frames are.
    assert all(abs(event.loss) < 300 for event in events if isinstance(event, StepEvent))


def test_stretches_longer_than_any_utterance_are_refused() -> None:
    recipe = family_recipe("ar1", "audio", "plain", "complex-gaussian", "training.segment=500")
    with pytest.raises(InputError, match=r"at least training.segment = 500 frames, found \d+$"):
        list(train(System(recipe), *speech()))


def test_pseudo_inputs_start_at_the_average_spectrum() -> None:
    """And the few numbers of a prior have a rate of their own."""
    recipe = family_recipe("vamp", "product", "plain", "complex-gaussian", "training.prior_rate=0.5")
    recipe = override_recipe(recipe, ["model.prior.count=400"])
    system = System(recipe)
    runner = trainer.StageRunner(system, 0, *speech(), "cpu")
    groups = runner._start()
    mean = runner.data.mean_log_power(system.decoder.floor)
    torch.testing.assert_close(system.own_prior.log_power.detach().mean(0), mean, atol=0.3, rtol=0)
    torch.testing.assert_close(system.decoder.output.bias.detach(), mean)
    names = recipe.training.stages[0].learn
    assert {name: group["lr"] for name, group in zip(names, groups, strict=True)} == dict.fromkeys(
        names, 0.01
    ) | {"prior": 0.5}


def test_only_the_networks_that_learn_drop_out() -> None:
    """Also where a frozen network is a part of a prior or a guide that learns."""
    tree = family_recipe("visual-mixture", "mixture", "lips").model_dump(mode="json")
    (stage,) = tree["training"]["stages"]
    tree["training"]["stages"] = [
        stage | {"name": "one", "learn": ["visual-prior", "audio"]},
        stage | {"name": "two", "learn": ["prior", "visual", "decoder"]},
    ]
    system = System(parse_recipe(tree, source="test"))
    seen = set()
    for event in train(system, *speech()):
        if isinstance(event, StepEvent):
            learned = {stage.name: stage.learn for stage in system.recipe.training.stages}[event.stage]
            networks = {name: network.training for name, network in system.networks.items()}
            assert networks == {name: name in learned for name in networks}
            assert all(
                layer.training == networks["visual-prior"] for layer in system.own_prior.network.modules()
            )
            assert system.decoder.training == ("decoder" in learned)
            seen.add(event.stage)
    assert seen == {"one", "two"}


def test_a_stage_with_a_seeing_decoder_has_lips() -> None:
    """Neither prior nor guide look at them."""
    system, _ = trained(family_recipe("standard", "audio", "lips"))
    assert system.lips is not None
    runner = trainer.StageRunner(system, 0, *speech(), "cpu")
    ((_, visual, _), *_) = runner.data.epoch(torch.Generator().manual_seed(0))
    assert visual is not None
    assert bool(visual.valid.any())


def test_heavy_tails_cost_a_loud_bin_less() -> None:
    """A click that the decoder cannot know moves the bound of a Student-t model less."""
    system, _ = trained(family_recipe("standard", "audio", "plain", "student-t"))
    plain, _ = trained(family_recipe("standard", "audio", "plain", "complex-gaussian"))
    power = frame_set(speech()[0], system.recipe.stft).power
    click = power.clone()
    click[:, 3] += 100 * power.max()
    drops = []
    for one in (system.eval(), plain.eval()):
        with torch.no_grad():
            z = one.guide().posteriors(power, None)[0].mean
            clean, loud = (one.model().log_likelihood(x, z).mean() for x in (power, click))
        drops.append(float(clean - loud))
    assert 0 < drops[0] < 0.1 * drops[1]
