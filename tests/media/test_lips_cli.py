"""`pyro-minvae lips`: the line, the crops, the contact sheet, and one clear line for what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from faces import face_pictures, write_video

from pyro_minvae.media.mouths import read_lips
from pyro_minvae.media.sheet import MOST, save_sheet
from pyro_minvae.types import MouthCrops

Run = Callable[..., Any]
GREY = np.full((240, 320), 150, np.uint8)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten frames without and fifteen with a face."""
    return write_video(tmp_path / "clip.mkv", [GREY] * 10 + face_pictures(np.linspace(0, 1, 15)))


def reds(picture: np.ndarray) -> int:
    """Pixels that are clearly red."""
    blue, green, red = (picture[..., n].astype(int) for n in range(3))
    return int(np.count_nonzero((red > 90) & (red > blue + 60) & (red > green + 60)))


def test_writes_crops_and_sheet(clip: Path, tmp_path: Path, run_cli: Run) -> None:
    out, preview = tmp_path / "out.npz", tmp_path / "out.png"
    result = run_cli("lips", clip, "--out", out, "--preview", preview)
    assert result.exit_code == 0, result.stderr
    lips = read_lips(out)
    share = f"{100 * lips.valid.mean():.1f} %"
    assert result.stdout == f"{clip}: 25 frames, 1.00 s, 25.00 frames/s, face in {share}\n"
    assert 0.4 < lips.valid.mean() < 0.65
    for one, other in zip(lips, read_lips(clip), strict=True):
        np.testing.assert_array_equal(one, other)
    sheet = cv2.imread(str(preview))
    # A row of whole pictures and two rows of crops; the frames without a face stand out.
    assert sheet.shape[1] > 1000
    assert sheet.shape[0] > 350
    assert reds(sheet) > 9 * 72 * 72


def test_size_and_face(clip: Path, tmp_path: Path, run_cli: Run) -> None:
    out = tmp_path / "out.npz"
    assert run_cli("lips", clip, "--out", out, "--size", 32, "--face", 0).exit_code == 0
    assert np.load(out)["crops"].shape == (25, 32, 32)


def test_arrays_can_be_looked_at(clip: Path, tmp_path: Path, run_cli: Run) -> None:
    crops, preview = tmp_path / "crops.npy", tmp_path / "a.png"
    np.save(crops, np.full((30, 40, 40), 128, np.uint8))
    result = run_cli("lips", crops, "--preview", preview)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "30 frames, 1.20 s, 25.00 frames/s, face in 100.0 %" in result.stdout
    assert reds(cv2.imread(str(preview))) == 0


def test_no_face_is_said(tmp_path: Path, run_cli: Run) -> None:
    video = write_video(tmp_path / "grey.mkv", [GREY] * 5)
    result = run_cli("lips", video, "--preview", tmp_path / "a.png")
    assert result.exit_code == 0
    assert "face in 0.0 %" in result.stdout
    assert "no face was found" in result.stderr


def test_a_long_video_is_thinned_out(tmp_path: Path) -> None:
    count = 10 * MOST
    save_sheet(
        tmp_path / "a.jpg",
        MouthCrops(np.zeros((count, 10, 10), np.uint8), np.arange(count) / 25, np.ones(count, bool)),
    )
    assert cv2.imread(str(tmp_path / "a.jpg")).shape[0] < 1000


def test_help_names_the_options(run_cli: Run) -> None:
    result = run_cli("lips", "--help")
    assert result.exit_code == 0
    for option in ("--out", "--preview", "--face", "--size"):
        assert option in result.stdout


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["none.mkv"], "none.mkv: expected a video, found no such file"),
        (["text.mkv"], "text.mkv: expected a video, found a file that cannot be read"),
        (["text.npz"], "text.npz: expected an array file"),
        (["clip.mkv", "--out", "none/a.npz"], "none/a.npz: expected a folder none to write into"),
        (["clip.mkv", "--out", "a.txt"], "a.txt: expected the name of a .npz file"),
        (["clip.mkv", "--preview", "a.gif"], "a.gif: expected the name of a picture"),
        (["clip.mkv", "--preview", "."], "found a folder"),
        (
            ["clip.mkv", "--face", "up"],
            "--face: expected 'largest', 'left', 'right' or a number from 0, found 'up'",
        ),
        (["clip.mkv", "--face", "1", "--out", "a.npz"], "clip.mkv: expected a face from 0 to 0"),
    ],
)
def test_bad_input_is_one_line_and_no_file(
    clip: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], found: str
) -> None:
    monkeypatch.chdir(clip.parent)
    for name in ("text.mkv", "text.npz"):
        Path(name).write_text("nothing of use\n")
    before = sorted(Path().iterdir())
    result = run_cli("lips", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert found in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert sorted(Path().iterdir()) == before


@pytest.mark.real_data
def test_grid_clip(data_root: Path, tmp_path: Path, run_cli: Run) -> None:
    video = data_root / "grid" / "original" / "s1" / "bbaf2n.mpg"
    result = run_cli("lips", video, "--out", tmp_path / "a.npz", "--preview", tmp_path / "a.png")
    assert result.exit_code == 0
    assert "75 frames, 3.00 s, 25.00 frames/s, face in 100.0 %" in result.stdout
    assert (tmp_path / "a.png").stat().st_size > 100_000
