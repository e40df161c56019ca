"""The Python API: a noisy waveform and its lips in, speech and noise out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_minvae.models.noisy import Source
from pyro_minvae.pipelines.arrays import own_settings
from pyro_minvae.pipelines.filtering import Filtering
from pyro_minvae.pipelines.mcem_solver import Denoiser, Loop, Watch
from pyro_minvae.pipelines.recording import Enhanced, Finished, Recording, checked
from pyro_minvae.pipelines.switching_system import is_switching, load_switching
from pyro_minvae.pipelines.video_guidance import Guided, Speaker, load_trained
from pyro_minvae.systems.checkpoint import Trained
from pyro_minvae.types import MouthCrops, Switches, Visual


class Enhancer:
    """Speech enhancement with a trained system: `Enhancer.from_pretrained("min-vae-grid")(waveform, rate, video)`.

    The case of one speaker of what `Separator` does. `denoiser` may be another loop than that of the system.
    """

    def __init__(
        self, trained: Trained, device: str | torch.device = "cpu", *, denoiser: Loop | None = None
    ) -> None:
        self.trained = trained
        self.recipe = trained.recipe
        self.device = torch.device(device)
        self.speaker = Speaker(trained)
        self.denoiser = denoiser or Denoiser([trained], self.recipe, self.device)

    @classmethod
    @own_settings()
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str = "cpu",
        preset: str | None = None,
        overrides: Sequence[str] = (),
    ) -> Enhancer:
        """A bundled model or switching system by name, a folder written by training, or a switching system's .toml.

        `preset` is "fast", "best" or "paper" in place of the noise model and the inference of the model's recipe;
        `overrides` such as "inference.iterations=30" change settings of `inference` and `noise`, and `crops.face`.

        Raises:
            InputError: if there is no such model, preset or setting, or the device is not available.
        """
        if is_switching(name):
            trained, loop = load_switching(name, device=device, preset=preset, overrides=overrides)
            return cls(trained, device, denoiser=loop)
        return cls(load_trained(name, device=device, preset=preset, overrides=overrides), device)

    def __call__(
        self,
        waveform: np.ndarray | Tensor,
        rate: int,
        video: str | Path | MouthCrops | None = None,
        *,
        seed: int = 0,
        watch: Watch | None = None,
    ) -> Enhanced:
        """Separate a recording into speech and noise.

        Args:
            waveform: [S] or [channels, S], any level; channels share one filter, estimated on their mean, or on the
                loudest where they cancel.
            rate: sampling rate in Hz.
            video: a video file, a file of crops, or `MouthCrops`; None enhances from the sound alone.
            seed: of the sampler and the noise model: same seed, same output.
            watch: called with every state of the EM loop (progress bars, plots).

        Raises:
            InputError: for no samples, NaN or infinite samples, a bad rate, or a bad video.
        """
        return self.many([Recording(waveform, rate, video, seed)], watch=watch)[0]

    @own_settings()
    def many(self, recordings: Sequence[Recording], *, watch: Watch | None = None) -> list[Enhanced]:
        """Enhance several recordings, blocks of them side by side as `inference` says; each as if it came alone.

        Raises:
            InputError: as for one, before any is enhanced.
        """
        signals = [checked(recording.waveform, recording.rate) for recording in recordings]
        guidance = [[self.speaker.guidance(recording.video)] for recording in recordings]
        filtering = Filtering([self.speaker], self.denoiser, self.recipe, self.device)
        found = filtering(recordings, signals, guidance, watch)
        return [self._enhanced(finished, guided) for finished, (guided,) in found]

    def _enhanced(self, found: Finished, guided: Guided) -> Enhanced:
        weights = None if found.responsibilities is None else found.responsibilities[0]
        return Enhanced(
            mixture=found.mixture,
            speech=found.speakers[0],
            rate=found.rate,
            seconds=found.seconds,
            iterations=found.iterations,
            acceptance=found.acceptance,
            responsibility=None if weights is None else float(weights.mean()),
            responsibilities=weights,
            times=found.times,
            real_time_factor=found.real_time_factor,
            used_video=guided.lips is not None,
            without_video=guided.reason,
            switches=self._switches(found),
            lips_evidence=guided.evidence,
        )

    def _switches(self, found: Finished) -> Switches | None:
        if found.switch is not None:
            return self.denoiser.switches(found.times, found.switch[0])
        if found.responsibilities is None:
            return None
        sound = found.responsibilities[0]
        return self.denoiser.switches(found.times, np.stack([1 - sound, sound], -1))

    @property
    def caution(self) -> str:
        """What a user should know of the model: where its training stopped short; empty if it is finished."""
        return self.speaker.caution

    def unusable(self, lips: MouthCrops | None) -> str:
        """Why a recording is enhanced from the sound alone; empty if the lips can guide it."""
        return self.speaker.unusable(lips)

    def lips(self, video: str | Path | MouthCrops | None) -> MouthCrops | None:
        """The mouth crops of a video at the model's size; None without one, or where no lips can guide the model.

        Raises:
            InputError: for a video that cannot be read, or arrays that are no lips.
        """
        return self.speaker.lips(video)

    def visual(self, lips: MouthCrops, frames: int) -> Visual:
        """Lip features [N, D] on the STFT clock."""
        return self.speaker.visual(lips, frames)

    def source(self, power: Tensor, visual: Visual | None) -> Source:
        """The speaker as the EM loop sees it: the model, its lips, and where the chains begin."""
        return Denoiser([self.trained], self.recipe, self.device).source(power, visual)
