"""The few tuples that cross the borders between rooms, with the alphabet of shapes.

Alphabet: B recordings, J sources (speakers), R chains or draws, C mixture components, N audio (STFT) frames,
F frequency bins, L latent dimensions, T video frames, D visual features, K noise components, S samples.
Arrays put time before content: power is [..., N, F], latent vectors are [..., N, L].
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import torch


class Audio(NamedTuple):
    """A recording as it was read: `waveform` [channels, S] float64 at full scale 1, `rate` in Hz.

    `subtype` and `format` are libsndfile's names for the coding to write the result in, for example
    "PCM_24" in a "WAV" (a sound taken from a video container is written as WAV).
    """

    waveform: np.ndarray
    rate: int
    subtype: str
    format: str


class MouthCrops(NamedTuple):
    """`crops` [T, height, width] grey (uint8), `times` [T] s, `valid` [T] bool (a face was found)."""

    crops: np.ndarray
    times: np.ndarray
    valid: np.ndarray


class Shapes(NamedTuple):
    """What a part from outside the package needs to know: `latent` L, `bins` F, `lips` D."""

    latent: int
    bins: int
    lips: int


class Visual(NamedTuple):
    """What the networks see of the lips, on the STFT clock: `features` [..., N, D], `valid` [..., N] bool."""

    features: torch.Tensor
    valid: torch.Tensor


class Utterance(NamedTuple):
    """One item of a corpus: where its sound and its lips are. `split` is "train", "val" or "test"."""

    id: str
    speaker: str
    audio: Path
    video: Path | None
    split: str


class Prepared(NamedTuple):
    """One utterance ready for features: `waveform` [S] float32 mono at the STFT's rate, `lips` if it has video."""

    id: str
    speaker: str
    split: str
    waveform: np.ndarray
    lips: MouthCrops | None


class Switches(NamedTuple):
    """Which of the modes `names` (M of them) each frame at `times` [N] s follows: `probabilities` [N, M], `path` [N].

    `trust` [N] is the probability that the lips of the frame are right, 0 where there are none; None where no mode
    looks at lips.
    """

    names: tuple[str, ...]
    times: np.ndarray
    probabilities: np.ndarray
    path: np.ndarray
    trust: np.ndarray | None
