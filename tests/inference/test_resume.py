"""A resumed run gives the very weights of the uninterrupted one, wherever it was cut; a cut run is usable."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_training import tiny_recipe, utterances
from torch import Tensor

import pyro_minvae.pipelines.train_run
from pyro_minvae.config.schema import Recipe
from pyro_minvae.errors import InputError
from pyro_minvae.inference.svi.trainer import EpochEvent, StepEvent, train
from pyro_minvae.pipelines.train_run import LOG, STATE, Run, Speech
from pyro_minvae.systems.checkpoint import load_model, load_state
from pyro_minvae.systems.system import System

SYSTEMS = ("a-vae", "min-vae", "min-vae-visual-prior")


def speech(recipe: Recipe) -> Speech:
    data = utterances(5, video=recipe.name != "a-vae")
    return Speech(data[:-2], data[-2:])


def epochs(events: Iterator[StepEvent | EpochEvent]) -> Iterator[EpochEvent]:
    return (event for event in events if isinstance(event, EpochEvent))


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("kind", SYSTEMS)
def test_resuming_after_any_epoch_gives_the_same_weights(kind: str) -> None:
    """States held in memory, kept while training goes on, as well as those read from disk below."""
    recipe = tiny_recipe(kind)
    data = speech(recipe)
    torch.manual_seed(0)
    whole = System(recipe)
    kept = list(epochs(train(whole, *data)))
    borders = [a.state.stage != b.state.stage for a, b in itertools.pairwise(kept)]
    assert sum(borders) == len(recipe.training.stages) - 1
    for index, event in enumerate(kept):
        torch.manual_seed(1234 + index)  # the state alone must do
        resumed = System(recipe)
        rest = list(epochs(train(resumed, *data, resume=event.state)))
        assert_same(whole.state_dict(), resumed.state_dict())
        assert [e.row() | {"seconds": 0} for e in rest] == [
            e.row() | {"seconds": 0} for e in kept[index + 1 :]
        ]


def test_resuming_keeps_the_patience_and_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe("a-vae", "training.stages.0.epochs=8", "training.stages.0.patience=3")
    data = speech(recipe)
    bounds = [1.0, 5.0, 4.0, 3.0, 4.5]

    def scripted(values: list[float]) -> None:
        left = iter(values)
        target = "pyro_minvae.inference.svi.trainer.StageRunner.validate"
        monkeypatch.setattr(target, lambda self: {"total": next(left)})

    scripted(bounds)
    whole = System(recipe)
    kept = list(epochs(train(whole, *data)))
    assert len(kept) == 5
    for index, event in enumerate(kept):
        scripted(bounds[index + 1 :])
        resumed = System(recipe)
        assert len(list(epochs(train(resumed, *data, resume=event.state)))) == 4 - index
        assert_same(whole.state_dict(), resumed.state_dict())


@pytest.mark.parametrize("kind", SYSTEMS)
def test_an_interrupted_folder_goes_on_to_the_same_weights(kind: str, tmp_path: Path) -> None:
    """Ctrl-C after an epoch (in the first stage and at the end of a stage) leaves a folder to use and to resume."""
    recipe = tiny_recipe(kind)
    data = speech(recipe)
    total = len(list(epochs(Run.open(tmp_path / "whole", recipe).events(data))))
    for cut in (2, 3):
        folder = tmp_path / str(cut)
        interrupt(Run.open(folder, recipe).events(data), cut)
        usable = load_model(folder)
        assert usable.recipe == recipe
        assert usable.training["epoch"] in (2, 3)
        assert usable.training["finished"] is (cut == total)
        list(Run.open(folder, recipe, resume=True).events(data))
        whole, resumed = load_model(tmp_path / "whole"), load_model(folder)
        assert_same(whole.model.state_dict(), resumed.model.state_dict())
        assert_same(whole.guide.state_dict(), resumed.guide.state_dict())
        assert resumed.training == whole.training
        rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
        assert [(row["stage"], row["epoch"]) for row in rows] == [
            (row["stage"], row["epoch"])
            for row in map(json.loads, (tmp_path / "whole" / LOG).read_text().splitlines())
        ]
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("missing", ["save_model", "_write_log", "save_state"])
def test_a_crash_while_an_epoch_is_stored_loses_and_doubles_nothing(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the third epoch's files are cut off, the resumed run ends with the files of the whole one."""
    recipe = tiny_recipe("min-vae")
    data = speech(recipe)
    list(Run.open(tmp_path / "whole", recipe).events(data))
    events = epochs(Run.open(tmp_path / "cut", recipe).events(data))
    next(events), next(events)

    def crash(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Run if missing == "_write_log" else pyro_minvae.pipelines.train_run, missing, crash)
        with pytest.raises(MemoryError):
            next(events)
    assert load_state(tmp_path / "cut" / STATE).epoch == 2
    list(Run.open(tmp_path / "cut", recipe, resume=True).events(data))
    rows = [
        [json.loads(line) | {"seconds": 0} for line in (tmp_path / name / LOG).read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    assert rows[0] == rows[1]
    whole, resumed = load_model(tmp_path / "whole"), load_model(tmp_path / "cut")
    assert_same(whole.model.state_dict(), resumed.model.state_dict())
    assert resumed.training == whole.training


def interrupt(events: Iterator[StepEvent | EpochEvent], epoch: int) -> None:
    """Consume the events until Ctrl-C, in the middle of the step after that epoch."""

    def consume() -> None:
        seen = 0
        for event in events:
            if seen == epoch:
                raise KeyboardInterrupt
            seen += isinstance(event, EpochEvent)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()


def test_the_stored_model_is_the_best_so_far(tmp_path: Path) -> None:
    recipe = tiny_recipe("a-vae")
    events = list(epochs(Run.open(tmp_path, recipe).events(speech(recipe))))
    best = load_state(tmp_path / STATE).best
    assert_same(best, events[-1].state.best)
    trained = load_model(tmp_path)
    assert torch.equal(trained.model.decoder.output.bias, best["decoder.output.bias"])
    assert not trained.model.training
    assert not any(parameter.requires_grad for parameter in trained.model.parameters())
    assert trained.training["validation_bound"] == max(event.terms["total"] for event in events)


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    recipe = tiny_recipe("a-vae")
    list(Run.open(tmp_path, recipe).events(speech(recipe)))
    before = (tmp_path / LOG).read_text()
    assert list(Run.open(tmp_path, recipe, resume=True).events(speech(recipe))) == []
    assert (tmp_path / LOG).read_text() == before


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    recipe = tiny_recipe("a-vae")
    run = Run.open(tmp_path / "run", recipe)
    next(epochs(run.events(speech(recipe))))
    with pytest.raises(InputError, match="found a run"):
        Run.open(tmp_path / "run", recipe)
    with pytest.raises(InputError, match="expected a run of this recipe and seed, found another"):
        Run.open(tmp_path / "run", tiny_recipe("a-vae", "seed=3"), resume=True)
    with pytest.raises(InputError, match="expected the state of an earlier run, found no file"):
        Run.open(tmp_path / "empty", recipe, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder for the run"):
        Run.open(tmp_path / "file", recipe)
    for log, complaint in {
        "no JSON\n": "expected one JSON object a line",
        "[1]\n": "expected the log of this run",
    }.items():
        (tmp_path / "run" / LOG).write_text(log)
        with pytest.raises(InputError, match=complaint):
            next(Run.open(tmp_path / "run", recipe, resume=True).events(speech(recipe)))
    (tmp_path / "run" / STATE).write_bytes((tmp_path / "run" / STATE).read_bytes()[:500])
    with pytest.raises(InputError, match="expected the state of a run"):
        Run.open(tmp_path / "run", recipe, resume=True)


def test_faults_of_the_data_are_errors_of_the_user(tmp_path: Path) -> None:
    recipe = tiny_recipe("min-vae")
    deaf = [item._replace(lips=None) for item in utterances(4)]
    with pytest.raises(InputError, match="expected utterances with lips"):
        list(Run.open(tmp_path, recipe).events(Speech(deaf[:2], deaf[2:])))
    still = [item._replace(waveform=0 * item.waveform) for item in utterances(4)]
    with pytest.raises(InputError, match="expected utterances that are not silent"):
        list(Run.open(tmp_path, recipe).events(Speech(still[:2], still[2:])))
    hungry = tiny_recipe("min-vae", "lips.components=60")
    with pytest.raises(InputError, match="expected more than 60 lip crops"):
        list(Run.open(tmp_path, hungry).events(speech(recipe)))


def test_faults_of_the_program_keep_their_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(self: object) -> None:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr("pyro_minvae.inference.svi.trainer.StageRunner.validate", fault)
    recipe = tiny_recipe("a-vae")
    with pytest.raises(ValueError, match="a mistake of ours") as failure:
        list(Run.open(tmp_path, recipe).events(speech(recipe)))
    assert not isinstance(failure.value, InputError)


def test_only_a_folder_with_nothing_in_it_is_taken_away(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", tiny_recipe("a-vae"))
    assert (tmp_path / "run").is_dir()
    run.close()
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("")
    Run.open(tmp_path / "mine", tiny_recipe("a-vae")).close()
    assert (tmp_path / "mine" / "note").exists()


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_training_runs_on_every_device_there_is(device: str, tmp_path: Path) -> None:
    recipe = tiny_recipe("min-vae-visual-prior")
    list(Run.open(tmp_path, recipe).events(speech(recipe), device))
    assert load_model(tmp_path, device).training["finished"]


@pytest.mark.parametrize(("kind", "rate"), [("a-vae", 1e20), ("min-vae", 1e4), ("min-vae", 1e20)])
def test_a_run_that_diverges_says_so_in_one_line(kind: str, rate: float, tmp_path: Path) -> None:
    recipe = tiny_recipe(kind)
    rates = [f"training.stages.{n}.learning_rate={rate}" for n in range(len(recipe.training.stages))]
    run = Run.open(tmp_path, tiny_recipe(kind, *rates, f"training.prior_rate={rate}"))
    with pytest.raises(InputError) as refusal:
        list(run.events(speech(recipe)))
    assert "\n" not in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)
