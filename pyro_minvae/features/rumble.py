"""What nobody hears: a constant offset, and whatever a sound holds below 20 Hz."""

from __future__ import annotations

import numpy as np

# Hearing begins here (Hz).
LOWEST_HZ = 20.0
# Below this share of a sound's power it may stay: speech and noise as recorded have less, what matters has more.
NEGLIGIBLE = 0.01
# Samples that are left of an offset alone are rounding: below this share of its size.
ROUNDING = 1e-9


def without_rumble(signal: np.ndarray, rate: int) -> np.ndarray:
    """The signal less what lies below 20 Hz, if that is over 1 % of its power.

    (Butterworth of order 2, forwards and backwards.)

    An offset would be the loudest component of the mixture: the frames are scaled by it, and the noise model spends
    itself on it. Forwards and backwards, since a shift in phase of the lowest harmonics counts as an error in SI-SDR.

    Args:
        signal: [channels, S] at `rate` Hz, any level.
        rate: Hz.

    Returns:
        [channels, S]; `signal` itself where there is nothing to remove, or less of it than one period of 20 Hz.
    """
    peak = np.abs(signal).max(initial=0.0)
    if peak == 0 or signal.shape[-1] * LOWEST_HZ < rate:
        return signal
    total = float((signal**2).mean())
    # Means over half a period of 20 Hz keep six tenths or more of what lies below: a look before SciPy is imported.
    if float((_means(signal, rate) ** 2).mean()) <= NEGLIGIBLE * total / 2:
        return signal
    # An offset that is large beside the sound would take the sound's digits along.
    centred = signal - signal.mean(-1, keepdims=True)
    offset = float(((signal - centred) ** 2).mean())
    heard = _highpass(centred, rate)
    low = float(((centred - heard) ** 2).mean())
    if offset + low <= NEGLIGIBLE * total:
        return signal
    heard[np.abs(heard) < ROUNDING * peak] = 0
    return np.array(heard, order="C")


def audible(signals: np.ndarray, rate: int) -> np.ndarray:
    """Signals [..., S] without their means, and all of them without rumble if one of them has some.

    What is compared, or set to a ratio of powers, is to go through the same filter.
    """
    if signals.shape[-1] < 2:
        return signals
    centred = signals - signals.mean(-1, keepdims=True)
    # What is left of a constant is rounding.
    centred[np.abs(centred).max(-1) <= ROUNDING * np.abs(signals).max(-1)] = 0
    rows = centred.reshape(-1, 1, centred.shape[-1])
    return _highpass(centred, rate) if any(without_rumble(row, rate) is not row for row in rows) else centred


def _highpass(signal: np.ndarray, rate: int) -> np.ndarray:
    """Butterworth of order 2 from 20 Hz on, forwards and backwards."""
    from scipy.signal import butter, sosfiltfilt

    sos = butter(2, LOWEST_HZ, "highpass", fs=rate, output="sos")
    return np.asarray(sosfiltfilt(sos, signal, axis=-1, padlen=min(signal.shape[-1] - 1, rate // 4)))


def _means(signal: np.ndarray, rate: int) -> np.ndarray:
    """Means over stretches of 1 / 40 s, [channels, M]; of all of a shorter signal."""
    length = min(signal.shape[-1], max(1, round(rate / (2 * LOWEST_HZ))))
    whole = signal[:, : signal.shape[-1] // length * length]
    return whole.reshape(len(signal), -1, length).mean(-1)
