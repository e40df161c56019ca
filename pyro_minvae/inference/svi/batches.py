"""What one stage of training sees: its frames, their lips, the batches of an epoch and those of validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pyro_minvae.config.schema import Recipe, Stage
from pyro_minvae.data.loader import Batch, FrameSet, batches, frame_set, stretches
from pyro_minvae.data.mixed_speech import mixed
from pyro_minvae.errors import InputError
from pyro_minvae.features.visual import LipProjection
from pyro_minvae.types import Prepared, Visual

# Frames of validation that are computed at once, where they are independent.
CHUNK = 4096
# Utterances that are mixed with other voices at once: batches are shuffled within these.
MIXED_AT_ONCE = 64


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
        coupled: whether frames depend on each other, or the guide looks around, so that they come in stretches.
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
        self.voices: list[Prepared] = []
        if stage.mix_speech is not None:
            self._gather_voices(fit, held_out)
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

    def _gather_voices(self, fit: Sequence[Prepared], held_out: Sequence[Prepared]) -> None:
        """What is mixed with what: utterances to fit with each other, those held out with each other, once for all."""
        self.voices, held = _sounding(fit), _sounding(held_out)
        if len(self.voices) < 2:
            raise TrainingError(
                f"stage {self.stage.name}: expected at least 2 utterances for mix_speech, found {len(self.voices)}"
            )
        # A single utterance held out has none but those to fit.
        others = held if len(held) > 1 else self.voices
        generator = torch.Generator().manual_seed(self.recipe.seed)
        self.held_out = self._mixed(self.held_out, others, generator)

    def _mixed(self, frames: FrameSet, voices: Sequence[Prepared], generator: torch.Generator) -> FrameSet:
        assert self.stage.mix_speech is not None
        return mixed(
            frames, voices, level_db=self.stage.mix_speech, stft=self.recipe.stft, generator=generator
        )

    def _visual(self, frames: FrameSet, generator: torch.Generator | None = None) -> Visual | None:
        return None if self.lips is None else frames.visual(self.lips, generator)

    def mean_log_power(self, floor: float) -> Tensor:
        """The average spectrum of what is fitted: mean of log(power + floor), [F]."""
        return (self.fit.power + floor).log().mean(0)

    def steps(self) -> int:
        """Batches of an epoch (at most, where frames come in stretches or are mixed part by part)."""
        most = -(-self.fit.power.shape[0] // self.recipe.training.batch)
        if self.stage.mix_speech is None:
            return most
        return most + -(-len(self.fit.utterances) // MIXED_AT_ONCE)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """One epoch's batches: shuffled frames [N, F], or stretches [B, N, F] where they must be in a row.

        Mixtures with other voices are made of some utterances at a time, so that those of one part are in memory.
        """
        if self.visual is None or self.stage.augment_lips:
            self.visual = self._visual(self.fit, generator if self.stage.augment_lips else None)
        if self.stage.mix_speech is None:
            yield from self._batches(self.fit, self.visual, generator)
            return
        order = torch.randperm(len(self.fit.utterances), generator=generator)
        for chosen in order.split(MIXED_AT_ONCE):
            part, index = self.fit.some(chosen.tolist())
            lips = self.visual
            visual = None if lips is None else Visual(lips.features[index], lips.valid[index])
            yield from self._batches(self._mixed(part, self.voices, generator), visual, generator)

    def _batches(
        self, frames: FrameSet, visual: Visual | None, generator: torch.Generator
    ) -> Iterator[Batch]:
        training, level = self.recipe.training, self.recipe.training.level_db
        if not self.coupled:
            return batches(frames, visual, size=training.batch, level_db=level, generator=generator)
        length = training.segment
        if max(map(len, frames.spans())) < length:
            # Some other part has longer utterances.
            return iter(())
        return stretches(
            frames, visual, length=length, size=training.batch, level_db=level, generator=generator
        )

    def validation(self) -> Iterator[Batch]:
        """The held-out frames [N, F], an utterance at a time where they must be in a row."""
        power, visual, encoder_input = self.held_out.power, self.held_out_visual, self.held_out.encoder_input
        if self.coupled:
            spans = self.held_out.spans()
        else:
            spans = [range(start, start + CHUNK) for start in range(0, len(power), CHUNK)]
        for span in spans:
            part = slice(span.start, span.stop)
            lips = None if visual is None else Visual(visual.features[part], visual.valid[part])
            yield Batch(power[part], lips, None if encoder_input is None else encoder_input[part])


def _sounding(utterances: Sequence[Prepared]) -> list[Prepared]:
    """Those that are not silent."""
    return [u for u in utterances if u.waveform.any()]
