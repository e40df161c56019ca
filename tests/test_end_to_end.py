"""The bundled models do their job: on the synthetic example, and on a real clip where there is data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from signals import at_snr

from pyro_minvae import Enhancer
from pyro_minvae.evaluation.metrics import si_sdr
from pyro_minvae.media.audio import mono, read_audio
from pyro_minvae.systems.checkpoint import PRETRAINED, pretrained_names

EXAMPLES = Path(__file__).parents[1] / "examples"
MODELS = ["a-vae", "min-vae-grid"]


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return soundfile.read(EXAMPLES / "clean.flac")[0]


@pytest.fixture(scope="module")
def noisy() -> np.ndarray:
    return read_audio(EXAMPLES / "noisy.mkv").waveform[0]


def test_both_models_are_bundled() -> None:
    assert set(MODELS) <= set(pretrained_names())


@pytest.mark.parametrize("name", MODELS)
def test_model_card_tells_data_and_licence(name: str) -> None:
    card = "".join(path.read_text(encoding="utf-8") for path in (PRETRAINED / name).glob("*.md"))
    for word in ("GRID", "LibriSpeech", "CC BY 4.0", "seed"):
        assert word in card
    json.loads((PRETRAINED / name / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODELS)
def test_python_in_three_lines(name: str, clean: np.ndarray, noisy: np.ndarray) -> None:
    enhancer = Enhancer.from_pretrained(name)
    video = EXAMPLES / "noisy.mkv" if name == "min-vae-grid" else None
    enhanced = enhancer(noisy, 16000, video)
    # A drawn mouth is none that the model could read: it says so and goes by the sound.
    assert not enhanced.used_video
    assert ("unlike those the model learnt" in enhanced.without_video) == (video is not None)
    assert enhanced.speech.shape == noisy.shape
    np.testing.assert_allclose(enhanced.speech + enhanced.noise, noisy, atol=1e-5 * np.abs(noisy).max())
    assert si_sdr(clean, enhanced.speech) > si_sdr(clean, noisy)
    np.testing.assert_array_equal(enhancer(noisy, 16000, video).speech, enhanced.speech)


def test_command_on_the_example(
    run_cli: Callable, clean: np.ndarray, noisy: np.ndarray, tmp_path: Path
) -> None:
    out, rest = tmp_path / "out.wav", tmp_path / "noise.wav"
    result = run_cli("enhance", EXAMPLES / "noisy.mkv", "--out", out, "--noise-out", rest)
    assert result.exit_code == 0, result.stderr
    for word in ("3.00 s", "audio-only", "iterations", "acceptance", "responsibility", "real-time factor"):
        assert word in result.stdout
    assert "unlike those the model learnt" in result.stderr
    speech, noise = soundfile.read(out)[0], soundfile.read(rest)[0]
    np.testing.assert_allclose(speech + noise, noisy, atol=1e-5 * np.abs(noisy).max())
    assert si_sdr(clean, speech) > si_sdr(clean, noisy)


def grid_clip(data_root: Path) -> tuple[Path, np.ndarray, int]:
    """The first validation clip of GRID: its video, speech [S] and rate (Hz)."""
    clip = (data_root / "grid" / "val.txt").read_text().split()[0].removeprefix("s1/")
    video = data_root / "grid" / "s1" / f"{Path(clip).stem}.mkv"
    audio = read_audio(video)
    return video, audio.waveform[0], audio.rate


@pytest.mark.real_data
def test_lips_help_in_python(data_root: Path) -> None:
    video, speech, rate = grid_clip(data_root)
    # Noise like speech, where sound alone goes astray; in white noise lips add little to one clip.
    street = mono(read_audio(data_root / "noise" / "busy-street.flac"), rate)[rate : rate + len(speech)]
    mixture = speech + at_snr(speech, street.astype(np.float64), -5)
    enhancer = Enhancer.from_pretrained("min-vae-grid")
    seen, encoder_input = enhancer(mixture, rate, video), enhancer(mixture, rate)
    assert seen.used_video
    assert not encoder_input.used_video
    # Far below what is measured on the whole set: one clip, one seed.
    assert si_sdr(speech, seen.speech) > si_sdr(speech, mixture) + 4
    assert si_sdr(speech, seen.speech) > si_sdr(speech, encoder_input.speech)


@pytest.mark.real_data
def test_command_on_a_grid_clip(run_cli: Callable, data_root: Path, tmp_path: Path) -> None:
    video, speech, rate = grid_clip(data_root)
    mixture = speech + at_snr(speech, np.random.default_rng(0).standard_normal(len(speech)), -5)
    level = 0.9 / np.abs(mixture).max()
    soundfile.write(tmp_path / "in.wav", level * mixture, rate)
    scores = {}
    for name, options in {"lips": ("--video", video), "sound": ()}.items():
        result = run_cli("enhance", tmp_path / "in.wav", "--out", tmp_path / f"{name}.wav", *options)
        assert result.exit_code == 0, result.stderr
        assert ("audio-visual" if options else "audio-only") in result.stdout
        scores[name] = si_sdr(speech, soundfile.read(tmp_path / f"{name}.wav")[0])
    # Far below what is measured on the whole set: one clip, one seed.
    assert scores["lips"] > si_sdr(speech, mixture) + 4
