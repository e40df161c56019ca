"""The Python API: a noisy waveform and its lips in, speech and noise out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_minvae.checkpoint import Trained, load_model
from pyro_minvae.errors import InputError
from pyro_minvae.features.stft import analyse, frame_count, frame_times, synthesise
from pyro_minvae.features.stft import power as power_of
from pyro_minvae.inference.mcem import EMState, mcem
from pyro_minvae.inference.wiener import masks
from pyro_minvae.media.audio import resample
from pyro_minvae.media.lips import read_lips
from pyro_minvae.models.mixture import Source
from pyro_minvae.models.noise import Nmf
from pyro_minvae.recipe import override_recipe
from pyro_minvae.types import Lips, Visual

# Early stopping compares the objective with the one this many iterations ago.
LOOK_BACK = 5


class Enhanced(NamedTuple):
    """What `Enhancer` returns.

    `speech` and `noise` have the input's shape and rate and sum to it. `responsibilities` [N] at `times` [N] (s) are
    the probability that a frame follows the audio component (None for models without alpha), `responsibility` their
    mean; `used_video` tells whether the lips guided the inference, `without_video` why not.
    `mask` [N, F] is the Wiener filter on the model's STFT. `real_time_factor` is processing over playing time.
    """

    speech: np.ndarray
    noise: np.ndarray
    rate: int
    seconds: float
    iterations: int
    acceptance: float
    responsibility: float | None
    responsibilities: np.ndarray | None
    times: np.ndarray
    mask: np.ndarray
    real_time_factor: float
    used_video: bool
    without_video: str


class Enhancer:
    """Speech enhancement with a trained system: `Enhancer.from_pretrained("min-vae-grid")(waveform, rate, video)`."""

    def __init__(self, trained: Trained, device: str | torch.device = "cpu") -> None:
        self.trained = trained
        self.recipe = trained.recipe
        self.device = torch.device(device)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: str = "cpu", overrides: Sequence[str] = ()
    ) -> Enhancer:
        """A bundled model by name, or a folder written by training; `overrides` such as "inference.iterations=30".

        Raises:
            InputError: if there is no such model or setting, or the device is not available.
        """
        check_device(device)
        trained = load_model(name, device)
        fixed = [item for item in overrides if item.split(".")[0] not in ("inference", "noise")]
        if fixed:
            raise InputError(
                f"--set {fixed[0]}: expected a setting of inference or noise, the others are fixed by training"
            )
        recipe = override_recipe(trained.recipe, list(overrides))
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
            waveform: [S] or [channels, S], any level; channels share one filter, estimated on their mean.
            rate: sampling rate in Hz.
            video: a video file, a file of crops, or `Lips`; None enhances from the sound alone.
            seed: of the sampler and the noise model: same seed, same output.
            watch: called with every state of the EM loop (progress bars, plots).

        Raises:
            InputError: for no samples, NaN or infinite samples, or a bad video.
        """
        start = time.perf_counter()
        signal = _checked(waveform)
        if isinstance(video, str | Path):
            crops = self.recipe.crops
            video = read_lips(video, size=crops.size, face=crops.face)
        own_rate = self.recipe.stft.rate
        channels = torch.as_tensor(resample(signal, rate, own_rate), dtype=torch.float32, device=self.device)
        mixture = channels.mean(0)
        reason = self.unusable(video)
        visual = (
            None
            if reason or video is None
            else self.visual(video, frame_count(mixture.shape[-1], self.recipe.stft))
        )
        state, mask = self._estimate(mixture, visual, seed, watch)
        filtered = synthesise(
            mask * analyse(channels, self.recipe.stft), channels.shape[-1], self.recipe.stft
        )
        speech = resample(filtered.cpu().numpy().astype(np.float64), own_rate, rate)
        speech = _fit_length(speech, signal.shape[-1]).reshape(np.shape(waveform))
        seconds = signal.shape[-1] / rate
        weights = None if state is None or state.responsibility is None else state.responsibility[0]
        return Enhanced(
            speech=speech,
            noise=signal.reshape(np.shape(waveform)) - speech,
            rate=rate,
            seconds=seconds,
            iterations=0 if state is None else state.iteration,
            acceptance=float("nan") if state is None else state.acceptance,
            responsibility=None if weights is None else float(weights.mean()),
            responsibilities=None if weights is None else weights.cpu().numpy(),
            times=frame_times(mask.shape[-2], self.recipe.stft).numpy(),
            mask=mask.cpu().numpy(),
            real_time_factor=(time.perf_counter() - start) / seconds,
            used_video=visual is not None,
            without_video=reason,
        )

    def unusable(self, lips: Lips | None) -> str:
        """Why a recording is enhanced from the sound alone; empty if the lips can guide it."""
        projection, choice = self.trained.lips, self.recipe.inference.lips
        if lips is None:
            return "no video"
        if projection is None:
            return "the model has no visual network"
        if choice == "never":
            return "inference.lips = never"
        if not lips.valid.any():
            return "no face found"
        strangeness, limit = projection.strangeness(lips), float(projection.limit)
        if choice == "auto" and strangeness > limit:
            return (
                f"the lips move unlike those the model learnt (strangeness {strangeness:.2f}, limit {limit:.2f}; "
                "inference.lips=always uses them all the same)"
            )
        return ""

    def visual(self, lips: Lips, frames: int) -> Visual:
        """Lip features [N, D] on the STFT clock."""
        assert self.trained.lips is not None
        with torch.no_grad():
            return self.trained.lips.visual(lips, frame_times(frames, self.recipe.stft))

    def states(self, power: Tensor, visual: Visual | None, seed: int = 0) -> Iterator[EMState]:
        """The EM loop on the power spectrogram [N, F] of a mixture at max|x| = 1."""
        generator = torch.Generator(self.device).manual_seed(seed)
        stft, nmf = self.recipe.stft, self.recipe.noise
        noise = Nmf(power, rank=nmf.rank, smooth=nmf.smooth_s * stft.rate / stft.hop, generator=generator)
        source = Source(self.trained.model, visual, self._start(power, visual))
        config = self.recipe.inference
        return until_settled(
            mcem([source], noise, power, config=config, generator=generator), config.tolerance
        )

    def _start(self, power: Tensor, visual: Visual | None) -> Tensor:
        """Where the chains begin [N, L]."""
        guide, choice = self.trained.guide, self.recipe.inference.start
        with torch.no_grad():
            if choice == "audio":
                return guide.posteriors(power, visual)[-1][0]
            return guide.propose(power, visual).mean

    def _estimate(
        self, mixture: Tensor, visual: Visual | None, seed: int, watch: Callable[[EMState], None] | None
    ) -> tuple[EMState | None, Tensor]:
        """The last state and the Wiener filter [N, F] of a mono mixture [S]; silence needs no inference."""
        peak = mixture.abs().max()
        spectrum = analyse(mixture / peak.clamp_min(1e-30), self.recipe.stft)
        power = power_of(spectrum)
        if peak == 0:
            return None, torch.zeros_like(power)
        recent: deque[Tensor] = deque(maxlen=self.recipe.inference.average)
        state = None
        for state in self.states(power, visual, seed):
            recent.append(masks(state.variances, state.noise)[0])
            if watch is not None:
                watch(state)
        return state, torch.stack(tuple(recent)).mean(0)


def until_settled(states: Iterator[EMState], tolerance: float) -> Iterator[EMState]:
    """Pass states on until the objective gains less than `tolerance` of its whole gain in `LOOK_BACK` iterations."""
    history: list[float] = []
    for state in states:
        yield state
        history.append(state.objective)
        if tolerance > 0 and len(history) > LOOK_BACK:
            gain = history[-1] - history[-1 - LOOK_BACK]
            if gain < tolerance * max(history[-1] - history[0], 0.0):
                return


def check_device(device: str) -> None:
    """Raise `InputError` if torch cannot use the device."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {device}: expected a device of this machine, found {reason}") from None


def _checked(waveform: np.ndarray | Tensor) -> np.ndarray:
    """The input as float64 [channels, S]."""
    signal = np.asarray(waveform, dtype=np.float64)
    if signal.ndim not in (1, 2):
        raise InputError(f"waveform: expected shape [S] or [channels, S], found {list(signal.shape)}")
    if signal.size == 0:
        raise InputError("waveform: expected at least one sample, found none")
    if not np.isfinite(signal).all():
        raise InputError("waveform: expected finite samples, found NaN or infinity")
    return signal.reshape(-1, signal.shape[-1])


def _fit_length(signal: np.ndarray, samples: int) -> np.ndarray:
    """Cut or pad [channels, S] with zeros at the end: resampling there and back may add or lose a few samples."""
    signal = signal[..., :samples]
    return np.pad(signal, ((0, 0), (0, samples - signal.shape[-1])))
