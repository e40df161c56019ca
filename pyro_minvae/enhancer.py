"""The Python API: a noisy waveform and its lips in, speech and noise out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_minvae.blocks import spans
from pyro_minvae.checkpoint import Trained, load_model
from pyro_minvae.denoiser import Denoiser, Piece
from pyro_minvae.errors import InputError
from pyro_minvae.features.stft import frame_times
from pyro_minvae.inference.mcem import EMState
from pyro_minvae.media.crops import resize
from pyro_minvae.media.lips import read_lips
from pyro_minvae.models.mixture import Source
from pyro_minvae.recipe import override_recipe, preset_recipe
from pyro_minvae.recording import Enhanced, OpenRecording, Recording, checked
from pyro_minvae.types import Lips, Visual


class Enhancer:
    """Speech enhancement with a trained system: `Enhancer.from_pretrained("min-vae-grid")(waveform, rate, video)`."""

    def __init__(self, trained: Trained, device: str | torch.device = "cpu") -> None:
        self.trained = trained
        self.recipe = trained.recipe
        self.device = torch.device(device)
        self.denoiser = Denoiser(trained, self.recipe, self.device)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str = "cpu",
        preset: str | None = None,
        overrides: Sequence[str] = (),
    ) -> Enhancer:
        """A bundled model by name, or a folder written by training.

        `preset` is "fast", "best" or "paper" in place of the noise model and the inference of the model's recipe;
        `overrides` such as "inference.iterations=30" change settings of `inference` and `noise`, and `crops.face`.

        Raises:
            InputError: if there is no such model, preset or setting, or the device is not available.
        """
        check_device(device)
        trained = load_model(name, device)
        fixed = [item for item in overrides if not _free(item)]
        if fixed:
            raise InputError(
                f"--set {fixed[0]}: expected a setting of inference or noise, or crops.face; "
                "the others are fixed by training"
            )
        recipe = trained.recipe if preset is None else preset_recipe(trained.recipe, preset)
        recipe = override_recipe(recipe, list(overrides))
        return cls(trained._replace(recipe=recipe), device)

    def __call__(
        self,
        waveform: np.ndarray | Tensor,
        rate: int,
        video: str | Path | Lips | None = None,
        *,
        seed: int = 0,
        watch: Callable[[EMState], None] | None = None,
    ) -> Enhanced:
        """Separate a recording into speech and noise.

        Args:
            waveform: [S] or [channels, S], any level; channels share one filter, estimated on their mean, or on the
                loudest where they cancel.
            rate: sampling rate in Hz.
            video: a video file, a file of crops, or `Lips`; None enhances from the sound alone.
            seed: of the sampler and the noise model: same seed, same output.
            watch: called with every state of the EM loop (progress bars, plots).

        Raises:
            InputError: for no samples, NaN or infinite samples, a bad rate, or a bad video.
        """
        return self.many([Recording(waveform, rate, video, seed)], watch=watch)[0]

    def many(
        self, recordings: Sequence[Recording], *, watch: Callable[[EMState], None] | None = None
    ) -> list[Enhanced]:
        """Enhance several recordings, `inference.batch` blocks of them side by side; each as if it came alone.

        Raises:
            InputError: as for one, before any is enhanced.
        """
        signals = [checked(recording.waveform, recording.rate) for recording in recordings]
        # Finding faces is not counted as processing.
        guidance = [self._guidance(recording.video) for recording in recordings]
        start = time.perf_counter()
        opened = [
            self._open(recording, signal, *guided)
            for recording, signal, guided in zip(recordings, signals, guidance, strict=True)
        ]
        for group in self._groups(opened):
            pieces = [one.piece(span) for one, span in group]
            for (one, span), filtered in zip(group, self.denoiser(pieces, watch), strict=True):
                one.add(span, filtered, self._overlap)
        playing = sum(one.seconds for one in opened)
        return [one.close((time.perf_counter() - start) / playing) for one in opened]

    def _open(
        self, recording: Recording, signal: np.ndarray, lips: Lips | None, reason: str
    ) -> OpenRecording:
        opened = OpenRecording(
            recording, signal, stft=self.recipe.stft, device=self.device, lips=lips, without_video=reason
        )
        if lips is not None:
            visual = self.visual(lips, opened.frames)
            if bool(visual.valid.any()):
                opened.visual = visual
            else:
                opened.lips, opened.without_video = None, "no face while there is sound"
        return opened

    @property
    def _overlap(self) -> int:
        """Samples in which neighbouring blocks overlap, a whole number of hops."""
        stft = self.recipe.stft
        return stft.hops(self.recipe.inference.overlap_s) * stft.hop

    def _groups(self, recordings: Sequence[OpenRecording]) -> Iterator[list[tuple[OpenRecording, range]]]:
        """The blocks of all recordings but silent ones, in groups that go through the loop side by side."""
        stft, inference = self.recipe.stft, self.recipe.inference
        block = stft.hops(inference.block_s) * stft.hop
        size = inference.batch if self.denoiser.batches else 1
        for sees in (True, False):
            todo = [
                (one, span)
                for one in recordings
                for span in spans(one.samples, block=block, overlap=self._overlap)
                if one.peak > 0 and one.sees(span) == sees
            ]
            for first in range(0, len(todo), size):
                yield todo[first : first + size]

    @property
    def caution(self) -> str:
        """What a user should know of the model: where its training stopped short; empty if it is finished."""
        training = self.trained.training
        if training.get("finished") is not False:
            return ""
        stage, stages = training["stage"], list(training["stages"])
        return f"training stopped in stage '{stage}' ({stages.index(stage) + 1} of {len(stages)})"

    def unusable(self, lips: Lips | None) -> str:
        """Why a recording is enhanced from the sound alone; empty if the lips can guide it."""
        if lips is None:
            return "no video"
        projection = self.trained.lips
        if projection is None or self._blind():
            return self._blind()
        if not lips.valid.any():
            return "no face found"
        strangeness, limit = projection.strangeness(lips), float(projection.limit)
        if self.recipe.inference.lips == "auto" and strangeness > limit:
            return (
                f"the lips move unlike those the model learnt (strangeness {strangeness:.2f}, limit {limit:.2f}; "
                "inference.lips=always uses them all the same)"
            )
        return ""

    def _blind(self) -> str:
        """Why no lips at all can guide the model; empty if some can."""
        training = self.trained.training
        if self.trained.lips is None:
            return "the model has no visual network"
        if training.get("finished") is False and training["stage"] != training["stages"][-1]:
            return "the visual network is not trained yet"
        return "inference.lips = never" if self.recipe.inference.lips == "never" else ""

    def _guidance(self, video: str | Path | Lips | None) -> tuple[Lips | None, str]:
        """The lips to go by, or None and the reason; a video is only searched for a face if that can help."""
        if video is None or self._blind():
            return None, self._blind() if video is not None else "no video"
        lips = self.lips(video)
        reason = self.unusable(lips)
        return (None if reason else lips), reason

    def lips(self, video: str | Path | Lips | None) -> Lips | None:
        """The mouth crops of a video at the model's size; None without one, or where no lips can guide the model.

        Raises:
            InputError: for a video without a face, or arrays that are no lips.
        """
        if video is None or self._blind():
            return None
        crops = self.recipe.crops
        if isinstance(video, str | Path):
            video = read_lips(video, size=crops.size, face=crops.face)
        return _fitted(video, crops.size)

    def visual(self, lips: Lips, frames: int) -> Visual:
        """Lip features [N, D] on the STFT clock."""
        assert self.trained.lips is not None
        with torch.no_grad():
            return self.trained.lips.visual(lips, frame_times(frames, self.recipe.stft))

    def source(self, power: Tensor, visual: Visual | None) -> Source:
        """The speaker as the EM loop sees it: the model, its lips, and where the chains begin."""
        return self.denoiser.source(Piece(power, visual, 0))


def check_device(device: str) -> None:
    """Raise `InputError` if torch cannot use the device."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {device}: expected a device of this machine, found {reason}") from None


def _free(item: str) -> bool:
    """Whether an override such as "noise.rank=4" is of a setting that training leaves open."""
    key = item.partition("=")[0].strip()
    return key == "crops.face" or key.partition(".")[0] in ("inference", "noise")


def _fitted(lips: Lips, size: int) -> Lips:
    """Lips with crops of `size` x `size` pixels; raises `InputError` for arrays that are no lips."""
    crops = lips.crops
    if crops.ndim != 3 or crops.dtype != np.uint8 or 0 in crops.shape:
        raise InputError(
            f"lips: expected crops as uint8 [frames, height, width], found {crops.dtype} {list(crops.shape)}"
        )
    if not len(crops) == len(lips.times) == len(lips.valid):
        raise InputError(f"lips: expected times and valid for {len(crops)} crops, found another number")
    return lips._replace(crops=resize(crops, size))
