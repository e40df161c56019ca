"""Whether a switch between voices follows the one that speaks: judged where there is speech."""

from __future__ import annotations

import numpy as np

from pyro_minvae.errors import InputError
from pyro_minvae.types import Switches

# The window in which a frame's energy is taken (s), and how far below the loudest one speech counts (dB).
WINDOW_S, BELOW_DB = 0.064, 30.0


def voiced(clean: np.ndarray, rate: int, times: np.ndarray) -> np.ndarray:
    """Which instants [N] lie in speech: sum of clean^2 in a window around them > 10^-3 of the largest such sum.

    `clean` [S] at `rate` Hz, `times` [N] s. Silence has none.
    """
    total = np.concatenate([[0.0], np.cumsum(np.asarray(clean, np.float64) ** 2)])
    edges = [
        np.clip(np.round((np.asarray(times) + half) * rate).astype(int), 0, len(clean))
        for half in (-WINDOW_S / 2, WINDOW_S / 2)
    ]
    energy = total[edges[1]] - total[edges[0]]
    return energy > energy.max(initial=0.0) * 10 ** (-BELOW_DB / 10)


def followed(switches: Switches, clean: np.ndarray, rate: int) -> dict[str, int]:
    """How many of the voiced frames follow each mode on the decoded path.

    Raises:
        InputError: for a model without a switch.
    """
    if switches is None:
        raise InputError("expected a model that switches between voices, found one without a switch")
    path = np.asarray(switches.path)[voiced(clean, rate, switches.times)]
    return {name: int((path == number).sum()) for number, name in enumerate(switches.names)}
