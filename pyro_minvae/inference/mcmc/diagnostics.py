"""Have the chains mixed, how many draws are they worth, and how sure is the estimate?

Draws are [R, S, ..., N, L]: R chains of S steps after warm-up. Every answer is for each frame and dimension. They
are computed in float64, a few thousand numbers at a time, whatever the draws' type.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

# Numbers (frames x dimensions) that are worked on at a time: bounds the memory of long recordings.
PART = 4096


def acceptance_rate(accepted: Tensor) -> Tensor:
    """Share of accepted proposals in each frame: decisions [R, S, ..., N] to [..., N]."""
    return accepted.double().mean((0, 1))


def split_rhat(draws: Tensor, *, rank: bool = True) -> Tensor:
    """Split R-hat = sqrt(((S - 1) / S W + B / S) / W) of half chains: [R, S, ..., N, L] to [..., N, L].

    W is the mean variance within half chains of length S, B / S the variance of their means. Values above 1.01 say
    that the chains have not mixed. With `rank` draws are replaced by normal scores of their ranks and the larger of
    R-hat of the scores and of the scores of |z - median| is given (Vehtari et al. 2021).
    Draws that never change or are not finite give NaN, chains that are stuck at different values infinity.

    Raises:
        ValueError: for fewer than 4 steps.
    """

    def of(half: Tensor) -> Tensor:
        if not rank:
            return _rhat(half)
        folded = (half - _median(half.flatten(0, 1))).abs()
        rhat = torch.maximum(_rhat(rank_normalised(half)), _rhat(rank_normalised(folded)))
        return torch.where(half.isfinite().all(0).all(0), rhat, math.nan)

    return _by_parts(of, draws)


def effective_sample_size(draws: Tensor, *, rank: bool = True) -> Tensor:
    """How many independent draws tell as much of the mean: [R, S, ..., N, L] to [..., N, L].

    R S / tau, tau = 1 + 2 sum_t rho_t with rho_t from all half chains together (within and between), summed as
    long as rho_2k + rho_2k+1 stays positive and made to fall with k (Geyer 1992, sec. 3.3; Vehtari et al.
    2021). With `rank` of the normal scores ("bulk" ESS). At most R S log10(R S). Draws that never change
    or are not finite give NaN.

    Raises:
        ValueError: for fewer than 4 steps.
    """

    def of(half: Tensor) -> Tensor:
        scores = rank_normalised(half) if rank else half
        varied = (half.amax((0, 1)) > half.amin((0, 1))) & half.isfinite().all(0).all(0)
        return torch.where(varied, _effective(scores), math.nan)

    return _by_parts(of, draws)


def rank_normalised(draws: Tensor) -> Tensor:
    """Phi^-1((rank - 3/8) / (R S + 1/4)), equal draws sharing their mean rank: [R, S, ...] to [R, S, ...].

    Ranks are over all chains (Vehtari et al. 2021; Blom's scores).
    """
    count = draws.shape[0] * draws.shape[1]
    flat = draws.reshape(count, -1).T.contiguous().double()
    ordered = flat.sort(-1).values
    below = torch.searchsorted(ordered, flat, side="left")
    upto = torch.searchsorted(ordered, flat, side="right")
    rank = (below + upto + 1).double() / 2
    return torch.special.ndtri((rank - 0.375) / (count + 0.25)).T.reshape(draws.shape)


def posterior_deviation(variances: Tensor, noise: Tensor, power: Tensor) -> Tensor:
    """Standard deviation of each source's posterior, the map of how unsure its estimate is, in units of |x|.

    Given z^r a source of variance v_r is N_c(m_r x, v_r (1 - m_r)) with m_r = v_r / V_r, so by the law of total
    variance the deviation is sqrt(mean_r[v_r (1 - m_r)] + |x|^2 var_r[m_r]) (derivations, sec. 11).

    Args:
        variances: g sigma(z^r) [J, D, ..., N, F] of D draws (as in `EMState.variances`).
        noise: variance of the noise [..., N, F].
        power: |x|^2 [..., N, F].

    Returns:
        [J, ..., N, F].
    """
    mask = variances / (variances.sum(0) + noise)
    return ((variances * (1 - mask)).mean(1) + power * mask.var(1, correction=0)).sqrt()


def _by_parts(function: Callable[[Tensor], Tensor], draws: Tensor) -> Tensor:
    """`function` of half chains [2R, S // 2, part] for parts of the frames and dimensions."""
    steps = draws.shape[1]
    if steps < 4:
        raise ValueError(f"expected at least 4 steps [R, S, ...], got {tuple(draws.shape)}")
    half = steps // 2
    parts = draws.flatten(2).split(PART, -1)
    halves = (torch.cat([part[:, :half], part[:, -half:]]).double() for part in parts)
    return torch.cat([function(half) for half in halves], -1).reshape(draws.shape[2:])


def _median(draws: Tensor) -> Tensor:
    """The median over the first dimension, the mean of both middle values of an even number of draws."""
    count, last = draws.shape[0], draws.T.contiguous()
    lower, upper = (last.kthvalue(k, -1).values for k in ((count + 1) // 2, count // 2 + 1))
    return (lower + upper) / 2


def _rhat(draws: Tensor) -> Tensor:
    """R-hat of chains [R, S, P]: [P]."""
    steps = draws.shape[1]
    within, between = draws.var(1).mean(0), draws.mean(1).var(0)
    return ((steps - 1) / steps + between / within).sqrt()


def _effective(draws: Tensor) -> Tensor:
    """The effective sample size of chains [R, S, P]: [P]."""
    chains, steps = draws.shape[:2]
    covariance = _autocovariance(draws).mean(0)  # [S, P]
    within = covariance[0] * steps / (steps - 1)
    total = covariance[0] + (draws.mean(1).var(0) if chains > 1 else 0.0)
    rho = 1 - (within - covariance) / total
    rho[0] = 1.0
    pairs = rho[: 2 * max(1, (steps - 1) // 2)].unflatten(0, (-1, 2))
    summed = pairs.sum(1)
    positive = (summed > 0).cumprod(0)
    positive[-1] = 0
    kept = (summed.cummin(0).values * positive).sum(0)
    # Of the first pair that is left out the first half may still count.
    tail = pairs[:, 0].gather(0, positive.sum(0, keepdim=True))[0].clamp_min(0.0)
    tau = (-1 + 2 * kept + tail).clamp_min(1 / math.log10(chains * steps))
    return chains * steps / tau


def _autocovariance(draws: Tensor) -> Tensor:
    """mean_s (z_s - mean) (z_{s + t} - mean) at every lag t, over S: [R, S, P] to [R, S, P]."""
    steps = draws.shape[1]
    centred = draws - draws.mean(1, keepdim=True)
    # Padding to 2 S keeps the circular convolution from wrapping around.
    spectrum = torch.fft.rfft(centred, n=2 * steps, dim=1)
    return torch.fft.irfft(spectrum.abs().square(), n=2 * steps, dim=1)[:, :steps] / steps
