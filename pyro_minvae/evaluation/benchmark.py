"""Enhance and score every mixture of a noisy set, in parallel processes, as a stream of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.manifest import NoisyItem
from pyro_minvae.evaluation.metrics import Scores, failed, score
from pyro_minvae.evaluation.mixing import stable_seed
from pyro_minvae.evaluation.reliability import Detection, detect
from pyro_minvae.evaluation.workers import Work, stream
from pyro_minvae.media.audio import mono, read_audio

MakeEnhancer = Callable[[], Any]
"""Builds what `Enhancer` is: a callable (waveform [S], rate, video=, seed=) -> Enhanced. Picklable."""


class Row(NamedTuple):
    """One mixture: its scores before (`input`) and after (`output`), and what the enhancer says of its work.

    `seconds` of audio, `real_time_factor` (processing time / `seconds`), `acceptance` of the sampler and mean
    `responsibility` of the audio network are NaN where the model has none. `detection` is its trust in lips that
    were spoilt on purpose, beside the truth. `error` is empty unless the item failed.
    """

    item: NoisyItem
    input: Scores
    output: Scores
    seed: int
    seconds: float = float("nan")
    iterations: int = 0
    acceptance: float = float("nan")
    responsibility: float = float("nan")
    real_time_factor: float = float("nan")
    used_video: bool = False
    error: str = ""
    detection: Detection | None = None


class Outcome(NamedTuple):
    """What an `inspect` function sees: the signals [S] at `rate` Hz and the enhancer's whole answer."""

    item: NoisyItem
    clean: np.ndarray
    mixture: np.ndarray
    rate: int
    enhanced: Any


Inspect = Callable[[Outcome], None]


def evaluate(
    items: Sequence[NoisyItem],
    make_enhancer: MakeEnhancer,
    *,
    workers: int = 1,
    seed: int = 0,
    use_video: bool = True,
    inspect: Inspect | None = None,
) -> Iterator[Row]:
    """Yield one row for each of `items`, in their order; an item that fails has NaN scores and the reason.

    Each process loads the model once and keeps to one thread. The random seed of an item depends on `seed`
    and the mixture only, so neither the order nor the number of `workers` matters. `inspect` is called in the
    worker (it must be picklable). Raises `InputError` where the model cannot be made.
    """
    jobs = [
        (item if use_video else item.model_copy(update={"video": None}), item_seed(seed, item))
        for item in items
    ]
    yield from stream(jobs, Work(make_enhancer, partial(_do, inspect=inspect)), lost=_lost, workers=workers)


def _do(job: tuple[NoisyItem, int], enhancer: Any, *, inspect: Inspect | None) -> Row:
    item, seed = job
    return evaluate_item(item, enhancer, seed=seed, inspect=inspect)


def _lost(job: tuple[NoisyItem, int], cause: str) -> Row:
    item, seed = job
    return Row(item, failed(cause), failed(cause), seed, error=cause)


def item_seed(seed: int, item: NoisyItem) -> int:
    """The seed of one mixture (31 bits)."""
    return stable_seed(seed, item.id, item.noise, f"{item.snr_db:g}") % 2**31


def evaluate_item(item: NoisyItem, enhancer: Any, *, seed: int, inspect: Inspect | None = None) -> Row:
    """Read, enhance and score one mixture; a failure becomes NaN scores with the reason."""
    before, seconds = None, float("nan")
    try:
        clean, mixture, rate = _read(item)
        seconds = len(mixture) / rate
        before = score(clean, mixture, rate)
        enhanced = enhancer(mixture, rate, video=item.video, seed=seed)
        after = score(clean, np.asarray(enhanced.speech, np.float64).reshape(-1), rate)
        detection = detect(enhanced.switches, item.video)
    # One bad item must not end a run of hours, whatever is wrong with it: the row carries the cause.
    except Exception as error:
        cause = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        cause = " ".join(cause.split())
        return Row(item, before or failed(cause), failed(cause), seed, seconds, error=cause)
    if inspect:
        inspect(Outcome(item, clean, mixture, rate, enhanced))
    return Row(
        item=item,
        input=before,
        output=after,
        seed=seed,
        seconds=seconds,
        iterations=int(enhanced.iterations),
        acceptance=_number(enhanced.acceptance),
        responsibility=_number(enhanced.responsibility),
        real_time_factor=_number(enhanced.real_time_factor),
        used_video=bool(enhanced.used_video),
        detection=detection,
    )


def _read(item: NoisyItem) -> tuple[np.ndarray, np.ndarray, int]:
    """The clean speech at its level in the mixture [S], the mixture [S] and their rate in Hz."""
    mixture, clean = read_audio(item.mixture), read_audio(item.clean)
    if mixture.rate != clean.rate:
        raise InputError(
            f"{item.mixture}: expected the rate of the clean speech, {clean.rate} Hz, found {mixture.rate}"
        )
    if mixture.waveform.shape[-1] != clean.waveform.shape[-1]:
        raise InputError(
            f"{item.mixture}: expected the {clean.waveform.shape[-1]} samples of the clean speech,"
            f" found {mixture.waveform.shape[-1]}"
        )
    rate = mixture.rate
    speech = mono(clean, rate).astype(np.float64) * item.scale
    return speech, mono(mixture, rate).astype(np.float64), rate


def _number(value: Any) -> float:
    """A float; None becomes NaN."""
    return float("nan") if value is None else float(value)
