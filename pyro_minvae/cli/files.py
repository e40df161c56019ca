"""Enhancement of files: which outputs belong to which inputs, and one recording from file to file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pyro_minvae.data.folder import by_stem, item_of
from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.page import Reporter, check_report
from pyro_minvae.evaluation.switches import check_switches, write_switches
from pyro_minvae.inference.mcem.loop import EMState
from pyro_minvae.media.audio import (
    WRITABLE,
    Audio,
    check_suffix,
    coded_for,
    is_audio,
    is_crops,
    is_video,
    quantise,
    read_audio,
    write_audio,
)
from pyro_minvae.media.containers import clock_start
from pyro_minvae.media.files import check_writable, make_folder
from pyro_minvae.media.video import NoPicturesError
from pyro_minvae.pipelines.enhancer import Enhanced, Enhancer
from pyro_minvae.pipelines.recording import Recording, checked
from pyro_minvae.types import MouthCrops

# What is added to the stems of results beside their input.
ENHANCED, NOISE = "-enhanced", "-noise"


class Done(NamedTuple):
    """A finished job: the figures and what the user should know."""

    result: Enhanced
    warnings: list[str]


class Opened(NamedTuple):
    """What a job has read: the sound as it will be coded, and what the enhancer takes."""

    audio: Audio
    recording: Recording


class EnhancementJob(NamedTuple):
    """One recording: sound from `audio`, lips from `video` (or None), results to `out` and `noise_out` (or None).

    `report` is where a diagnosis of the enhancement goes, `switches` a table of the modes over time, if at all. A job
    with a `fault` cannot be done: the recordings beside it are. `track` is which of several sound tracks it is (1, 2,
    ...; None: FFmpeg's choice).
    """

    audio: Path
    video: Path | None
    out: Path
    noise_out: Path | None
    report: Path | None = None
    switches: Path | None = None
    fault: str = ""
    track: int | None = None

    def run(
        self, enhancer: Enhancer, *, seed: int = 0, watch: Callable[[EMState], None] | None = None
    ) -> Done:
        """Read, enhance, write. Speech and noise are rounded so that the files sum to the mixture.

        Raises:
            InputError: if a file cannot be read or written.
        """
        return self.finish(enhancer, self.open(enhancer, seed), watch=watch)

    def open(self, enhancer: Enhancer, seed: int = 0) -> Opened:
        """Read the sound and the lips, and check both.

        Raises:
            InputError: if a file cannot be read, or is nothing to enhance.
        """
        if self.fault:
            raise InputError(self.fault)
        audio = coded_for(self.out, read_audio(self.audio, track=self.track))
        checked(audio.waveform, audio.rate)
        return Opened(audio, Recording(audio.waveform, audio.rate, self._lips(enhancer), seed))

    def _lips(self, enhancer: Enhancer) -> Path | MouthCrops | None:
        """The lips on the clock of the sound; the video itself where no lips can help, as the enhancer says why."""
        try:
            lips = enhancer.lips(self.video)
        except NoPicturesError:
            # A container that may hold pictures and holds none: `.webm` of a browser, `.mp4` with a cover.
            if self.video != self.audio:
                raise
            return None
        if lips is None:
            return self.video
        if self.track is None or self.video != self.audio:
            return lips
        own, usual = clock_start(self.audio, self.track), clock_start(self.audio)
        return lips._replace(times=lips.times + ((usual or 0.0) - (own or 0.0)))

    def finish(
        self,
        enhancer: Enhancer,
        opened: Opened,
        result: Enhanced | None = None,
        *,
        watch: Callable[[EMState], None] | None = None,
    ) -> Done:
        """Enhance, unless the result is there, and write.

        Raises:
            InputError: if a file cannot be written.
        """
        audio, recording = opened
        reporter = None
        if self.report is not None and result is None:
            reporter = Reporter(self.report, enhancer, recording.video, watch=watch, title=self.audio.name)
            watch = reporter.watch
        if result is None:
            (result,) = enhancer.many([recording], watch=watch)
        notes = self._notes(enhancer, result)
        files = [(self.out, result.speech)]
        if self.noise_out is not None:
            mixture, speech = (quantise(part, audio.subtype) for part in (audio.waveform, result.speech))
            files.append((self.noise_out, mixture - speech))
        for path, waveform in files:
            clipped = write_audio(path, audio._replace(waveform=waveform))
            if clipped:
                notes.append(f"{path}: {clipped} samples clipped")
        if self.switches is not None:
            if result.switches is None:
                notes.append(
                    f"{self.switches}: not written, because the model has no modes to switch between"
                )
            else:
                write_switches(self.switches, result.switches)
        if reporter is not None:
            # Last, so that whatever may go wrong with it costs no result.
            reporter.write(audio, result, recording.seed)
        return Done(result, notes)

    def _notes(self, enhancer: Enhancer, result: Enhanced) -> list[str]:
        """Why lips that might have helped did not; a model without a visual network has nothing to miss."""
        if result.used_video or (self.video is None and enhancer.trained.lips is None):
            return []
        return [f"{self.video or self.audio}: {result.without_video}, enhancing from the sound alone"]


def plan(
    inputs: Sequence[Path],
    *,
    video: Path | None = None,
    out: Path | None = None,
    noise_out: Path | None = None,
    report: Path | None = None,
    switches: Path | None = None,
    track: int | None = None,
) -> list[EnhancementJob]:
    """Pair sounds with lips and with outputs, and check that every output can be written before any work.

    What is wrong with one of several recordings is the `fault` of its job.

    Raises:
        InputError: for a missing input, an empty folder, `video` with several inputs, a folder that cannot be written
            to; for a single recording also an output that is an input, a suffix that cannot be written.
    """
    found: list[_Found] = []
    for path in inputs:
        found += _expand(path, with_results=out is not None)
    if out is None and len(inputs) > 1:
        # As in a folder, what an earlier run wrote beside its input is no input.
        stems = {(one.audio.parent, one.audio.stem) for one in found}
        found = [one for one in found if (one.audio.parent, _origin(one.audio.stem)) not in stems]
    if video is not None:
        if len(found) != 1:
            raise InputError(f"--video {video}: expected a single INPUT with it, found {len(found)}")
        if not os.path.exists(video):
            raise InputError(f"{video}: expected a video or lip crops, found no such file")
        found = [_Found(found[0].audio, video)]
    single = len(found) == 1 and not os.path.isdir(inputs[0])
    for target in (out, noise_out, report, switches):
        if target is not None and not single:
            make_folder(target, "a folder for the results")
    jobs = [
        EnhancementJob(
            one.audio,
            one.video,
            _output(one.audio, out, single, ENHANCED),
            None if noise_out is None else _output(one.audio, noise_out, single, NOISE),
            None if report is None else _beside(one.audio, report, single, ".html"),
            None if switches is None else _beside(one.audio, switches, single, ".csv"),
            one.fault,
            track,
        )
        for one in found
    ]
    return _checked(jobs)


class _Found(NamedTuple):
    """A recording, its lips, and why it cannot be enhanced."""

    audio: Path
    video: Path | None
    fault: str = ""


def _expand(path: Path, *, with_results: bool) -> list[_Found]:
    """An INPUT's recordings: a folder holds one item per stem, a file is one item.

    `with_results` keeps what an earlier run seems to have written into the folder: `a-enhanced` or `a-noise` beside
    an `a`.
    """
    # The functions of os.path answer no to a name that is too long, where those of Path raise.
    if os.path.isdir(path):
        files = sorted(p for p in path.iterdir() if _known(p))
        stems = {p.stem for p in files}
        if not with_results:
            files = [p for p in files if _origin(p.stem) not in stems]
        found = []
        groups = by_stem(files)
        for key in sorted(groups):
            try:
                item = item_of(groups[key])
            except InputError as error:
                # Crops alone are nothing to enhance.
                if not all(is_crops(p) for p in groups[key]):
                    found.append(_Found(groups[key][0], None, str(error)))
                continue
            found.append(_Found(item.audio, item.video))
        if not found:
            raise InputError(f"{path}: expected a folder with audio or video files, found none")
        if len(found) == 1 and found[0].fault:
            raise InputError(found[0].fault)
        return found
    if not os.path.exists(path):
        raise InputError(f"{path}: expected an audio or video file, found no such file")
    return [_Found(path, path if is_video(path) else None)]


def _origin(stem: str) -> str | None:
    """The stem of the recording that a result of this stem would come from; None if it is no result's."""
    return next((stem.removesuffix(end) for end in (ENHANCED, NOISE) if stem.endswith(end)), None)


def _known(path: Path) -> bool:
    return path.is_file() and (is_audio(path) or is_video(path) or is_crops(path))


def _output(audio: Path, target: Path | None, single: bool, what: str) -> Path:
    """Where a result goes: the named file, `STEM.SUFFIX` in the named folder, or beside the input.

    Beside the input, `what` is added to the stem. The suffix is the input's, or `.wav` where that kind of file (a
    video, an MP3) cannot be written.
    """
    suffix = audio.suffix if audio.suffix.lower() in WRITABLE else ".wav"
    if target is None:
        return audio.with_name(f"{audio.stem}{what}{suffix}")
    if single and not os.path.isdir(target):
        return target
    return target / f"{audio.stem}{suffix}"


def _beside(audio: Path, target: Path, single: bool, suffix: str) -> Path:
    """Where a report or a table goes: the named file, or `STEM.SUFFIX` in the named folder."""
    return target if single and not os.path.isdir(target) else target / f"{audio.stem}{suffix}"


def _checked(jobs: Sequence[EnhancementJob]) -> list[EnhancementJob]:
    """The jobs, with what is wrong with the outputs of one of several as its fault."""
    taken: dict[str, Path] = {}
    # Unlike Path.resolve, realpath gives an answer for links that go round in circles too.
    inputs = {os.path.realpath(p) for job in jobs for p in (job.audio, job.video) if p is not None}
    found = []
    for job in jobs:
        try:
            if not job.fault:
                _check(job, inputs, taken)
        except InputError as error:
            if len(jobs) == 1:
                raise
            job = job._replace(fault=str(error))
        found.append(job)
    return found


def _check(job: EnhancementJob, inputs: set[str], taken: dict[str, Path]) -> None:
    """Raise `InputError` for outputs that are inputs or `taken` already, or cannot be written."""
    for path in (job.out, job.noise_out, job.report, job.switches):
        if path is None:
            continue
        real = os.path.realpath(path)
        if real in inputs:
            raise InputError(f"{path}: expected an output apart from the inputs, found an input")
        if real in taken:
            raise InputError(f"{path}: expected one output per input, found two ({taken[real]} too)")
        taken[real] = job.audio
        check_writable(path)
        if path == job.report:
            check_report(path)
        elif path == job.switches:
            check_switches(path)
        else:
            check_suffix(path)
