"""Sound in and out: WAV, FLAC, OGG and their like through soundfile, any other container through PyAV."""

from __future__ import annotations

from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_minvae.errors import InputError
from pyro_minvae.media.files import atomic, existing_file
from pyro_minvae.media.soundfiles import opened_to_write, read_soundfile
from pyro_minvae.types import Audio

if TYPE_CHECKING:
    import numpy as np

# What libsndfile reads and writes, with its names of the formats; the first is what we write by default.
_FORMATS = {
    ".wav": ("WAV", "WAVEX", "RF64"),
    ".flac": ("FLAC",),
    ".ogg": ("OGG",),
    ".oga": ("OGG",),
    ".opus": ("OGG",),
    ".aiff": ("AIFF",),
    ".aif": ("AIFF",),
    ".au": ("AU",),
    ".caf": ("CAF",),
    ".w64": ("W64",),
    ".rf64": ("RF64",),
}
WRITABLE = frozenset(_FORMATS)
AUDIO_SUFFIXES = WRITABLE | {
    *(
        ".mp3",
        ".m4a",
        ".aac",
        ".mp2",
        ".wma",
        ".mka",
        ".ac3",
        ".eac3",
        ".weba",
        ".aifc",
        ".m4b",
        ".wv",
        ".spx",
    ),
    *(".amr", ".ape", ".tta", ".dts", ".snd"),
}
VIDEO_SUFFIXES = frozenset(
    {".mkv", ".mp4", ".mpg", ".mpeg", ".avi", ".mov", ".webm", ".m4v", ".ts", ".mts", ".m2ts", ".wmv", ".asf"}
    | {".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".vob", ".dv", ".mxf"}
)
# Beyond any scale of samples (int32 reaches 2e9); single precision cannot hold the square of what is much larger.
LOUDEST = 1e15
CROP_SUFFIXES = frozenset({".npz", ".npy", ".mat"})

# Bits of the codings on an integer grid.
_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
# Codings written as they were read. Block codings (ADPCM, GSM) would pad the length, so they become PCM.
_WRITTEN = {*_BITS, "FLOAT", "DOUBLE", "ULAW", "ALAW", "VORBIS", "OPUS"}
# What comes nearest where a format cannot hold a coding, best first.
_NEAREST = {
    "PCM_S8": ("PCM_U8",),
    "PCM_U8": ("PCM_S8",),
    "PCM_32": ("PCM_24",),
    "FLOAT": ("PCM_24",),
    "DOUBLE": ("FLOAT", "PCM_24"),
}
# Long writes overflow the stack of libsndfile's Vorbis coder.
_BLOCK = 65536
# torchaudio keeps one filter per output phase: beyond this many the table outgrows the sound.
_MOST_PHASES = 2000


def is_audio(path: str | Path) -> bool:
    """True if the suffix is that of a sound file."""
    return Path(path).suffix.lower() in AUDIO_SUFFIXES


def is_video(path: str | Path) -> bool:
    """True if the suffix is that of a video container."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def is_crops(path: str | Path) -> bool:
    """True if the suffix is that of an array of mouth crops."""
    return Path(path).suffix.lower() in CROP_SUFFIXES


def is_hidden(path: str | Path) -> bool:
    """True for names that begin with a dot: `._a.wav` is what macOS notes about `a.wav`, and no sound."""
    return Path(path).name.startswith(".")


def read_audio(path: str | Path, *, track: int | None = None) -> Audio:
    """Read the sound of a file; time 0 is its first sample, and `media.video` gives frames on the same clock.

    `track` is which of a container's sound tracks to read (1, 2, ...; None: FFmpeg's choice, which it tells).

    Raises:
        InputError: when the file is missing, empty, not sound, or has no samples or ones that are not finite, or
            no such track.
    """
    import numpy as np

    path = existing_file(path, "a sound or video file")
    if path.suffix.lower() in _FORMATS and track in (None, 1):
        audio = read_soundfile(path, _WRITTEN)
    elif is_audio(path) or is_video(path):
        from pyro_minvae.media.containers import read_sound

        audio = read_sound(path, track)
    else:
        known = ", ".join(sorted(AUDIO_SUFFIXES | VIDEO_SUFFIXES))
        raise InputError(
            f"{path}: expected a sound or video file ({known}), found the suffix '{path.suffix}'"
        )
    if audio.waveform.shape[1] == 0:
        raise InputError(f"{path}: expected sound, found a file of length zero")
    bad = np.count_nonzero(~np.isfinite(audio.waveform))
    if bad:
        raise InputError(f"{path}: expected finite samples, found {bad} that are NaN or infinite")
    peak = float(np.abs(audio.waveform).max())
    if peak > LOUDEST:
        raise InputError(f"{path}: expected samples around full scale 1, found {peak:.3g}")
    return audio


def write_audio(path: str | Path, audio: Audio) -> int:
    """Write `audio` atomically and return how many samples had to be clipped.

    Integer codings are rounded by `quantise`, so what it returns is what a reader gets. The suffix rules the
    format: if it differs from `audio.format`, `coded_for` tells what is written.

    Raises:
        InputError: for an unwritable place, an unknown suffix or a format that cannot hold the sound.
    """
    import numpy as np
    import soundfile

    audio = coded_for(path, audio)
    if not np.isfinite(audio.waveform).all():
        raise InputError(f"{path}: expected finite samples to write, found NaN or infinite ones")
    channels, length = audio.waveform.shape
    clipped = 0
    with atomic(path) as temporary:
        try:
            form = {"subtype": audio.subtype, "format": audio.format}
            with opened_to_write(temporary, samplerate=audio.rate, channels=channels, **form) as file:
                for start in range(0, length, _BLOCK):
                    samples, over = _codes(audio.waveform[:, start : start + _BLOCK], audio.subtype)
                    file.write(samples)
                    clipped += over
        except soundfile.LibsndfileError as error:
            raise InputError(
                f"{path}: expected a sound that {audio.format} {audio.subtype} can hold, "
                f"found {channels} channels at {audio.rate} Hz ({error.error_string.strip()})"
            ) from None
    return clipped


def coded_for(path: str | Path, audio: Audio) -> Audio:
    """`audio` with the format that the suffix of `path` asks for and the nearest coding that this format has.

    Raises:
        InputError: for a suffix that cannot be written.
    """
    import soundfile

    check_suffix(path)
    formats = _FORMATS[Path(path).suffix.lower()]
    name = audio.format if audio.format in formats else formats[0]
    for subtype in (audio.subtype, *_NEAREST.get(audio.subtype, ()), "PCM_16"):
        if subtype in _WRITTEN and soundfile.check_format(name, subtype):
            return audio._replace(format=name, subtype=subtype)
    return audio._replace(format=name, subtype=soundfile.default_subtype(name))


def check_suffix(path: str | Path) -> None:
    """Raise `InputError` for a suffix that is not in `WRITABLE`."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        known = ", ".join(_FORMATS)
        raise InputError(f"{path}: expected the name of a sound file ({known}) to write, found '{suffix}'")


def quantise(waveform: np.ndarray, subtype: str) -> np.ndarray:
    """round(x 2^(b-1)) / 2^(b-1) inside [-1, 1 - 2^(1-b)]: what a file of this coding with b bits holds.

    Sums and differences of values on the grid are on it too, so speech + (mixture - speech) is exact on disk
    while nothing clips. Other codings (float, companded, lossy) leave the waveform unchanged.
    """
    import numpy as np

    if subtype not in _BITS:
        return waveform
    steps = 2.0 ** (_BITS[subtype] - 1)
    return np.clip(np.rint(np.asarray(waveform, np.float64) * steps), -steps, steps - 1) / steps


def resample(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Waveform [..., S] at `from_rate` Hz to [..., ceil(S to/from)] at `to_rate` Hz, without delay.

    A symmetric (zero-phase) Kaiser-windowed sinc low-pass below both Nyquist frequencies: sample n of the
    result belongs to the time n / to_rate, as sample n of the input to n / from_rate. The dtype is kept.

    Raises:
        ValueError: for rates that are not positive or an empty waveform.
    """
    import numpy as np

    if from_rate <= 0 or to_rate <= 0 or waveform.shape[-1] == 0:
        raise ValueError(f"expected positive rates and samples, got {from_rate}, {to_rate}, {waveform.shape}")
    if from_rate == to_rate:
        return waveform
    common = gcd(from_rate, to_rate)
    up, down = to_rate // common, from_rate // common
    if max(up, down) > _MOST_PHASES:
        from scipy.signal import resample_poly

        return np.asarray(resample_poly(waveform, up, down, axis=-1), waveform.dtype)
    import torch
    from torchaudio.functional import resample as torch_resample

    result = torch_resample(
        torch.as_tensor(np.ascontiguousarray(waveform)),
        from_rate,
        to_rate,
        lowpass_filter_width=64,
        rolloff=0.95,
        resampling_method="sinc_interp_kaiser",
        beta=14.0,
    )
    return result.numpy()


def mono(audio: Audio, rate: int) -> np.ndarray:
    """The mean of the channels at `rate` Hz: float32 [ceil(S rate / audio.rate)]."""
    import numpy as np

    return resample(audio.waveform.mean(0), audio.rate, rate).astype(np.float32)


def _codes(waveform: np.ndarray, subtype: str) -> tuple[np.ndarray, int]:
    """What to hand to libsndfile of [channels, S], as [S, channels], and the number of clipped samples.

    Integers go left-justified in int32, because libsndfile rounds floats differently from format to format.
    """
    import numpy as np

    waveform = np.asarray(waveform, np.float64)
    if subtype in _BITS:
        steps = 2.0 ** (_BITS[subtype] - 1)
        rounded = np.rint(waveform * steps)
        clipped = int(np.count_nonzero((rounded < -steps) | (rounded > steps - 1)))
        return (quantise(waveform, subtype) * 2.0**31).astype(np.int32).T, clipped
    clipped = int(np.count_nonzero(np.abs(waveform) > 1)) if subtype in ("ULAW", "ALAW") else 0
    return waveform.T, clipped
