"""How good an estimate of clean speech is: SI-SDR, wide-band PESQ, STOI and ESTOI."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from pyro_minvae.features.rumble import audible
from pyro_minvae.media.audio import resample

RATE = 16000
"""Hz; wide-band PESQ is defined at this rate only, and STOI and ESTOI are computed from the same samples."""

PESQ_SAFE = 20
"""s; shorter signals cannot hold the 50 stretches of speech that overflow the arrays of PESQ's code."""

HEADINGS = {"si_sdr": "SI-SDR (dB)", "pesq": "PESQ (wide band)", "stoi": "STOI", "estoi": "ESTOI"}
"""The metrics in the order of every table, and how a table names them."""


class Scores(NamedTuple):
    """`values` by the keys of `HEADINGS`; a metric that failed is NaN and has its cause in `reasons`."""

    values: dict[str, float]
    reasons: dict[str, str]


class UnscorableError(ValueError):
    """A metric has no value for this pair; the message is the reason."""


def si_sdr(clean: np.ndarray, estimate: np.ndarray, *, zero_mean: bool = False) -> float:
    """SI-SDR = 10 log10(|a s|^2 / |a s - e|^2) in dB, with a = <e, s> / <s, s>.

    `clean` s and `estimate` e are [S]. Both means are removed first where `zero_mean` is set. The value is
    +inf for an estimate that is the clean speech up to scale, and -inf for one that is orthogonal to it.
    Raises `UnscorableError` for a silent `clean` or `estimate`. Source: Le Roux et al., "SDR: half-baked or
    well done?", ICASSP 2019, equation 3.
    """
    s, e = np.asarray(clean, np.float64), np.asarray(estimate, np.float64)
    if zero_mean:
        s, e = s - s.mean(), e - e.mean()
    energy = s @ s
    if energy == 0 or not e.any():
        raise UnscorableError("the clean reference is silent" if energy == 0 else "the estimate is silent")
    target = (e @ s / energy) * s
    residual = e - target
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(target @ target) - 10 * np.log10(residual @ residual))


def pesq(clean: np.ndarray, estimate: np.ndarray) -> float:
    """Wide-band PESQ (ITU-T P.862.2, MOS-LQO from 1.0 to 4.6) of signals [S] at 16 kHz, at any level.

    Raises `UnscorableError` where the algorithm finds no speech, less than a quarter of a second, or more
    than it can hold.
    """
    from pesq import BufferTooShortError, NoUtterancesError
    from pesq import pesq as measure

    try:
        if len(clean) > PESQ_SAFE * RATE:
            return _pesq_apart(clean, estimate)
        return float(measure(RATE, clean, estimate, "wb"))
    except NoUtterancesError:
        raise UnscorableError("PESQ finds no speech in the clean reference or in the estimate") from None
    except BufferTooShortError:
        raise UnscorableError(
            f"too short for PESQ: {len(clean) / RATE:.3f} s, at least 0.25 s needed"
        ) from None


def _pesq_apart(clean: np.ndarray, estimate: np.ndarray) -> float:
    """PESQ in a process of its own, which its reference code kills on more than 50 stretches of speech."""
    program = (
        "import sys, numpy, pesq\n"
        "s, e = numpy.frombuffer(sys.stdin.buffer.read()).reshape(2, -1)\n"
        f"print(float(pesq.pesq({RATE}, s, e, 'wb', on_error=pesq.PesqError.RETURN_VALUES)))"
    )
    signals = np.stack([clean, estimate]).astype(np.float64).tobytes()
    done = subprocess.run([sys.executable, "-c", program], input=signals, capture_output=True, check=False)
    value = float(done.stdout) if done.returncode == 0 else -1.0
    if value < 1:  # its error codes are negative
        raise UnscorableError(
            f"PESQ cannot hold this clip of {len(clean) / RATE:.0f} s (at most 50 stretches of speech)"
        )
    return value


def stoi(clean: np.ndarray, estimate: np.ndarray, *, extended: bool = False) -> float:
    """STOI (Taal et al. 2011) or, where `extended`, ESTOI (Jensen and Taal 2016) of signals [S] at 16 kHz.

    Raises `UnscorableError` where less than 30 frames (0.4 s) of the reference are speech.
    """
    from pystoi import stoi as measure

    # pystoi warns and returns 1e-5 where it has too few frames; that figure must not enter a mean.
    with warnings.catch_warnings(), _legacy_seed():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(measure(clean, estimate, RATE, extended=extended))
        except RuntimeWarning as warning:
            if "frames" not in str(warning):
                raise UnscorableError(f"STOI failed: {warning}") from None
        except ValueError:  # shorter than one of its frames
            pass
    raise UnscorableError(f"too short for STOI: {len(clean) / RATE:.3f} s, at least 0.4 s of speech needed")


def score(clean: np.ndarray, estimate: np.ndarray, rate: int) -> Scores:
    """All of `HEADINGS` for `estimate` [S] against `clean` [S] at `rate` Hz, both without means and rumble.

    An offset that nobody hears would rule an SI-SDR, and a filter that removes it would count as an error.
    SI-SDR is computed at `rate`, the others after resampling to 16 kHz. A metric that cannot be computed is
    NaN with its reason (silent or broken signals, too short a clip). Raises `ValueError` for unequal or wrong
    shapes.
    """
    clean, estimate = np.asarray(clean, np.float64), np.asarray(estimate, np.float64)
    if clean.ndim != 1 or clean.shape != estimate.shape:
        raise ValueError(f"expected two signals [S] of one length, got {clean.shape} and {estimate.shape}")
    fault = _fault(clean, "clean reference") or _fault(estimate, "estimate")
    if fault:
        return failed(fault)
    clean, estimate = audible(np.stack([clean, estimate]), rate)
    fault = _fault(clean, "clean reference") or _fault(estimate, "estimate")
    if fault:
        return failed(fault)
    s, e = (resample(signal, rate, RATE) if rate != RATE else signal for signal in (clean, estimate))
    measures: dict[str, Callable[[], float]] = {
        "si_sdr": lambda: si_sdr(clean, estimate),
        "pesq": lambda: pesq(s, e),
        "stoi": lambda: stoi(s, e),
        "estoi": lambda: stoi(s, e, extended=True),
    }
    values, reasons = {}, {}
    for name, measure in measures.items():
        values[name] = float("nan")
        try:
            value = measure()
        except UnscorableError as error:
            reasons[name] = str(error)
            continue
        if np.isfinite(value):
            values[name] = value
        else:
            reasons[name] = f"{HEADINGS[name]} is {value} for this estimate"
    return Scores(values, reasons)


def failed(reason: str) -> Scores:
    """Scores of an item that could not be measured at all."""
    return Scores(dict.fromkeys(HEADINGS, float("nan")), dict.fromkeys(HEADINGS, reason))


def _fault(signal: np.ndarray, name: str) -> str:
    """Why no metric can be computed with this signal, or nothing."""
    if signal.size == 0:
        return f"the {name} is empty"
    if not np.isfinite(signal).all():
        return f"the {name} holds NaN or infinite samples"
    if not signal.any():
        return f"the {name} is silent"
    return ""


@contextmanager
def _legacy_seed() -> Iterator[None]:
    """Fix NumPy's global random state, from which pystoi draws a dither of 1e-16, and restore it."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
