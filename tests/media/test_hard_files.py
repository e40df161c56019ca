"""Valid files that readers stumble over: no length, wrong suffixes, odd names, sound alone, several tracks."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from faces import draw_face, face_pictures, write_video
from signals import speechlike

from pyro_minvae.data.folder import folder, pair_by_stem
from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.mixing import babble, recordings
from pyro_minvae.media.audio import read_audio, write_audio
from pyro_minvae.media.containers import has_pictures
from pyro_minvae.media.mouths import find_mouths
from pyro_minvae.media.video import NoPicturesError, read_frames

RATE = 16000
SOUND = np.round(speechlike(RATE, 3.0) * 32767) / 32768


def encoded(
    target: object, codec: str, sound: np.ndarray, form: str, *, container: str | None = None
) -> None:
    with av.open(target, "w", format=container) as file:
        stream = file.add_stream(codec, rate=RATE, layout="mono")
        samples = (sound * 32768).astype(np.int16) if form.startswith("s16") else sound.astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples[None], format=form, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


class Pipe(io.RawIOBase):
    """What cannot be gone back in, so that no header is mended."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.content += bytes(data)
        return len(data)


def piped_flac(path: Path) -> None:
    pipe = Pipe()
    encoded(pipe, "flac", SOUND, "s16", container="flac")
    path.write_bytes(pipe.content)


def wav_of_length(length: int) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        soundfile.write(path, SOUND, RATE, subtype="PCM_16", format="WAV")
        content = bytearray(path.read_bytes())
        content[4:8] = content[40:44] = length.to_bytes(4, "little")
        path.write_bytes(content)

    return build


def silent_log(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("pipe.flac", piped_flac),
        ("zero.wav", wav_of_length(0)),
        ("ones.wav", wav_of_length(2**32 - 1)),
    ],
)
def test_a_header_without_a_length_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, build: Callable[[Path], None]
) -> None:
    build(tmp_path / name)
    back = read_audio(tmp_path / name)
    np.testing.assert_array_equal(back.waveform, SOUND[None])
    assert (back.rate, back.subtype) == (RATE, "PCM_16")
    assert silent_log(caplog) == []


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".aiff", ".caf"])
def test_another_codec_than_the_suffix_says_is_read(tmp_path: Path, suffix: str) -> None:
    encoded(str(tmp_path / "a.m4a"), "aac", SOUND, "fltp")
    path = (tmp_path / "a.m4a").rename(tmp_path / f"a{suffix}")
    back = read_audio(path).waveform[0]
    assert np.corrcoef(back[: len(SOUND)], SOUND)[0, 1] > 0.99


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".m4a"])
def test_bare_aac_under_another_name(tmp_path: Path, suffix: str) -> None:
    encoded(str(tmp_path / f"a{suffix}"), "aac", SOUND, "fltp", container="adts")
    back = read_audio(tmp_path / f"a{suffix}").waveform[0]
    late = int(np.argmax(np.correlate(back, SOUND, "full"))) - len(SOUND) + 1
    assert 0 <= late <= 1024
    assert np.corrcoef(back[late:][: len(SOUND)], SOUND)[0, 1] > 0.99


def test_packets_that_are_lost_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """FFmpeg writes AAC into a RIFF without the lengths of its packets, and cannot find them again."""
    encoded(str(tmp_path / "a.wav"), "aac", SOUND, "fltp")
    assert len(read_audio(tmp_path / "a.wav").waveform[0]) < len(SOUND)
    (line,) = silent_log(caplog)
    assert "packets of sound cannot be read and are missing" in line


@pytest.mark.parametrize(
    ("suffix", "codec", "form", "container"),
    [
        (".weba", "libopus", "flt", "webm"),
        (".aifc", "pcm_s16be", "s16", "aiff"),
        (".m4b", "aac", "fltp", "ipod"),
        (".wv", "wavpack", "s16p", "wv"),
        (".spx", "libspeex", "s16", "ogg"),
        (".tta", "tta", "s16", "tta"),
    ],
)
def test_more_kinds_of_sound(tmp_path: Path, suffix: str, codec: str, form: str, container: str) -> None:
    path = tmp_path / f"a{suffix}"
    if codec not in av.codecs_available or not has_encoder(codec):
        pytest.skip(f"this FFmpeg has no encoder {codec} to make the file with")
    encoded(str(path), codec, SOUND, form, container=container)
    back = read_audio(path)
    assert pair_by_stem([path])[0].audio == path
    scale = back.rate / RATE
    assert back.waveform.shape[1] == pytest.approx(len(SOUND) * scale, abs=0.07 * back.rate)
    assert back.waveform.std() == pytest.approx(SOUND.std(), rel=0.1)


def has_encoder(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


@pytest.mark.parametrize(("suffix", "subtype"), [(".flac", "PCM_16"), (".wav", "PCM_16"), (".wav", "PCM_24")])
def test_what_a_cut_file_lost_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, subtype: str
) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, SOUND, RATE, subtype=subtype)
    assert read_audio(path).waveform.shape == (1, len(SOUND))
    assert silent_log(caplog) == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    back = read_audio(path).waveform[0]
    assert 0.3 * len(SOUND) < len(back) < 0.6 * len(SOUND)
    np.testing.assert_allclose(back, SOUND[: len(back)], atol=1e-9)
    line = silent_log(caplog)[-1]
    assert line.startswith(f"{path}: the file ends early")
    assert f"{len(back) / RATE:.2f} s of the 3.00 s" in line


# --- names ---


@pytest.mark.parametrize(
    "name", ["10:30 talk", "concat:a|b", "a%03d", "-a", "ä б 字", os.fsdecode(b"\xff\xe4")]
)
@pytest.mark.parametrize("suffix", [".mkv", ".wav", ".flac"])
def test_any_name_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, suffix: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}{suffix}")
    if suffix == ".mkv":
        write_video(Path("a.mkv"), face_pictures([0.0] * 5), sound=SOUND[None]).rename(path)
        assert len(list(read_frames(path))) == 5
    else:
        soundfile.write(f"plain{suffix}", SOUND, RATE, subtype="PCM_16")
        Path(f"plain{suffix}").rename(path)
    back = read_audio(path)
    np.testing.assert_allclose(back.waveform, SOUND[None], atol=1e-4)
    assert write_audio(Path(f"{name}-b.wav"), back) == 0
    np.testing.assert_array_equal(read_audio(Path(f"{name}-b.wav")).waveform, back.waveform)


def test_notes_of_macos_are_no_sound(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        soundfile.write(tmp_path / place / "a.wav", SOUND, RATE)
        (tmp_path / place / "._a.wav").write_bytes(b"\0\5\26\7")
    files = sorted((tmp_path / "a").iterdir())
    assert [item.audio.name for item in pair_by_stem(files)] == ["a.wav"]
    assert [one.audio.name for one in folder(tmp_path)] == ["a.wav", "a.wav"]
    assert [one.path.name for one in recordings(tmp_path / "a")] == ["a.wav"]
    assert [path.name for path in babble(tmp_path, count=2).voices["b"]] == ["a.wav"]


# --- what is no file, or holds no sound ---


def test_a_pipe_and_a_device_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    for path in (tmp_path / "a.wav", Path(os.devnull)):
        with pytest.raises(InputError, match=r"found no regular file"):
            read_audio(path)


@pytest.mark.parametrize("value", [1e200, -1e16])
def test_samples_beyond_all_scales_are_refused(tmp_path: Path, value: float) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(RATE, value), RATE, subtype="DOUBLE")
    with pytest.raises(InputError, match=r"expected samples around full scale 1, found"):
        read_audio(tmp_path / "a.wav")


# --- containers with sound alone ---


def sound_alone(path: Path, *, cover: bool = False) -> Path:
    codec, form, container = {
        ".webm": ("libopus", "flt", "webm"),
        ".mp4": ("aac", "fltp", "mp4"),
        ".3gp": ("aac", "fltp", "3gp"),
        ".mkv": ("flac", "s16", "matroska"),
    }[path.suffix]
    encoded(str(path), codec, SOUND, form, container=container)
    if not cover:
        return path
    whole = path.with_name(f"plain{path.suffix}")
    path.rename(whole)
    with av.open(str(whole)) as old, av.open(str(path), "w", format=container) as new:
        track = new.add_stream_from_template(old.streams.audio[0])
        picture = new.add_stream("mjpeg", rate=1)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(np.full((48, 64), 99, np.uint8), format="gray")
        frame.pts = 0
        for packet in picture.encode(frame):
            new.mux(packet)
        for packet in old.demux():
            if packet.size:
                packet.stream = track
                new.mux(packet)
    return path


@pytest.mark.parametrize(
    ("suffix", "cover"), [(".webm", False), (".mp4", False), (".mkv", False), (".3gp", False), (".mp4", True)]
)
def test_a_container_of_sound_alone_has_no_pictures(tmp_path: Path, suffix: str, cover: bool) -> None:
    path = sound_alone(tmp_path / f"a{suffix}", cover=cover)
    assert not has_pictures(path)
    assert read_audio(path).waveform.std() == pytest.approx(SOUND.std(), rel=0.1)
    with pytest.raises(NoPicturesError, match="no video stream"):
        list(read_frames(path))
    # A corpus takes it for a sound.
    assert [(one.audio, one.video) for one in folder(tmp_path) if one.id == "a"] == [(path, None)]


# --- several tracks, several faces ---


def two_tracks(path: Path) -> Path:
    """A film of 25 pictures with two sounds, the second half as loud and 0.2 s late."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        tracks = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for n, picture in enumerate(face_pictures([0.0] * 25)):
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for track, scale, start in zip(tracks, (1.0, 0.5), (0.0, 0.2), strict=True):
            samples = np.round(SOUND * scale * 32768).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, round(start * RATE), Fraction(1, RATE)
            container.mux(track.encode(frame))
    return path


def test_sound_tracks_are_chosen_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = two_tracks(tmp_path / "a.mkv")
    first = read_audio(path).waveform
    (line,) = silent_log(caplog)
    assert line == f"{path}: sound track 1 of 2 is taken; --audio-track takes another"
    caplog.clear()
    np.testing.assert_array_equal(read_audio(path, track=1).waveform, first)
    np.testing.assert_allclose(read_audio(path, track=2).waveform, first / 2, atol=1e-4)
    assert silent_log(caplog) == []
    with pytest.raises(InputError, match=r"expected sound track 3, found 2$"):
        read_audio(path, track=3)


def test_the_largest_of_several_faces_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def picture(sides: tuple[float, ...]) -> np.ndarray:
        grey = np.full((240, 480), 150, np.uint8)
        for n, side in enumerate(sides):
            draw_face(grey, centre=(120 + 240 * n, 110), side=side)
        return grey

    path = write_video(tmp_path / "two.mkv", [picture((110, 100))] * 10)
    largest = find_mouths(path)
    (line,) = silent_log(caplog)
    assert line.startswith(f"{path}: 2 faces, of which the largest, face 0 from the left, is taken; --face")
    caplog.clear()
    left, right = find_mouths(path, face="left"), find_mouths(path, face="right")
    np.testing.assert_array_equal(left.boxes, largest.boxes)
    assert left.boxes[5, 0] == pytest.approx(120, abs=15)
    assert right.boxes[5, 0] == pytest.approx(360, abs=15)
    find_mouths(write_video(tmp_path / "one.mkv", [picture((110,))] * 10))
    find_mouths(write_video(tmp_path / "small.mkv", [picture((140, 50))] * 10))
    assert silent_log(caplog) == []
