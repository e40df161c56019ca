"""A training run on disk: its data, its state after every epoch, its log and its weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pyro_minvae.config.schema import Recipe
from pyro_minvae.data.cache import default_cache, prepare
from pyro_minvae.data.corpus import listed, open_corpus
from pyro_minvae.data.split import hold_out
from pyro_minvae.errors import InputError
from pyro_minvae.inference.svi.batches import TrainingError
from pyro_minvae.inference.svi.state import RunState
from pyro_minvae.inference.svi.trainer import EpochEvent, StepEvent, train
from pyro_minvae.media.files import atomic, check_writable, make_folder
from pyro_minvae.systems.checkpoint import CONFIG, load_state, save_model, save_state, start_from
from pyro_minvae.systems.system import System, needs_video
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
    ids: Path | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> tuple[Speech, list[str]]:
    """Prepare the training split of every folder; the second value names the broken files that were skipped.

    A share of each folder's training utterances is held out for early stopping, so that the folders' own validation
    and test splits stay unseen.

    `ids` is a file of the only ids to take, from whichever folder.

    Raises:
        InputError: for a folder without training utterances, an id that none has, or a broken file unless `skip_bad`.
    """
    speech, skipped, done = Speech([], []), [], 0
    corpora = []
    for path in data:
        corpus = [u for u in open_corpus(path) if u.split == "train"]
        if not corpus:
            raise InputError(f"{path}: expected utterances to train on, found none in the training split")
        corpora.append(corpus)
    if ids is not None:
        every = [utterance for corpus in corpora for utterance in corpus]
        chosen = {u.audio for u in listed(every, ids, source=f"the training split of {' and '.join(data)}")}
        corpora = [[u for u in corpus if u.audio in chosen] for corpus in corpora]
        if not all(corpora):
            empty = data[[bool(corpus) for corpus in corpora].index(False)]
            raise InputError(f"{ids}: expected ids of {empty} among them, found none")
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

    def __init__(
        self, folder: Path, recipe: Recipe, state: RunState | None, tensorboard: bool, init: str | None = None
    ) -> None:
        self.folder, self.recipe, self.state, self.init = folder, recipe, state, init
        self.best_bound = float("nan") if state is None else state.best_bound
        self.summary = _summary_writer() if tensorboard else None

    @classmethod
    def open(
        cls,
        folder: Path,
        recipe: Recipe,
        *,
        resume: bool = False,
        tensorboard: bool = False,
        init: str | None = None,
    ) -> Run:
        """Start a run in a folder that holds none yet, or resume the one that is there.

        A new run starts from the weights of the model `init` (a bundled name or a folder), if it is given.

        Raises:
            InputError: if the folder holds another run (without `resume`), no run or one of another recipe (with
                it), or cannot be made or written to, or if the networks of `init` are not those of the recipe.
        """
        state = None
        if resume:
            state = load_state(folder / STATE)
            if state.recipe != recipe.model_dump(mode="json"):
                raise InputError(f"{folder / STATE}: expected a run of this recipe and seed, found another")
        elif (folder / STATE).exists():
            raise InputError(f"{folder}: expected a new folder, found a run (go on with --resume)")
        elif (folder / CONFIG).exists():
            raise InputError(f"{folder}: expected a new folder, found a model")
        # Imported parts may be refused: better before the data is prepared than after.
        system = System(recipe)
        if init is not None:
            start_from(system, init)
        run = cls(folder, recipe, state, tensorboard, init)
        check_writable(make_folder(folder, "a folder for the run") / STATE)
        return run

    def close(self) -> None:
        """Leave no empty folder behind, if the run has nothing to show."""
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def events(self, speech: Speech, device: str = "cpu") -> Iterator[StepEvent | EpochEvent]:
        """Train; after each epoch the weights, the log and the state are on disk before its event is passed on.

        Raises:
            InputError: for data that a stage cannot use, or a run that diverges.
        """
        torch.manual_seed(self.recipe.seed)
        system = System(self.recipe)
        if self.init is not None:
            start_from(system, self.init)
        fresh = self.init is None
        writer = None if self.summary is None else self.summary(str(self.folder))
        if self.state is not None:
            self._forget_after(self.state)
        try:
            for event in train(
                system, speech.fit, speech.held_out, device=device, resume=self.state, fresh=fresh
            ):
                if isinstance(event, EpochEvent):
                    self._store(event)
                    if writer is not None:
                        for name, value in event.terms.items():
                            writer.add_scalar(f"{event.stage}/{name}", value, event.epoch)
                yield event
        except TrainingError as error:
            raise InputError(f"{self.folder}: {error}") from None
        finally:
            if writer is not None:
                writer.close()

    def _store(self, event: EpochEvent) -> None:
        """Everything that outlives a crash: usable weights (the stage's best), the log, the state to resume from.

        The state comes last: a run that is cut in between does this epoch again, and gets the same.
        """
        self.best_bound = event.best_bound
        best = System(self.recipe)
        best.load_state_dict(event.state.best)
        training = {
            "finished": event.state.finished,
            "stage": event.stage,
            "stages": [stage.name for stage in self.recipe.training.stages],
            "epoch": event.epoch,
            "validation_bound": event.best_bound,
        }
        save_model(self.folder, best, training)
        self._write_log([*self._log(), event.row()])
        save_state(self.folder / STATE, event.state)

    def _forget_after(self, state: RunState) -> None:
        """Drop the log's rows of epochs that the state does not know: they are run again."""
        order = {stage.name: number for number, stage in enumerate(self.recipe.training.stages)}
        rows = self._log()
        try:
            known = [row for row in rows if (order[row["stage"]], row["epoch"]) <= (state.stage, state.epoch)]
        except (KeyError, TypeError):
            raise InputError(f"{self.folder / LOG}: expected the log of this run, found another") from None
        if known != rows:
            self._write_log(known)

    def _log(self) -> list[dict[str, Any]]:
        path = self.folder / LOG
        if not path.exists():
            return []
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except ValueError:
            raise InputError(f"{path}: expected one JSON object a line, found something else") from None

    def _write_log(self, rows: list[dict[str, Any]]) -> None:
        with atomic(self.folder / LOG) as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _summary_writer() -> Any:
    """TensorBoard's writer, if that extra is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard: expected the extra 'tensorboard', found it not installed") from None
    return SummaryWriter
