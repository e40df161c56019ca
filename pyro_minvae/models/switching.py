"""Switching noisy speech as a Pyro model: a Markov chain over modes, each with its own prior and decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_minvae.models.distributions import gaussian_parameters, normal
from pyro_minvae.models.likelihoods import ComplexGaussianPower
from pyro_minvae.models.noisy import Source

Posterior = Callable[[int, Tensor], TorchDistribution]


def switching_speech(
    modes: Sequence[Source],
    noise: Tensor,
    gain: Tensor,
    *,
    transition: Tensor,
    initial: Tensor,
    power: Tensor,
) -> None:
    """The Pyro model p(m) prod_n p_{m_n}(z_n | v_n) N_c(x_n; 0, g_{n m_n} sigma^{m_n}(z_n) + (WH)_n).

    (derivations, eqs. 9.1, 9.2 and 9.18)

    Sites "m_n", "z_n" and "x_n" (observed) for n = 0 .. N - 1 under `pyro.markov`. m may be enumerated in the guide
    (`switching_guide`); the engine (`inference.switching`) computes the same bound without handlers.

    Args:
        modes: the models at their lips; their `start` is not used.
        noise: (W H)' [N, F], linear power.
        gain: g [M, N].
        transition: T [M, M], rows sum to one.
        initial: probabilities of the first frame's modes [M].
        power: |x|^2 [N, F].

    Raises:
        ValueError: if a mode's prior is not one Gaussian in each frame.
    """
    means, scales = _priors(modes, power)
    variances = [mode.model.given(mode.visual).variance for mode in modes]
    m = None
    for n in pyro.markov(range(len(power))):
        m = pyro.sample(f"m_{n}", dist.Categorical(initial if m is None else transition[m]))
        z = pyro.sample(f"z_{n}", normal(means[m, n], scales[m, n]))
        variance = noise[n].expand(*z.shape[:-1], -1)
        for k, sigma in enumerate(variances):
            spread = gain[k, n] * sigma(z) + noise[n]
            variance = torch.where((m == k)[..., None], spread, variance)
        pyro.sample(f"x_{n}", ComplexGaussianPower(variance.log()).to_event(1), obs=power[n])


def switching_guide(posterior: Posterior, *, pairwise: Tensor, first: Tensor) -> None:
    """r(m) prod_n r(z_n | m_n) with the sites of `switching_speech`; m is enumerated.

    (derivations, eqs. 9.4 and 9.5)

    Args:
        posterior: from a frame's number n and a tensor of modes m to r(z_n | m).
        pairwise: r(m_n = j, m_(n+1) = k) [N - 1, M, M].
        first: r(m_1) [M].
    """
    conditional = pairwise / pairwise.sum(-1, keepdim=True).clamp_min(1e-30)
    m = None
    for n in pyro.markov(range(len(pairwise) + 1)):
        chain = dist.Categorical(first if m is None else conditional[n - 1][m])
        m = pyro.sample(f"m_{n}", chain, infer={"enumerate": "parallel"})
        pyro.sample(f"z_{n}", posterior(n, m))


def _priors(modes: Sequence[Source], power: Tensor) -> tuple[Tensor, Tensor]:
    """Means and scales of p_k(z_n | v_n) [M, N, L]."""
    found = []
    for mode in modes:
        conditionals = mode.model.prior.conditionals(mode.visual)
        gaussian = gaussian_parameters(conditionals[0])
        if gaussian is None or len(conditionals) > 1:
            name = type(mode.model.prior).__name__
            raise ValueError(f"expected priors of one Gaussian in each frame, got {name}")
        found.append([part.expand(len(power), part.shape[-1]) for part in gaussian])
    means, scales = zip(*found, strict=True)
    return torch.stack(means), torch.stack(scales)
