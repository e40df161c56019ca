"""Hidden Markov chains of modes: exact posteriors and the most probable path, in logarithms.

Messages are prefix products of matrices, which `_scan` takes in log2 N rounds for all frames at once: a loop over the
frames would cost more than the rest of an EM iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class ChainPosterior(NamedTuple):
    """r(m) of a chain: see `forward_backward`."""

    posterior: Tensor
    pairwise: Tensor
    log_evidence: Tensor


def forward_backward(
    log_emissions: Tensor,
    log_transition: Tensor,
    log_initial: Tensor,
    valid: Tensor | None = None,
    *,
    stepwise: bool = False,
) -> ChainPosterior:
    """r(m) = p(m) prod_n b_{n m_n} / Z, the best posterior of a Markov chain of M modes.

    (derivations, eqs. 9.5 to 9.10)

    Probabilities of 0 (logarithms of minus infinity) are fine as long as some path is possible; derivatives of log Z
    by log b are then the posterior (eq. 9.8), unless a frame or a transition rules out every mode.

    Args:
        log_emissions: log b_nk [..., N, M].
        log_transition: log T_jk [M, M] or [..., M, M], from j (row) to k; with `stepwise` [..., N - 1, M, M], one for
            each step.
        log_initial: log of the first frame's probabilities [M] or [..., M].
        valid: frames [..., N] that exist, the first ones of each recording; None: all.

    Returns:
        `posterior` r_nk [..., N, M], `pairwise` xi_n(j, k) = r(m_n = j, m_(n+1) = k) [..., N - 1, M, M] (0 where
        frame n + 1 is padding), and `log_evidence` log Z [...].

    Raises:
        ValueError: if shapes do not fit, or there is no frame.
    """
    emissions = _masked(log_emissions, valid).double()
    _check(emissions, log_transition, log_initial)
    # Sums over thousands of frames of thousands of nats: the largest of each frame goes beside them.
    level = emissions.detach().amax(-1, keepdim=True)
    level = torch.where(level.isfinite(), level, 0.0)
    emissions = emissions - level
    transition = log_transition if stepwise else log_transition[..., None, :, :]
    steps = _steps(emissions, transition.double(), log_initial.double())
    forward = _scan(steps, _log_product)[..., 0, :]  # log a_n
    # Products of the steps n+1 .. N, from the right; summed over the last mode they are beta_n.
    later = _scan(steps[..., 1:, :, :].flip(-3).mT, _log_product).flip(-3).mT.logsumexp(-1)
    backward = torch.cat([later, torch.zeros_like(emissions[..., :1, :])], -2)
    evidence = (forward[..., -1, :]).logsumexp(-1)
    posterior = (forward + backward - evidence[..., None, None]).exp()
    pairs = forward[..., :-1, :, None] + steps[..., 1:, :, :] + backward[..., 1:, None, :]
    pairwise = (pairs - evidence[..., None, None, None]).exp()
    if valid is not None:
        pairwise = pairwise * valid[..., 1:, None, None]
    evidence = evidence + level.sum((-1, -2))
    kind = log_emissions.dtype
    return ChainPosterior(posterior.to(kind), pairwise.to(kind), evidence.to(kind))


def viterbi(
    log_emissions: Tensor, log_transition: Tensor, log_initial: Tensor, valid: Tensor | None = None
) -> Tensor:
    """The most probable path argmax_m p(m) prod_n b_{n m_n} [..., N] (derivations, eq. 9.11); the lowest of equals.

    Arguments and errors as for `forward_backward`; what it says of padded frames means nothing.
    """
    emissions = _masked(log_emissions, valid)
    _check(emissions, log_transition, log_initial)
    best = log_initial + emissions[..., 0, :]
    origins = []
    for frame in range(1, emissions.shape[-2]):
        best, origin = (best[..., :, None] + log_transition).max(-2)
        best = best + emissions[..., frame, :]
        origins.append(origin)
    path = [best.argmax(-1)]
    for origin in reversed(origins):
        path.append(origin.gather(-1, path[-1][..., None])[..., 0])
    return torch.stack(path[::-1], -1)


def maximise_transition(
    pairwise: Tensor, posterior: Tensor, concentration: Tensor, *, independent: bool = False
) -> tuple[Tensor, Tensor]:
    """log T [..., M, M] and the log of the first frame's probabilities [..., M] that maximise E_r[log p(m)] + log p(T).

    T_jk ~ sum_n xi_n(j, k) + kappa_jk - 1 with a Dirichlet prior kappa >= 1 on each row (derivations, eqs. 9.14 and
    9.15), the first frame's r_1. With `independent` all rows are equal, T_jk = pi_k, and so is the first frame's:
    pi_k ~ sum_n r_nk + sum_j (kappa_jk - 1) (eq. 9.20). Where nothing says anything the rows are uniform.

    Args:
        pairwise: xi [..., N - 1, M, M].
        posterior: r_nk [..., N, M], 0 in padded frames.
        concentration: kappa [M, M].
    """
    prior = concentration - 1
    if independent:
        weights = posterior.sum(-2) + prior.sum(-2)
        shares = _rows(weights)
        return shares[..., None, :].expand(*shares.shape, shares.shape[-1]).log(), shares.log()
    return _rows(pairwise.sum(-3) + prior).log(), posterior[..., 0, :].log()


def _rows(weights: Tensor) -> Tensor:
    """Weights [..., M] to probabilities; uniform where all are 0."""
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, weights / total.clamp_min(1e-30), 1 / weights.shape[-1])


def _masked(log_emissions: Tensor, valid: Tensor | None) -> Tensor:
    """Frames that do not exist say nothing: since rows of T sum to one, they then change nothing before them."""
    return log_emissions if valid is None else torch.where(valid[..., None], log_emissions, 0.0)


def _check(emissions: Tensor, transition: Tensor, initial: Tensor) -> None:
    frames, modes = emissions.shape[-2:]
    if frames < 1 or transition.shape[-2:] != (modes, modes) or initial.shape[-1:] != (modes,):
        raise ValueError(
            f"expected [..., N, M], [M, M] and [M] with N >= 1, got {list(emissions.shape)}, "
            f"{list(transition.shape)} and {list(initial.shape)}"
        )


def _steps(emissions: Tensor, transition: Tensor, initial: Tensor) -> Tensor:
    """log of T diag(b_n) for each frame [..., N, M, M]; the first frame's has the initial probabilities in all rows."""
    first = (initial + emissions[..., 0, :])[..., None, None, :]
    shape = (*emissions.shape, emissions.shape[-1])
    rest = transition + emissions[..., 1:, None, :]
    return torch.cat([first.expand(*shape[:-3], 1, *shape[-2:]), rest], -3)


def _scan(matrices: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Prefix products A_1, A_1 A_2, ... [..., N, M, M], by doubling (Hillis & Steele 1986)."""
    reach, frames = 1, matrices.shape[-3]
    while reach < frames:
        further = product(matrices[..., :-reach, :, :], matrices[..., reach:, :, :])
        matrices = torch.cat([matrices[..., :reach, :, :], further], -3)
        reach *= 2
    return matrices


def _log_product(left: Tensor, right: Tensor) -> Tensor:
    """log of exp(left) exp(right), [..., M, M]."""
    return (left[..., :, :, None] + right[..., None, :, :]).logsumexp(-2)
