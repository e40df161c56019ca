"""How well speakers were separated: BSS Eval's SDR, SIR and SAR, and which estimate is whose."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from pyro_minvae.evaluation import metrics
from pyro_minvae.evaluation.metrics import Scores, score
from pyro_minvae.features.rumble import audible

BSS = {"sdr": "SDR (dB)", "sir": "SIR (dB)", "sar": "SAR (dB)"}
HEADINGS = BSS | {name: metrics.HEADINGS[name] for name in ("si_sdr", "pesq", "estoi")}
"""The metrics of separation in the order of every table, and how a table names them."""

EXACT_DB = 100.0
"""Beyond this a ratio only tells of rounding: there is nothing of that kind of error."""


class Judged(NamedTuple):
    """The scores of each speaker, which estimate was scored as whose (`order`), and the best order of all."""

    scores: tuple[Scores, ...]
    order: tuple[int, ...]
    best: tuple[int, ...]


def pairwise_sdr(speakers: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """SDR in dB [J, J] of every estimate (column) as every speaker (row), both [J, S].

    BSS Eval version 3: the speaker may be filtered by any 512 taps before what is left counts as distortion. Source:
    Vincent, Gribonval and Fevotte, "Performance measurement in blind audio source separation", 2006, equations 11
    to 13, computed by fast_bss_eval.
    """
    import torch
    from fast_bss_eval.torch.metrics import pairwise_sdr_loss

    # Its NumPy road does not run with NumPy 2, so the signals go in as tensors. The loss is -SDR.
    loss = pairwise_sdr_loss(torch.as_tensor(estimates), torch.as_tensor(speakers))
    return -np.asarray(loss)


def bss_eval(speakers: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """SDR, SIR and SAR in dB, [3, J], of each estimate as the speaker in its place, both [J, S] float64.

    Background noise is no speaker, so what of it is left counts as artefact. SDR as in `pairwise_sdr`.
    """
    import fast_bss_eval
    import torch

    signals = torch.as_tensor(speakers), torch.as_tensor(estimates)
    return np.stack(
        [np.asarray(v) for v in fast_bss_eval.bss_eval_sources(*signals, compute_permutation=False)]
    )


def best_order(sdr: np.ndarray, fixed: Sequence[bool] | None = None) -> tuple[int, ...]:
    """The order p that maximises mean_j sdr[j, p_j] for SDRs [J, J]; p_j = j where `fixed`, and in a tie."""
    fixed = fixed or [False] * len(sdr)
    allowed = [
        order
        for order in permutations(range(len(sdr)))  # the identity comes first
        if all(p == j for j, p in enumerate(order) if fixed[j])
    ]
    return max(allowed, key=lambda order: float(sdr[range(len(sdr)), order].mean()))


def judge(speakers: np.ndarray, estimates: np.ndarray, rate: int, *, fixed: Sequence[bool]) -> Judged:
    """Score `estimates` [J, S] against the clean `speakers` [J, S] at `rate` Hz, all without means and rumble.

    A speaker that is `fixed` is scored against the estimate in its own place, whatever that holds; the others may
    be assigned in the order with the best mean SDR. A metric without a value is NaN with its reason.

    Raises:
        ValueError: if the shapes are wrong or differ.
    """
    # Copies: tensors have no negative strides.
    speakers, estimates = (np.array(signals, np.float64, order="C") for signals in (speakers, estimates))
    if speakers.ndim != 2 or speakers.shape != estimates.shape:
        raise ValueError(
            f"expected speakers and estimates [J, S] alike, got {speakers.shape} and {estimates.shape}"
        )
    identity = tuple(range(len(speakers)))
    if speakers.size and np.isfinite(speakers).all() and np.isfinite(estimates).all():
        speakers, estimates = audible(np.stack([speakers, estimates]), rate)
    whole = all(np.isfinite(signal).all() and signal.any() for signal in (*speakers, *estimates))
    order = best = identity
    if whole:
        sdr = pairwise_sdr(speakers, estimates)
        order, best = best_order(sdr, fixed), best_order(sdr)
    estimates = estimates[list(order)]
    ratios, reason = np.full((3, len(speakers)), np.nan), "a signal of this mixture is silent or broken"
    if whole:
        ratios, reason = _ratios(speakers, estimates)
    scores = tuple(
        _scores(score(clean, estimate, rate), values, reason)
        for clean, estimate, values in zip(speakers, estimates, ratios.T, strict=True)
    )
    return Judged(scores, order, best)


def _ratios(speakers: np.ndarray, estimates: np.ndarray) -> tuple[np.ndarray, str]:
    """SDR, SIR and SAR [3, J], and why some are missing: of speakers that are one sound only the SDR is defined."""
    import torch

    try:
        return bss_eval(speakers, estimates), ""
    except torch.linalg.LinAlgError:
        ratios = np.full((3, len(speakers)), np.nan)
        ratios[0] = np.diag(pairwise_sdr(speakers, estimates))
        return ratios, "two speakers of this mixture are the same sound"


def _scores(others: Scores, ratios: np.ndarray, reason: str) -> Scores:
    """The metrics of `HEADINGS`, from those of one signal and SDR, SIR, SAR."""
    values, reasons = {}, {}
    for name, ratio in zip(BSS, ratios, strict=True):
        values[name] = float(ratio) if abs(ratio) < EXACT_DB else float("nan")
        if np.isnan(ratio):
            reasons[name] = reason
        elif np.isnan(values[name]) and name == "sdr":
            reasons[name] = f"SDR is {ratio:.0f} dB"
    for name in HEADINGS.keys() - BSS.keys():
        values[name] = others.values[name]
        if name in others.reasons:
            reasons[name] = others.reasons[name]
    return Scores({name: values[name] for name in HEADINGS}, reasons)


def failed(reason: str) -> Scores:
    """Scores of a speaker that could not be measured at all."""
    return Scores(dict.fromkeys(HEADINGS, float("nan")), dict.fromkeys(HEADINGS, reason))
