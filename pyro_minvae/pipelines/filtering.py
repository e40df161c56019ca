"""Recordings through the loop, in blocks and side by side: what the enhancer and the separator share."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from pyro_minvae.config.schema import Recipe
from pyro_minvae.pipelines.blocks import packed, spans
from pyro_minvae.pipelines.lip_contrast import Contrast, LipContrast
from pyro_minvae.pipelines.mcem_solver import Denoiser, Loop, Watch
from pyro_minvae.pipelines.recording import Finished, Mixture, OpenRecording, Recording
from pyro_minvae.pipelines.video_guidance import Guided, Speaker


class Filtering:
    """`loop` on recordings by the settings of `recipe`; `speakers` are the systems, one for all or one for each."""

    def __init__(self, speakers: Sequence[Speaker], loop: Loop, recipe: Recipe, device: torch.device) -> None:
        self.speakers, self.loop, self.recipe, self.device = speakers, loop, recipe, device
        # Switching systems weigh the lips frame by frame themselves; other voices would be noise to the contrast.
        tested = recipe.inference.lips == "auto" and type(loop) is Denoiser and len(speakers) == 1
        self._contrast = LipContrast(speakers[0].trained, recipe, device) if tested else None

    def __call__(
        self,
        recordings: Sequence[Recording | Mixture],
        signals: Sequence[np.ndarray],
        guidance: Sequence[Sequence[Guided]],
        watch: Watch | None = None,
    ) -> list[tuple[Finished, list[Guided]]]:
        """The recordings filtered, each as if it came alone, and what guided their speakers in the end.

        `signals` are the recordings' waveforms as `checked` gives them, `guidance` the lips of their speakers.
        """
        # Finding faces is not counted as processing.
        start = time.perf_counter()
        opened = [
            self._open(recording, signal, guided)
            for recording, signal, guided in zip(recordings, signals, guidance, strict=True)
        ]
        if self._contrast is not None:
            for one in opened:
                self._test(one, self._contrast)
        for group in self._groups(opened):
            pieces = [one.piece(span) for one, span in group]
            for (one, span), filtered in zip(group, self.loop(pieces, watch), strict=True):
                one.add(span, filtered, overlap_of(self.recipe))
        playing = sum(one.seconds for one in opened)
        return [
            (one.close((time.perf_counter() - start) / playing, self.recipe.inference), one.guided)
            for one in opened
        ]

    def _open(
        self, recording: Recording | Mixture, signal: np.ndarray, guided: Sequence[Guided]
    ) -> OpenRecording:
        opened = OpenRecording(recording, signal, stft=self.recipe.stft, device=self.device, guided=guided)
        for j, (lips, *_) in enumerate(guided):
            if lips is None:
                continue
            visual = self.speakers[j if len(self.speakers) > 1 else 0].visual(lips, opened.frames)
            if bool(visual.valid.any()):
                opened.visuals[j] = visual
            else:
                opened.guided[j] = Guided(None, "no face while there is sound")
        return opened

    def _test(self, one: OpenRecording, test: LipContrast) -> None:
        """Leave out the lips of the blocks in which they do not go with the sound.

        A block that is too short to tell follows the one before.
        """
        if len(one.guided) > 1 or one.visuals[0] is None or one.peak == 0:
            return
        found: list[Contrast] = []
        seen = [span for span in self._spans(one) if one.sees(span)[0]]
        for span in seen:
            found += [value for value in (test(one.piece(span)),) if value is not None]
            if found and not found[-1].fits:
                one.refused.add(span.start)
        if found:
            one.guided[0] = verdict(one.guided[0], found, len(seen) > len(one.refused))

    def _spans(self, one: OpenRecording) -> list[range]:
        """The blocks of a recording."""
        stft = self.recipe.stft
        block = stft.hops(self.recipe.inference.block_s) * stft.hop
        return list(spans(one.samples, block=block, overlap=overlap_of(self.recipe)))

    def _groups(self, recordings: Sequence[OpenRecording]) -> Iterator[list[tuple[OpenRecording, range]]]:
        """The blocks of all recordings but silent ones, in groups that go through the loop side by side.

        In all blocks of a group the same speakers have lips, and as many bins hold sound.
        """
        todo: dict[tuple[int, tuple[bool, ...]], list[tuple[OpenRecording, range]]] = {}
        for one in recordings:
            if one.peak > 0:
                for span in self._spans(one):
                    todo.setdefault((one.bins, one.sees(span)), []).append((one, span))
        for alike in sorted(todo, reverse=True):
            for group in side_by_side(
                [len(span) for _, span in todo[alike]], self.recipe, self.loop, self.device
            ):
                yield todo[alike][group]


def verdict(guided: Guided, found: Sequence[Contrast], used: bool) -> Guided:
    """What guides a speaker by the contrasts of some blocks, and the figures that say why."""
    values = sorted(one.value for one in found)
    low, high = f"{values[0]:.1f}", f"{values[-1]:.1f}"
    t = f"right lag against others: t {low if low == high else f'{low} to {high}'}, limit {found[0].limit:.1f}"
    if not used:
        advice = "inference.lips=always uses them all the same"
        return Guided(None, f"the lips do not go with the sound ({t}; {guided.evidence}; {advice})")
    refused = sum(not one.fits for one in found)
    share = f", refused in {refused} of {len(found)} blocks" if refused else ""
    return guided._replace(evidence=f"{guided.evidence}; {t}{share}")


def side_by_side(lengths: Sequence[int], recipe: Recipe, loop: Loop, device: torch.device) -> list[slice]:
    """Which of the blocks of these lengths (samples) go through the loop together."""
    inference = recipe.inference
    most = inference.batch if loop.batches else 1
    room = inference.batch_s * recipe.stft.rate if device.type == "cpu" else math.inf
    return packed(lengths, most=most, room=room)


def overlap_of(recipe: Recipe) -> int:
    """Samples in which neighbouring blocks overlap, a whole number of hops."""
    return recipe.stft.hops(recipe.inference.overlap_s) * recipe.stft.hop
