"""One speaker's trained system: how it is loaded, and whether and how the lips of a video can guide it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pyro_minvae.config.load import override_recipe, preset_recipe
from pyro_minvae.errors import InputError
from pyro_minvae.features.stft import frame_times
from pyro_minvae.media.crop_files import resize
from pyro_minvae.media.mouths import read_lips
from pyro_minvae.systems.checkpoint import Trained, load_model
from pyro_minvae.types import MouthCrops, Visual


class Guided(NamedTuple):
    """What guides a speaker: `lips` and the `evidence` for them, or None and the `reason`."""

    lips: MouthCrops | None
    reason: str
    evidence: str = ""


class Speaker:
    """A trained system and what it makes of a video."""

    def __init__(self, trained: Trained) -> None:
        self.trained, self.recipe = trained, trained.recipe

    @property
    def caution(self) -> str:
        """What a user should know of the model: where its training stopped short; empty if it is finished."""
        training = self.trained.training
        if training.get("finished") is not False:
            return ""
        stage, stages = training["stage"], list(training["stages"])
        return f"training stopped in stage '{stage}' ({stages.index(stage) + 1} of {len(stages)})"

    def guidance(self, video: str | Path | MouthCrops | None) -> Guided:
        """The lips to go by, or None and the reason; a video is only searched for a face if that can help.

        Raises:
            InputError: as `lips`.
        """
        if video is None or self._blind():
            return Guided(None, self._blind() if video is not None else "no video")
        lips = self.lips(video)
        reason = self.unusable(lips)
        if reason or lips is None or self.trained.lips is None:
            return Guided(None, reason)
        novelty, limit = self.trained.lips.novelty(lips), float(self.trained.lips.limit)
        return Guided(lips, "", f"novelty {novelty:.2f}, limit {limit:.2f}")

    def unusable(self, lips: MouthCrops | None) -> str:
        """Why a recording is enhanced from the sound alone; empty if the lips can guide it."""
        if lips is None:
            return "no video"
        projection = self.trained.lips
        if projection is None or self._blind():
            return self._blind()
        if not lips.valid.any():
            return "no face found"
        novelty, limit = projection.novelty(lips), float(projection.limit)
        if self.recipe.inference.lips == "auto" and novelty > limit:
            return (
                f"the lips move unlike those the model learnt (novelty {novelty:.2f}, limit {limit:.2f}; "
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

    def lips(self, video: str | Path | MouthCrops | None) -> MouthCrops | None:
        """The mouth crops of a video at the model's size; None without one, or where no lips can guide the model.

        Raises:
            InputError: for a video that cannot be read or has too few faces, or arrays that are no lips.
        """
        if video is None or self._blind():
            return None
        crops = self.recipe.crops
        if isinstance(video, str | Path):
            video = read_lips(video, size=crops.size, face=crops.face)
        return _fitted(video, crops.size)

    def visual(self, lips: MouthCrops, frames: int) -> Visual:
        """Lip features [N, D] on the STFT clock."""
        assert self.trained.lips is not None
        with torch.no_grad():
            return self.trained.lips.visual(lips, frame_times(frames, self.recipe.stft))


def load_trained(
    name: str | Path, *, device: str = "cpu", preset: str | None = None, overrides: Sequence[str] = ()
) -> Trained:
    """A bundled model by name or a folder written by training, with other settings of `inference` and `noise`.

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
    return trained._replace(recipe=override_recipe(recipe, list(overrides)))


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


def _fitted(lips: MouthCrops, size: int) -> MouthCrops:
    """Lips with crops of `size` x `size` pixels; raises `InputError` for arrays that are no lips."""
    crops = lips.crops
    if crops.ndim != 3 or crops.dtype != np.uint8 or 0 in crops.shape:
        raise InputError(
            f"lips: expected crops as uint8 [frames, height, width], found {crops.dtype} {list(crops.shape)}"
        )
    if not len(crops) == len(lips.times) == len(lips.valid):
        raise InputError(f"lips: expected times and valid for {len(crops)} crops, found another number")
    return lips._replace(crops=resize(crops, size))
