"""SVI in stages on tiny utterances: the loss falls, only what shall learn moves, the best weights stay."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pytest
import torch
from tiny_training import tiny_recipe, utterances
from torch import Tensor

from pyro_minvae.config.schema import Recipe
from pyro_minvae.guides import speech
from pyro_minvae.guides.mixture import MixtureGuide
from pyro_minvae.inference.svi import trainer
from pyro_minvae.inference.svi.trainer import EpochEvent, corrupt, train
from pyro_minvae.systems.system import System

SYSTEMS = ("a-vae", "min-vae", "min-vae-visual-prior")


def run(recipe: Recipe, *, count: int = 6, system: System | None = None) -> tuple[System, list[EpochEvent]]:
    torch.manual_seed(recipe.seed)
    system = system or System(recipe)
    data = utterances(count, video=recipe.name != "a-vae")
    events = list(train(system, data[:-2], data[-2:]))
    return system, [event for event in events if isinstance(event, EpochEvent)]


def weights(system: System) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in system.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("kind", SYSTEMS)
def test_loss_falls_and_the_bound_rises_in_every_stage(kind: str) -> None:
    # At one level: a level drawn anew for each of few clips moves the loss more than an epoch does.
    overrides = [
        "training.batch=16",
        "training.level_db=[0, 0]",
        *(f"training.stages.{n}.epochs=12" for n in range(1 + 2 * (kind != "a-vae"))),
    ]
    _, events = run(tiny_recipe(kind, *overrides))
    for stage in dict.fromkeys(event.stage for event in events):
        of_stage = [event for event in events if event.stage == stage]
        assert [event.epoch for event in of_stage] == list(range(1, len(of_stage) + 1))
        assert of_stage[-1].loss < of_stage[0].loss
        assert max(e.terms["total"] for e in of_stage) > of_stage[0].terms["total"]
        assert all(math.isfinite(value) for e in of_stage for value in e.terms.values())


def test_terms_of_the_bound_are_reported() -> None:
    """ELBO = pi (R_a - K_a) + (1 - pi)(R_v - K_v) - KL(alpha), in nats per frame."""
    _, events = run(tiny_recipe("min-vae"))
    assert set(events[0].terms) == {"total", "likelihood", "kl"}
    assert events[0].terms["total"] == pytest.approx(
        events[0].terms["likelihood"] - events[0].terms["kl"], abs=1e-3
    )
    assert {"responsibility", "likelihood_visual", "kl_visual", "kl_alpha"} <= set(events[-1].terms)
    assert "state" not in events[-1].row()
    assert events[-1].row()["validation_total"] == events[-1].terms["total"]


@pytest.mark.parametrize("kind", SYSTEMS)
def test_training_is_seeded(kind: str) -> None:
    (one, events), (two, _) = run(tiny_recipe(kind)), run(tiny_recipe(kind))
    assert moved(weights(one), weights(two)) == set()
    other, other_events = run(tiny_recipe(kind, "seed=1"))
    assert moved(weights(one), weights(other)) != set()
    assert [e.loss for e in events] != [e.loss for e in other_events]


@pytest.mark.parametrize("kind", SYSTEMS[1:])
def test_only_the_parts_that_learn_move(kind: str) -> None:
    recipe = tiny_recipe(kind)
    torch.manual_seed(0)
    system, data = System(recipe), utterances(6)
    before, previous = {}, None
    prefixes = {
        "decoder": "decoder.",
        "audio": "networks.audio.",
        "visual-prior": "networks.visual-prior.",
        "prior": "own_prior.",
    }
    # The same networks by their second names, as members of the prior and the guide that are built around them.
    aliases = ("own_guide.", "own_prior.network.")
    for event in train(system, data[:-2], data[-2:]):
        stage = next(s for s in recipe.training.stages if s.name == event.stage)
        if event.stage != previous:
            before, previous = (
                weights(system),
                event.stage,
            )  # after the stage's first step: its starts are done
            continue
        allowed = tuple(prefixes[part] for part in stage.learn)
        changed = {n for n in moved(before, weights(system)) if not n.startswith(aliases)}
        assert all(name.startswith(allowed) for name in changed)
        learning = {name for name, parameter in system.named_parameters() if parameter.requires_grad}
        assert learning >= changed
        assert all(name.startswith(allowed) for name in learning)
        if isinstance(event, EpochEvent):
            for prefix in allowed:
                assert any(name.startswith(prefix) for name in changed), prefix
    # The network of the visual prior is frozen in the last stage, also where it is seen as a part of the prior.
    assert "visual-prior" not in recipe.training.stages[-1].learn


@pytest.mark.parametrize("kind", SYSTEMS[1:])
def test_the_visual_encoder_starts_as_the_visual_prior(kind: str) -> None:
    system, _ = run(tiny_recipe(kind))
    prior, encoder = system.part("visual-prior").state_dict(), system.part("visual").state_dict()
    assert all(torch.equal(prior[name], encoder[name]) for name in prior)


def test_early_stopping_restores_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is made to peak at epoch 2; after `patience` worse epochs training ends with the weights of then."""
    recipe = tiny_recipe("a-vae", "training.stages.0.epochs=9", "training.stages.0.patience=3")
    bounds, seen = iter([1.0, 5.0, 4.0, 3.0, 4.5, 9.0]), []
    monkeypatch.setattr(trainer.StageRunner, "validate", lambda self: record(self.system, bounds, seen))
    system, events = run(recipe)
    assert [event.terms["total"] for event in events] == [1.0, 5.0, 4.0, 3.0, 4.5]
    assert [event.best_bound for event in events] == [1.0, 5.0, 5.0, 5.0, 5.0]
    assert moved(seen[1], weights(system)) == set()
    assert moved(seen[1], seen[4]) != set()
    assert moved(events[-1].state.best, weights(system)) == set()
    assert [event.state.finished for event in events] == [False] * 4 + [True]


def record(system: System, bounds, seen: list[dict[str, Tensor]]) -> dict[str, float]:  # type: ignore[no-untyped-def]
    seen.append(weights(system))
    return {"total": next(bounds)}


def test_a_bound_that_is_not_finite_stops_the_run() -> None:
    data = utterances(4, video=False)
    data[-1] = data[-1]._replace(waveform=data[-1].waveform * math.nan)
    with pytest.raises(ValueError, match="finite"):
        list(train(System(tiny_recipe("a-vae")), data[:2], data[2:]))


def test_utterances_with_and_without_lips() -> None:
    """A "video" stage takes only those with lips; without any the run says so."""
    mixed = [*utterances(3), *utterances(3, video=False, seed=7)]
    recipe = tiny_recipe("min-vae")
    assert [e.stage for e in train(System(recipe), mixed, mixed) if isinstance(e, EpochEvent)][
        -1
    ] == "mixture"
    with pytest.raises(ValueError, match="expected utterances with lips"):
        list(train(System(recipe), mixed[3:], mixed[3:]))


def test_every_batch_has_its_own_noise_and_both_passes_hear_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known faults: one noise for all batches, and other frames corrupted in the responsibility pass.

    The encoders run once a step: the responsibility is that of the posteriors that z is drawn from.
    """
    passes: list[tuple[str, Any, Any]] = []
    posteriors, best, pick = MixtureGuide.posteriors, speech.best_responsibility, speech.pick

    def heard(self: MixtureGuide, power: Tensor, visual: Any, encoder_input: Any = None) -> Any:
        if encoder_input is not None and torch.is_grad_enabled():
            passes.append(("encoders", power, encoder_input))
        return posteriors(self, power, visual, encoder_input)

    def weighed(model: Any, of: Any, *rest: Any) -> Tensor:
        passes.append(("q", of, None))
        return best(model, of, *rest)

    def drawn(alpha: Tensor, *of: Any) -> Any:
        passes.append(("z", of, None))
        return pick(alpha, *of)

    monkeypatch.setattr(MixtureGuide, "posteriors", heard)
    monkeypatch.setattr(speech, "best_responsibility", weighed)
    monkeypatch.setattr(speech, "pick", drawn)
    data = utterances(6)
    list(train(System(tiny_recipe("min-vae", "training.batch=16")), data[:-2], data[-2:]))
    noises, clean = [], []
    for first, second, third in zip(passes[::3], passes[1::3], passes[2::3], strict=True):
        assert (first[0], second[0], third[0]) == ("encoders", "q", "z")
        assert second[1] == third[1]
        noises.append(first[2] - first[1])
        clean.append(float(first[1].sum()))
    assert len(noises) > 10
    # Every epoch has its own order and levels too.
    assert len(set(clean)) == len(clean)
    assert len({float(noise.sum()) for noise in noises}) == len(noises)
    hit = torch.stack([(noise > 1).any(-1) for noise in noises if len(noise) == 16]).double()
    assert 0.4 < float(hit.mean()) < 0.6
    assert bool((hit.std(0) > 0).all())  # not the same places of the batch each time


def test_corruption_is_of_the_power_and_of_a_share_of_the_frames() -> None:
    """Uniform noise 50 U[0, 1] on the power of a random share; nothing at share 0, the clean frames untouched."""
    torch.manual_seed(0)
    power = torch.rand(4000, 3)
    assert corrupt(power, 0.0) is None
    encoder_input = corrupt(power, 0.25)
    assert encoder_input is not None
    hit = (encoder_input != power).any(-1)
    assert abs(float(hit.double().mean()) - 0.25) < 4.5 * math.sqrt(0.25 * 0.75 / 4000)
    added = (encoder_input - power)[hit]
    assert 0 <= float(added.min()) <= float(added.max()) <= 50
    assert abs(float(added.mean()) - 25) < 4.5 * 50 / math.sqrt(12 * added.numel())


def test_training_leaves_the_parameter_store_of_the_caller_alone() -> None:
    pyro.clear_param_store()
    mine = pyro.param("mine", torch.ones(2))
    theirs = pyro.param("speech_model$$$decoder.output.bias", torch.zeros(3))
    run(tiny_recipe("a-vae"))
    store = pyro.get_param_store()
    assert dict(store.items()).keys() == {"mine", "speech_model$$$decoder.output.bias"}
    assert store["mine"] is mine
    assert store["speech_model$$$decoder.output.bias"] is theirs
    pyro.clear_param_store()


def test_weight_decay_keeps_the_weights_small() -> None:
    (free, _), (held, _) = run(tiny_recipe("a-vae")), run(tiny_recipe("a-vae", "training.weight_decay=10"))
    size = [sum(float(p.square().sum().detach()) for p in s.parameters()) for s in (free, held)]
    assert size[1] < size[0]
