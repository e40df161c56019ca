"""Files in, files out: which input gives which output, and what is refused before any work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from signals import speechlike
from tiny import save_tiny_model

from pyro_minvae.cli.files import EnhancementJob, plan
from pyro_minvae.errors import InputError
from pyro_minvae.pipelines.enhancer import Enhancer

EXAMPLE = Path(__file__).parents[1] / "examples" / "noisy.mkv"
RATE = 16000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def write_sound(path: Path, seconds: float = 0.5, rate: int = RATE) -> Path:
    soundfile.write(path, speechlike(rate, seconds), rate, subtype="PCM_16")
    return path


def write_coded(path: Path, codec: str) -> Path:
    """A sound that can be read but not written."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            speechlike(RATE, 0.5).astype(np.float32)[None], format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.aac", "aac"), ("a.mp3", "libmp3lame")])
def test_kinds_that_cannot_be_written_become_wav(
    name: str, codec: str, run_cli: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec} encoder")
    source = write_coded(tmp_path / name, codec)
    result = run_cli("enhance", source, "--model", model)
    assert result.exit_code == 0, result.stderr
    assert soundfile.info(tmp_path / "a-enhanced.wav").samplerate == RATE
    result = run_cli(
        "enhance", source, write_sound(tmp_path / "b.flac"), "--model", model, "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.wav", "b.flac"}


@pytest.mark.parametrize("option", ["--out", "--noise-out"])
def test_unwritable_suffix_is_refused_before_any_work(
    option: str, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    source = write_sound(tmp_path / "in.wav")
    result = run_cli("enhance", source, option, tmp_path / "x.mp3", "--model", "no-such-model")
    assert result.exit_code == 2
    assert "x.mp3: expected the name of a sound file" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


def test_results_of_an_earlier_run_are_no_inputs(tmp_path: Path) -> None:
    for name in ("a.wav", "a-enhanced.wav", "a-noise.wav", "b-enhanced.wav", "c.mkv", "c-enhanced.wav"):
        write_sound(tmp_path / name) if name.endswith(".wav") else shutil.copy(EXAMPLE, tmp_path / name)
    assert [job.audio.name for job in plan([tmp_path])] == ["a.wav", "b-enhanced.wav", "c.mkv"]
    # Results that go elsewhere cannot be taken for inputs later.
    assert len(plan([tmp_path], out=tmp_path / "out")) == 6
    assert plan([tmp_path / "a-enhanced.wav"])[0].out.name == "a-enhanced-enhanced.wav"


def test_names_that_are_too_long_are_one_line(
    run_cli: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    long, source = tmp_path / f"{300 * 'a'}.wav", write_sound(tmp_path / "in.wav")
    for arguments in (
        (long,),
        (source, "--out", long),
        (source, "--video", long),
        (source, "--noise-out", long),
    ):
        result = run_cli("enhance", *arguments, "--model", model)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("error: ")


def test_folder_takes_sound_and_lips_from_different_files(
    run_cli: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    sound = write_sound(folder / "a.wav", 2.0, 8000)
    shutil.copy(EXAMPLE, folder / "a.mkv")
    outputs = {}
    for name, arguments in {
        "folder": (folder,),
        "pair": (sound, "--video", EXAMPLE),
        "sound": (sound,),
    }.items():
        out = tmp_path / name
        out.mkdir()
        # No network that learnt nothing tells lips that go with the sound from others.
        settings = "--set", "inference.lips=always"
        result = run_cli("enhance", *arguments, "--model", model, "--out", out, *settings)
        assert result.exit_code == 0, result.stderr
        assert ("audio-only" if name == "sound" else "audio-visual") in result.stdout
        outputs[name], rate = soundfile.read(out / "a.wav")
        assert (len(outputs[name]), rate) == (16000, 8000)
    np.testing.assert_array_equal(outputs["folder"], outputs["pair"])
    assert not np.array_equal(outputs["folder"], outputs["sound"])


def test_clipping_is_reported(model: Path, tmp_path: Path) -> None:
    class Loud(Enhancer):
        def many(self, *arguments: Any, **options: Any) -> Any:
            (result,) = super().many(*arguments, **options)
            speech = result.speech.copy()
            speech[..., :7] = 1.5
            return [result._replace(speech=speech)]

    job = EnhancementJob(write_sound(tmp_path / "in.wav"), None, tmp_path / "out.wav", None)
    enhancer = Loud.from_pretrained(model)
    assert f"{tmp_path / 'out.wav'}: 7 samples clipped" in job.run(enhancer).warnings


def test_training_that_stopped_early_is_told(
    run_cli: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    stopped = shutil.copytree(model, tmp_path / "stopped")
    config = json.loads((stopped / "config.json").read_text())
    stages = ["audio", "lips", "mixture"]
    for stage, visual in (("audio", False), ("mixture", True)):
        config["training"] = {"finished": False, "stage": stage, "stages": stages, "epoch": 2}
        (stopped / "config.json").write_text(json.dumps(config))
        result = run_cli(
            "enhance",
            EXAMPLE,
            EXAMPLE.with_name("clean.flac"),
            *("--model", stopped, "--out", tmp_path, "--set", "inference.lips=always"),
        )
        assert result.exit_code == 0, result.stderr
        number = stages.index(stage) + 1
        assert result.stderr.count(f"stopped: training stopped in stage '{stage}' ({number} of 3)") == 1
        assert ("the visual network is not trained yet" in result.stderr) == (not visual)
        assert ("audio-visual" in result.stdout) == visual


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_seeds_out_of_range_are_refused(seed: int, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    result = run_cli("enhance", write_sound(tmp_path / "in.wav"), "--seed", seed)
    assert result.exit_code == 2
    assert "--seed" in result.stderr


def test_unwritable_suffix_in_python(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out\.txt: expected the name of a sound file"):
        plan([write_sound(tmp_path / "in.wav")], out=tmp_path / "out.txt")
