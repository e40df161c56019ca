"""Stochastic variational inference in stages: Pyro's ELBO, torch's Adam, early stopping on the validation bound."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pyro
import torch
from pyro.infer import SVI
from pyro.optim import PyroOptim
from torch import Tensor

from pyro_minvae.config.schema import Recipe, Stage
from pyro_minvae.guides.speech import SpeechGuide
from pyro_minvae.inference.svi.batches import StageData, TrainingError
from pyro_minvae.inference.svi.elbo import bound_terms, elbo_of
from pyro_minvae.inference.svi.optimiser import GradientError, GroupedAdam
from pyro_minvae.inference.svi.state import RunState
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Prepared, Visual

if TYPE_CHECKING:
    from pyro_minvae.systems.system import System

# The published corruption of the audio encoder's input: uniform noise on the power (max|x| = 1), half of the frames.
CORRUPTION = 50.0


class StepEvent(NamedTuple):
    """Progress within an epoch: `loss` is minus the bound in nats per frame."""

    stage: str
    epoch: int
    step: int
    steps: int
    loss: float


class EpochEvent(NamedTuple):
    """The end of an epoch: the validation bound's `terms` (nats per frame), and the `state` to store."""

    stage: str
    epoch: int
    loss: float
    terms: dict[str, float]
    best_bound: float
    seconds: float
    state: RunState

    def row(self) -> dict[str, object]:
        """What the log keeps of it."""
        row = {k: v for k, v in self._asdict().items() if k not in ("state", "terms")}
        return {**row, **{f"validation_{k}": v for k, v in self.terms.items()}}


def train(
    system: System,
    fit: Sequence[Prepared],
    held_out: Sequence[Prepared],
    *,
    device: str | torch.device = "cpu",
    resume: RunState | None = None,
    fresh: bool = True,
) -> Iterator[StepEvent | EpochEvent]:
    """Train the stages of `system.recipe` one after the other on `fit`, each until `held_out` says stop.

    The system is trained in place and holds the best weights of the last stage at the end. A resumed run gives what
    the uninterrupted run would have given. A system that is not `fresh` keeps what it has learnt before: its lip
    projection and the level of its decoder are not fitted anew.

    Raises:
        TrainingError: if a stage needs lips and no utterance has any (or too few to fit), if there is only silence,
            or if the bound or its gradients are not finite.
    """
    recipe = system.recipe
    system.to(device)
    if resume is None:
        torch.manual_seed(recipe.seed)
        if fresh:
            _fit_lips(system, fit)
    else:
        system.load_state_dict(resume.weights)
        if resume.finished:
            return
    first = 0 if resume is None else resume.stage
    for number in range(first, len(recipe.training.stages)):
        runner = StageRunner(system, number, fit, held_out, device, fresh=fresh)
        yield from runner.run(resume if resume is not None and number == first else None)


def _fit_lips(system: System, fit: Sequence[Prepared]) -> None:
    """Fit the lip projection on the training clips."""
    if system.lips is None:
        return
    tracks = [u.lips for u in fit if u.lips is not None and u.lips.valid.any()]
    if not tracks:
        raise TrainingError("expected utterances with lips to train on, found none")
    try:
        system.lips.fit(tracks)
    except ValueError as error:
        raise TrainingError(str(error)) from None


class StageRunner:
    """One stage of training: its model and guide, its data, its epochs."""

    def __init__(
        self,
        system: System,
        number: int,
        fit: Sequence[Prepared],
        held_out: Sequence[Prepared],
        device: str | torch.device,
        *,
        fresh: bool = True,
    ) -> None:
        self.system, self.number, self.fresh = system, number, fresh
        self.recipe: Recipe = system.recipe
        self.stage: Stage = self.recipe.training.stages[number]
        self.learned = system.learned(self.stage)
        self.model: SpeechModel = system.model(self.stage.prior)
        self.guide: SpeechGuide = system.guide(self.stage.guide, self.stage.prior)
        self.device = device
        sees = self.model.visual or self.guide.visual
        self.data = StageData(
            self.recipe,
            self.stage,
            fit,
            held_out,
            lips=system.lips if sees else None,
            coupled=self.model.coupled or self.guide.reach > 0,
            device=device,
        )

    def run(self, resume: RunState | None) -> Iterator[StepEvent | EpochEvent]:
        """The stage's epochs after `resume`, ending with its best weights in the system."""
        system, stage = self.system, self.stage
        groups = self._start() if resume is None else self._learning()
        training = self.recipe.training
        optimiser = GroupedAdam(groups, clip_norm=training.clip_norm, weight_decay=training.weight_decay)
        best, best_bound, waited, done = copy.deepcopy(system.state_dict()), -math.inf, 0, 0
        if resume is not None:
            optimiser.set_state(copy.deepcopy(resume.optimiser))
            best, best_bound, waited, done = resume.best, resume.best_bound, resume.waited, resume.epoch
        for epoch in range(done + 1, stage.epochs + 1):
            if waited >= stage.patience:
                break
            start = time.perf_counter()
            loss = yield from self._epoch(epoch, optimiser)
            terms = self.validate()
            waited += 1
            if terms["total"] > best_bound:
                best, best_bound, waited = copy.deepcopy(system.state_dict()), terms["total"], 0
            over = epoch == stage.epochs or waited >= stage.patience
            if over:
                system.load_state_dict(best)
            last = self.number == len(self.recipe.training.stages) - 1
            state = RunState(
                self.recipe.model_dump(mode="json"),
                self.number,
                epoch,
                _copy(system.state_dict()),
                _copy(best),
                best_bound,
                waited,
                # A copy: the optimiser goes on to change its own tensors.
                copy.deepcopy(optimiser.get_state()),
                over and last,
            )
            yield EpochEvent(stage.name, epoch, loss, terms, best_bound, time.perf_counter() - start, state)
        system.load_state_dict(best)

    def _start(self) -> list[dict[str, Any]]:
        """What happens once, before a stage's first epoch."""
        if self.number == 0 and self.fresh:
            mean = self.data.mean_log_power(self.system.decoder.floor)
            self.system.decoder.start_at(mean)
            self.system.own_prior.start_at(mean)
        for target, origin in self.stage.warm_start.items():
            self.system.warm_start(target, origin)
        return self._learning()

    def _learning(self) -> list[dict[str, Any]]:
        """Freeze the system but for the parts that this stage trains: Adam's groups, each with its peak rate.

        A prior's few numbers (pi, means, variances) have far to go in few steps, the networks' weights have not.
        """
        self.system.requires_grad_(False)
        groups = []
        for part in self.learned:
            peak = self.recipe.training.prior_rate if part == "prior" else self.stage.learning_rate
            parameters = [p.requires_grad_(True) for p in self.system.parameters_of(part)]
            groups.append({"params": parameters, "lr": peak, "peak": peak})
        return groups

    def _epoch(self, epoch: int, optimiser: GroupedAdam) -> Generator[StepEvent, None, float]:
        """One pass over the data by `pyro.infer.SVI`; returns the mean loss in nats per frame."""
        stage = self.stage
        generator = torch.Generator().manual_seed(self._seed(epoch))
        torch.manual_seed(self._seed(epoch) + 1)
        feed = self.data.epoch(generator)
        optimiser.anneal((epoch - 1) / stage.epochs)
        # Only the networks that learn use dropout: a frozen network is a fixed function.
        self.system.eval()
        for part in self.learned:
            self.system.part(part).train()
        # Priors and guides are built around networks that are parts by themselves.
        for name, network in self.system.networks.items():
            network.train(name in self.learned)
        svi = svi_of(self.model, self.guide, optimiser)
        registered: Any = {"params": {}, "constraints": {}}
        count, total, steps = 0, 0.0, self.data.steps()
        for step, (power, visual, mixture) in enumerate(feed, start=1):
            encoder_input = corrupt(power, stage.corrupt_audio) if mixture is None else mixture
            where = f"stage {stage.name}, epoch {epoch}"
            # A scope of its own: the caller's parameter store stays as it is.
            with (
                pyro.get_param_store().scope(registered),
                self.guide.given(encoder_input),
                _divergence(where),
            ):
                value = svi.step(power, visual)
            frames = power[..., 0].numel()
            count, total = count + frames, total + value * frames
            yield StepEvent(stage.name, epoch, step, steps, value)
        return total / count

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The bound's terms on the held-out frames, nats per frame: same corruption and draws at every call."""
        self.system.eval()
        sums: dict[str, float] = {}
        devices = [self.device] if str(self.device).startswith("cuda") else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.recipe.seed)
            for power, visual, mixture in self.data.validation():
                encoder_input = corrupt(power, self.stage.corrupt_audio) if mixture is None else mixture
                terms = bound_terms(
                    self.model, self.guide, power, visual, encoder_input=encoder_input
                ).means()
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + value * power.shape[0]
        means = {name: value / len(self.data.held_out.power) for name, value in sums.items()}
        if not math.isfinite(means["total"]):
            raise TrainingError(
                f"stage {self.stage.name}: expected a finite validation bound, found {means['total']}"
            )
        return means

    def _seed(self, epoch: int) -> int:
        return (self.recipe.seed * 1_000_003 + self.number * 10_007 + epoch) * 2


def svi_of(model: SpeechModel, guide: SpeechGuide, optimiser: PyroOptim) -> SVI:
    """`pyro.infer.SVI` of the bound in nats per frame; `step(power, visual)` returns the loss."""
    loss = per_frame(elbo_of(guide))

    def loss_and_grads(*args: Any) -> Tensor:
        # SVI's own would keep the graph for a second pass, which costs a tenth of a step.
        value = loss(*args)
        value.backward()
        return value.detach()

    return SVI(model, guide, optimiser, loss=loss, loss_and_grads=loss_and_grads)


def per_frame(elbo: Any) -> Callable[..., Tensor]:
    """Pyro's loss in nats per frame, whose gradients do not depend on the size of the batch."""

    def loss(model: SpeechModel, guide: SpeechGuide, power: Tensor, visual: Visual | None) -> Tensor:
        return elbo.differentiable_loss(model, guide, power, visual) / power[..., 0].numel()

    return loss


def corrupt(power: Tensor, share: float) -> Tensor | None:
    """What the audio encoder hears: uniform noise on the power [N, F] of a random `share` of the frames.

    The target stays clean (Sadeghi & Alameda-Pineda 2021, sec. V). None if nothing is corrupted.
    """
    if share <= 0:
        return None
    hit = torch.rand(power.shape[:-1], device=power.device) < share
    return power + CORRUPTION * torch.rand_like(power) * hit[..., None]


@contextmanager
def _divergence(where: str) -> Iterator[None]:
    """Turn the refusal of NaN or infinity by distributions or optimiser (a diverged run) into one line."""
    try:
        yield
    except GradientError as error:
        raise TrainingError(f"{where}: {error} (a lower learning_rate may help)") from None
    except ValueError as error:
        reason = str(error).splitlines()[0]
        if not reason.startswith(("Expected parameter", "Expected value argument")):
            raise
        raise TrainingError(f"{where}: {reason}") from None


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
