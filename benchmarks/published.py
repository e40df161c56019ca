"""The papers' loops in NumPy, with arrays [F, N] as they write them.

`mean_field` is the variational EM of MIN-VAE (Sadeghi and Alameda-Pineda 2021, sec. IV), `marginal` the
Monte-Carlo EM of audio-only models (Leglaive, Girin and Horaud 2018, sec. 4). Nothing here is the package's:
`tests/test_published_loop.py` holds it against the package's EM loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray
Decode = Callable[[Array], Array]
"""z [N, L] to sigma [F, N]."""
LogDensity = Callable[[Array, Array], Array]
"""z [N, L] and sigma(z) [F, N] to log p [N], up to a constant."""


class Settings(NamedTuple):
    """The published settings.

    `gain` None is as published: g is updated with the marginal E-step and stays 1 with the mean-field one. So is
    `exponent` None, that of the multiplicative updates of W and H: 1/2 marginal and 1 mean-field.
    """

    iterations: int = 100
    steps: int = 40
    keep: int = 10
    rank: int = 10
    variance: float = 0.01
    gain: bool | None = None
    exponent: float | None = None
    precision: str = "float64"


class Prior(NamedTuple):
    """p(alpha) p(z | alpha): `means` and `variances` [C, N, L] by alpha (one component where there is no alpha),
    `weight` [N] = p(alpha = 1), or None."""

    means: Array
    variances: Array
    weight: Array | None

    def log_densities(self, z: Array) -> Array:
        """log N(z_n; mean, variance) [C, ..., N] without its constant, for z [..., N, L]."""
        shape = (len(self.means), *[1] * (z.ndim - 2), *z.shape[-2:])
        means, variances = self.means.reshape(shape), self.variances.reshape(shape)
        return -0.5 * (np.log(variances) + (z - means) ** 2 / variances).sum(-1)

    def log_prob(self, z: Array) -> Array:
        """log sum_alpha p(alpha) p(z | alpha)."""
        parts = self.log_densities(z)
        if self.weight is None:
            return parts[0]
        return np.logaddexp(parts[0] + np.log1p(-self.weight), parts[1] + np.log(self.weight))

    def expected_log_prob(self, z: Array, pi: Array | None) -> Array:
        """sum_alpha q(alpha) log p(z | alpha), q(alpha = 1) = pi [N]."""
        parts = self.log_densities(z)
        return parts[0] if pi is None else pi * parts[1] + (1 - pi) * parts[0]

    def responsibility(self, draws: Array) -> Array | None:
        """pi_n = sigmoid(logit p(alpha = 1) + mean_r [log p(z | 1) - log p(z | 0)]) of draws [R, N, L]."""
        if self.weight is None:
            return None
        lips, audio = self.log_densities(draws).mean(1)
        logit = np.log(self.weight) - np.log1p(-self.weight) + audio - lips
        return 1 / (1 + np.exp(-np.clip(logit, -30, 30)))


class Chain(NamedTuple):
    """Where a chain is: `z` [N, L] and `sigma` [F, N]; of its kept draws `draws` [R, N, L] and `sigmas` [R, F, N]."""

    z: Array
    sigma: Array
    draws: Array
    sigmas: Array
    acceptance: float = float("nan")


class Result(NamedTuple):
    """The Wiener filter `mask` [F, N], the noise's `W` and `H`, `gain` [N], responsibilities [N] or None, the chain."""

    mask: Array
    W: Array
    H: Array
    gain: Array
    pi: Array | None
    chain: Chain


def metropolis(
    chain: Chain, log_density: LogDensity, decode: Decode, settings: Settings, random: np.random.Generator
) -> Chain:
    """Random-walk Metropolis-Hastings, accepted frame by frame; the last `keep` draws are kept."""
    z, sigma = chain.z, chain.sigma
    here = log_density(z, sigma)
    draws, sigmas, accepted_share = [], [], 0.0
    for step in range(settings.steps):
        proposal = z + np.sqrt(settings.variance) * random.standard_normal(z.shape).astype(z.dtype)
        decoded = decode(proposal)
        there = log_density(proposal, decoded)
        accepted = np.log(random.random(len(z))) < there - here
        z = np.where(accepted[:, None], proposal, z)
        sigma, here = np.where(accepted, decoded, sigma), np.where(accepted, there, here)
        accepted_share += accepted.mean() / settings.steps
        if step >= settings.steps - settings.keep:
            draws.append(z)
            sigmas.append(sigma)
    return Chain(z, sigma, np.stack(draws), np.stack(sigmas), accepted_share)


def random_factors(shape: tuple[int, int], rank: int, random: np.random.Generator) -> tuple[Array, Array]:
    """W [F, K] and H [K, N], uniform on (0, 1)."""
    tiny = np.finfo(float).eps
    return np.maximum(random.random((shape[0], rank)), tiny), np.maximum(
        random.random((rank, shape[1])), tiny
    )


def update_noise(
    W: Array, H: Array, statistics: Callable[[Array], tuple[Array, Array]], exponent: float
) -> tuple[Array, Array]:
    """W <- W (P H' / Q H')^e, H <- H (W' P / W' Q)^e with P, Q = `statistics`(W H); columns of W then sum to one."""
    tiny = np.finfo(W.dtype).eps
    P, Q = statistics(W @ H)
    W = np.maximum(W * ((P @ H.T) / (Q @ H.T)) ** exponent, tiny)
    P, Q = statistics(W @ H)
    H = np.maximum(H * ((W.T @ P) / (W.T @ Q)) ** exponent, tiny)
    scale = W.sum(0)
    return W / scale, H * scale[:, None]


def started(start: Array, decode: Decode) -> Chain:
    """A chain before its first move."""
    sigma = decode(start)
    return Chain(start, sigma, start[None], sigma[None])


def mean_field(
    power: Array,
    decode: Decode,
    prior: Prior,
    start: Array,
    *,
    settings: Settings,
    random: np.random.Generator,
    factors: tuple[Array, Array] | None = None,
) -> Result:
    """q(s) q(z) q(alpha): E-z by sampling, then q(alpha), q(s) and NMF of the expected noise power."""
    W, H = factors or random_factors(power.shape, settings.rank, random)
    W, H = W.astype(power.dtype), H.astype(power.dtype)
    exponent = 1.0 if settings.exponent is None else settings.exponent
    chain, gain = started(start, decode), np.ones(power.shape[1], power.dtype)
    pi = None if prior.weight is None else np.full(power.shape[1], 0.5)
    speech_power = power  # E|sqrt(g) s|^2 under q(s), which starts at the mixture
    for _ in range(settings.iterations):
        chain = metropolis(chain, mean_field_density(prior, pi, speech_power, gain), decode, settings, random)
        pi = prior.responsibility(chain.draws)
        inverse = (1 / chain.sigmas).mean(0)
        gamma, V = gain / inverse, W @ H
        share, nu = gamma / (gamma + V), gamma * V / (gamma + V)
        speech_power, noise_power = share**2 * power + nu, (1 - share) ** 2 * power + nu
        W, H = update_noise(W, H, lambda V, expected=noise_power: (expected / V**2, 1 / V), exponent)
        if settings.gain:
            gain = (speech_power * inverse).mean(0)
    gamma = gain / inverse
    return Result(gamma / (gamma + W @ H), W, H, gain, pi, chain)


def mean_field_density(prior: Prior, pi: Array | None, speech_power: Array, gain: Array) -> LogDensity:
    """log q(z_n) = E_q(alpha)[log p(z_n | alpha)] - sum_f [log sigma_f + E|sqrt(g) s|^2 / (g sigma_f)]."""

    def log_density(z: Array, sigma: Array) -> Array:
        return prior.expected_log_prob(z, pi) - (np.log(sigma) + speech_power / (gain * sigma)).sum(0)

    return log_density


def marginal(
    power: Array,
    decode: Decode,
    prior: Prior,
    start: Array,
    *,
    settings: Settings,
    random: np.random.Generator,
    factors: tuple[Array, Array] | None = None,
) -> Result:
    """E-step: draws from p(z | x); M-step: W, H, g by multiplicative updates on V = g sigma + W H."""
    W, H = factors or random_factors(power.shape, settings.rank, random)
    W, H = W.astype(power.dtype), H.astype(power.dtype)
    exponent = 0.5 if settings.exponent is None else settings.exponent
    chain, gain = started(start, decode), np.ones(power.shape[1], power.dtype)
    for _ in range(settings.iterations):
        chain = metropolis(chain, marginal_density(prior, power, gain, W @ H), decode, settings, random)
        W, H = update_noise(W, H, marginal_statistics(power, gain * chain.sigmas), exponent)
        if settings.gain is None or settings.gain:
            V = gain * chain.sigmas + W @ H
            up, down = (power * chain.sigmas / V**2).mean(0).sum(0), (chain.sigmas / V).mean(0).sum(0)
            gain = gain * np.sqrt(up / down)
    variances = gain * chain.sigmas
    mask = (variances / (variances + W @ H)).mean(0)
    return Result(mask, W, H, gain, prior.responsibility(chain.draws), chain)


def marginal_density(prior: Prior, power: Array, gain: Array, noise: Array) -> LogDensity:
    """log p(z_n | x_n) = log p(z_n) - sum_f [log V + |x|^2 / V], V = g sigma + W H."""

    def log_density(z: Array, sigma: Array) -> Array:
        V = gain * sigma + noise
        return prior.log_prob(z) - (np.log(V) + power / V).sum(0)

    return log_density


def marginal_statistics(power: Array, variances: Array) -> Callable[[Array], tuple[Array, Array]]:
    """P = mean_r |x|^2 V^-2 and Q = mean_r V^-1 for V = g sigma(z^r) + W H; `variances` [R, F, N] are g sigma(z^r)."""

    def statistics(noise: Array) -> tuple[Array, Array]:
        inverse = 1 / (variances + noise)
        return power * (inverse**2).mean(0), inverse.mean(0)

    return statistics
