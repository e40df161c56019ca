"""Separation of files: who speaks by what is given, what the results are called, and one mixture from file to files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.switches import write_switches
from pyro_minvae.media.audio import WRITABLE, coded_for, is_video, quantise, read_audio, write_audio
from pyro_minvae.media.faces import Faces
from pyro_minvae.media.files import check_writable, existing_file, make_folder
from pyro_minvae.pipelines.mcem_solver import Watch
from pyro_minvae.pipelines.separator import Separated, Separator
from pyro_minvae.types import MouthCrops

BACKGROUND = "background"

# What a name becomes part of is the name of a file, on any system.
UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]|^\.|^\s|[\s.]$')
LONGEST_NAME = 200


class Parted(NamedTuple):
    """A finished job: the figures, the speakers' `names` and `files`, that of the `background`, and what to know."""

    result: Separated
    names: list[str]
    files: list[Path]
    background: Path
    warnings: list[str]


class SeparationJob(NamedTuple):
    """One mixture: its sound from `audio`, its speakers from `videos`, and the results to OUT/NAME.SUFFIX.

    With `faces` the speakers are faces of the one video, else each video is one; `speakers` is how many there are in
    all, those without video being only heard (None: no more than are seen). `names` are empty where none were given.
    With `switches` the modes of each speaker over time go to OUT/NAME.csv.
    """

    audio: Path
    videos: tuple[Path, ...]
    faces: Faces | None
    speakers: int | None
    names: tuple[str, ...]
    out: Path
    switches: bool = False

    def run(
        self, separator: Separator, *, seed: int = 0, background: bool = True, watch: Watch | None = None
    ) -> Parted:
        """Read, separate, write. All files are rounded so that they sum to the mixture, sample by sample.

        Raises:
            InputError: if a file cannot be read or written, or there are fewer faces than asked for.
        """
        audio = coded_for(self._file("speaker"), read_audio(self.audio))
        videos: list[Path | MouthCrops | None] = list(self.videos)
        if self.faces is not None:
            videos = list(separator.faces(self.videos[0], self.faces))
        names = self.called(len(videos))
        videos += [None] * (len(names) - len(videos))
        files = self.check(names)
        result = separator(audio.waveform, audio.rate, videos, seed=seed, background=background, watch=watch)
        make_folder(self.out, "a folder for the results")
        rest = quantise(audio.waveform, audio.subtype)
        for speech in result.speakers:
            rest = rest - quantise(speech, audio.subtype)
        warnings = list(result.warnings)
        for path, waveform in zip(files, [*result.speakers, rest], strict=True):
            clipped = write_audio(path, audio._replace(waveform=waveform))
            if clipped:
                warnings.append(f"{path}: {clipped} samples clipped")
        if self.switches and not result.switches:
            warnings.append("--switches: nothing written, because the model has no modes to switch between")
        elif self.switches:
            for name, modes in zip(names, result.switches, strict=True):
                write_switches(self.table(name), modes)
        return Parted(result, names, files[:-1], files[-1], warnings)

    def seen(self) -> int | None:
        """How many speakers have a video; None while the faces are not counted."""
        if self.faces is None:
            return len(self.videos)
        return None if self.faces == "all" else len(self.faces)

    def check(self, names: Sequence[str]) -> list[Path]:
        """The files of speakers called so, and of the background, if they can be written.

        Raises:
            InputError: for names that are unsafe, taken or twice the same, files that cannot be written, or inputs.
        """
        for name in names:
            if not name or UNSAFE.search(name) or len(name.encode()) > LONGEST_NAME:
                raise InputError(
                    f"--names {name!r}: expected a name that a file may have, found one that is not"
                )
            if name.casefold() == BACKGROUND:
                raise InputError(f"--names {name}: expected another name, found that of the background")
        # Some file systems do not tell A from a.
        name, count = Counter(name.casefold() for name in names).most_common(1)[0]
        if count > 1:
            raise InputError(
                f"--names: expected a different name for each speaker, found '{name}' {count} times"
            )
        files = [self._file(name) for name in (*names, BACKGROUND)]
        outputs = files + ([self.table(name) for name in names] if self.switches else [])
        inputs = {os.path.realpath(path) for path in (self.audio, *self.videos)}
        for path in outputs:
            if os.path.realpath(path) in inputs:
                raise InputError(f"{path}: expected an output apart from the inputs, found an input")
        if self.out.is_dir():
            for path in outputs:
                check_writable(path)
        else:
            check_writable(_first_missing(self.out))
        return files

    def table(self, name: str) -> Path:
        """Where the modes of a speaker go."""
        return self.out / f"{name}.csv"

    def _file(self, name: str) -> Path:
        suffix = self.audio.suffix if self.audio.suffix.lower() in WRITABLE else ".wav"
        return self.out / f"{name}{suffix}"

    def called(self, seen: int) -> list[str]:
        """The names of all speakers, `seen` of them with a video or a face: those given, or what the videos are called.

        Raises:
            InputError: for fewer speakers than are seen, or another number of names.
        """
        speakers = seen if self.speakers is None else self.speakers
        if speakers < seen:
            raise InputError(
                f"--speakers {speakers}: expected at least the {seen} that are seen, found fewer"
            )
        if self.names:
            if len(self.names) != speakers:
                raise InputError(
                    f"--names: expected {speakers}, one for each speaker, found {len(self.names)}"
                )
            return list(self.names)
        if self.faces is None:
            found = [video.stem for video in self.videos]
        else:
            faces = range(seen) if self.faces == "all" else self.faces
            found = [face if isinstance(face, str) else f"face-{face}" for face in faces]
        return found + [f"speaker-{n + 1}" for n in range(seen, speakers)]


def plan_separation(
    mixture: Path,
    *,
    videos: Sequence[Path] = (),
    faces: str | None = None,
    speakers: int | None = None,
    names: Sequence[str] = (),
    out: Path,
    switches: bool = False,
) -> SeparationJob:
    """Say who speaks in a mixture, and check before any work that all there is to write can be written.

    `faces` is "all" or a list such as "left,right" or "0,2" (from the left), of the one video or of the mixture itself.

    Raises:
        InputError: for a missing input, no speakers, fewer of them than videos, another number of names, and as
            `SeparationJob.check`.
    """
    existing_file(mixture, "an audio or video file")
    for video in videos:
        existing_file(video, "a video or lip crops")
    chosen = None if faces is None else parse_faces(faces)
    if chosen is not None and len(videos) != 1:
        if videos or not is_video(mixture):
            found = f"{len(videos)} videos" if videos else f"none, and {mixture} is no video"
            raise InputError(f"--faces {faces}: expected one video that shows them, found {found}")
        videos = [mixture]
    if not videos and speakers is None:
        raise InputError(
            f"{mixture}: expected --video, --faces or --speakers to tell who speaks, found none of them"
        )
    job = SeparationJob(mixture, tuple(videos), chosen, speakers, tuple(names), out, switches)
    seen = job.seen()
    if seen is not None:
        job.check(job.called(seen))
    return job


def parse_faces(text: str) -> Faces:
    """ "all", or a list of "left", "right" and numbers from the left (0, 1, ...), with commas between.

    Raises:
        InputError: for anything else, or a face that is named twice.
    """
    if text == "all":
        return "all"
    words = [word.strip() for word in text.split(",")]
    if any(word not in ("left", "right") and not word.isdecimal() for word in words):
        raise InputError(
            f"--faces {text}: expected all, or some of left, right, 0, 1, ... with commas, found '{text}'"
        )
    faces = [word if word in ("left", "right") else int(word) for word in words]
    if len(set(faces)) < len(faces):
        raise InputError(f"--faces {text}: expected different faces, found one twice")
    return faces  # type: ignore[return-value]


def _first_missing(folder: Path) -> Path:
    """The topmost folder that has to be made for `folder`."""
    folder = folder.absolute()
    while not os.path.lexists(folder.parent):
        folder = folder.parent
    return folder
