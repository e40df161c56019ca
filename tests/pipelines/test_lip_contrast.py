"""The contrast of lips at their own lag against other lags."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from pyro_minvae.pipelines.filtering import verdict
from pyro_minvae.pipelines.lip_contrast import FALSE_ACCEPTS, LIMIT, SHIFTS_S, Contrast, contrast, shifted
from pyro_minvae.pipelines.video_guidance import Guided
from pyro_minvae.types import MouthCrops, Visual


def test_the_limit_is_the_quantile_of_students_t() -> None:
    assert student.ppf(1 - FALSE_ACCEPTS, 2 * len(SHIFTS_S) - 1) == pytest.approx(LIMIT, abs=1e-3)


def test_lips_alike_at_every_lag_pass_as_often_as_stated() -> None:
    values = np.random.default_rng(0).standard_normal((20_000, 1 + 2 * len(SHIFTS_S)))
    passed = np.mean([Contrast(contrast(float(row[0]), row[1:].tolist())).fits for row in values])
    assert passed == pytest.approx(FALSE_ACCEPTS, abs=0.01)


def test_the_contrast_knows_neither_level_nor_unit_of_the_objective() -> None:
    moved = [1.0, 3.0, 2.0, 5.0]
    value = contrast(9.0, moved)
    assert value > 0
    assert contrast(-9.0, [-one for one in moved]) == pytest.approx(-value)
    assert contrast(70 + 9 * 4.0, [70 + 4.0 * one for one in moved]) == pytest.approx(value)
    assert contrast(2.0, [2.0] * 8) == 0.0


def test_shifts_move_features_and_gaps_together() -> None:
    visual = Visual(torch.arange(5.0)[:, None], torch.tensor([True, True, False, True, True]))
    late = shifted(visual, 2)
    assert late.features[:, 0].tolist() == [3, 4, 0, 1, 2]
    assert late.valid.tolist() == [True, True, True, True, False]
    back = shifted(late, -2)
    assert torch.equal(back.features, visual.features)
    assert torch.equal(back.valid, visual.valid)


def test_the_verdict_tells_the_figures() -> None:
    lips = MouthCrops(np.zeros((1, 2, 2), np.uint8), np.zeros(1), np.ones(1, bool))
    guided = Guided(lips, "", "novelty 0.08, limit 0.17")
    both = verdict(guided, [Contrast(3.0), Contrast(0.5)], used=True)
    assert both.lips is lips
    assert both.evidence == (
        "novelty 0.08, limit 0.17; right lag against others: t 0.5 to 3.0, limit 1.4, refused in 1 of 2 blocks"
    )
    none = verdict(guided, [Contrast(0.5)], used=False)
    assert none.lips is None
    assert "t 0.5, limit 1.4" in none.reason
    assert "inference.lips=always" in none.reason
