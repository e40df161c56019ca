"""Bad input: one clear line and exit code 2, nothing written. Odd but legitimate input: correct output."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import soundfile
from signals import speechlike
from tiny import save_tiny_model

EXAMPLE = Path(__file__).parents[1] / "examples" / "noisy.mkv"
RATE = 16000


class Result(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str


Run = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def enhance(run_cli: Run, model: Path, tmp_path: Path) -> Run:
    """`enhance(input, *options)` with the tiny model into tmp_path/out.wav."""

    def run(source: Path, *options: object) -> Result:
        return run_cli("enhance", source, "--model", model, "--out", tmp_path / "out.wav", *options)

    return run


def assert_refused(result: Result, *words: object) -> None:
    """Exit code 2 and a single line on standard error that holds all `words`."""
    assert result.exit_code == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert str(word) in lines[0]
    assert "Traceback" not in result.stdout + result.stderr


def write_sound(path: Path, sound: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, sound, rate, subtype=subtype)
    return path


def write_film(path: Path, frames: int, *, sound: np.ndarray | None = None) -> Path:
    """Frames of plain noise (no face) at 25 frames/s, with an optional mono sound."""
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 96, 96, "yuv420p"
        audio = (
            None if sound is None else container.add_stream("flac", rate=RATE, layout="mono", format="s16")
        )
        for _ in range(frames):
            picture = generator.integers(0, 256, (96, 96, 3), dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None:
            samples = np.round(32767 * sound).astype(np.int16)[None]
            piece = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            piece.sample_rate, piece.pts = RATE, 0
            container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return path


def write_nothing(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def write_text(path: Path) -> Path:
    path.write_text("this is a letter, not a sound\n" * 20)
    return path


def write_no_samples(path: Path) -> Path:
    return write_sound(path, np.zeros(0))


def write_nan(path: Path) -> Path:
    return write_sound(path, np.where(np.arange(RATE) == 100, np.nan, 0.1), subtype="FLOAT")


@pytest.mark.parametrize(
    "make",
    [write_nothing, write_text, write_no_samples, write_nan],
    ids=["empty", "text", "no samples", "NaN"],
)
def test_unusable_sound_is_refused(make: Callable[[Path], Path], enhance: Run, tmp_path: Path) -> None:
    source = make(tmp_path / "in.wav")
    assert_refused(enhance(source), source, "expected", "found")
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


@pytest.mark.parametrize("make", [write_nothing, write_text], ids=["empty", "text"])
def test_unusable_video_is_refused(make: Callable[[Path], Path], enhance: Run, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "in.wav", speechlike(RATE, 0.5))
    video = make(tmp_path / "lips.mkv")
    assert_refused(enhance(sound, "--video", video), video, "expected", "found")
    assert_refused(enhance(video), video, "expected", "found")
    assert not (tmp_path / "out.wav").exists()


def test_missing_files_and_models_are_refused(enhance: Run, run_cli: Run, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "in.wav", speechlike(RATE, 0.5))
    assert_refused(enhance(tmp_path / "none.wav"), "none.wav", "expected", "found")
    assert_refused(enhance(sound, "--video", tmp_path / "none.mkv"), "none.mkv", "expected", "found")
    result = run_cli("enhance", sound, "--model", "no-such-model", "--out", tmp_path / "out.wav")
    assert_refused(result, "no-such-model", "expected", "found")
    assert not (tmp_path / "out.wav").exists()


def test_unwritable_outputs_are_refused(run_cli: Run, model: Path, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "in.wav", speechlike(RATE, 0.5))
    before = sound.read_bytes()
    # A file where a folder would have to be fails for every user, the administrator included.
    for out in (tmp_path / "none" / "out.wav", sound / "out.wav", sound):
        assert_refused(run_cli("enhance", sound, "--model", model, "--out", out), "expected", "found")
    assert sound.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


@pytest.mark.parametrize(
    "setting",
    ["inference.iteration=3", "inference.iterations=none", "inference.iterations=0", "nonsense", "a.b=1"],
)
def test_unknown_settings_are_refused(setting: str, enhance: Run, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "in.wav", speechlike(RATE, 0.5))
    assert_refused(enhance(sound, "--set", setting), setting.partition("=")[0].split(".")[0])


def test_unknown_recipes_and_keys_are_refused(run_cli: Run, tmp_path: Path) -> None:
    arguments = ("--data", tmp_path, "--out", tmp_path / "run")
    assert_refused(run_cli("train", "no-such-recipe", *arguments), "no-such-recipe", "min-vae")
    assert_refused(run_cli("train", "a-vae", *arguments, "--set", "model.latents=3"), "latents")
    recipe = tmp_path / "mine.toml"
    recipe.write_text("name = \n")
    assert_refused(run_cli("train", recipe, *arguments), recipe, "expected")
    assert not (tmp_path / "run").exists()


def test_device_that_is_not_there_is_refused(enhance: Run, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "in.wav", speechlike(RATE, 0.5))
    assert_refused(enhance(sound, "--device", "no-such-device"), "no-such-device", "expected")


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_rates_channels_and_sample_formats_are_kept(
    rate: int, channels: int, subtype: str, enhance: Run, tmp_path: Path
) -> None:
    sound = np.stack([speechlike(rate, 0.7, seed) for seed in range(channels)], axis=1)
    source = write_sound(tmp_path / "in.wav", sound, rate, subtype)
    result = enhance(source, "--noise-out", tmp_path / "noise.wav")
    assert result.exit_code == 0, result.stderr
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.samplerate, info.channels, info.frames, info.subtype) == (
        rate,
        channels,
        len(sound),
        subtype,
    )
    mixture, speech, noise = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("in", "out", "noise"))
    np.testing.assert_allclose(speech + noise, mixture, atol=1e-5 * np.abs(mixture).max())


@pytest.mark.parametrize("samples", [1, 2, 255, 1025])
def test_shortest_sounds_keep_their_length(samples: int, enhance: Run, tmp_path: Path) -> None:
    source = write_sound(tmp_path / "in.wav", np.full(samples, 0.25))
    result = enhance(source)
    assert result.exit_code == 0, result.stderr
    out, _ = soundfile.read(tmp_path / "out.wav")
    assert out.shape == (samples,)
    assert np.isfinite(out).all()


def test_silence_stays_silence(enhance: Run, tmp_path: Path) -> None:
    result = enhance(write_sound(tmp_path / "in.wav", np.zeros(RATE)))
    assert result.exit_code == 0, result.stderr
    out, _ = soundfile.read(tmp_path / "out.wav")
    assert out.shape == (RATE,)
    assert not out.any()


def test_video_without_a_face_goes_by_the_sound(enhance: Run, tmp_path: Path) -> None:
    sound = speechlike(RATE, 1.0)
    result = enhance(write_film(tmp_path / "in.mkv", 25, sound=sound))
    assert result.exit_code == 0, result.stderr
    assert "no face" in result.stderr
    assert "audio-only" in result.stdout
    assert soundfile.info(tmp_path / "out.wav").frames == len(sound)


def test_video_without_sound_is_refused(enhance: Run, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mkv", 5)
    assert_refused(enhance(source), source, "expected", "found")


@pytest.mark.parametrize("seconds", [1.0, 3.0, 4.0])
def test_video_may_be_longer_or_shorter_than_the_sound(seconds: float, enhance: Run, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "in.wav", speechlike(RATE, seconds))
    result = enhance(sound, "--video", EXAMPLE, "--set", "inference.lips=always")
    assert result.exit_code == 0, result.stderr
    assert "audio-visual" in result.stdout
    assert soundfile.info(tmp_path / "out.wav").frames == round(RATE * seconds)


def test_folder_with_one_bad_file_gives_the_others(run_cli: Run, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_sound(folder / "a.wav", speechlike(RATE, 0.5))
    write_text(folder / "b.wav")
    write_sound(folder / "c.wav", speechlike(RATE, 0.5))
    result = run_cli("enhance", folder, "--model", model, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "error: " + str(folder / "b.wav") in result.stderr
    assert result.stderr.splitlines()[-1] == "1 of 3 recordings failed"
    assert "Traceback" not in result.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.wav", "c.wav"}
    assert len(result.stdout.splitlines()) == 2


def test_damaged_model_is_refused(run_cli: Run, model: Path, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "in.wav", speechlike(RATE, 0.5))
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert_refused(
        run_cli("enhance", sound, "--model", broken, "--out", tmp_path / "out.wav"), broken, "expected"
    )
    (broken / "config.json").write_text("{}")
    assert_refused(
        run_cli("enhance", sound, "--model", broken, "--out", tmp_path / "out.wav"), broken, "expected"
    )
    assert not (tmp_path / "out.wav").exists()
