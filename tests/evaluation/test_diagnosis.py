"""The numbers of a report: what is sampled, what a stuck chain looks like, and that looking changes nothing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from signals import speechlike
from tiny import save_tiny_model

from pyro_minvae.evaluation.diagnosis import BAD_RHAT, Diagnosis, Watched, diagnose, first_block, numbers
from pyro_minvae.inference.mcem.loop import EMState
from pyro_minvae.inference.mcmc import mixing
from pyro_minvae.pipelines.enhancer import Enhancer

RATE = 16000
EXAMPLE = Path(__file__).parents[2] / "examples" / "noisy.mkv"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few moves: what is tested does not depend on how many."""
    monkeypatch.setattr(mixing, "WARMUP", 5)
    monkeypatch.setattr(mixing, "STEPS", 16)


def told(enhancer: Enhancer, waveform: np.ndarray, video: Path | None = None) -> Diagnosis:
    watched, lips = Watched(), enhancer.lips(video)
    result = enhancer(waveform, RATE, lips, watch=watched)
    return diagnose(enhancer, waveform, RATE, lips, result, watched)


def test_what_is_shown_is_on_one_clock(model: Path) -> None:
    enhancer = Enhancer.from_pretrained(model)
    lips = enhancer.lips(EXAMPLE)
    assert lips is not None
    sound = speechlike(RATE, 1.0)
    seen: list[EMState] = []
    watched = Watched(seen.append)
    result = enhancer(sound, RATE, lips, watch=watched)
    shown = diagnose(enhancer, sound, RATE, lips, result, watched)
    count = len(shown.times)
    assert [state.iteration for state in seen] == list(range(1, result.iterations + 1))
    assert shown.objective.tolist() == [state.objective for state in seen]
    assert shown.acceptance.tolist() == [state.acceptance for state in seen]
    for picture in (shown.mixture, shown.estimate, shown.noise, shown.deviation):
        assert picture.shape == (count, len(shown.frequencies))
        assert np.isfinite(picture).all()
    assert shown.frequencies[-1] == RATE / 2
    assert shown.times[-1] >= 1.0
    assert shown.mixing is not None
    assert all(values.shape == (count,) for values in shown.mixing[:5])
    assert shown.responsibilities is not None
    assert len(shown.responsibilities) == count
    assert shown.found is not None
    assert shown.found.tolist() == lips.valid[lips.times <= shown.times[-1]].tolist()
    assert shown.without_video == ""


def test_the_estimate_is_what_the_user_gets(model: Path) -> None:
    """Powers of the estimates are those of the output's samples, whatever the channels and the level."""
    enhancer, sound = Enhancer.from_pretrained(model), speechlike(RATE, 1.0)
    mono = told(enhancer, sound)
    for channels in ([sound, sound], [0.01 * sound, 0.03 * sound], [sound, -sound]):
        other = told(enhancer, np.stack(channels))
        np.testing.assert_allclose(other.estimate, mono.estimate, rtol=0, atol=1e-4 * mono.mixture.max())
        np.testing.assert_allclose(other.mixture, mono.mixture, rtol=0, atol=1e-4 * mono.mixture.max())
    # Speech and noise sum to the mixture, sample by sample, so powers obey |x| <= |s| + |b|.
    assert (np.sqrt(mono.mixture) <= np.sqrt(mono.estimate) + np.sqrt(mono.noise) + 1e-4).all()


def test_looking_changes_nothing(model: Path) -> None:
    enhancer, sound = Enhancer.from_pretrained(model), speechlike(RATE, 0.5)
    plain = enhancer(sound, RATE, seed=4)
    before = torch.get_rng_state()
    first = told(enhancer, sound)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(enhancer(sound, RATE, seed=4).speech, plain.speech)
    again = told(enhancer, sound)
    assert numbers(first) == numbers(again)
    np.testing.assert_array_equal(first.deviation, again.deviation)


def test_numbers_are_those_of_the_pictures(model: Path) -> None:
    shown = told(Enhancer.from_pretrained(model), speechlike(RATE, 1.0))
    found = numbers(shown)
    assert shown.mixing is not None
    assert found["iterations"] == len(shown.objective)
    assert found["objective, last (nats)"] == shown.objective[-1]
    assert found["R-hat, worst"] == shown.mixing.rhat.max()
    assert found["effective draws, fewest"] == shown.mixing.ess.min()
    assert found["draws"] == 6 * 16
    bad = sum(not value < BAD_RHAT for value in shown.mixing.rhat)
    assert found["frames with bad R-hat (%)"] == pytest.approx(100 * bad / len(shown.times))
    assert "video frames with a face (%)" not in found


def test_stuck_frames_count_as_bad(model: Path) -> None:
    shown = told(Enhancer.from_pretrained(model), speechlike(RATE, 0.5))
    assert shown.mixing is not None
    rhat = np.ones(len(shown.times))
    rhat[:3] = math.nan, math.inf, 1.2
    found = numbers(shown._replace(mixing=shown.mixing._replace(rhat=rhat)))
    assert found["frames with bad R-hat (%)"] == pytest.approx(300 / len(rhat))
    assert math.isnan(found["R-hat, worst"])


def test_silence_has_nothing_to_judge(model: Path) -> None:
    shown = told(Enhancer.from_pretrained(model), np.zeros(RATE))
    assert shown.mixing is None
    assert len(shown.objective) == 0
    assert not shown.mixture.any()
    assert not shown.deviation.any()
    assert numbers(shown) == {}


def test_map_draws_nothing(model: Path) -> None:
    shown = told(Enhancer.from_pretrained(model, overrides=["inference.kernel=map"]), speechlike(RATE, 0.5))
    assert shown.mixing is None
    assert shown.deviation.any()
    assert "R-hat, worst" not in numbers(shown)


def test_of_a_long_recording_the_first_block_is_shown(model: Path) -> None:
    settings = ["inference.block_s=1", "inference.overlap_s=0.2"]
    enhancer, sound = Enhancer.from_pretrained(model, overrides=settings), speechlike(RATE, 3.0)
    shown = told(enhancer, sound)
    assert shown.seconds == pytest.approx(1.0, abs=0.05)
    assert shown.duration == 3.0
    count = len(shown.times)
    assert count == first_block(len(sound), enhancer)
    # Whether other blocks go beside it or after it, the report is of the first.
    one = told(Enhancer.from_pretrained(model, overrides=[*settings, "inference.batch=1"]), sound)
    np.testing.assert_allclose(one.mixture, shown.mixture)
    np.testing.assert_allclose(one.deviation, shown.deviation, rtol=0.05, atol=1e-3)
    assert len(one.objective) == len(shown.objective) == enhancer.recipe.inference.iterations
