"""SDR, SIR and SAR against their definition, and who is scored as whom."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import toeplitz
from signals import speechlike

from pyro_minvae.evaluation.metrics import score
from pyro_minvae.evaluation.separated import HEADINGS, best_order, bss_eval, failed, judge, pairwise_sdr

RATE = 16000
TAPS = 512
SPEAKERS = np.stack([speechlike(RATE, 1.0, seed) for seed in (0, 1)])
NOISE = 0.02 * np.random.default_rng(0).standard_normal(SPEAKERS.shape)
ESTIMATES = SPEAKERS + 0.2 * SPEAKERS[::-1] + NOISE


def projection(signals: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """The estimate's nearest point among the `signals` [J, S] filtered by any 512 taps, by least squares."""
    padded = np.pad(signals, ((0, 0), (0, TAPS - 1)))
    delayed = np.concatenate([toeplitz(signal, np.zeros(TAPS)) for signal in padded], 1)
    target = np.pad(estimate, (0, TAPS - 1))
    return delayed @ np.linalg.lstsq(delayed, target, rcond=None)[0]


def ratio(signal: np.ndarray, error: np.ndarray) -> float:
    return 10 * np.log10((signal @ signal) / (error @ error))


def test_ratios_are_those_of_the_definition() -> None:
    short = slice(0, 4000)
    speakers, estimates = SPEAKERS[:, short], ESTIMATES[:, short]
    sdr, sir, sar = bss_eval(speakers, estimates)
    for j, estimate in enumerate(estimates):
        whole = np.pad(estimate, (0, TAPS - 1))
        target, span = projection(speakers[j : j + 1], estimate), projection(speakers, estimate)
        expected = ratio(target, whole - target), ratio(target, span - target), ratio(span, whole - span)
        assert (sdr[j], sir[j], sar[j]) == pytest.approx(expected, abs=1e-3)
        for i in range(2):
            other = projection(speakers[i : i + 1], estimate)
            assert pairwise_sdr(speakers, estimates)[i, j] == pytest.approx(
                ratio(other, whole - other), abs=1e-3
            )


def test_sdr_forgives_a_filter_and_si_sdr_does_not() -> None:
    # White speakers: what leaks between them, and from beyond the filter, is then known.
    speakers = np.random.default_rng(1).standard_normal((2, 2 * RATE))
    delayed = np.roll(speakers, 40, axis=-1)
    delayed[:, :40] = 0
    scores = judge(speakers, delayed, RATE, fixed=(True, True)).scores
    assert all(one.values["sdr"] > 20 for one in scores)
    assert all(one.values["si_sdr"] < -20 for one in scores)
    known = judge(speakers, speakers + 0.1 * speakers[::-1], RATE, fixed=(True, True)).scores
    assert [one.values["sdr"] for one in known] == pytest.approx([20, 20], abs=0.5)
    assert [one.values["sir"] for one in known] == pytest.approx([20, 20], abs=0.5)


def test_the_other_metrics_are_the_usual_ones() -> None:
    for j, one in enumerate(judge(SPEAKERS, ESTIMATES, RATE, fixed=(True, True)).scores):
        alone = score(SPEAKERS[j], ESTIMATES[j], RATE).values
        for name in ("si_sdr", "pesq", "estoi"):
            assert one.values[name] == pytest.approx(alone[name], abs=1e-6)
        assert list(one.values) == list(HEADINGS)
        assert one.reasons == {}


def test_only_speakers_without_lips_may_be_reordered() -> None:
    wrong = ESTIMATES[::-1]
    free, told = (judge(SPEAKERS, wrong, RATE, fixed=fixed) for fixed in ((False, False), (True, True)))
    assert (free.order, told.order) == ((1, 0), (0, 1))
    assert free.best == told.best == (1, 0)
    assert free.scores == judge(SPEAKERS, ESTIMATES, RATE, fixed=(True, True)).scores
    assert all(one.values["sdr"] < 0 for one in told.scores)
    # One of two with lips leaves the other no choice.
    assert judge(SPEAKERS, wrong, RATE, fixed=(False, True)).order == (0, 1)
    # The first of three has lips: the two others may change places, and nothing else.
    sdr = np.array([[0.0, 9, 0], [0, 0, 9], [9, 0, 0]])
    assert best_order(sdr) == (1, 2, 0)
    assert best_order(sdr, (True, False, False)) == (0, 2, 1)


def test_a_tie_is_no_swap() -> None:
    same = np.broadcast_to(SPEAKERS.sum(0), SPEAKERS.shape)
    assert judge(SPEAKERS, same, RATE, fixed=(False, False)).best == (0, 1)


def exact_sdr(j: int) -> float:
    """The SDR of an estimate as the speaker in its place."""
    centred = [signals - signals.mean(-1, keepdims=True) for signals in (SPEAKERS, ESTIMATES)]
    return float(pairwise_sdr(*centred)[j, j])


def test_what_has_no_value_says_why() -> None:
    mixture = np.broadcast_to(SPEAKERS.sum(0), SPEAKERS.shape)
    exact = judge(SPEAKERS, mixture, RATE, fixed=(True, True)).scores
    # Nothing but the speakers is in it: there is no artefact, which is no failure either.
    assert all(np.isnan(one.values["sar"]) and one.reasons == {} for one in exact)
    silent = judge(SPEAKERS, ESTIMATES * [[1], [0]], RATE, fixed=(True, True)).scores
    assert np.isfinite(silent[0].values["si_sdr"])
    assert "silent" in silent[1].reasons["si_sdr"]
    assert {"sdr", "sir", "sar"} <= silent[0].reasons.keys()
    perfect = judge(SPEAKERS, SPEAKERS, RATE, fixed=(True, True)).scores
    assert "SDR is" in perfect[0].reasons["sdr"]
    twins = judge(SPEAKERS[[0, 0]], ESTIMATES, RATE, fixed=(True, True)).scores
    assert "same sound" in twins[0].reasons["sir"]
    assert twins[0].values["sdr"] == pytest.approx(exact_sdr(0), abs=1e-6)
    assert set(failed("broken").values) == set(HEADINGS)
    with pytest.raises(ValueError, match="alike"):
        judge(SPEAKERS, ESTIMATES[:, :-1], RATE, fixed=(True, True))
