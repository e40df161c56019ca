"""Which frequencies of a recording hold any sound: telephone speech at 16 kHz has an empty upper half."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_minvae.config.schema import Stft

# An edge is where the spectrum falls by so much (dB) ...
DROP_DB = 30.0
# ... within so much (Hz), and stays down: filters of resamplers and codecs do, voices and noises do not.
TRANSITION_HZ = 400.0
# The level below an edge is the median over so much (Hz), which neither a hum nor a gap between harmonics moves.
REFERENCE_HZ = 250.0
# The band ends where the level has fallen by so much (dB).
END_DB = 6.0
# Below this (Hz) it is a hum or a tone, no band; the last few bins before rate / 2 may be filtered in any recording.
LOWEST_HZ, SPARED = 1000.0, 0.07


def band(power: Tensor, stft: Stft) -> int:
    """How many bins from 0 Hz up hold sound: F for full-band recordings, less for band-limited ones.

    Of the mean spectrum P_f in dB, the band ends at the first edge: where the median over the `REFERENCE_HZ` below lies
    `DROP_DB` above everything beyond the next `TRANSITION_HZ`. Empty bins count neither for speech nor for noise
    (derivations, eq. 6.47): what is in them is a quantiser's, of which neither model knows.

    Args:
        power: |x|^2 [N, F], linear.
        stft: of the power.
    """
    bins = power.shape[-1]
    hertz = stft.rate / stft.window
    level = 10 * torch.log10(power.double().mean(-2) + torch.finfo(torch.float32).tiny)
    below, beyond = round(REFERENCE_HZ / hertz), round(TRANSITION_HZ / hertz)
    most = int(bins * (1 - SPARED))
    least = max(round(LOWEST_HZ / hertz), below)
    if most <= least or beyond >= bins:
        return bins
    reference = level.unfold(0, below, 1).median(-1).values  # of bins f .. f + below - 1
    highest = level.flip(0).cummax(0).values.flip(0)  # of bins f and up
    edges = torch.arange(least, most)
    ahead = highest[(edges + beyond).clamp(max=bins - 1)]
    found = edges[reference[edges - below] - ahead >= DROP_DB]
    if not len(found):
        return bins
    first = int(found[0])
    fallen = (level[first:] < reference[first - below] - END_DB).nonzero()
    end = first + int(fallen[0])
    return end if end < most else bins
