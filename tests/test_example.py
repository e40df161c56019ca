"""The example in examples/ is what its README says: a findable face, equal lengths, the stated SNR."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile

EXAMPLES = Path(__file__).parents[1] / "examples"
NOISY = EXAMPLES / "noisy.mkv"
RATE, FPS, SECONDS = 16000, 25, 3.0


@pytest.fixture(scope="module")
def grey() -> list[np.ndarray]:
    with av.open(str(NOISY)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def mixture() -> np.ndarray:
    with av.open(str(NOISY)) as container:
        pieces = [frame.to_ndarray() for frame in container.decode(audio=0)]
        assert container.streams.audio[0].rate == RATE
    sound = np.concatenate(pieces, axis=1)
    assert sound.dtype == np.int16
    return sound[0] / 2**15


def test_sound_and_video_have_the_same_length(grey: list[np.ndarray], mixture: np.ndarray) -> None:
    assert len(grey) / FPS == SECONDS
    assert len(mixture) / RATE == SECONDS


def test_haar_cascade_finds_one_face(grey: list[np.ndarray]) -> None:
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    found = [len(cascade.detectMultiScale(frame, 1.1, 5)) == 1 for frame in grey]
    assert np.mean(found) >= 0.9


def test_mouth_moves_with_the_voice(grey: list[np.ndarray]) -> None:
    clean, _ = soundfile.read(EXAMPLES / "clean.flac")
    loud = np.sqrt(np.mean(clean.reshape(len(grey), -1) ** 2, axis=1))
    mouth = np.array([frame[165:210, 155:205].mean() for frame in grey])
    # An open mouth is darker than closed lips and skin.
    assert np.corrcoef(loud, -mouth)[0, 1] > 0.5


def test_mixture_has_the_stated_snr(mixture: np.ndarray) -> None:
    clean, rate = soundfile.read(EXAMPLES / "clean.flac")
    assert rate == RATE
    noise = mixture - clean
    snr_db = 10 * np.log10(np.sum(clean**2) / np.sum(noise**2))
    assert snr_db == pytest.approx(0.0, abs=0.05)
    assert np.max(np.abs(mixture)) < 1.0


def test_files_are_small() -> None:
    assert sum(path.stat().st_size for path in EXAMPLES.iterdir() if path.is_file()) < 400_000
