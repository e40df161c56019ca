"""Recordings through the loop, in blocks and side by side: what the enhancer and the separator share."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from pyro_minvae.config.schema import Recipe
from pyro_minvae.pipelines.blocks import packed, spans
from pyro_minvae.pipelines.mcem_solver import Loop, Watch
from pyro_minvae.pipelines.recording import Finished, Mixture, OpenRecording, Recording
from pyro_minvae.pipelines.video_guidance import Guided, Speaker


class Filtering:
    """`loop` on recordings by the settings of `recipe`; `speakers` are the systems, one for all or one for each."""

    def __init__(self, speakers: Sequence[Speaker], loop: Loop, recipe: Recipe, device: torch.device) -> None:
        self.speakers, self.loop, self.recipe, self.device = speakers, loop, recipe, device

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
        for j, (lips, _) in enumerate(guided):
            if lips is None:
                continue
            visual = self.speakers[j if len(self.speakers) > 1 else 0].visual(lips, opened.frames)
            if bool(visual.valid.any()):
                opened.visuals[j] = visual
            else:
                opened.guided[j] = Guided(None, "no face while there is sound")
        return opened

    def _groups(self, recordings: Sequence[OpenRecording]) -> Iterator[list[tuple[OpenRecording, range]]]:
        """The blocks of all recordings but silent ones, in groups that go through the loop side by side.

        In all blocks of a group the same speakers have lips, and as many bins hold sound.
        """
        stft, inference = self.recipe.stft, self.recipe.inference
        block = stft.hops(inference.block_s) * stft.hop
        todo: dict[tuple[int, tuple[bool, ...]], list[tuple[OpenRecording, range]]] = {}
        for one in recordings:
            if one.peak > 0:
                for span in spans(one.samples, block=block, overlap=overlap_of(self.recipe)):
                    todo.setdefault((one.bins, one.sees(span)), []).append((one, span))
        for alike in sorted(todo, reverse=True):
            for group in side_by_side(
                [len(span) for _, span in todo[alike]], self.recipe, self.loop, self.device
            ):
                yield todo[alike][group]


def side_by_side(lengths: Sequence[int], recipe: Recipe, loop: Loop, device: torch.device) -> list[slice]:
    """Which of the blocks of these lengths (samples) go through the loop together."""
    inference = recipe.inference
    most = inference.batch if loop.batches else 1
    room = inference.batch_s * recipe.stft.rate if device.type == "cpu" else math.inf
    return packed(lengths, most=most, room=room)


def overlap_of(recipe: Recipe) -> int:
    """Samples in which neighbouring blocks overlap, a whole number of hops."""
    return recipe.stft.hops(recipe.inference.overlap_s) * recipe.stft.hop
