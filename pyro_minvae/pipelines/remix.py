"""How much of the recording stays in the estimate: a filter can only harm what was clean before.

Every estimate has an error of its own, which does not go away with the noise: 20 dB recordings came out at 9 to 17 dB.
Of the recording x and the estimate s', (1 - a) s' + a x has the least error for a = D / (D + v): v is the noise in
x, D the error of s', and the two are unlike each other (linear minimum mean squared error).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from pyro_minvae.config.schema import Inference, Stft

# The noise is as loud as the quietest tenth of the frames: within 2 dB at 5 to 20 dB in cafe, street, kitchen, babble
# and white noise, less sure below, where the speech is too seldom louder.
QUIET_SHARE = 0.1
# Frames this far (dB) below the mean are no pauses but cut or muted.
MUTED_DB = 60.0
# Below the first the recording is noisy and the estimate stands alone; from the second on the rule counts whole (dB).
NOISY_DB, CLEAN_DB = 6.0, 13.0
# In clean recordings the two errors are told apart less surely, and the recording is the safe side: from the first
# to the second (dB) D counts up to so many times.
SURE_DB, SURELY_CLEAN_DB, CAUTION = 12.0, 18.0, 4.0
# Where the filter takes more than this away (dB over the estimate) it found noise: none of it stays from the second on.
FOUND_DB, MUCH_FOUND_DB = -2.0, 2.0


def input_snr_db(mono: Tensor, stft: Stft) -> float:
    """The signal-to-noise ratio of a recording by its quiet frames: mean power over that of the quietest tenth (dB).

    Args:
        mono: [S] at `stft.rate` Hz, any level.
        stft: frames are as long as its window and begin at its hops.

    Returns:
        At least 0; infinity for silence.
    """
    window = min(stft.window, len(mono))
    # Pooled, since frames that overlap would take four times the recording's memory.
    frames = avg_pool1d(mono.double().square()[None], window, stft.hop)[0]
    frames = frames[frames > frames.mean() * 10 ** (-MUTED_DB / 10)]
    if not len(frames):
        return math.inf
    return float(10 * torch.log10(frames.mean() / torch.quantile(frames, QUIET_SHARE)))


def input_share(mono: Tensor, speech: Tensor, stft: Stft) -> float:
    """a of (1 - a) s' + a x: 0 in noisy recordings, towards 1 in clean ones.

    With E the power of x - s' over that of s', E = v + D if the two are unlike, so that D = E - v.

    Args:
        mono: x [S] at `stft.rate` Hz.
        speech: s' [S].
        stft: see `input_snr_db`.
    """
    snr = input_snr_db(mono, stft)
    rest = float((mono - speech).double().square().sum() / speech.double().square().sum().clamp_min(1e-30))
    if rest == 0 or math.isinf(snr):
        return 0.0
    noise = 10 ** (-snr / 10)
    sure = 1 + (CAUTION - 1) * _ramp(snr, SURE_DB, SURELY_CLEAN_DB)
    error = max(rest - noise, 1e-4) * sure
    found = 1 - _ramp(10 * math.log10(rest), FOUND_DB, MUCH_FOUND_DB)
    return error / (error + noise) * _ramp(snr, NOISY_DB, CLEAN_DB) * found


def share_to_keep(config: Inference, mono: Tensor, speech: Tensor, stft: Stft) -> float:
    """The share of the recording in the estimate by `config.mix` and `config.attenuation_db`."""
    least = 0.0 if config.attenuation_db is None else 10 ** (-config.attenuation_db / 20)
    share = input_share(mono, speech, stft) if config.mix == "auto" else 1 - config.mix
    return max(share, least)


def _ramp(value: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high` on."""
    return float(np.clip((value - low) / (high - low), 0, 1))
