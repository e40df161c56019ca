"""Whatever the file: containers x codecs x rates x channels keep length, time, level, channels and the mouth's times.

Every codec meets every rate and every number of channels that its encoder can write, in pairs and not in all
combinations. What is right is computed from the sound that was written and from the delay that the codec's
specification gives, where the container has no place to say how much of the start to leave out.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
import soundfile

from pyro_minvae.media.audio import read_audio, resample
from pyro_minvae.media.video import read_frames

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}
SECONDS, FPS = 0.8, 25
# The pictures in which the mouth opens, each with a burst of the sound.
OPEN = (5, 13)


class Coding(NamedTuple):
    """A codec: its sample format, the rates and the most channels of its encoder, and why no more.

    `delay` is what its encoder puts before the sound (samples at its own rate), known to `slack`; `exact` is the size
    of a step of lossless ones. Others keep a correlation of `near` and the level to a share of `level`.
    """

    form: str
    rates: tuple[int, ...] = RATES
    most: int = 6
    why: str = ""
    delay: int = 0
    exact: float = 0.0
    slack: int = 1
    near: float = 0.9
    level: float = 0.12
    layouts: dict[int, str] = LAYOUTS


MPEG1 = (32000, 44100, 48000)
MPEG2 = (16000, 22050, 24000, *MPEG1)
QUAD = {**LAYOUTS, 4: "quad"}
CODINGS = {
    "pcm_u8": Coding("u8", exact=2**-7),
    "pcm_s16le": Coding("s16", exact=2**-15),
    "pcm_s24le": Coding("s32", exact=2**-23),
    "pcm_f32le": Coding("flt", exact=2**-23),
    "pcm_mulaw": Coding("s16"),
    "flac": Coding("s16", exact=2**-15, layouts=QUAD),
    "alac": Coding("s16p", most=2, why="surround in an order of its own", exact=2**-15),
    "libmp3lame": Coding(
        "fltp", (8000, 11025, 12000, *MPEG2), 2, "MPEG-1, -2 and -2.5, at most stereo", delay=1105
    ),
    "mp2": Coding("s16", MPEG2, 2, "MPEG-1 and -2, at most stereo", delay=481),
    "ac3": Coding("fltp", MPEG1, 6, "three rates", delay=256),
    "aac": Coding("fltp", delay=1024),
    "libopus": Coding("flt", (8000, 12000, 16000, 24000, 48000), 6, "five rates", layouts=QUAD),
    "libopencore_amrnb": Coding(
        "s16", (8000,), 1, "telephone speech", delay=40, slack=16, near=0.4, level=0.6
    ),
}


class Kind(NamedTuple):
    """A container with its codecs.

    `trims`: it can say how much of the start to leave out. `late`: all streams start at 0, and the delay of the codec
    makes the sound late in any player. `rates` are those of the codec that the container can hold.
    """

    suffix: str
    sound: str
    pictures: str = ""
    trims: bool = True
    late: bool = False
    container: str | None = None
    rates: tuple[int, ...] = RATES


KINDS = (
    *(Kind(".wav", codec) for codec in ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_mulaw")),
    Kind(".flac", "flac"),
    Kind(".ogg", "flac"),
    Kind(".opus", "libopus", container="ogg"),
    Kind(".mp3", "libmp3lame"),
    Kind(".m4a", "aac"),
    Kind(".m4a", "alac"),
    Kind(".aac", "aac", trims=False),
    Kind(".webm", "libopus", "libvpx"),
    *(Kind(".mkv", codec, "libx264") for codec in ("aac", "flac", "pcm_s16le", "libopus", "libmp3lame")),
    Kind(".mkv", "ac3", "mpeg4"),
    *(Kind(".mp4", codec, "libx264") for codec in ("aac", "ac3", "alac")),
    # MPEG-2.5 has no number there.
    Kind(".mp4", "libmp3lame", "libx264", rates=MPEG2),
    Kind(".mov", "pcm_s24le", "mpeg4"),
    Kind(".avi", "pcm_s16le", "mpeg4"),
    Kind(".avi", "pcm_s16le", "libx264"),
    Kind(".avi", "libmp3lame", "libx264", trims=False, late=True),
    *(Kind(".ts", codec, "libx264", trims=False) for codec in ("aac", "mp2", "ac3")),
    Kind(".3gp", "aac", "libx264"),
    Kind(".3gp", "libopencore_amrnb", "libx264"),
)


def cases() -> Iterator[Any]:
    """Each kind with all of its rates and all of its numbers of channels, in pairs that shift from kind to kind."""
    for shift, kind in enumerate(KINDS):
        coding = CODINGS[kind.sound]
        channels = range(1, coding.most + 1)
        rates = [rate for rate in coding.rates if rate in kind.rates]
        count = max(len(rates), len(channels))
        pairs = zip(cycle(rates), islice(cycle(channels), shift, None), strict=False)
        for rate, number in islice(pairs, count):
            yield pytest.param(kind, rate, number, id=f"{kind.suffix}-{kind.sound}-{rate}-{number}")


def band(rate: int, low: float, high: float, seed: int) -> np.ndarray:
    """Noise between two frequencies (Hz) in bursts that begin with the pictures in `OPEN`, peak 0.2."""
    samples = round(SECONDS * rate)
    generator = np.random.default_rng(seed)
    spectrum = generator.standard_normal(samples // 2 + 1) + 1j * generator.standard_normal(samples // 2 + 1)
    frequency = np.fft.rfftfreq(samples, 1 / rate)
    spectrum[(frequency < low) | (frequency > high)] = 0
    noise = np.fft.irfft(spectrum, samples)
    time = np.arange(samples) / rate
    gate = sum(((time >= n / FPS) & (time < n / FPS + 0.12)).astype(float) for n in OPEN)
    return 0.2 * gate * noise / np.abs(noise).max()


def sounds(rate: int, channels: int) -> np.ndarray:
    """[channels, S], each a noise of its own; the fourth of 5.1 is for low frequencies alone."""
    low = 3 if channels == 6 else -1
    return np.stack(
        [band(rate, 30, 90, 9) if n == low else band(rate, 300, 3000, n) for n in range(channels)]
    )


def write(path: Path, kind: Kind, sound: np.ndarray, rate: int) -> None:
    """Encode the sound, with pictures that turn white with each burst where the kind has pictures."""
    coding = CODINGS[kind.sound]
    layout = coding.layouts[len(sound)]
    with av.open(str(path), "w", format=kind.container) as file:
        video = file.add_stream(kind.pictures, rate=FPS) if kind.pictures else None
        track = file.add_stream(kind.sound, rate=rate, layout=layout)
        track.codec_context.format = coding.form
        if kind.sound in ("aac", "libmp3lame", "mp2", "ac3", "libopus"):
            track.bit_rate = min(64000, 4 * rate) * len(sound) if kind.sound != "mp2" else 160000
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for n in range(round(SECONDS * FPS)):
                picture = np.full((48, 64), 200 if n in OPEN else 30, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="gray")
                frame.pts, frame.time_base = n, Fraction(1, FPS)
                file.mux(video.encode(frame))
            file.mux(video.encode(None))
        frame = sound_frame(sound, coding.form, layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        file.mux(track.encode(frame))
        file.mux(track.encode(None))


def sound_frame(sound: np.ndarray, form: str, layout: str) -> av.AudioFrame:
    kinds = {"s16": np.int16, "s32": np.int32, "flt": np.float32, "u8": np.uint8}
    dtype = kinds[form.rstrip("p")]
    scaled = sound.astype(np.float32) if dtype == np.float32 else np.rint(sound * 127) + 128
    if dtype in (np.int16, np.int32):
        scaled = np.rint(sound * -float(np.iinfo(dtype).min))
    samples = scaled.astype(dtype)
    packed = samples if form.endswith("p") else np.ascontiguousarray(samples.T).reshape(1, -1)
    return av.AudioFrame.from_ndarray(packed, format=form, layout=layout)


def lag_of(found: np.ndarray, sound: np.ndarray) -> int:
    """By how many samples `found` is later than `sound`, by cross-correlation."""
    size = len(found) + len(sound)
    product = np.fft.rfft(found, size) * np.conj(np.fft.rfft(sound, size))
    peak = int(np.argmax(np.fft.irfft(product, size)))
    return peak if peak < len(found) else peak - size


@pytest.mark.parametrize(("kind", "rate", "channels"), list(cases()))
def test_length_lag_level_and_mouth(tmp_path: Path, kind: Kind, rate: int, channels: int) -> None:
    coding, path = CODINGS[kind.sound], tmp_path / f"a{kind.suffix}"
    sound = sounds(rate, channels)
    write(path, kind, sound, rate)
    audio = read_audio(path)
    # Opus knows one rate only, and libsndfile the one before it.
    out = 48000 if kind.sound == "libopus" and kind.pictures else rate
    assert (audio.rate, len(audio.waveform)) == (out, channels)
    expected = resample(sound, rate, out)
    lag = lag_of(audio.waveform.sum(0), expected.sum(0))
    check_sound(audio.waveform, expected, lag, coding, trimmed=kind.trims)
    if kind.pictures:
        times, levels = zip(*((time, picture.mean()) for time, picture in read_frames(path)), strict=True)
        seen = np.arange(len(times)) / FPS
        assert len(times) == round(SECONDS * FPS)
        # On the clock of the sound as it was read, delay included.
        late = 0 if kind.late else lag / out
        np.testing.assert_allclose(np.array(times) - late, seen, atol=2e-3)
        assert [n for n, level in enumerate(levels) if level > 110] == list(OPEN)


def check_sound(found: np.ndarray, expected: np.ndarray, lag: int, coding: Coding, *, trimmed: bool) -> None:
    length = expected.shape[1]
    if coding.exact:
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=coding.exact)
        return
    assert abs(lag - (0 if trimmed else coding.delay)) <= coding.slack
    # A lossy codec fills its last block, a decoder may give one block more, and an encoder keep its delay.
    assert -coding.delay <= found.shape[1] - lag - length <= 2 * 1152 + coding.delay
    heard = np.pad(found, ((0, 0), (max(-lag, 0), coding.delay)))[:, max(lag, 0) :][:, :length]
    for n, source in enumerate(expected):
        if n == 3 and len(expected) == 6:
            # The channel for low frequencies has few bins.
            continue
        # Vorbis and Opus order their channels in their own way.
        alike = [np.corrcoef(source, one)[0, 1] if one.any() else 0.0 for one in heard]
        best = int(np.argmax(alike))
        assert alike[best] > coding.near
        assert np.std(heard[best]) == pytest.approx(np.std(source), rel=coding.level)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_ogg_of_libsndfile(tmp_path: Path, subtype: str, channels: int, rate: int) -> None:
    """Vorbis orders its channels in its own way, so all of them are looked at together."""
    sound = sounds(rate, channels)
    soundfile.write(tmp_path / "a.ogg", sound.T, rate, format="OGG", subtype=subtype)
    audio = read_audio(tmp_path / "a.ogg")
    assert (audio.rate, audio.waveform.shape) == (rate, sound.shape)
    found, expected = audio.waveform.sum(0), sound.sum(0)
    assert abs(lag_of(found, expected)) <= 1
    assert np.std(found) == pytest.approx(np.std(expected), rel=0.25)
    assert np.corrcoef(found, expected)[0, 1] > 0.8


@pytest.mark.parametrize("codec", [name for name, coding in CODINGS.items() if coding.why])
def test_what_an_encoder_cannot_write(codec: str) -> None:
    """The limits of the table are those of the encoder, as far as it tells them."""
    rates = av.Codec(codec, "w").audio_rates
    if rates is None:
        pytest.skip(f"{codec} ({CODINGS[codec].why}): the encoder names no rates")
    assert sorted(CODINGS[codec].rates) == sorted(rates)
