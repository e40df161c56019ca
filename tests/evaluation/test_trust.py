"""Trust in the lips as a detector: areas under ROC curves, the truth on the clock of the sound, and their summary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.reliability import Detection, detect, detector, roc_auc
from pyro_minvae.media.crop_files import read_wrong, save_lips
from pyro_minvae.types import MouthCrops, Switches

FRAMES = 50
TIMES = 0.016 * np.arange(2 * FRAMES)
"""Of the sound: a second and a half, and a little more than the lips last."""


@pytest.mark.parametrize(
    ("scores", "positive", "area"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 0.0),
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1], 0.5),
        ([1, 2, 3, 4], [0, 1, 0, 1], 0.75),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
        ([3, 1, 2], [1, 1, 1], np.nan),
        ([3, 1, 2], [0, 0, 0], np.nan),
    ],
)
def test_areas_that_are_known(scores: list[float], positive: list[int], area: float) -> None:
    assert roc_auc(np.array(scores), np.array(positive, bool)) == pytest.approx(area, nan_ok=True)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_area_is_the_share_of_pairs_in_the_right_order(drawn: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([a for a, _ in drawn], float), np.array([b for _, b in drawn])
    above = scores[positive][:, None] - scores[~positive][None]
    expected = np.mean(np.heaviside(above, 0.5)) if above.size else np.nan
    assert roc_auc(scores, positive) == pytest.approx(expected, nan_ok=True)
    # Only the order of the scores counts.
    assert roc_auc(np.exp(scores), positive) == pytest.approx(expected, nan_ok=True)


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """Two seconds of lips at 25 Hz, wrong from 0.4 s to 0.8 s, no face from 1.2 s to 1.6 s."""
    times = np.arange(FRAMES) / 25
    valid, wrong = (times < 1.2) | (times >= 1.6), (times >= 0.4) & (times < 0.8)
    save_lips(tmp_path / "a.npz", MouthCrops(np.zeros((FRAMES, 8, 8), np.uint8), times, valid), wrong)
    return tmp_path / "a.npz"


def said(trust: np.ndarray) -> Switches:
    """A switch between lips and sound."""
    return Switches(
        ("lips", "sound"), TIMES, np.stack([trust, 1 - trust], 1), np.zeros(len(trust), int), trust
    )


def test_truth_is_taken_at_the_frames_of_sound_that_have_lips(spoilt: Path) -> None:
    # The nearest video frame decides: half a frame time before the first wrong one until half before the next right.
    truth = (TIMES > 0.38) & (TIMES < 0.78)
    seen = (TIMES < 1.18) | ((TIMES > 1.58) & (TIMES < 1.96 + 0.1))
    found = detect(said(1 - 0.9 * truth), spoilt)
    assert found is not None
    np.testing.assert_array_equal(found.wrong, truth[seen])
    np.testing.assert_allclose(found.suspicion, 0.9 * truth[seen])
    assert found.auc == 1
    fooled = detect(said(1.0 * truth), spoilt)
    assert fooled is not None
    assert fooled.auc == 0


def test_nothing_is_detected_without_truth_or_trust(spoilt: Path, tmp_path: Path) -> None:
    sure = said(np.ones(len(TIMES)))
    assert detect(sure, None) is None
    assert detect(None, spoilt) is None
    assert detect(sure._replace(trust=None), spoilt) is None
    save_lips(tmp_path / "b.npz", MouthCrops(np.zeros((5, 8, 8), np.uint8), np.arange(5.0), np.ones(5, bool)))
    assert detect(sure, tmp_path / "b.npz") is None
    assert detect(sure, tmp_path / "camera.mkv") is None


def test_a_truth_of_another_length_is_refused(tmp_path: Path) -> None:
    crops = np.zeros((5, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", crops=crops, wrong=np.ones(4, bool))
    with pytest.raises(
        InputError, match=r"a\.npz: expected wrong as bool, one for each crop, found bool \[4\]"
    ):
        read_wrong(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", crops=crops, wrong=np.ones(5))
    with pytest.raises(InputError, match=r"b\.npz: expected wrong as bool"):
        read_wrong(tmp_path / "b.npz")


def test_recordings_are_averaged_and_pooled() -> None:
    """Two recordings whose own order is perfect, at levels that no common threshold parts."""
    low = Detection(np.array([0.1, 0.1, 0.2]), np.array([False, False, True]))
    high = Detection(np.array([0.5, 0.6, 0.6]), np.array([False, True, True]))
    right = Detection(np.array([0.3]), np.array([False]))
    found = detector([low, None, high, right])
    assert found is not None
    assert (found.mean, found.low, found.high, found.recordings) == (1, 1, 1, 2)
    assert (found.frames, found.share) == (7, pytest.approx(3 / 7))
    assert found.pooled == pytest.approx((2 + 4 + 4) / 12)
    assert detector([None, right]) is None
    assert detector([]) is None
