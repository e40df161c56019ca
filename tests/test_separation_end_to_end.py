"""The bundled model parts two real voices that only the lips tell apart: from two videos, and from one with both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from faces import write_video

from pyro_minvae import Enhancer, Separator
from pyro_minvae.evaluation.metrics import si_sdr
from pyro_minvae.media.audio import read_audio
from pyro_minvae.media.video import read_frames

MODEL, RATE = "av-separation-grid", 16000


class Scene(NamedTuple):
    """Two clips of one speaker at the same level: their videos, voices [S] each and mixture [S]."""

    videos: list[Path]
    voices: list[np.ndarray]
    mixture: np.ndarray

    def gains(self, estimates: list[np.ndarray]) -> list[float]:
        """SI-SDR improvement of each estimate over the mixture in dB."""
        pairs = zip(self.voices, estimates, strict=True)
        return [si_sdr(voice, found) - si_sdr(voice, self.mixture) for voice, found in pairs]


@pytest.fixture(scope="module")
def scene(data_root: Path) -> Scene:
    videos = [data_root / "grid" / "s1" / f"{clip}.mkv" for clip in ("bbbm1s", "swwp3s")]
    sounds = [read_audio(video).waveform[0] for video in videos]
    samples = min(map(len, sounds))
    voices = [0.05 * sound[:samples] / np.sqrt(np.mean(sound[:samples] ** 2)) for sound in sounds]
    return Scene(videos, voices, voices[0] + voices[1])


@pytest.mark.real_data
def test_lips_tell_a_voice_from_itself(scene: Scene) -> None:
    separator = Separator.from_pretrained(MODEL)
    result = separator(scene.mixture, RATE, scene.videos, background=False)
    assert result.used_video == [True, True]
    # Far below what is measured on a whole set: one pair, one seed, few iterations.
    assert min(scene.gains(result.speakers)) > 2
    assert max(scene.gains(result.speakers[::-1])) < 0
    np.testing.assert_allclose(sum(result.speakers) + result.background, scene.mixture, rtol=0, atol=1e-12)


@pytest.mark.real_data
def test_one_speaker_is_enhancement(scene: Scene) -> None:
    settings: dict[str, Any] = {"overrides": ["inference.iterations=5"]}
    noisy = scene.voices[0] + 0.02 * np.random.default_rng(0).standard_normal(len(scene.mixture))
    enhanced = Enhancer.from_pretrained(MODEL, **settings)(noisy, RATE, scene.videos[0])
    separated = Separator.from_pretrained(MODEL, **settings)(noisy, RATE, scene.videos[:1])
    np.testing.assert_array_equal(separated.speakers[0], enhanced.speech)


@pytest.mark.real_data
def test_two_faces_in_one_video(scene: Scene, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    pictures = zip(*([picture for _, picture in read_frames(video)] for video in scene.videos), strict=True)
    # Lossless: at the rate of the other codecs here hardly a lip moves.
    both = write_video(
        tmp_path / "both.mkv",
        [np.hstack(pair) for pair in pictures],
        codec="ffv1",
        sound=scene.mixture[None],
        sound_codec="flac",
    )
    soundfile.write(tmp_path / "mix.wav", scene.mixture, RATE)
    gains = []
    for mix, *who in (
        (both, "--faces", "left,right"),
        (
            tmp_path / "mix.wav",
            "--video",
            scene.videos[0],
            "--video",
            scene.videos[1],
            "--names",
            "left",
            "right",
        ),
    ):
        out = tmp_path / Path(mix).stem
        result = run_cli("separate", mix, *who, "--out", out, "--no-background")
        assert result.exit_code == 0, result.stderr
        assert result.stdout.count("audio-visual") == 2
        parts = {path.stem: soundfile.read(path)[0] for path in out.iterdir()}
        assert parts.keys() == {"left", "right", "background"}
        # Both files hold the mixture in 16 bits, each rounded in its way.
        np.testing.assert_allclose(sum(parts.values()), scene.mixture, rtol=0, atol=2**-14)
        gains.append(scene.gains([parts["left"], parts["right"]]))
    assert np.min(gains) > 1.5
    # The crops differ by where the face was found in a picture of another size.
    assert np.abs(np.subtract(*gains)).max() < 1.5
