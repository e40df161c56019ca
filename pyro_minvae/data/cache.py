"""Waveforms and mouth crops, computed once in parallel and kept under the hash of their sources."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from pyro_minvae.config.schema import CropConfig, Stft
from pyro_minvae.data.digest import content_digests
from pyro_minvae.errors import InputError
from pyro_minvae.media.files import atomic, make_folder
from pyro_minvae.types import MouthCrops, Prepared, Utterance

# To be raised whenever the same input and settings give other numbers: older files are then left alone.
FORMAT = 1
MEMO = "digests.json"
VARIABLE = "PYRO_MINVAE_CACHE"


class CacheTask(NamedTuple):
    """What makes one cache file: files to read, settings that matter, and where the result goes."""

    audio: Path
    video: Path | None
    rate: int
    crops: CropConfig
    key: str
    target: Path


class Features(NamedTuple):
    """One cache file: `waveform` [S] float32 mono at the job's rate, and the lips if there is video."""

    waveform: np.ndarray
    lips: MouthCrops | None


def default_cache() -> Path:
    """$PYRO_MINVAE_CACHE, else `pyro_minvae` in the user's cache folder ($XDG_CACHE_HOME or ~/.cache)."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pyro_minvae"


def prepare(
    utterances: Sequence[Utterance],
    *,
    stft: Stft,
    crops: CropConfig,
    cache: Path,
    workers: int = 2,
    skip_bad: bool = False,
    advance: Callable[[str], None] | None = None,
    with_video: bool = True,
) -> tuple[list[Prepared], list[str]]:
    """Read, resample and crop all `utterances`, or take them from the folder `cache`; in the given order.

    Missing results are computed by `workers` processes and stored one by one, so that nothing done is lost by
    an interrupt. `advance` is called with the id of each utterance as it is ready or skipped. Without
    `with_video` the lips are left alone. Returns the utterances and, with `skip_bad`, one message for each
    that could not be read.
    Raises `InputError` naming the first such file otherwise, or an unwritable cache folder.
    """
    if workers < 1:
        raise ValueError(f"expected at least one worker, got {workers}")
    done: dict[int, Prepared] = {}
    faults: dict[int, str] = {}

    def finish(index: int, result: Features | str) -> None:
        item = utterances[index]
        if isinstance(result, Features):
            done[index] = Prepared(item.id, item.speaker, item.split, result.waveform, result.lips)
        elif skip_bad:
            faults[index] = result
        else:
            raise InputError(result)
        if advance is not None:
            advance(item.id)

    jobs = _jobs(
        utterances, stft.rate, crops, make_folder(cache, "a writable cache folder"), workers, with_video
    )
    # Files that cannot be read at all are named before any work starts.
    for index, job in enumerate(jobs):
        if isinstance(job, InputError):
            finish(index, str(job))
    missing: dict[str, CacheTask] = {}
    waiting: dict[str, list[int]] = {}
    for index, job in enumerate(jobs):
        if isinstance(job, InputError):
            continue
        stored = None if job.key in missing else load(job)
        if stored is None:
            # Copies of one recording have one key and are computed once.
            missing.setdefault(job.key, job)
            waiting.setdefault(job.key, []).append(index)
        else:
            finish(index, stored)
    # Closed at once on an error or an interrupt, or its traceback would keep the workers busy.
    with closing(_compute_all(list(missing.values()), workers)) as results:
        for key, fault in results:
            result = fault or _reload(missing[key])
            for index in waiting[key]:
                finish(index, result)
    return [done[index] for index in sorted(done)], [faults[index] for index in sorted(faults)]


def _jobs(
    utterances: Sequence[Utterance], rate: int, crops: CropConfig, cache: Path, workers: int, with_video: bool
) -> list[CacheTask | InputError]:
    """The job of every utterance, or why one of its files cannot be read."""
    pairs = [(item.audio, item.video if with_video else None) for item in utterances]
    paths = (path for pair in pairs for path in pair if path is not None)
    digests = content_digests(paths, cache / MEMO, workers=workers)
    jobs: list[CacheTask | InputError] = []
    for audio, video in pairs:
        sound, picture = digests[audio], None if video is None else digests[video]
        if isinstance(sound, InputError) or isinstance(picture, InputError):
            jobs.append(sound if isinstance(sound, InputError) else picture)  # type: ignore[arg-type]
            continue
        key = content_key(sound, picture, rate, crops)
        jobs.append(CacheTask(audio, video, rate, crops, key, cache / f"{key}.npz"))
    return jobs


def content_key(audio: str, video: str | None, rate: int, crops: CropConfig) -> str:
    """SHA-256 over the digests of the files and the settings that matter, and nothing else."""
    parts = {"format": FORMAT, "audio": audio, "rate": rate}
    if video is not None:
        parts |= {"video": video, "crops": crops.model_dump(mode="json")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _compute_all(jobs: list[CacheTask], workers: int) -> Generator[tuple[str, str | None]]:
    """Run the jobs and yield each one's key, with the fault found in its files if any, as they end."""
    workers = min(workers, len(jobs))
    if workers < 2:
        yield from map(compute, jobs)
        return
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky import get_reusable_executor

    with parallel_config(backend="loky", inner_max_num_threads=1):
        results = Parallel(n_jobs=workers, return_as="generator_unordered")(
            delayed(compute)(job) for job in jobs
        )
    try:
        yield from results
    finally:
        # Stops what still runs, and gives the workers' memory back to whatever comes after.
        results.close()
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


def compute(job: CacheTask) -> tuple[str, str | None]:
    """Make one cache file and return the job's key; if its input is broken write nothing and say why."""
    from pyro_minvae.media.audio import mono, read_audio

    try:
        waveform = mono(read_audio(job.audio), job.rate)
        # An offset, louder than the speech in some corpora, would be what the level is set by.
        waveform = waveform - waveform.mean()
        lips = None if job.video is None else _read_lips(job.video, job.crops)
    except InputError as error:
        return job.key, str(error)
    # Outside of the try: a full disk is no fault of the recording.
    _save(job, Features(waveform, lips))
    return job.key, None


def _read_lips(video: Path, crops: CropConfig) -> MouthCrops:
    """The lips in one thread, as there are as many processes as there should be threads."""
    import cv2

    from pyro_minvae.media.mouths import read_lips

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return read_lips(video, size=crops.size, face=crops.face)
    finally:
        cv2.setNumThreads(threads)


def _save(job: CacheTask, features: Features) -> None:
    """Write the job's file; `key` inside tells it from any other file of that name."""
    arrays = {"key": np.array(job.key), "waveform": np.asarray(features.waveform, np.float32)}
    if features.lips is not None:
        arrays["crops"] = np.asarray(features.lips.crops, np.uint8)
        arrays["times"] = np.asarray(features.lips.times, np.float64)
        arrays["valid"] = np.asarray(features.lips.valid, bool)
    with atomic(job.target) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def load(job: CacheTask) -> Features | None:
    """What the job's cache file holds, or None if there is none or it is damaged or of another kind."""
    try:
        # The archive's checksums show flipped bits, its directory at the end shows a cut. Opened here because
        # NumPy leaves a file open that it cannot read.
        with open(job.target, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, TypeError, NotImplementedError, BadZipFile):
        return None
    wanted = {"key", "waveform"} | (set() if job.video is None else {"crops", "times", "valid"})
    if arrays.keys() != wanted or str(arrays["key"]) != job.key:
        return None
    waveform = arrays["waveform"]
    if waveform.ndim != 1 or waveform.dtype != np.float32:
        return None
    if job.video is None:
        return Features(waveform, None)
    lips = MouthCrops(arrays["crops"], arrays["times"], arrays["valid"])
    return Features(waveform, lips) if _whole(lips, job.crops.size) else None


def _whole(lips: MouthCrops, size: int) -> bool:
    """Whether the arrays have the shapes and types of mouth crops."""
    frames = len(lips.times) if lips.times.ndim else -1
    return (
        lips.crops.shape == (frames, size, size)
        and lips.times.shape == lips.valid.shape == (frames,)
        and (lips.crops.dtype, lips.times.dtype, lips.valid.dtype) == (np.uint8, np.float64, np.bool_)
    )


def _reload(job: CacheTask) -> Features:
    """What a worker has just written: through the file, so that a first and a later run see the same."""
    features = load(job)
    if features is None:
        raise InputError(f"{job.target}: expected the cache file just written, found it gone or changed")
    return features
