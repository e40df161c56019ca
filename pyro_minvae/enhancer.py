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

from pyro_minvae.assembly import noise_model
from pyro_minvae.checkpoint import Trained, load_model
from pyro_minvae.errors import InputError
from pyro_minvae.features.stft import analyse, frame_count, frame_times, synthesise
from pyro_minvae.features.stft import power as power_of
from pyro_minvae.inference.mcem import EMState, mcem
from pyro_minvae.inference.wiener import masks
from pyro_minvae.media.audio import resample
from pyro_minvae.media.crops import resize
from pyro_minvae.media.lips import read_lips
from pyro_minvae.models.mixture import Source
from pyro_minvae.recipe import override_recipe
from pyro_minvae.types import Lips, Visual

# Early stopping compares the objective with the one this many iterations ago.
LOOK_BACK = 5

# Channels whose mean has less than this share of the loudest one's power (-20 dB) cancel each other.
CANCELLED = 0.01


class Enhanced(NamedTuple):
    """What `Enhancer` returns.

    `speech` and `noise` have the input's shape and rate and sum to it. `responsibilities` [N] at `times` [N] (s) are
    the probability that a frame follows the audio component (None for models without alpha), `responsibility` their
    mean; `used_video` tells whether the lips guided the inference, `without_video` why not.
    `mask` [N, F] is the Wiener filter on the model's STFT. `real_time_factor` is processing over playing time, where
    processing is all from waveform and mouth crops to the result, but not finding the face in a video.
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
        """A bundled model by name, or a folder written by training.

        `overrides` such as "inference.iterations=30" change settings of `inference` and `noise`, and `crops.face`.

        Raises:
            InputError: if there is no such model or setting, or the device is not available.
        """
        check_device(device)
        trained = load_model(name, device)
        fixed = [item for item in overrides if not _free(item)]
        if fixed:
            raise InputError(
                f"--set {fixed[0]}: expected a setting of inference or noise, or crops.face; "
                "the others are fixed by training"
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
            waveform: [S] or [channels, S], any level; channels share one filter, estimated on their mean, or on the
                loudest where they cancel.
            rate: sampling rate in Hz.
            video: a video file, a file of crops, or `Lips`; None enhances from the sound alone.
            seed: of the sampler and the noise model: same seed, same output.
            watch: called with every state of the EM loop (progress bars, plots).

        Raises:
            InputError: for no samples, NaN or infinite samples, a bad rate, or a bad video.
        """
        signal = _checked(waveform, rate)
        lips, reason = self._guidance(video)
        start = time.perf_counter()
        stft = self.recipe.stft
        channels = torch.as_tensor(resample(signal, rate, stft.rate), dtype=torch.float32, device=self.device)
        visual = None if lips is None else self.visual(lips, frame_count(channels.shape[-1], stft))
        state, mask = self._estimate(reference(channels), visual, seed, watch)
        speech = self._filtered(mask, channels, rate, signal.shape[-1]).reshape(np.shape(waveform))
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
            times=frame_times(mask.shape[-2], stft).numpy(),
            mask=mask.cpu().numpy(),
            real_time_factor=(time.perf_counter() - start) / seconds,
            used_video=visual is not None,
            without_video=reason,
        )

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

    def states(self, power: Tensor, visual: Visual | None, seed: int = 0) -> Iterator[EMState]:
        """The EM loop on the power spectrogram [N, F] of a mixture at max|x| = 1."""
        generator = torch.Generator(self.device).manual_seed(seed)
        stft = self.recipe.stft
        source = self.source(power, visual)
        noise = noise_model(
            self.recipe.noise,
            power,
            rate=stft.rate / stft.hop,
            speech=self.trained.model.variance(source.start, visual),
            generator=generator,
        )
        config = self.recipe.inference
        return until_settled(
            mcem([source], noise, power, config=config, generator=generator), config.tolerance
        )

    def source(self, power: Tensor, visual: Visual | None) -> Source:
        """The speaker as the EM loop sees it: the model, its lips, and where the chains begin."""
        return Source(self.trained.model, visual, *self._start(power, visual))

    def _start(self, power: Tensor, visual: Visual | None) -> tuple[Tensor, Tensor]:
        """Where the chains begin, and how sure the guide is of it: mean and standard deviation [N, L]."""
        model, guide, choice = self.trained.model, self.trained.guide, self.recipe.inference.start
        with torch.no_grad():
            if choice == "prior":
                proposal = model.prior.given(None, visual, len(power))
            elif choice == "audio":
                proposal = guide.posteriors(power, visual)[-1]
            else:
                proposal = guide.propose(power, visual)
            shape = len(power), self.recipe.model.latent
            return proposal.mean.expand(shape), proposal.stddev.expand(shape)

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

    def _filtered(self, mask: Tensor, channels: Tensor, rate: int, samples: int) -> np.ndarray:
        """The Wiener filter [N, F] on all channels [channels, S'], at the input's rate: [channels, samples]."""
        stft = self.recipe.stft
        filtered = synthesise(mask * analyse(channels, stft), channels.shape[-1], stft)
        return _fit_length(resample(filtered.cpu().numpy().astype(np.float64), stft.rate, rate), samples)


def reference(channels: Tensor) -> Tensor:
    """The signal [S] that the filter of [channels, S] is estimated on: their mean, or the loudest if they cancel."""
    mean, powers = channels.mean(0), channels.square().mean(-1)
    cancelled = mean.square().mean() < CANCELLED * powers.max()
    return channels[powers.argmax()] if cancelled else mean


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


def _checked(waveform: np.ndarray | Tensor, rate: int) -> np.ndarray:
    """The input as float64 [channels, S]."""
    if not isinstance(rate, int | np.integer) or rate <= 0:
        raise InputError(f"rate: expected a positive whole number (Hz), found {rate}")
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
