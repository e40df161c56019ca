"""Which frames are speech, and which mode they follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.voices import followed, voiced
from pyro_minvae.types import Switches

RATE = 8000
TIMES = np.arange(0, 2.001, 0.016)


def tone(loud: float = 0.5, quiet: float = 0.0) -> np.ndarray:
    """Two seconds: quiet, loud from 0.5 s to 1.5 s, quiet."""
    time = np.arange(2 * RATE) / RATE
    return np.where((time >= 0.5) & (time < 1.5), loud, quiet) * np.sin(2 * np.pi * 300 * time)


def test_speech_is_where_the_energy_is() -> None:
    found = voiced(tone(), RATE, TIMES)
    assert found[(TIMES > 0.5) & (TIMES < 1.5)].all()
    # Half a window reaches into the tone.
    assert not found[(TIMES < 0.46) | (TIMES > 1.54)].any()
    np.testing.assert_array_equal(voiced(1e-3 * tone(), RATE, TIMES), found)


@pytest.mark.parametrize(("below_db", "counts"), [(25, True), (35, False)])
def test_what_is_far_below_the_loudest_is_no_speech(below_db: float, counts: bool) -> None:
    found = voiced(tone(quiet=0.5 * 10 ** (-below_db / 20)), RATE, TIMES)
    inside = (TIMES > 0.05) & (TIMES < 0.4)
    assert (found[inside] == counts).all()


def test_silence_is_no_speech() -> None:
    assert not voiced(np.zeros(RATE), RATE, TIMES).any()


def switch(path: np.ndarray) -> Switches:
    return Switches(("s1", "female"), TIMES, np.eye(2)[path], path, None)


def test_only_voiced_frames_are_counted() -> None:
    inside = voiced(tone(), RATE, TIMES)
    counts = followed(switch((~inside).astype(int)), tone(), RATE)
    assert counts == {"s1": inside.sum(), "female": 0}
    late = (TIMES > 1.0).astype(int)
    counts = followed(switch(late), tone(), RATE)
    assert counts == {"s1": (inside & (late == 0)).sum(), "female": (inside & (late == 1)).sum()}


def test_a_model_without_a_switch_is_refused() -> None:
    nothing: Any = None
    with pytest.raises(InputError, match="expected a model that switches between voices"):
        followed(nothing, tone(), RATE)
