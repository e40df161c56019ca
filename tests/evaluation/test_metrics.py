"""SI-SDR against two libraries, PESQ and STOI against theirs, and what cannot be measured."""

from __future__ import annotations

import fast_bss_eval
import numpy as np
import pytest
import torch
from pesq import pesq as measure_pesq
from signals import speechlike
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from pyro_minvae.evaluation.metrics import HEADINGS, Scores, UnscorableError, pesq, score, si_sdr

RATE = 16000
CLEAN = speechlike(RATE, 2.0, 1)
NOISE = np.random.default_rng(0).standard_normal(len(CLEAN))


@pytest.mark.parametrize("level", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("offset", [0.0, 0.05])
@pytest.mark.parametrize("zero_mean", [False, True])
def test_si_sdr_equals_torchmetrics_and_fast_bss_eval(level: float, offset: float, zero_mean: bool) -> None:
    estimate = 0.7 * CLEAN + level * NOISE + offset
    ours = si_sdr(CLEAN, estimate, zero_mean=zero_mean)
    clean, other = torch.from_numpy(CLEAN), torch.from_numpy(estimate)
    theirs = scale_invariant_signal_distortion_ratio(other, clean, zero_mean=zero_mean)
    assert ours == pytest.approx(float(theirs), abs=1e-6)
    theirs = fast_bss_eval.si_sdr(CLEAN[None], estimate[None], zero_mean=zero_mean)
    assert ours == pytest.approx(float(theirs[0]), abs=1e-6)


def test_si_sdr_ignores_the_scale() -> None:
    estimate = CLEAN + 0.1 * NOISE
    assert si_sdr(CLEAN, 1e-3 * estimate) == pytest.approx(si_sdr(CLEAN, estimate), abs=1e-9)


def test_orthogonal_noise_gives_the_snr() -> None:
    noise = NOISE - (NOISE @ CLEAN) / (CLEAN @ CLEAN) * CLEAN
    noise *= np.linalg.norm(CLEAN) / np.linalg.norm(noise)
    assert si_sdr(CLEAN, CLEAN + noise) == pytest.approx(0, abs=1e-9)
    assert si_sdr(CLEAN, CLEAN + 0.1 * noise) == pytest.approx(20, abs=1e-9)


def test_all_metrics_prefer_less_noise() -> None:
    noisy, better = (score(CLEAN, CLEAN + level * NOISE, RATE) for level in (0.3, 0.01))
    assert noisy.reasons == better.reasons == {}
    assert all(better.values[name] > noisy.values[name] for name in HEADINGS)
    assert "wide band" in HEADINGS["pesq"]


def test_other_rates_are_resampled() -> None:
    rate = 48000
    clean = speechlike(rate, 2.0, 1)
    noise = 0.02 * np.random.default_rng(0).standard_normal(len(clean))
    scores = score(clean, clean + noise, rate)
    assert scores.reasons == {}
    assert scores.values["si_sdr"] == pytest.approx(si_sdr(clean, clean + noise, zero_mean=True), abs=1e-9)
    assert 1 < scores.values["pesq"] < 4.7


def reason(scores: Scores, metric: str = "si_sdr") -> str:
    """Why a metric has no value."""
    assert np.isnan(scores.values[metric])
    return scores.reasons[metric]


def test_nothing_can_be_measured_with_broken_signals() -> None:
    silent = np.zeros_like(CLEAN)
    broken = CLEAN.copy()
    broken[7] = np.nan
    for metric in HEADINGS:
        assert "clean reference is silent" in reason(score(silent, CLEAN, RATE), metric)
        assert "estimate is silent" in reason(score(CLEAN, silent, RATE), metric)
        assert "estimate holds NaN" in reason(score(CLEAN, broken, RATE), metric)
        assert "clean reference holds NaN" in reason(score(broken, CLEAN, RATE), metric)
        assert "empty" in reason(score(silent[:0], silent[:0], RATE), metric)


@pytest.mark.parametrize("samples", [1, 200, 2000])
def test_too_short_for_pesq_and_stoi(samples: int) -> None:
    clean = 0.1 + CLEAN[4000 : 4000 + samples]
    scores = score(clean, clean + 0.01 * (1 + NOISE[:samples] ** 2), RATE)
    assert "too short" in reason(scores, "pesq")
    assert "too short" in reason(scores, "stoi")
    assert "too short" in reason(scores, "estoi")


def test_a_perfect_estimate_has_no_finite_si_sdr() -> None:
    scores = score(CLEAN, CLEAN, RATE)
    assert "inf" in reason(scores)
    assert set(scores.reasons) == {"si_sdr"}
    assert scores.values["stoi"] == pytest.approx(1)


def test_long_clips_cannot_crash_pesq() -> None:
    # 60 bursts with pauses between: PESQ's reference code overflows its arrays of 50 and dies.
    generator = np.random.default_rng(1)
    burst = np.concatenate([CLEAN[4000:8800] + 0.05 * generator.standard_normal(4800), np.zeros(4000)])
    clean = np.tile(burst, 60)
    with pytest.raises(UnscorableError, match="at most 50 stretches"):
        pesq(clean, clean + 1e-3 * generator.standard_normal(len(clean)))


def test_long_clips_are_measured_alike() -> None:
    clean = np.tile(CLEAN, 11)
    noisy = clean + 0.05 * np.random.default_rng(0).standard_normal(len(clean))
    assert pesq(clean, noisy) == measure_pesq(RATE, clean, noisy, "wb")


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="one length"):
        score(CLEAN, CLEAN[:-1], RATE)


def test_scores_repeat_and_leave_the_global_generator_alone() -> None:
    first = score(CLEAN, CLEAN + 0.1 * NOISE, RATE)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert score(CLEAN, CLEAN + 0.1 * NOISE, RATE) == first
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
