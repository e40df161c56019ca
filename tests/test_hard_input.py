"""Everyday files through the command line: sound alone, odd names, several tracks and faces, pipes."""

from __future__ import annotations

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
from faces import draw_face, face_pictures, write_video
from signals import speechlike
from tiny import save_tiny_model

from pyro_minvae.cli.files import EnhancementJob
from pyro_minvae.pipelines.enhancer import Enhancer

RATE = 16000
SOUND = speechlike(RATE, 1.0)
NOT_UTF8 = os.fsdecode(b"\xff\xe4.wav")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def film(path: Path, starts: tuple[float, ...] = (0.0,), pictures: list[np.ndarray] | None = None) -> Path:
    """A film of a face with a sound track for each of the `starts` (s)."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        pictures = pictures or face_pictures([0.0] * 25)
        video.height, video.width = pictures[0].shape
        video.pix_fmt = "yuv420p"
        tracks = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in starts]
        for n, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for track, start in zip(tracks, starts, strict=True):
            samples = (SOUND * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, round(start * RATE), Fraction(1, RATE)
            container.mux(track.encode(frame))
    return path


@pytest.mark.parametrize("name", ["talk.mkv", "10:30 talk.mkv"])
def test_a_container_of_sound_alone_is_enhanced_by_its_sound(
    run_cli: Callable[..., Any], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mkv", [], sound=SOUND[None]).rename(tmp_path / name)
    result = run_cli("enhance", name, "--model", model, "--out", "out.wav")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.lstrip() == f"warning: {name}: no video, enhancing from the sound alone\n"
    assert "audio-only" in result.stdout
    assert soundfile.info(tmp_path / "out.wav").frames == len(SOUND)
    # Lips from there are asked for in vain.
    soundfile.write(tmp_path / "b.wav", SOUND, RATE)
    refused = run_cli("enhance", "b.wav", "--video", name, "--model", model, "--out", "none.wav")
    assert refused.exit_code == 2
    assert refused.stderr == f"error: {name}: expected a video, found no video stream\n"


def test_a_folder_with_odd_names_is_enhanced(tmp_path: Path, model: Path) -> None:
    """Letters that are none, and letters that the terminal has none of."""
    folder = tmp_path / "in"
    folder.mkdir()
    names = (NOT_UTF8, "äб.wav", "10:30.wav")
    for name in names:
        soundfile.write(tmp_path / "a.wav", SOUND[:8000], RATE)
        (tmp_path / "a.wav").rename(folder / name)
    (folder / "._10:30.wav").write_bytes(b"\0\5\26\7")
    program = "import sys; from pyro_minvae.cli.main import main; main(sys.argv[1:])"
    arguments = ["enhance", folder, "--model", model, "--out", tmp_path / "out"]
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(names)
    assert len(done.stdout.splitlines()) == len(names)
    assert "?" in done.stdout


def test_a_pipe_is_refused_in_one_line(run_cli: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    result = run_cli("enhance", tmp_path / "a.wav", "--model", model, "--out", tmp_path / "out.wav")
    assert result.exit_code == 2
    found = "expected a sound or video file, found no regular file (a pipe or a device)"
    assert result.stderr == f"error: {tmp_path / 'a.wav'}: {found}\n"


def test_the_sound_track_is_said_and_chosen(run_cli: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    path, out = film(tmp_path / "a.mkv", (0.0, 0.2)), tmp_path / "out.wav"
    result = run_cli("enhance", path, "--model", model, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert f"warning: {path}: sound track 1 of 2 is taken; --audio-track takes another" in result.stderr
    result = run_cli("enhance", path, "--model", model, "--out", out, "--audio-track", 2)
    assert result.exit_code == 0, result.stderr
    assert "sound track" not in result.stderr
    result = run_cli("enhance", path, "--model", model, "--out", out, "--audio-track", 3)
    assert result.exit_code == 2
    assert result.stderr == f"error: {path}: expected sound track 3, found 2\n"


def test_lips_keep_to_the_chosen_sound_track(model: Path, tmp_path: Path) -> None:
    """The second sound begins 0.2 s after the picture, so its lips are 0.2 s earlier on its clock."""
    path = film(tmp_path / "a.mkv", (0.0, 0.2))
    enhancer = Enhancer.from_pretrained(model)
    job = EnhancementJob(path, path, tmp_path / "out.wav", None)
    times = [job._replace(track=track).open(enhancer).recording.video.times for track in (1, 2)]
    np.testing.assert_allclose(times[0], np.arange(25) / 25, atol=1e-3)
    np.testing.assert_allclose(times[1], times[0] - 0.2, atol=1e-3)


def test_the_face_is_said_and_chosen(run_cli: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    picture = np.full((240, 480), 150, np.uint8)
    for x, side in ((120, 110), (360, 100)):
        draw_face(picture, centre=(x, 110), side=side)
    path, out = film(tmp_path / "a.mkv", pictures=[picture] * 25), tmp_path / "out.wav"
    result = run_cli("enhance", path, "--model", model, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert (
        "2 faces, of which the largest, face 0 from the left, is taken; --face takes another" in result.stderr
    )
    for face in ("left", "right", 1):
        result = run_cli("enhance", path, "--model", model, "--out", out, "--face", face)
        assert result.exit_code == 0, result.stderr
        assert "faces" not in result.stderr
    result = run_cli("enhance", path, "--model", model, "--out", out, "--face", 2)
    assert result.exit_code == 2
    assert "expected a face from 0 to 1 (from the left), found face 2" in result.stderr
    result = run_cli("enhance", path, "--model", model, "--out", out, "--face", "up")
    assert result.stderr.startswith("error: --face: expected 'largest', 'left', 'right' or a number from 0")
