"""Makes noisy.mkv and clean.flac: a synthetic voice, a drawn face whose mouth follows it, generated noise.

Nothing in them was recorded. Needs this package's dependencies and the program espeak-ng (Debian:
`apt-get install espeak-ng`).

    python examples/make.py [FOLDER]
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import soundfile
from scipy.signal import butter, resample_poly, sosfiltfilt

SENTENCE = "place green at g four now"
VOICE = ["-v", "en-gb", "-s", "125", "-p", "35", "-a", "100"]
RATE, FPS, SECONDS = 16000, 25, 3.0
WIDTH, HEIGHT, FINER = 360, 288, 4
SNR_DB, PEAK, SEED = 0.0, 0.7, 2008

Colour = tuple[int, int, int]
SKIN: Colour = (150, 180, 218)
SKIN_DARK: Colour = (110, 138, 182)
HAIR: Colour = (35, 45, 62)
LIP: Colour = (92, 92, 170)
INSIDE: Colour = (30, 25, 50)
TEETH: Colour = (215, 228, 232)


def speak() -> np.ndarray:
    """The sentence in espeak-ng's voice at RATE, centred in SECONDS of silence: float64 [S]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voice.wav"
        try:
            subprocess.run(["espeak-ng", *VOICE, "-w", str(path), SENTENCE], check=True)
        except FileNotFoundError:
            raise SystemExit("expected the program espeak-ng on the PATH, found none") from None
        voice, rate = soundfile.read(path)
    common = math.gcd(RATE, rate)
    voice = resample_poly(voice, RATE // common, rate // common)
    loud = np.flatnonzero(np.abs(voice) > 0.01 * np.abs(voice).max())
    voice = voice[loud[0] : loud[-1] + 1]
    total = round(RATE * SECONDS)
    if len(voice) > total:
        raise SystemExit(f"expected at most {SECONDS} s of speech, found {len(voice) / RATE:.2f} s")
    before = (total - len(voice)) // 2
    return np.pad(voice, (before, total - len(voice) - before))


def make_noise(samples: int, generator: np.random.Generator) -> np.ndarray:
    """Pink noise and a slowly swelling band of 300 to 2500 Hz, equal in power: float64 [S]."""
    spectrum = np.fft.rfft(generator.standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1 / RATE)
    # Below 50 Hz nobody hears it, and it would take most of the power.
    spectrum *= (frequency > 50) / np.sqrt(np.maximum(frequency, 50))
    pink = np.fft.irfft(spectrum, samples)
    band = sosfiltfilt(
        butter(4, [300, 2500], "bandpass", fs=RATE, output="sos"), generator.standard_normal(samples)
    )
    time = np.arange(samples) / RATE
    band *= 1 + 0.6 * np.sin(2 * np.pi * 0.9 * time + generator.uniform(0, 2 * np.pi))
    return pink / pink.std() + band / band.std()


def mouth_opening(speech: np.ndarray) -> np.ndarray:
    """Opening in 0..1 for each video frame: the root of the speech's energy, smoothed over 80 ms."""
    window = np.hanning(round(0.08 * RATE))
    energy = np.convolve(speech**2, window / window.sum(), mode="same")
    frames = round(SECONDS * FPS)
    centres = ((np.arange(frames) + 0.5) * RATE / FPS).astype(int)
    opening = np.sqrt(energy[centres])
    return np.clip(opening / np.quantile(opening, 0.95), 0, 1)


class Canvas:
    """A picture drawn FINER times too large in the coordinates of the final one, then averaged down."""

    def __init__(self, origin: tuple[float, float]) -> None:
        rows = np.linspace(0, 1, HEIGHT * FINER)[:, None, None]
        wall = np.array([172, 150, 128]) - 35 * rows
        self.image = np.ascontiguousarray(np.broadcast_to(wall, (HEIGHT * FINER, WIDTH * FINER, 3)), np.uint8)
        self.origin = origin

    def ellipse(self, x: float, y: float, across: float, down: float, colour: Colour, **arc: float) -> None:
        """Filled, centre and half axes in pixels from the origin; `start`, `stop` in degrees cut a sector."""
        centre = (round((self.origin[0] + x) * FINER), round((self.origin[1] + y) * FINER))
        axes = (max(round(across * FINER), 1), max(round(down * FINER), 1))
        start, stop = arc.get("start", 0.0), arc.get("stop", 360.0)
        cv2.ellipse(self.image, centre, axes, arc.get("tilt", 0.0), start, stop, colour, -1, cv2.LINE_AA)

    def shade(self, x: float, y: float, across: float, down: float, amount: float) -> None:
        """Brightens (amount > 0) or darkens a soft round patch."""
        rows, columns = np.mgrid[: HEIGHT * FINER, : WIDTH * FINER].astype(np.float32) / FINER
        distance = ((columns - self.origin[0] - x) / across) ** 2 + ((rows - self.origin[1] - y) / down) ** 2
        patch = amount * np.exp(-distance)[..., None]
        self.image = np.clip(self.image + patch, 0, 255).astype(np.uint8)

    def finish(self, generator: np.random.Generator) -> np.ndarray:
        """The picture [HEIGHT, WIDTH, 3] BGR uint8 with a little camera noise."""
        small = cv2.resize(self.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        soft = cv2.GaussianBlur(small, (0, 0), 0.8)
        return np.clip(soft + generator.normal(0, 1.0, soft.shape), 0, 255).astype(np.uint8)


def draw_mouth(canvas: Canvas, opening: float) -> None:
    """Lips around a dark gap that grows with `opening`; the upper teeth show when it is wide."""
    gap = 0.6 + 11.0 * opening
    across = 23.0 - 4.0 * opening
    middle = 50.0 + 0.4 * gap
    canvas.ellipse(0, middle, across, gap + 5.0, LIP)
    # The bow of the upper lip.
    canvas.ellipse(-7, middle - gap - 2.2, 9, 4, LIP)
    canvas.ellipse(7, middle - gap - 2.2, 9, 4, LIP)
    canvas.ellipse(0, middle, across - 4.0, gap, INSIDE)
    if gap > 4:
        canvas.ellipse(0, middle - 0.35 * gap, across - 8.0, 0.4 * gap, TEETH, start=180, stop=360)


def draw_face(
    opening: float, sway: tuple[float, float], blink: bool, generator: np.random.Generator
) -> np.ndarray:
    """One frame: a head and shoulders, its mouth `opening` in 0..1, moved by `sway` pixels."""
    canvas = Canvas((WIDTH / 2 + sway[0], 132 + sway[1]))
    canvas.ellipse(0, 190, 130, 85, (95, 70, 50))
    canvas.ellipse(0, 100, 34, 50, SKIN_DARK)
    canvas.ellipse(0, -22, 80, 92, HAIR)
    for side in (-1, 1):
        canvas.ellipse(side * 74, 6, 9, 18, SKIN_DARK)
    canvas.ellipse(0, 8, 71, 90 + 3 * opening, SKIN)
    canvas.ellipse(0, -62, 62, 26, HAIR, start=180, stop=360)
    for side in (-1, 1):
        canvas.shade(side * 66, 20, 22, 70, -45)
        canvas.shade(side * 30, -12, 21, 13, -62)
        canvas.shade(side * 36, 26, 20, 16, 22)
        canvas.shade(side * 9, 10, 5, 26, -16)
    canvas.shade(0, -42, 40, 16, 16)
    canvas.shade(0, 8, 6, 26, 32)
    canvas.shade(0, 74, 28, 8, -18)
    for side in (-1, 1):
        canvas.ellipse(side * 30, -25, 19, 4.5, HAIR, tilt=-side * 4)
        draw_eye(canvas, side * 30, blink)
        canvas.ellipse(side * 7, 29, 4, 2.5, (70, 80, 110))
    draw_mouth(canvas, opening)
    return canvas.finish(generator)


def draw_eye(canvas: Canvas, x: float, blink: bool) -> None:
    """An eye, or its closed lid."""
    canvas.ellipse(x, -9, 15, 7.5, (70, 85, 120))
    if blink:
        canvas.ellipse(x, -10, 14, 5.5, SKIN_DARK)
        return
    canvas.ellipse(x, -8.5, 13, 5.5, (225, 228, 230))
    canvas.ellipse(x, -9, 5.8, 5.8, (60, 50, 40))
    canvas.ellipse(x, -9, 2.6, 2.6, (10, 10, 10))
    canvas.ellipse(x + 2, -11, 1.2, 1.2, (250, 250, 250))


def draw_film(speech: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Every frame of the film, BGR uint8."""
    frames = []
    for index, opening in enumerate(mouth_opening(speech)):
        time = index / FPS
        sway = (2.5 * math.sin(2 * math.pi * 0.4 * time), 1.5 * math.sin(2 * math.pi * 0.7 * time))
        frames.append(draw_face(float(opening), sway, 1.2 < time < 1.34, generator))
    return frames


def write_film(path: Path, frames: list[np.ndarray], sound: np.ndarray) -> None:
    """H.264 at FPS and 16-bit FLAC at RATE in one Matroska file; `sound` is int16 [S]."""
    with av.open(str(path), "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "slow", "bf": "0"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.thread_count = 1
        audio = container.add_stream("flac", rate=RATE, layout="mono", format="s16")
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="bgr24")
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        block = 4096
        for start in range(0, len(sound), block):
            piece = av.AudioFrame.from_ndarray(
                sound[None, start : start + block], format="s16", layout="mono"
            )
            piece.sample_rate, piece.pts, piece.time_base = RATE, start, Fraction(1, RATE)
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))


def main(folder: Path) -> None:
    """Write both files into `folder`."""
    generator = np.random.default_rng(SEED)
    speech = speak()
    noise = make_noise(len(speech), generator)
    noise *= math.sqrt(np.sum(speech**2) / np.sum(noise**2) / 10 ** (SNR_DB / 10))
    level = PEAK / np.abs(speech + noise).max()
    clean, noisy = (np.round(32767 * level * sound).astype(np.int16) for sound in (speech, speech + noise))
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "clean.flac", clean, RATE, subtype="PCM_16")
    write_film(folder / "noisy.mkv", draw_film(speech, generator), noisy)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
