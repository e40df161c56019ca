"""A training run on disk: its data, its state after every epoch, its log and its weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pyro_minvae.checkpoint import CONFIG, RunState, load_state, save_model, save_state
from pyro_minvae.config import Recipe
from pyro_minvae.data.cache import default_cache, prepare
from pyro_minvae.data.corpus import open_corpus
from pyro_minvae.data.split import hold_out
from pyro_minvae.errors import InputError
from pyro_minvae.inference.training import EpochEvent, StepEvent, train
from pyro_minvae.system import System, needs_video
from pyro_minvae.types import Prepared

STATE, LOG = "state.pt", "log.jsonl"


class Speech(NamedTuple):
    """Prepared training utterances: those to fit, and those held out of them for the validation bound."""

    fit: list[Prepared]
    held_out: list[Prepared]


def gather(
    data: Sequence[str],
    recipe: Recipe,
    *,
    cache: Path | None = None,
    workers: int = 2,
    skip_bad: bool = False,
    advance: Callable[[int, int], None] | None = None,
) -> tuple[Speech, list[str]]:
    """Prepare the training split of every folder; the second value names the broken files that were skipped.

    A share of each folder's training utterances is held out for early stopping, so that the folders' own validation
    and test splits stay unseen.

    Raises:
        InputError: for a folder without training utterances, or a broken file unless `skip_bad`.
    """
    speech, skipped, done = Speech([], []), [], 0
    corpora = []
    for path in data:
        corpus = [u for u in open_corpus(path) if u.split == "train"]
        if not corpus:
            raise InputError(f"{path}: expected utterances to train on, found none in the training split")
        corpora.append(corpus)
    total = sum(len(corpus) for corpus in corpora)

    def count(_: str) -> None:
        nonlocal done
        done += 1
        if advance is not None:
            advance(done, total)

    for path, corpus in zip(data, corpora, strict=True):
        prepared, bad = prepare(
            corpus,
            stft=recipe.stft,
            crops=recipe.crops,
            cache=cache or default_cache(),
            workers=workers,
            skip_bad=skip_bad,
            advance=count,
            with_video=needs_video(recipe),
        )
        if len(prepared) < 2:
            raise InputError(f"{path}: expected at least 2 usable utterances, found {len(prepared)}")
        fit, held_out = hold_out(prepared, recipe.training.validation_share, recipe.seed)
        speech.fit.extend(fit)
        speech.held_out.extend(held_out)
        skipped += bad
    return speech, skipped


class Run:
    """A folder that training writes to; `events` is the loop."""

    def __init__(self, folder: Path, recipe: Recipe, state: RunState | None, tensorboard: bool) -> None:
        self.folder, self.recipe, self.state = folder, recipe, state
        self.best_bound = float("nan") if state is None else state.best_bound
        self.writer = _writer(folder) if tensorboard else None

    @classmethod
    def open(cls, folder: Path, recipe: Recipe, *, resume: bool = False, tensorboard: bool = False) -> Run:
        """Start a run in a folder that holds none yet, or resume the one that is there.

        Raises:
            InputError: if the folder holds another run (without `resume`), no run or one of another recipe (with
                it), or cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: expected a folder for the run, found: {error.strerror}") from None
        state = None
        if resume:
            state = load_state(folder / STATE)
            if state.recipe != recipe.model_dump(mode="json"):
                raise InputError(f"{folder / STATE}: expected a run of this recipe and seed, found another")
        elif (folder / STATE).exists() or (folder / CONFIG).exists():
            raise InputError(f"{folder}: expected a new folder, found a run (go on with --resume)")
        return cls(folder, recipe, state, tensorboard)

    def events(self, speech: Speech, device: str = "cpu") -> Iterator[StepEvent | EpochEvent]:
        """Train; after each epoch the state, the weights and the log are on disk before its event is passed on."""
        torch.manual_seed(self.recipe.seed)
        system = System(self.recipe)
        try:
            for event in train(system, speech.fit, speech.held_out, device=device, resume=self.state):
                if isinstance(event, EpochEvent):
                    self._store(system, event)
                yield event
        except ValueError as error:
            # Pyro explains bad parameters of distributions (a diverged run) on many lines.
            raise InputError(f"{self.folder}: {str(error).splitlines()[0]}") from None
        finally:
            if self.writer is not None:
                self.writer.close()

    def _store(self, system: System, event: EpochEvent) -> None:
        """Everything that outlives a crash: the state to resume from, usable weights (the stage's best), the log."""
        self.best_bound = event.best_bound
        save_state(self.folder / STATE, event.state)
        best = System(self.recipe)
        best.load_state_dict(event.state.best)
        stages = [stage.name for stage in self.recipe.training.stages]
        training = {
            "finished": event.state.finished,
            "stage": event.stage,
            "stages": stages,
            "epoch": event.epoch,
            "validation_bound": event.best_bound,
        }
        save_model(self.folder, best, training)
        self._log(event)

    def _log(self, event: EpochEvent) -> None:
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(event.row()) + "\n")
        if self.writer is not None:
            for name, value in event.terms.items():
                self.writer.add_scalar(f"{event.stage}/{name}", value, event.epoch)


def _writer(folder: Path) -> Any:
    """A TensorBoard writer, if that extra is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard: expected the extra 'tensorboard', found it not installed") from None
    return SummaryWriter(str(folder))
