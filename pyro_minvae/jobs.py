"""Enhancement of files: which outputs belong to which inputs, and one recording from file to file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pyro_minvae.data.folder import pair_by_stem
from pyro_minvae.enhancer import Enhanced, Enhancer
from pyro_minvae.errors import InputError
from pyro_minvae.inference.mcem import EMState
from pyro_minvae.media.audio import coded_for, is_audio, is_crops, is_video, quantise, read_audio, write_audio
from pyro_minvae.media.files import check_writable
from pyro_minvae.media.lips import read_lips

# A rounding error is at most half of an 8-bit step, 1/256; more was cut off.
CLIPPED = 0.004


class Done(NamedTuple):
    """A finished job: the figures and what the user should know."""

    result: Enhanced
    warnings: list[str]


class Job(NamedTuple):
    """One recording: sound from `audio`, lips from `video` (or None), results to `out` and `noise_out` (or None)."""

    audio: Path
    video: Path | None
    out: Path
    noise_out: Path | None

    def run(
        self, enhancer: Enhancer, *, seed: int = 0, watch: Callable[[EMState], None] | None = None
    ) -> Done:
        """Read, enhance, write. Speech and noise are rounded so that the files sum to the mixture.

        Raises:
            InputError: if a file cannot be read or written.
        """
        audio = coded_for(self.out, read_audio(self.audio))
        lips = None
        if self.video is not None and enhancer.trained.lips is not None:
            crops = enhancer.recipe.crops
            lips = read_lips(self.video, size=crops.size, face=crops.face)
        try:
            result = enhancer(audio.waveform, audio.rate, lips, seed=seed, watch=watch)
        except InputError as error:
            raise InputError(f"{self.audio}: {error}") from None
        notes = self._notes(enhancer, result)
        mixture = quantise(audio.waveform, audio.subtype)
        speech = quantise(result.speech, audio.subtype)
        files = [(self.out, speech, result.speech)]
        if self.noise_out is not None:
            files.append((self.noise_out, mixture - speech, mixture - speech))
        for path, waveform, wanted in files:
            write_audio(path, audio._replace(waveform=waveform))
            clipped = int((abs(wanted - quantise(wanted, audio.subtype)) > CLIPPED).sum())
            if clipped:
                notes.append(f"{path}: {clipped} samples clipped")
        return Done(result, notes)

    def _notes(self, enhancer: Enhancer, result: Enhanced) -> list[str]:
        """Why lips that might have helped did not; a model without a visual network has nothing to miss."""
        if result.used_video or (self.video is None and enhancer.trained.lips is None):
            return []
        # An audio-only model is not given the lips at all.
        reason = (
            result.without_video if enhancer.trained.lips is not None else "the model has no visual network"
        )
        return [f"{self.video or self.audio}: {reason}, enhancing from the sound alone"]


def plan(
    inputs: Sequence[Path],
    *,
    video: Path | None = None,
    out: Path | None = None,
    noise_out: Path | None = None,
) -> list[Job]:
    """Pair sounds with lips and with outputs, and check that every output can be written before any work.

    Raises:
        InputError: for a missing input, an empty folder, `video` with several inputs, outputs that collide with
            each other or with an input, or a folder that cannot be written to.
    """
    pairs: list[tuple[Path, Path | None]] = []
    for path in inputs:
        pairs += _expand(path)
    if video is not None:
        if len(pairs) != 1:
            raise InputError(f"--video {video}: expected a single INPUT with it, found {len(pairs)}")
        if not video.exists():
            raise InputError(f"{video}: expected a video or lip crops, found no such file")
        pairs = [(pairs[0][0], video)]
    single = len(pairs) == 1 and not inputs[0].is_dir()
    for target in (out, noise_out):
        if target is not None and not single:
            _make_folder(target)
    jobs = [
        Job(
            audio,
            lips,
            _output(audio, out, single, "enhanced"),
            None if noise_out is None else _output(audio, noise_out, single, "noise"),
        )
        for audio, lips in pairs
    ]
    _check(jobs)
    return jobs


def _expand(path: Path) -> list[tuple[Path, Path | None]]:
    """An INPUT's recordings: a folder holds one item per stem, a file is one item."""
    if path.is_dir():
        items = [
            i for i in pair_by_stem(sorted(p for p in path.iterdir() if _known(p))) if i.audio is not None
        ]
        if not items:
            raise InputError(f"{path}: expected a folder with audio or video files, found none")
        return [(item.audio, item.video) for item in items]
    if not path.exists():
        raise InputError(f"{path}: expected an audio or video file, found no such file")
    return [(path, path if is_video(path) else None)]


def _known(path: Path) -> bool:
    return path.is_file() and (is_audio(path) or is_video(path) or is_crops(path))


def _output(audio: Path, target: Path | None, single: bool, what: str) -> Path:
    """Where a result goes: the named file, `STEM.SUFFIX` in the named folder, or `STEM-WHAT.SUFFIX` beside the input.

    A sound from a container is written as WAV.
    """
    suffix = ".wav" if is_video(audio) else audio.suffix
    if target is None:
        return audio.with_name(f"{audio.stem}-{what}{suffix}")
    if single and not target.is_dir():
        return target
    return target / f"{audio.stem}{suffix}"


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: expected a folder for the results, found: {error.strerror}") from None


def _check(jobs: Sequence[Job]) -> None:
    taken: dict[Path, Path] = {}
    inputs = {p.resolve() for job in jobs for p in (job.audio, job.video) if p is not None}
    for job in jobs:
        for path in (job.out, job.noise_out):
            if path is None:
                continue
            if path.resolve() in inputs:
                raise InputError(f"{path}: expected an output apart from the inputs, found an input")
            if path.resolve() in taken:
                raise InputError(
                    f"{path}: expected one output per input, found two ({taken[path.resolve()]} too)"
                )
            taken[path.resolve()] = job.audio
            check_writable(path)
