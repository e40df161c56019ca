"""Frames and their times: one clock with the sound, and damage is survived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from faces import face_pictures, write_video
from signals import speechlike

from pyro_minvae.errors import InputError
from pyro_minvae.media import video
from pyro_minvae.media.audio import read_audio

SOUND = speechlike(16000, 1.0)[None]


def ramps(count: int) -> list[np.ndarray]:
    """Plain pictures, each brighter than the one before."""
    return [np.full((48, 64), 40 + 150 * n // count, np.uint8) for n in range(count)]


def times_of(path: Path) -> np.ndarray:
    return np.array([time for time, _ in video.read_frames(path)])


def test_frames_come_in_order_with_their_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", ramps(25))
    times, pictures = zip(*video.read_frames(path), strict=True)
    np.testing.assert_allclose(times, np.arange(25) / 25, atol=1e-9)
    means = [picture.mean() for picture in pictures]
    assert np.all(np.diff(means) > 0)
    # Video stores 16 to 235; the pictures use the whole scale.
    np.testing.assert_allclose(means, [picture.mean() for picture in ramps(25)], atol=3)
    assert all(picture.shape == (48, 64) and picture.dtype == np.uint8 for picture in pictures)


def test_colour(tmp_path: Path) -> None:
    _, picture = next(video.read_frames(write_video(tmp_path / "a.mkv", ramps(3)), colour=True))
    assert picture.shape == (48, 64, 3)


def test_irregular_times_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.1, 0.25, 0.251, 1.0]
    np.testing.assert_allclose(
        times_of(write_video(tmp_path / "a.mkv", ramps(6), times=times)), times, atol=1e-9
    )


@pytest.mark.parametrize(("sound_start", "picture_start"), [(0.0, 0.0), (0.52, 0.0), (0.0, 0.48), (0.4, 0.6)])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_streams_that_start_apart_share_the_clock(
    tmp_path: Path, suffix: str, sound_start: float, picture_start: float
) -> None:
    """Time 0 is the first sample: the waveform is not padded and the picture keeps its distance to it."""
    codec = {".mkv": ("pcm_s16le", "s16"), ".mp4": ("aac", "fltp")}[suffix]
    path = write_video(
        tmp_path / f"a{suffix}",
        ramps(25),
        times=[picture_start + n / 25 for n in range(25)],
        sound=SOUND,
        sound_codec=codec[0],
        sound_form=codec[1],
        sound_times=lambda start: sound_start + start / 16000,
    )
    waveform = read_audio(path).waveform[0]
    times = times_of(path)
    np.testing.assert_allclose(np.diff(times), 0.04, atol=2e-3)
    # Where the sound really lies in the waveform (AAC may put its priming in front).
    lag = np.argmax(np.correlate(waveform, SOUND[0], "full")) - (SOUND.shape[1] - 1)
    assert times[0] - lag / 16000 == pytest.approx(picture_start - sound_start, abs=3e-3)
    if suffix == ".mkv":
        assert waveform.shape == SOUND.shape[1:]


def test_without_sound_time_starts_with_the_picture(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", ramps(5), times=[3 + n / 25 for n in range(5)])
    np.testing.assert_allclose(times_of(path), np.arange(5) / 25, atol=1e-9)


def test_frames_without_a_usable_stamp_are_placed_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(container: Any, stream: Any) -> Iterator[Any]:
        for n, frame in enumerate(decode(container, stream)):
            if n in (0, 3, 4):
                frame.pts = None
            if n == 6:
                frame.pts = 0
            yield frame

    decode = video.decode
    path = write_video(tmp_path / "a.mkv", ramps(10))
    monkeypatch.setattr(video, "decode", forgetful)
    np.testing.assert_allclose(times_of(path), np.arange(10) / 25, atol=1e-9)


def test_pictures_are_turned_upright() -> None:
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for rotation, expected in ((0, picture), (-90, np.rot90(picture, 3)), (180, picture[::-1, ::-1])):
        frame = SimpleNamespace(rotation=rotation, to_ndarray=lambda format: picture)
        np.testing.assert_array_equal(video._upright(frame, "gray", 1.0), expected)


def squeezed(path: Path, *, codec: str, aspect: Fraction, width: int, height: int) -> Path:
    """A film of a bright disc, a circle once its pixels are shown `aspect` times as wide as high."""
    down, right = np.mgrid[:height, :width]
    disc = ((right - width / 2) * float(aspect)) ** 2 + (down - height / 2) ** 2 < (0.3 * height) ** 2
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for n in range(5):
            frame = av.VideoFrame.from_ndarray(np.where(disc, 200, 40).astype(np.uint8), format="gray")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("suffix", "codec", "aspect", "size", "shown"),
    [
        (".mkv", "libx264", Fraction(1, 2), (360, 144), (360, 288)),
        (".mp4", "libx264", Fraction(4, 3), (144, 108), (192, 108)),  # as HDV
        (".mkv", "mpeg4", Fraction(16, 15), (180, 144), (192, 144)),  # as PAL DV
        (".avi", "libx264", Fraction(8, 9), (180, 120), (180, 135)),  # as NTSC DV
        (".mkv", "mpeg4", Fraction(1, 1), (160, 120), (160, 120)),
    ],
)
def test_pixels_are_made_square(
    tmp_path: Path, suffix: str, codec: str, aspect: Fraction, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    path = squeezed(tmp_path / f"a{suffix}", codec=codec, aspect=aspect, width=size[0], height=size[1])
    for colour in (False, True):
        _, picture = next(video.read_frames(path, colour=colour))
        assert picture.shape[1::-1] == shown
        bright = (picture if picture.ndim == 2 else picture.mean(-1)) > 120
        across, along = bright.any(0).sum(), bright.any(1).sum()
        assert across == pytest.approx(along, rel=0.03)


# --- damage ---


def damage(path: Path, start: float, stop: float, seed: int = 0) -> Path:
    """Overwrite every fifth byte between two parts of the file with noise."""
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    chosen = slice(int(start * len(content)), int(stop * len(content)), 5)
    content[chosen] = np.random.default_rng(seed).integers(0, 256, len(content[chosen]))
    path.write_bytes(content.tobytes())
    return path


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_damaged_mpeg_is_survived(tmp_path: Path, codec: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    mouths = generator.uniform(0, 1, 50)
    path = write_video(tmp_path / "a.mpg", face_pictures(mouths), codec=codec)
    damage(path, 0.45, 0.55, seed)
    times = times_of(path)
    assert 30 <= len(times) <= 51
    assert np.all(np.diff(times) > 0)
    assert times[0] == pytest.approx(0, abs=0.05)
    assert times[-1] == pytest.approx(49 / 25, abs=0.1)


@pytest.mark.real_data
def test_damaged_grid_clip_keeps_most_frames(data_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mpg"
    path.write_bytes((data_root / "grid" / "original" / "s1" / "bbaf2n.mpg").read_bytes())
    whole = times_of(path)
    np.testing.assert_allclose(whole, np.arange(75) / 25, atol=1e-6)
    times = times_of(damage(path, 0.5, 0.52))
    assert len(times) >= 60
    assert np.all(np.diff(times) > 0)
    assert len(read_audio(path).waveform[0]) == pytest.approx(131328, rel=0.05)


def undecodable(path: Path) -> None:
    """A whole container whose packets are rubbish."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg1video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(5):
            packet = av.Packet(bytes(range(200)))
            packet.stream, packet.pts, packet.dts = stream, n, n
            container.mux(packet)


def just_sound(path: Path) -> None:
    write_video(path, [], sound=SOUND)


@pytest.mark.parametrize(
    ("name", "build", "found"),
    [
        ("none.mkv", lambda path: None, "no such file"),
        ("empty.mkv", Path.touch, "0 bytes"),
        ("text.mpg", lambda path: path.write_text("no video\n" * 50), "found"),
        ("text.mkv", lambda path: path.write_text("no video\n" * 50), "cannot be read"),
        ("sound.mkv", just_sound, "no video stream"),
        ("rubbish.mkv", undecodable, "no frame that can be decoded"),
    ],
)
def test_bad_videos_are_named_in_one_line(
    tmp_path: Path, name: str, build: Callable[[Path], object], found: str
) -> None:
    build(tmp_path / name)
    with pytest.raises(InputError) as caught:
        list(video.read_frames(tmp_path / name))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / name}: expected a video, ")
    assert found in message
    assert "\n" not in message
