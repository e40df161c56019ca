"""Offsets and rumble below 20 Hz: removed where they matter, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from signals import speechlike

from pyro_minvae.features.rumble import audible, without_rumble

VOICE = speechlike(16000, 3.0)[None]
TIME = np.arange(48000) / 16000


def test_ordinary_sound_is_left_as_it_is() -> None:
    for signal in (VOICE, np.random.default_rng(0).standard_normal((2, 48000)), np.zeros((1, 100))):
        assert without_rumble(signal, 16000) is signal


@pytest.mark.parametrize("offset", [-0.5, 0.1, 100.0])
def test_an_offset_goes(offset: float) -> None:
    found = without_rumble(VOICE + offset, 16000)
    inside = slice(2000, -2000)
    assert np.abs(found.mean()) < 1e-3
    error = found[:, inside] - VOICE[:, inside]
    assert np.sum(error**2) < 1e-3 * np.sum(VOICE**2)


@pytest.mark.parametrize("hertz", [2.0, 8.0])
def test_rumble_goes_and_the_voice_stays(hertz: float) -> None:
    found = without_rumble(VOICE + 0.3 * np.sin(2 * np.pi * hertz * TIME), 16000)
    error = (found - VOICE)[:, 4000:-4000]
    # What is left of the rumble is that of the filter's square at its frequency, (f / 20)^4 for low f.
    assert (
        np.sqrt(np.mean(error**2))
        < 0.3 / np.sqrt(2) * (hertz / 20) ** 4 / (1 + (hertz / 20) ** 4) * 1.1 + 2e-3
    )


def test_an_offset_alone_is_silence_and_short_signals_pass() -> None:
    assert not without_rumble(np.full((2, 16000), 0.3), 16000).any()
    short = np.array([[0.5, 0.6, 0.2]])
    assert without_rumble(short, 16000) is short
    assert without_rumble(np.full((1, 801), 0.5), 16000).shape == (1, 801)


def test_means_always_go_and_rumble_goes_from_all_or_none() -> None:
    """What is compared goes through one filter, or a difference of filters would count as an error."""
    pair = np.stack([VOICE[0] + 0.01, 0.5 * VOICE[0] - 0.002])
    np.testing.assert_allclose(audible(pair, 16000), pair - pair.mean(-1, keepdims=True), atol=1e-12)
    rumble = 0.3 * np.sin(2 * np.pi * 5 * TIME)
    clean, estimate = audible(np.stack([VOICE[0], VOICE[0] + rumble]), 16000)
    inside = slice(4000, -4000)
    assert np.sum((estimate - clean)[inside] ** 2) < 1e-4 * np.sum(rumble[inside] ** 2)
    other, _ = audible(np.stack([VOICE[0], VOICE[0]]), 16000)
    assert not np.array_equal(clean, other)
    # Each by itself, a constant is silence.
    found = audible(np.stack([np.full(16000, 0.1), VOICE[0, :16000]]), 16000)
    assert not found[0].any()
    assert found[1].any()
    np.testing.assert_array_equal(audible(np.array([[0.3]]), 16000), [[0.3]])
