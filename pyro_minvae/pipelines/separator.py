"""The Python API of separation: a mixture of voices and the lips of the speakers in, one voice for each out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_minvae.config.noise import FloorConfig
from pyro_minvae.config.schema import Recipe
from pyro_minvae.errors import InputError
from pyro_minvae.media.faces import Faces
from pyro_minvae.media.mouths import read_faces
from pyro_minvae.pipelines.arrays import own_settings
from pyro_minvae.pipelines.filtering import Filtering
from pyro_minvae.pipelines.mcem_solver import Denoiser, Loop, Watch
from pyro_minvae.pipelines.recording import Finished, Mixture, checked
from pyro_minvae.pipelines.switching_solver import Switcher
from pyro_minvae.pipelines.switching_system import is_switching, load_switching
from pyro_minvae.pipelines.video_guidance import Guided, Speaker, load_trained
from pyro_minvae.systems.checkpoint import Trained
from pyro_minvae.types import MouthCrops, Switches


class Separated(NamedTuple):
    """What `Separator` returns: `speakers` (J of them) and `background`, which sum to the mixture and have its shape.

    `used_video` tells of each speaker whether lips guided the inference, `without_video` why not (empty if they did).
    `responsibilities` [J, N] at `times` [N] (s) are the probabilities that a speaker's frame follows the audio
    component (None for models without alpha); `acceptance` is the share of accepted proposals in the last EM iteration.
    `real_time_factor` is processing over playing time as in `Enhanced`. `warnings` are what a user should know.
    `switches` are each speaker's modes over time in a switching system; none in others.
    """

    speakers: list[np.ndarray]
    background: np.ndarray
    rate: int
    seconds: float
    used_video: list[bool]
    without_video: list[str]
    iterations: int
    acceptance: float
    real_time_factor: float
    responsibilities: np.ndarray | None = None
    times: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    switches: tuple[Switches, ...] = ()


class Separator:
    """Speakers with lips or without, and noise: `Separator.from_pretrained(NAME)(waveform, rate, videos)`.

    x_fn = sum_j sqrt(g_jn) s_jfn + b_fn with s_j ~ N_c(0, sigma(z_j)) and b ~ N_c(0, WH) (derivations, eqs. 7.1, 7.2):
    the EM loop estimates all z_j, gains and the noise together, and each speaker is the posterior mean of its part
    (eq. 7.6). One speaker gives what `Enhancer` gives.

    The speakers go through the loop in an order of their own (by what their lips are), so that swapping the videos
    swaps the outputs. Speakers without usable lips get p(z_j) of the audio component. Several of them, or speakers with
    the same lips, would have chains that begin in the same place, and an M-step that shares the sound out evenly: all
    but the first start elsewhere (`Denoiser.sources`). Who is who among them is up to chance.

    Args:
        trained: one system for all speakers, or one for each; all with the same STFT and as many latent dimensions. Its
            settings of noise and inference are those of the first.
        device: where the networks are.
        switcher: the loop of a switching system, for all speakers; `trained` is then the model that it reads lips with.

    Raises:
        InputError: if there is no system, or the systems do not go together.
    """

    def __init__(
        self,
        trained: Sequence[Trained],
        device: str | torch.device = "cpu",
        *,
        switcher: Switcher | None = None,
    ) -> None:
        if not trained:
            raise InputError("model: expected one for all speakers or one for each, found none")
        self.systems = list(trained)
        self.recipe = self.systems[0].recipe
        for one in self.systems[1:]:
            _together(self.recipe, one.recipe)
        self.device = torch.device(device)
        self.switcher = switcher
        self.voices = [Speaker(one) for one in self.systems]

    @classmethod
    @own_settings()
    def from_pretrained(
        cls,
        name: str | Path | Sequence[str | Path],
        *,
        device: str = "cpu",
        preset: str | None = None,
        overrides: Sequence[str] = (),
    ) -> Separator:
        """A bundled model or a folder written by training for all speakers, or a list with one for each.

        A switching system, bundled or a .toml file, serves all speakers: each has a switch of its own.
        `preset` and `overrides` as for `Enhancer.from_pretrained`.

        Raises:
            InputError: if there is no such model, preset or setting, the device is not available, or the models do not
                go together.
        """
        names = [name] if isinstance(name, str | Path) else list(name)
        if any(map(is_switching, names)):
            if len(names) > 1:
                raise InputError(
                    f"model: expected a switching system by itself, for all speakers, found {len(names)} models"
                )
            trained, switcher = load_switching(names[0], device=device, preset=preset, overrides=overrides)
            return cls([trained], device, switcher=switcher)
        loaded: dict[str | Path, Trained] = {}
        for one in names:
            if one not in loaded:
                loaded[one] = load_trained(one, device=device, preset=preset, overrides=overrides)
        return cls([loaded[one] for one in names], device)

    def __call__(
        self,
        waveform: np.ndarray | Tensor,
        rate: int,
        videos: Sequence[str | Path | MouthCrops | None],
        *,
        seed: int = 0,
        background: bool = True,
        watch: Watch | None = None,
    ) -> Separated:
        """Separate a recording into its speakers and the background.

        Args:
            waveform: [S] or [channels, S], any level; channels share the filters, as in `Enhancer`.
            rate: sampling rate in Hz.
            videos: for each speaker a video file, a file of crops, `MouthCrops`, or None for one who is only heard.
            seed: of the sampler and the noise model: same seed, same output.
            background: whether there is noise besides the speakers. Without it no noise model is fitted, the speakers
                share nearly all of the sound, and `background` is what little they leave.
            watch: called with every state of the EM loop (progress bars, plots).

        Raises:
            InputError: for no speakers, another number of them than of models where there are several, no samples,
                NaN or infinite samples, a bad rate, or a bad video.
        """
        return self.many([Mixture(waveform, rate, videos, seed)], background=background, watch=watch)[0]

    @own_settings()
    def many(
        self, mixtures: Sequence[Mixture], *, background: bool = True, watch: Watch | None = None
    ) -> list[Separated]:
        """Separate several recordings, blocks of them side by side as `inference` says; each as if it came alone.

        Raises:
            InputError: as for one, before any is separated.
        """
        for mixture in mixtures:
            self._check(mixture)
        signals = [checked(mixture.waveform, mixture.rate) for mixture in mixtures]
        guidance = [
            [self.voice(j).guidance(video) for j, video in enumerate(mixture.videos)] for mixture in mixtures
        ]
        orders = [_order([guided.lips for guided in one]) for one in guidance]
        found: dict[int, Separated] = {}
        # Side by side go recordings whose systems come in the same order: all, if there is but one system.
        for systems in dict.fromkeys(map(self._systems, orders)):
            some = [n for n, order in enumerate(orders) if self._systems(order) == systems]
            results = self._filtering(systems, background)(
                [mixtures[n] for n in some],
                [signals[n] for n in some],
                [[guidance[n][j] for j in orders[n]] for n in some],
                watch,
            )
            for n, result in zip(some, results, strict=True):
                systems_of = [self._systems([j])[0] for j in range(len(orders[n]))]
                found[n] = _separated(*result, orders[n], systems_of, self._switches(result[0]))
        return [found[n] for n in range(len(mixtures))]

    def faces(self, video: str | Path, faces: Faces = "all") -> list[MouthCrops]:
        """The lips of several faces of one video, one speaker each, from left to right or as `faces` lists them.

        Raises:
            InputError: as `media.mouths.read_faces`.
        """
        return read_faces(video, faces, size=self.recipe.crops.size)

    def voice(self, j: int) -> Speaker:
        """The system of speaker j."""
        return self.voices[self._systems([j])[0]]

    def _systems(self, order: Sequence[int]) -> tuple[int, ...]:
        """Which systems speakers in that order have; one 0 where there is one for all."""
        return tuple(order) if len(self.voices) > 1 else (0,)

    def _check(self, mixture: Mixture) -> None:
        speakers, models = len(mixture.videos), len(self.voices)
        if isinstance(mixture.videos, str | Path | MouthCrops) or speakers == 0:
            raise InputError("videos: expected a list with a video or None for each speaker, found none")
        if models not in (1, speakers):
            raise InputError(f"videos: expected {models} speakers, one for each model, found {speakers}")

    def _filtering(self, systems: Sequence[int], background: bool) -> Filtering:
        """The loop with the systems in that order."""
        voices, recipe = [self.voices[k] for k in systems], self.recipe
        if not background and not isinstance(recipe.noise, FloorConfig):
            recipe = recipe.model_copy(update={"noise": FloorConfig()})
        loop: Loop = (
            Denoiser([voice.trained for voice in voices], recipe, self.device)
            if self.switcher is None
            else self.switcher.with_noise(recipe.noise)
        )
        return Filtering(voices, loop, recipe, self.device)

    def _switches(self, found: Finished) -> list[Switches]:
        """The speakers' modes over time, in the order that they went through the loop."""
        if self.switcher is None or found.switch is None:
            return []
        return [self.switcher.switches(found.times, own) for own in found.switch]

    @property
    def cautions(self) -> list[str]:
        """What a user should know of the models: those whose training stopped short."""
        return [f"{v.recipe.name}: {v.caution}" for v in dict.fromkeys(self.voices) if v.caution]


def _together(first: Recipe, other: Recipe) -> None:
    """Raise `InputError` unless two systems may share a recording."""
    for what, one, two in (
        ("the STFT", first.stft, other.stft),
        ("the latent dimensions", first.model.latent, other.model.latent),
    ):
        if one != two:
            raise InputError(f"{other.name}: expected {what} of {first.name} ({one}), found {two}")


def _order(lips: Sequence[MouthCrops | None]) -> list[int]:
    """Speakers by the content of their lips, those without at the end in the order that they came in."""
    return sorted(range(len(lips)), key=lambda j: (lips[j] is None, _digest(lips[j])))


def _digest(lips: MouthCrops | None) -> str:
    """What stands for the content of lips; nothing for none."""
    if lips is None:
        return ""
    digest = hashlib.sha256()
    for array in lips:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _separated(
    found: Finished,
    guided: Sequence[Guided],
    order: Sequence[int],
    systems: Sequence[int],
    switches: Sequence[Switches],
) -> Separated:
    """The result with the speakers in the order that they were given in, as `systems` are."""
    place = [list(order).index(j) for j in range(len(order))]
    speakers = [found.speakers[k] for k in place]
    guided = [guided[k] for k in place]
    weights = found.responsibilities
    return Separated(
        speakers=speakers,
        background=found.mixture - sum(speakers[1:], start=speakers[0]),
        rate=found.rate,
        seconds=found.seconds,
        used_video=[one.lips is not None for one in guided],
        without_video=[one.reason for one in guided],
        iterations=found.iterations,
        acceptance=found.acceptance,
        real_time_factor=found.real_time_factor,
        responsibilities=None if weights is None else weights[place],
        times=found.times,
        warnings=tuple(_alike([one.lips for one in guided], systems)),
        switches=tuple(switches[k] for k in place) if switches else (),
    )


def _alike(lips: Sequence[MouthCrops | None], systems: Sequence[int]) -> list[str]:
    """A line on speakers who have the same system and the same lips, or none."""
    groups: dict[tuple[int, str], list[int]] = {}
    for j, (system, one) in enumerate(zip(systems, lips, strict=True)):
        groups.setdefault((system, _digest(one)), []).append(j + 1)
    return [
        f"speakers {' and '.join(map(str, members))} {'have the same lips' if digest else 'are only heard'}: "
        "who of them says what is up to chance"
        for (_, digest), members in groups.items()
        if len(members) > 1
    ]
