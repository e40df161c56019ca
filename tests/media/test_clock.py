"""Pictures and sound on one clock in containers whose stamps do not rise, have holes, or jitter."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pyro_minvae.media.audio import read_audio
from pyro_minvae.media.clock import AHEAD, holes
from pyro_minvae.media.video import read_frames

B_FRAMES = {"libx264": {}, "mpeg4": {"bf": "2"}}
RATE = 48000


def click_film(
    path: Path,
    *,
    codec: str = "libx264",
    sound_codec: str | None = "aac",
    fps: int = 25,
    options: dict[str, str] | None = None,
    seconds: float = 2.0,
) -> Sequence[float]:
    """White pictures among black ones at the times given back (s), noise bursts in the sound at the same times."""
    flashes = (0.4, 1.2)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE // 20).astype(np.float32)
    sound = np.zeros(round(RATE * seconds), np.float32)
    for flash in flashes:
        sound[round(flash * RATE) :][: len(noise)] = noise
    white = {round(flash * fps) for flash in flashes}
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(codec, rate=fps, options=B_FRAMES[codec])
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track = None if sound_codec is None else container.add_stream(sound_codec, rate=RATE, layout="mono")
        for n in range(round(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64), 200 if n in white else 30, np.uint8), format="gray"
            )
            frame.pts, frame.time_base = n, Fraction(1, fps)
            container.mux(video.encode(frame))
            if track is not None:
                start, stop = round(n * RATE / fps), round((n + 1) * RATE / fps)
                container.mux(track.encode(sound_frame(sound[start:stop], start, track.format.name)))
        for stream in (video, track):
            container.mux(stream.encode(None) if stream is not None else [])
    return flashes


def sound_frame(samples: np.ndarray, start: int, form: str) -> av.AudioFrame:
    if form == "s16":
        samples = np.round(samples * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format=form, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
    return frame


def copied(source: Path, target: Path) -> Path:
    """The same packets in another container, as `ffmpeg -c copy`."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return target


def seen(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times of all pictures and of the white ones (s)."""
    times, levels = zip(*((time, picture.mean()) for time, picture in read_frames(path)), strict=True)
    return np.array(times), np.array(times)[np.array(levels) > 110]


def heard(path: Path) -> np.ndarray:
    """Times (s) at which the two bursts begin, by cross-correlation with them."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE // 20).astype(np.float32)
    fit = np.correlate(read_audio(path).waveform[0], noise, "valid")
    half = len(fit) // 2 - RATE // 5
    return np.array([np.argmax(fit[:half]), half + np.argmax(fit[half:])]) / RATE


@pytest.mark.parametrize("fps", [25, 30])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("sound", [None, "pcm_s16le"])
def test_avi_holds_decoding_times_and_is_seen_at_n_over_rate(
    tmp_path: Path, codec: str, fps: int, sound: str | None
) -> None:
    flashes = click_film(tmp_path / "a.avi", codec=codec, sound_codec=sound, fps=fps)
    times, white = seen(tmp_path / "a.avi")
    np.testing.assert_allclose(times, np.arange(2 * fps) / fps, atol=1e-9)
    np.testing.assert_allclose(white, flashes, atol=1e-9)
    if sound:
        np.testing.assert_allclose(heard(tmp_path / "a.avi"), flashes, atol=1e-9)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("suffix", [".wmv", ".asf"])
def test_asf_of_pictures_alone_is_seen_at_n_over_rate(tmp_path: Path, codec: str, suffix: str) -> None:
    click_film(tmp_path / "a.mp4", codec=codec, sound_codec=None)
    times, _ = seen(copied(tmp_path / "a.mp4", tmp_path / f"a{suffix}"))
    np.testing.assert_allclose(times, np.arange(50) / 25, atol=1e-3)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("suffix", [".wmv", ".asf"])
def test_asf_keeps_pictures_beside_their_sound(tmp_path: Path, codec: str, suffix: str) -> None:
    click_film(tmp_path / "a.mp4", codec=codec)
    path = copied(tmp_path / "a.mp4", tmp_path / f"a{suffix}")
    times, white = seen(path)
    np.testing.assert_allclose(np.diff(times), 0.04, atol=1.1e-3)
    np.testing.assert_allclose(white, heard(path), atol=2e-3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"movflags": "frag_keyframe+empty_moov"},
        {"movflags": "frag_keyframe+empty_moov", "use_editlist": "0"},
        {
            "movflags": "frag_keyframe+empty_moov+default_base_moof",
            "frag_duration": "200000",
            "use_editlist": "0",
        },
    ],
)
@pytest.mark.parametrize("fps", [25, 30])
def test_fragmented_mp4_keeps_sound_beside_the_picture(
    tmp_path: Path, options: dict[str, str], fps: int
) -> None:
    """The muxer moves the pictures of H.264 back by its reordering, and the sound with them but for one packet."""
    click_film(tmp_path / "a.mp4", fps=fps, options=options)
    _, white = seen(tmp_path / "a.mp4")
    np.testing.assert_allclose(white, heard(tmp_path / "a.mp4"), atol=2e-3)


# --- holes by themselves, 1024 samples a frame ---


def found(stamps: Sequence[int | None], rate: int = RATE) -> list[int]:
    return [hole for hole, _ in holes(((None, stamp, 1024) for stamp in stamps), rate)]


def test_holes_are_filled_to_the_sample() -> None:
    """Holes of 10 and 50 ms before frames 1 and 60."""
    small, large = RATE // 100, RATE // 20
    stamps = [1024 * n + small * (n >= 1) + large * (n >= 60) for n in range(100)]
    expected = np.zeros(100, int)
    expected[[1, 60]] = small, large
    np.testing.assert_array_equal(found(stamps), expected)


def test_two_holes_nearer_than_the_look_ahead() -> None:
    stamps = [1024 * n + 700 * (n >= 5) + 900 * (n >= 8) for n in range(30)]
    expected = np.zeros(30, int)
    expected[[5, 8]] = 700, 900
    np.testing.assert_array_equal(found(stamps), expected)


def test_rounded_and_jittering_stamps_are_no_holes() -> None:
    generator = np.random.default_rng(0)
    rounded = [round(round(1024 * n / RATE * 1000) * RATE / 1000) for n in range(500)]
    assert not any(found(rounded))
    late = generator.uniform(0, 0.08, 500) * (generator.uniform(size=500) < 0.5)
    late[0], late[-AHEAD:] = 0, 0
    assert not any(found([1024 * n + round(late[n] * RATE) for n in range(500)]))


def test_missing_and_damaged_stamps_are_no_holes() -> None:
    stamps: list[int | None] = [1024 * n for n in range(3 * AHEAD)]
    stamps[5], stamps[9], stamps[-1] = None, 10**9, 0
    assert not any(found(stamps))
    assert found([None, None]) == [0, 0]
    assert found([]) == []
