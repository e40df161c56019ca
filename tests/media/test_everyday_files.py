"""Files as people have them: squeezed pixels, odd names, sound alone in a video's container, streams cut or piped."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from signals import speechlike
from tiny import save_tiny_model

from pyro_minvae.errors import InputError
from pyro_minvae.media.audio import read_audio
from pyro_minvae.media.video import NoPicturesError, read_frames
from pyro_minvae.pipelines.recording import checked

RATE = 16000
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("everyday") / "model")


def film(path: Path, *, width: int = 160, height: int = 120, aspect: Fraction = Fraction(1), b_frames: int = 0,
         codec: str = "libx264", frames: int = 30, sound: bool = False) -> Path:  # fmt: skip
    """A video of 25 frames a second whose n-th frame is grey 4 n + 60 with a white square in the middle."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if aspect != 1:
            stream.codec_context.sample_aspect_ratio = aspect
        if codec == "libx264":
            stream.codec_context.max_b_frames = b_frames
            stream.options = {"crf": "10", "bf": str(b_frames), "b-adapt": "0", "g": "12"}
        voice = (
            container.add_stream("pcm_s16le" if path.suffix == ".avi" else "aac", rate=RATE)
            if sound
            else None
        )
        for n in range(frames):
            picture = np.full((height, width, 3), 60 + 4 * n, np.uint8)
            picture[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if voice is not None:
            samples = (0.3 * speechlike(RATE, frames / 25) * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            container.mux(voice.encode(frame))
            container.mux(voice.encode())
    return path


@pytest.mark.parametrize("aspect", [Fraction(1, 2), Fraction(2), Fraction(4, 3)])
def test_pixels_are_made_square(tmp_path: Path, aspect: Fraction) -> None:
    """The shape of the white square is that of its height and width on the screen."""
    path = film(tmp_path / "squeezed.mkv", aspect=aspect, frames=3)
    for _, picture in read_frames(path):
        assert picture.shape == (round(120 * max(1, 1 / aspect)), round(160 * max(1, aspect)))
        rows, columns = ((picture > 200).any(1).sum(), (picture > 200).any(0).sum())
        assert columns / rows == pytest.approx(float(160 / 120 * aspect), rel=0.05)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".avi", "libx264"), (".avi", "mpeg4"), (".wmv", "wmv2"), (".asf", "mpeg4")]
)
@pytest.mark.parametrize("b_frames", [0, 2])
def test_times_rise_by_one_frame_time(tmp_path: Path, suffix: str, codec: str, b_frames: int) -> None:
    """Also where the container notes when a frame is decoded; the order of the frames is that of the film."""
    path = film(tmp_path / f"film{suffix}", codec=codec, b_frames=b_frames)
    times, greys = zip(*((time, int(picture[5, 5])) for time, picture in read_frames(path)), strict=True)
    assert len(times) >= 28
    assert np.diff(greys).min() > -2  # but for the rounding of the codec
    np.testing.assert_allclose(np.diff(times), 0.04, atol=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".3gp", ".mov"])
def test_a_container_with_sound_alone_is_enhanced_by_it(
    tmp_path: Path, model: Path, run_cli: Run, suffix: str
) -> None:
    path, voice = tmp_path / f"talk{suffix}", 0.5 * speechlike(48000, 1.0)
    codec = "libopus" if suffix == ".webm" else "aac"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48000)
        frame = av.AudioFrame.from_ndarray(
            (voice * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = 48000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(NoPicturesError):
        list(read_frames(path))
    result = run_cli("enhance", path, "--model", model, "--out", tmp_path / "out.wav")
    assert result.exit_code == 0, result.stderr
    assert "enhancing from the sound alone" in result.stderr


@pytest.mark.parametrize(
    "name", ["10:30 talk.mkv", "http: //x.mkv", "a%20b.mkv", os.fsdecode(b"caf\xe9.mkv")]
)
def test_names_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / "plain.mkv"
    film(path, sound=True)
    monkeypatch.chdir(tmp_path)
    odd = Path(name.replace("/", "_"))
    path.rename(odd)
    assert len(list(read_frames(odd))) == 30
    assert read_audio(odd).waveform.shape[1] > 0.9 * 1.2 * RATE


def test_letters_that_cannot_be_printed_are_replaced(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "r\u00e9sum\u00e9.wav"
    soundfile.write(path, speechlike(RATE, 0.5), RATE)
    command = [
        sys.executable,
        "-m",
        "pyro_minvae",
        "enhance",
        path,
        "--model",
        model,
        "--out",
        tmp_path / "o.wav",
    ]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert b"r?sum?.wav" in result.stderr


def test_sound_that_libsndfile_refuses_is_read_all_the_same(tmp_path: Path) -> None:
    voice = 0.5 * speechlike(RATE, 1.0)
    # FLAC as it comes out of a pipe: nobody went back to note its length.
    piped = io.BytesIO()
    soundfile.write(piped, voice, RATE, format="FLAC")
    data = bytearray(piped.getvalue())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "piped.flac").write_bytes(data)
    aac = tmp_path / "named.m4a"
    with av.open(str(aac), "w") as container:
        stream = container.add_stream("aac", rate=RATE)
        frame = av.AudioFrame.from_ndarray(
            (voice * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    aac.rename(tmp_path / "named.wav")
    for name, most in (("piped.flac", 0), ("named.wav", 2048)):
        audio = read_audio(tmp_path / name)
        assert audio.rate == RATE
        assert abs(audio.waveform.shape[1] - RATE) <= most
        assert (
            np.corrcoef(audio.waveform[0, :RATE][: len(voice)], voice[: audio.waveform.shape[1]])[0, 1] > 0.95
        )
    (tmp_path / "noise.wav").write_bytes(b"no sound at all" * 100)
    with pytest.raises(InputError, match="expected a sound file"):
        read_audio(tmp_path / "noise.wav")


def test_a_pipe_and_wild_samples_are_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    os.mkfifo(tmp_path / "pipe.mp3")
    for name in ("pipe.wav", "pipe.mp3"):
        with pytest.raises(InputError, match="found no regular file"):
            read_audio(tmp_path / name)
    soundfile.write(tmp_path / "wild.wav", 1e200 * speechlike(RATE, 0.1), RATE, "DOUBLE")
    with pytest.raises(InputError, match="expected samples around full scale 1"):
        read_audio(tmp_path / "wild.wav")


def test_what_a_mac_keeps_beside_a_file_is_no_recording(tmp_path: Path, model: Path, run_cli: Run) -> None:
    soundfile.write(tmp_path / "a.wav", speechlike(RATE, 0.5), RATE)
    (tmp_path / "._a.wav").write_bytes(b"Mac OS X")
    result = run_cli("enhance", tmp_path, "--model", model, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.wav"]


def test_one_input_costs_no_other_its_result(
    tmp_path: Path,
    model: Path,
    run_cli: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clash of names, a broken file, and an error that nobody foresaw: the rest is made and each is named."""
    for name in ("a.wav", "b.wav", "talk.wav", "talk.flac"):
        soundfile.write(tmp_path / name, speechlike(RATE, 0.5), RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    from pyro_minvae.cli.files import EnhancementJob

    right = EnhancementJob.open

    def surprising(self: EnhancementJob, *args: object) -> object:
        if self.audio.name == "b.wav":
            raise ZeroDivisionError("nobody foresaw it")
        return right(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(EnhancementJob, "open", surprising)
    result = run_cli("enhance", tmp_path, "--model", model, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.wav"]
    for said in ("b.wav: expected to be enhanced, found ZeroDivisionError: nobody foresaw it", "broken.wav: expected",
                 "expected one sound of this name, found talk.wav beside it", "3 of 4 recordings failed"):  # fmt: skip
        assert said in result.stderr


def test_a_second_run_over_a_list_leaves_out_the_results_of_the_first(
    tmp_path: Path,
    model: Path,
    run_cli,
) -> None:
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, speechlike(RATE, 0.5), RATE)
    for _ in range(2):
        result = run_cli("enhance", *sorted(tmp_path.glob("*.wav")), "--model", model)
        assert result.exit_code == 0, result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a-enhanced.wav",
        "a.wav",
        "b-enhanced.wav",
        "b.wav",
    ]


def test_arrays_of_every_kind() -> None:
    import torch

    sound = speechlike(RATE, 0.1)
    stereo = np.stack([sound, -sound])
    with pytest.raises(InputError, match=r"found \[1600, 2\].*\.T"):
        checked(stereo.T, RATE)
    for given in (
        stereo,
        stereo.astype(np.float32),
        np.asfortranarray(stereo),
        torch.tensor(stereo, requires_grad=True),
        torch.tensor(stereo).half(),
        torch.tensor(stereo).bfloat16(),
        (stereo * 100).astype(np.int16),
    ):
        found = checked(given, RATE)
        assert found.shape == (2, 1600)
        assert found.dtype == np.float64
