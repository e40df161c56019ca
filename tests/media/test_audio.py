"""Sound in and out: what goes in comes out in the same coding, and bad files are named in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from faces import face_pictures, write_video
from signals import speechlike

from pyro_minvae.errors import InputError
from pyro_minvae.media import audio
from pyro_minvae.types import Audio

INTEGER = ["PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32"]
EXACT = [
    *((".wav", "WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    *((".flac", "FLAC", subtype) for subtype in ("PCM_S8", "PCM_16", "PCM_24")),
    (".wav", "WAVEX", "PCM_24"),
    (".aiff", "AIFF", "PCM_16"),
    (".w64", "W64", "PCM_16"),
]


def make(
    channels: int = 1, rate: int = 16000, seconds: float = 0.3, *, subtype: str = "PCM_16", form: str = "WAV"
) -> Audio:
    waveform = np.stack([speechlike(rate, seconds, seed) for seed in range(channels)])
    return Audio(waveform, rate, subtype, form)


@pytest.mark.parametrize(("suffix", "form", "subtype"), EXACT)
@pytest.mark.parametrize(("channels", "rate"), [(1, 8000), (2, 44100), (3, 48000)])
def test_round_trip_is_exact(
    tmp_path: Path, suffix: str, form: str, subtype: str, channels: int, rate: int
) -> None:
    sound = make(channels, rate, subtype=subtype, form=form)
    expected = (
        sound.waveform.astype(np.float32) if subtype == "FLOAT" else audio.quantise(sound.waveform, subtype)
    )
    path = tmp_path / f"a{suffix}"
    assert audio.write_audio(path, sound) == 0
    back = audio.read_audio(path)
    assert back[1:] == sound[1:]
    np.testing.assert_array_equal(back.waveform, expected)
    again = tmp_path / f"b{suffix}"
    audio.write_audio(again, back)
    np.testing.assert_array_equal(audio.read_audio(again).waveform, back.waveform)


@pytest.mark.parametrize(("subtype", "rate"), [("VORBIS", 16000), ("VORBIS", 44100), ("OPUS", 48000)])
def test_ogg_keeps_length_rate_and_level(tmp_path: Path, subtype: str, rate: int) -> None:
    # Long enough to show the overflow that writing it in one piece would cause.
    sound = make(2, rate, 8.0, subtype=subtype, form="OGG")
    audio.write_audio(tmp_path / "a.ogg", sound)
    back = audio.read_audio(tmp_path / "a.ogg")
    assert back[1:] == sound[1:]
    assert back.waveform.shape == sound.waveform.shape
    assert np.std(back.waveform) == pytest.approx(np.std(sound.waveform), rel=0.05)


@pytest.mark.parametrize("samples", [1, 2, 1000])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_short_and_silent_sounds_are_legitimate(tmp_path: Path, suffix: str, samples: int) -> None:
    path = tmp_path / f"a{suffix}"
    audio.write_audio(path, Audio(np.zeros((1, samples)), 16000, "PCM_16", "WAV"))
    back = audio.read_audio(path)
    assert back.waveform.shape == (1, samples)
    assert np.abs(back.waveform).max() < 1e-3


@pytest.mark.parametrize("subtype", INTEGER)
def test_quantise_is_what_a_file_holds(tmp_path: Path, subtype: str) -> None:
    generator = np.random.default_rng(0)
    waveform = generator.uniform(-1.2, 1.2, (2, 5000))
    path = tmp_path / ("a.flac" if subtype == "PCM_S8" else "a.wav")
    clipped = audio.write_audio(path, Audio(waveform, 16000, subtype, "WAV"))
    kept = audio.quantise(waveform, subtype)
    np.testing.assert_array_equal(audio.read_audio(path).waveform, kept)
    step = 2.0 ** (1 - audio._BITS[subtype])
    assert kept.min() == -1
    assert kept.max() == 1 - step
    inside = np.abs(waveform) < 1 - step
    assert np.abs(kept - waveform)[inside].max() <= step / 2
    assert clipped == pytest.approx(np.count_nonzero(~inside), abs=100)
    np.testing.assert_array_equal(audio.quantise(kept, subtype), kept)


@pytest.mark.parametrize("subtype", INTEGER)
def test_speech_and_noise_sum_exactly_on_disk(tmp_path: Path, subtype: str) -> None:
    mixture = audio.quantise(make(seconds=0.5).waveform, subtype)
    speech = audio.quantise(0.7 * mixture + 1e-4, subtype)
    suffix = ".flac" if subtype == "PCM_S8" else ".wav"
    for name, waveform in (("s", speech), ("n", mixture - speech)):
        audio.write_audio(tmp_path / f"{name}{suffix}", Audio(waveform, 16000, subtype, "WAV"))
    parts = [audio.read_audio(tmp_path / f"{name}{suffix}").waveform for name in "sn"]
    np.testing.assert_array_equal(parts[0] + parts[1], mixture)


def test_float_codings_are_not_quantised() -> None:
    waveform = np.array([[1.5, 1e-9]])
    for subtype in ("FLOAT", "DOUBLE", "VORBIS", "ULAW"):
        assert audio.quantise(waveform, subtype) is waveform


@pytest.mark.parametrize(
    ("name", "subtype", "form", "expected"),
    [
        ("a.wav", "PCM_24", "WAVEX", ("PCM_24", "WAVEX")),
        ("a.wav", "VORBIS", "OGG", ("PCM_16", "WAV")),
        ("a.wav", "PCM_S8", "FLAC", ("PCM_U8", "WAV")),
        ("a.FLAC", "FLOAT", "WAV", ("PCM_24", "FLAC")),
        ("a.flac", "PCM_32", "WAV", ("PCM_24", "FLAC")),
        ("a.flac", "PCM_U8", "WAV", ("PCM_S8", "FLAC")),
        ("a.ogg", "PCM_16", "WAV", ("VORBIS", "OGG")),
        ("a.ogg", "OPUS", "OGG", ("OPUS", "OGG")),
    ],
)
def test_the_suffix_rules_the_format(name: str, subtype: str, form: str, expected: tuple[str, str]) -> None:
    coded = audio.coded_for(name, make(subtype=subtype, form=form))
    assert (coded.subtype, coded.format) == expected


def test_block_codings_become_pcm_of_the_same_length(tmp_path: Path) -> None:
    # A block of ADPCM pads the end, so its own length is not a whole number of what was written.
    soundfile.write(tmp_path / "a.wav", speechlike(8000, 0.5), 8000, subtype="IMA_ADPCM")
    sound = audio.read_audio(tmp_path / "a.wav")
    assert sound.subtype == "PCM_16"
    shorter = sound._replace(waveform=sound.waveform[:, :1234])
    audio.write_audio(tmp_path / "b.wav", shorter)
    assert audio.read_audio(tmp_path / "b.wav").waveform.shape == (1, 1234)


# --- containers ---


@pytest.mark.parametrize(
    ("name", "codec", "form", "channels", "rate", "subtype"),
    [
        ("a.mkv", "pcm_s16le", "s16", 1, 16000, "PCM_16"),
        ("a.mkv", "flac", "s16", 2, 48000, "PCM_16"),
        ("a.mkv", "flac", "s32", 1, 44100, "PCM_24"),
        ("a.mov", "pcm_s32le", "s32", 2, 8000, "PCM_32"),
        ("a.mov", "pcm_f32le", "flt", 1, 48000, "FLOAT"),
        ("a.mp4", "aac", "fltp", 2, 44100, "PCM_16"),
        ("a.m4a", "aac", "fltp", 1, 48000, "PCM_16"),
        ("a.mpg", "mp2", "s16", 2, 44100, "PCM_16"),
        ("a.mp3", "mp3", "s16p", 1, 44100, "PCM_16"),
    ],
)
def test_sound_of_containers(
    tmp_path: Path, name: str, codec: str, form: str, channels: int, rate: int, subtype: str
) -> None:
    sound = make(channels, rate, 0.5).waveform
    path = tmp_path / name
    pictures = face_pictures([0.0] * 12) if audio.is_video(path) else []
    write_video(
        path,
        pictures,
        codec="mpeg1video" if name == "a.mpg" else "mpeg4",
        sound=sound,
        sound_rate=rate,
        sound_codec=codec,
        sound_form=form,
        sound_times=lambda start: start / rate,
    )
    back = audio.read_audio(path)
    assert (back.rate, back.subtype, back.format) == (rate, subtype, "WAV")
    assert back.waveform.shape[0] == channels
    if codec in ("aac", "mp2", "mp3"):
        # Lossy codecs pad to their blocks and may start a fixed delay late.
        assert 0 <= back.waveform.shape[1] - sound.shape[1] < 3000
        assert back.waveform.std() == pytest.approx(sound.std(), rel=0.1)
    else:
        np.testing.assert_allclose(back.waveform, sound, atol=1e-4 if "16" in subtype else 1e-6)


def test_a_hole_in_the_stream_is_silence(tmp_path: Path) -> None:
    """Sound lost on the way leaves its time behind, so that what follows still meets the lips."""
    sound = make(1, 16000, 1.024).waveform
    path = write_video(
        tmp_path / "a.mkv",
        [],
        sound=sound,
        sound_times=lambda start: start / 16000 + (0.5 if start >= 8192 else 0),
    )
    back = audio.read_audio(path).waveform
    assert back.shape == (1, sound.shape[1] + 8000)
    np.testing.assert_allclose(back[:, :8192], sound[:, :8192], atol=1e-4)
    assert not back[:, 8192:16192].any()
    np.testing.assert_allclose(back[:, 16192:], sound[:, 8192:], atol=1e-4)


# --- bad input ---


def text(path: Path) -> None:
    path.write_text("not a sound\n")


def no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), 16000)


def not_a_number(path: Path) -> None:
    soundfile.write(path, np.array([0.0, np.nan, np.inf, -np.inf]), 16000, subtype="FLOAT")


def silent_film(path: Path) -> None:
    write_video(path, face_pictures([0.0] * 3))


@pytest.mark.parametrize(
    ("name", "build", "found"),
    [
        ("missing.wav", lambda path: None, "no such file"),
        ("folder.wav", Path.mkdir, "a folder"),
        *((f"empty{suffix}", Path.touch, "0 bytes") for suffix in (".wav", ".flac", ".mkv", ".mp3")),
        *((f"text{suffix}", text, "cannot be read") for suffix in (".wav", ".flac", ".ogg", ".mkv", ".mp4")),
        ("text.txt", text, "the suffix '.txt'"),
        ("zero.wav", no_samples, "length zero"),
        ("nan.wav", not_a_number, "3 that are NaN or infinite"),
        ("film.mkv", silent_film, "no audio stream"),
    ],
)
def test_bad_files_are_named_in_one_line(
    tmp_path: Path, name: str, build: Callable[[Path], None], found: str
) -> None:
    build(tmp_path / name)
    with pytest.raises(InputError) as caught:
        audio.read_audio(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / name}: expected ")
    assert found in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("a.txt", make()),
        ("a.mp4", make()),
        ("a.wav", make()._replace(waveform=np.array([[np.nan]]))),
        ("a.flac", make(9)),
        ("none/a.wav", make()),
    ],
)
def test_what_cannot_be_written_leaves_no_file(tmp_path: Path, name: str, sound: Audio) -> None:
    with pytest.raises(InputError, match=r"a\.\w+: expected "):
        audio.write_audio(tmp_path / name, sound)
    assert not list(tmp_path.iterdir())


def test_kinds_by_suffix() -> None:
    assert audio.is_audio("a.WAV")
    assert audio.is_video(Path("b/a.mkv"))
    assert audio.is_crops("a.npz")
    assert not any(kind("a.txt") for kind in (audio.is_audio, audio.is_video, audio.is_crops))


@pytest.mark.real_data
def test_grid_originals_hold_the_same_sound(data_root: Path) -> None:
    original = audio.read_audio(data_root / "grid" / "original" / "s1" / "bbaf2n.mpg")
    copy = audio.read_audio(data_root / "grid" / "s1" / "bbaf2n.mkv")
    assert (original.rate, len(original.waveform), copy.rate, len(copy.waveform)) == (44100, 2, 16000, 1)
    resampled = audio.mono(original, 16000)
    assert len(resampled) == copy.waveform.shape[1]
    assert np.corrcoef(resampled, copy.waveform[0])[0, 1] > 0.999
