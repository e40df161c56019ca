"""How well the trust in the lips tells right frames from wrong ones: areas under ROC curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from pyro_minvae.evaluation.summary import bootstrap
from pyro_minvae.media.crop_files import read_crops, read_wrong
from pyro_minvae.types import Switches


class Detection(NamedTuple):
    """The frames of sound of one recording that have lips: `suspicion` [n] = 1 - trust, and the truth `wrong` [n]."""

    suspicion: np.ndarray
    wrong: np.ndarray

    @property
    def auc(self) -> float:
        """See `roc_auc`."""
        return roc_auc(self.suspicion, self.wrong)


class Detector(NamedTuple):
    """Of all recordings with right and wrong frames: mean AUC with its 95 % interval, and their number.

    `pooled` is the AUC of all frames of all recordings together, where one threshold has to do for all; `frames` is
    their number and `share` that of the wrong ones among them.
    """

    mean: float
    low: float
    high: float
    recordings: int
    pooled: float
    frames: int
    share: float


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """P(score of a positive > score of a negative) + P(equal) / 2, by ranks; NaN where one of both is missing.

    `scores` [n], `positive` [n] bool. Source: Hanley and McNeil, "The meaning and use of the area under a receiver
    operating characteristic (ROC) curve", Radiology 143, 1982.
    """
    positive = np.asarray(positive, bool)
    count, rest = int(positive.sum()), int((~positive).sum())
    if count == 0 or rest == 0:
        return math.nan
    above = rankdata(scores)[positive].sum() - count * (count + 1) / 2
    return float(above / (count * rest))


def detect(switches: Switches | None, video: Path | None) -> Detection | None:
    """What an enhancer made of lips whose truth is known: None for others, and for models that know no trust.

    Frames of sound without lips (the nearest video frame has no face, or is too far) do not count: nothing is to be
    found out about them.

    Raises:
        InputError: for crops that cannot be read.
    """
    wrong = None if video is None else read_wrong(video)
    if video is None or wrong is None or switches is None or switches.trust is None:
        return None
    # Here, because enhancers without torch shall not load it.
    import torch

    from pyro_minvae.features.visual import seen_at

    lips = read_crops(video)
    clock = torch.as_tensor(switches.times, dtype=torch.float64)
    nearest, seen = seen_at(clock, torch.as_tensor(lips.times), torch.as_tensor(lips.valid))
    suspicion = 1 - np.asarray(switches.trust, np.float64)
    return Detection(suspicion[seen.numpy()], wrong[nearest.numpy()][seen.numpy()])


def detector(found: Sequence[Detection | None]) -> Detector | None:
    """The figures of all recordings together; None where there is no recording with right and wrong frames."""
    known = [one for one in found if one is not None and len(one.wrong)]
    areas = np.array([one.auc for one in known])
    areas = areas[np.isfinite(areas)]
    if not known:
        return None
    suspicion, wrong = (np.concatenate(parts) for parts in zip(*known, strict=True))
    pooled = roc_auc(suspicion, wrong)
    if math.isnan(pooled):
        return None
    low, high = bootstrap(areas)
    mean = float(areas.mean()) if len(areas) else math.nan
    return Detector(mean, low, high, len(areas), pooled, len(wrong), float(wrong.mean()))
