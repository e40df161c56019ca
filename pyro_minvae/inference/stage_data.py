"""What one stage of training sees: its frames, their lips, the batches of an epoch and those of validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pyro_minvae.config import Recipe, Stage
from pyro_minvae.data.loader import FrameSet, batches, frame_set, stretches
from pyro_minvae.errors import InputError
from pyro_minvae.features.visual import LipProjection
from pyro_minvae.types import Prepared, Visual

# Frames of validation that are computed at once, where they are independent.
CHUNK = 4096


class TrainingError(InputError):
    """Data that a stage cannot use, or settings under which it diverges; the caller knows the folder."""


class StageData:
    """The frames to fit and those held out.

    Args:
        recipe: batch size, levels and stretches are its `training`'s.
        stage: what data it takes, and whether it augments lips.
        fit: utterances to train on.
        held_out: utterances for the validation bound.
        lips: the projection of mouth crops; None for stages that do not look at lips.
        coupled: whether frames depend on each other, so that they come in stretches.
        device: where the tensors are.

    Raises:
        TrainingError: if no utterance fits the stage.
    """

    def __init__(
        self,
        recipe: Recipe,
        stage: Stage,
        fit: Sequence[Prepared],
        held_out: Sequence[Prepared],
        *,
        lips: LipProjection | None,
        coupled: bool,
        device: str | torch.device,
    ) -> None:
        self.recipe, self.stage, self.lips, self.coupled = recipe, stage, lips, coupled
        self.fit = self._frames(fit, device)
        self.held_out = self._frames(held_out, device)
        self._check_length()
        self.visual: Visual | None = None
        self.held_out_visual = self._visual(self.held_out)

    def _frames(self, utterances: Sequence[Prepared], device: str | torch.device) -> FrameSet:
        if self.stage.data == "video":
            utterances = [u for u in utterances if u.lips is not None]
            if not utterances:
                raise TrainingError(f"stage {self.stage.name}: expected utterances with lips, found none")
        if not any(u.waveform.any() for u in utterances):
            raise TrainingError(
                f"stage {self.stage.name}: expected utterances that are not silent, found none"
            )
        return frame_set(utterances, self.recipe.stft, device)

    def _check_length(self) -> None:
        """Coupled frames are trained in stretches, so some utterance has to be that long."""
        segment, longest = self.recipe.training.segment, max(map(len, self.fit.spans()))
        if self.coupled and longest < segment:
            raise TrainingError(
                f"stage {self.stage.name}: expected an utterance of at least training.segment = {segment} frames, "
                f"found {longest}"
            )

    def _visual(self, frames: FrameSet, generator: torch.Generator | None = None) -> Visual | None:
        return None if self.lips is None else frames.visual(self.lips, generator)

    def mean_log_power(self, floor: float) -> Tensor:
        """The average spectrum of what is fitted: mean of log(power + floor), [F]."""
        return (self.fit.power + floor).log().mean(0)

    def steps(self) -> int:
        """Batches of an epoch (at most, where frames come in stretches)."""
        return -(-self.fit.power.shape[0] // self.recipe.training.batch)

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Visual | None]]:
        """One epoch's batches: shuffled frames [N, F], or stretches [B, N, F] where the model couples frames."""
        training = self.recipe.training
        if self.visual is None or self.stage.augment_lips:
            self.visual = self._visual(self.fit, generator if self.stage.augment_lips else None)
        if not self.coupled:
            return batches(
                self.fit, self.visual, size=training.batch, level_db=training.level_db, generator=generator
            )
        return stretches(
            self.fit,
            self.visual,
            length=training.segment,
            size=training.batch,
            level_db=training.level_db,
            generator=generator,
        )

    def validation(self) -> Iterator[tuple[Tensor, Visual | None]]:
        """The held-out frames [N, F], an utterance at a time where frames are coupled."""
        power, visual = self.held_out.power, self.held_out_visual
        if self.coupled:
            spans = self.held_out.spans()
        else:
            spans = [range(start, start + CHUNK) for start in range(0, len(power), CHUNK)]
        for span in spans:
            part = slice(span.start, span.stop)
            yield power[part], None if visual is None else Visual(visual.features[part], visual.valid[part])
