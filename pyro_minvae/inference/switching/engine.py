"""The EM loop of a switching system: modes that explain a frame each by itself, a chain that chooses among them.

The posterior is r(m) prod_n r(z_n | m_n) with r(m) the exact one of a hidden Markov chain (derivations, sec. 9). A
loop over several speakers, one of each, is in `several`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pyro_minvae.config.schema import Inference
from pyro_minvae.config.switching import SwitchConfig
from pyro_minvae.inference import ops
from pyro_minvae.inference.mcem.statistics import Statistics
from pyro_minvae.inference.mcem.wiener import second_moment
from pyro_minvae.inference.mcmc.draws import Randomness
from pyro_minvae.inference.switching.hmm import ChainPosterior, forward_backward, maximise_transition
from pyro_minvae.inference.switching.posterior import ModePosterior
from pyro_minvae.inference.switching.video_reliability import video_reliability
from pyro_minvae.models.gain import GainPrior
from pyro_minvae.models.noisy import Source
from pyro_minvae.models.priors import CERTAIN

# What frames without lips of their own count for the noise while the others follow theirs.
UNLED = 0.4


class SwitchState(NamedTuple):
    """What one iteration leaves.

    `posterior` r_nk [..., N, M], `log_emissions` log b_nk [..., N, M] and the chain's `log_transition` [..., M, M] and
    `log_initial` [..., M]; `variances` [M, R, ..., N, F] are g_nk sigma^k(z) of the modes' draws, `noise` [..., N, F],
    `gain` [M, ..., N]. `objective` is (9.19) in nats, all recordings together, at the iteration's eps; `acceptance`
    the share of gradient steps taken. `means` and `scales` [M, ..., N, L] are those of r(z | k).
    """

    iteration: int
    posterior: Tensor
    log_emissions: Tensor
    log_transition: Tensor
    log_initial: Tensor
    variances: Tensor
    noise: Tensor
    gain: Tensor
    objective: float
    acceptance: float
    means: Tensor
    scales: Tensor


class Mode(NamedTuple):
    """One of the models to switch between; `needs_lips` holds frames without valid lips against it.

    `evidence` [..., N] is what the pictures say for the mode, in nats (derivations, eq. 9.25); `carried` [..., N] are
    frames whose lips come from those around them (eq. 9.30).
    """

    source: Source
    needs_lips: bool = False
    evidence: Tensor | None = None
    carried: Tensor | None = None


class Background(Protocol):
    """What is not the speaker's: `models.noise.base.NoiseModel` without its Pyro sites."""

    def variance(self) -> Tensor:
        """[..., N, F]."""

    def em_step(self, statistics: Statistics) -> None:
        """One step on what is fitted of it."""

    def log_prior(self) -> Tensor:
        """[...]."""


def checked_modes(modes: Sequence[Mode]) -> None:
    """Raise `ValueError` for no mode, latent vectors of several lengths, coupled frames, or heavy tails."""
    if not modes:
        raise ValueError("expected at least one mode, got none")
    lengths = [mode.source.start.shape[-1] for mode in modes]
    if len(set(lengths)) > 1:
        raise ValueError(f"expected latent vectors of one length, got lengths {lengths}")
    if any(mode.source.model.coupled or mode.source.model.likelihood.weighted for mode in modes):
        raise ValueError("expected modes with independent frames and complex Gaussian speech")


class SwitchingEngine:
    """The loop's variables; every method is one update, and none lowers `objective()` for fixed eps."""

    def __init__(
        self,
        modes: Sequence[Mode],
        noise: Background,
        power: Tensor,
        *,
        config: Inference,
        switch: SwitchConfig,
        generator: Randomness,
        valid: Tensor | None = None,
    ) -> None:
        self.noise, self.power, self.config, self.switch, self.generator = (
            noise,
            power,
            config,
            switch,
            generator,
        )
        self.valid = valid
        self.modes = [
            ModePosterior(
                mode.source,
                power,
                draws=switch.draws,
                gain_prior=GainPrior(*config.gain_prior),
                evidence=self._evidence(mode),
            )
            for mode in modes
        ]
        self.leading = torch.stack([self._leading(mode) for mode in modes], -1)  # [..., N, M]
        self.counted = self._counted(modes)
        count = len(modes)
        self.concentration = switch.concentration(count).to(power)
        prior = self.concentration - 1
        shares = prior / prior.sum(-1, keepdim=True)
        self.log_transition = shares.log().expand(*power.shape[:-2], count, count)
        self.log_initial = torch.full_like(self.log_transition[..., 0, :], 1 / count).log()
        self.posterior = power.new_full((*power.shape[:-1], count), 1 / count)
        self.chain: ChainPosterior | None = None
        numbers = power.shape[-2:].numel() * count * switch.draws
        ops.expect(numbers, moves=switch.steps, iterations=config.iterations)

    def iterate(self, iteration: int) -> SwitchState:
        """r(z | m), then noise, gains and transitions at the last r(m), then r(m)."""
        taken = self.fit()
        led = iteration <= self.switch.led(self.config.iterations)
        if led:
            self.follow_lips()
        self.fit_noise(self.counted if led else None)
        self.fit_gains()
        self.fit_transition()
        emissions = self.emissions()
        self.choose(emissions)
        return SwitchState(
            iteration,
            self.posterior,
            emissions,
            self.log_transition,
            self.log_initial,
            torch.stack([mode.variance() for mode in self.modes]),
            self.noise.variance(),
            torch.stack([mode.gain for mode in self.modes]),
            float(self.objective()),
            float(self._mean(taken)),
            torch.stack([mode.mean for mode in self.modes]),
            torch.stack([mode.log_scale.exp() for mode in self.modes]),
        )

    def expected(self) -> Tensor:
        """sum_k r_nk mean_r [g_nk sigma^k(z^r)] [..., N, F]: what the speaker adds to the mixture's variance."""
        return sum(
            (self.posterior[..., k, None] * mode.variance().mean(0) for k, mode in enumerate(self.modes)),
            start=torch.zeros_like(self.power),
        )

    def fit(self) -> Tensor:
        """New eps and the gradient steps of all r(z | k); the share of those taken [..., N]."""
        noise = self.noise.variance()
        taken = []
        for mode in self.modes:
            mode.renew(self.generator)
            taken.append(mode.climb(noise, steps=self.switch.steps, rate=self.switch.rate))
        return torch.stack(taken).mean(0)

    def emissions(self) -> Tensor:
        """log b_nk [..., N, M]."""
        noise = self.noise.variance()
        return torch.stack([mode.bound(noise) for mode in self.modes], -1)

    def choose(self, emissions: Tensor) -> None:
        """r(m), exactly, for emissions tempered by the frames' overlap (derivations, eq. 9.19)."""
        self.chain = forward_backward(
            self.switch.temper * emissions, self.log_transition, self.log_initial, self.valid
        )
        self.posterior = self.chain.posterior

    def _evidence(self, mode: Mode) -> Tensor | None:
        """What speaks for a mode beside the sound; tempering leaves it as it is."""
        if not mode.needs_lips:
            return None if mode.evidence is None else mode.evidence / self.switch.temper
        visual, said = mode.source.visual, self.power.new_zeros(self.power.shape[:-1])
        seen = said.bool() if visual is None else visual.valid
        said = said if mode.evidence is None else mode.evidence
        return torch.where(seen, said, math.log(CERTAIN)) / self.switch.temper

    def follow_lips(self) -> None:
        """r(m) of the first iterations: frames whose pictures look right go to the modes that need them, alike."""
        led = self.leading.sum(-1, keepdim=True)
        shares = self.leading.to(self.posterior) / led.clamp_min(1)
        self.posterior = torch.where(led > 0, shares, self.posterior)

    def _leading(self, mode: Mode) -> Tensor:
        """Frames [..., N] whose lips may lead: the mode needs them and the pictures do not speak against them."""
        visual, nothing = mode.source.visual, torch.zeros_like(self.power[..., 0])
        if visual is None or not mode.needs_lips:
            return nothing.bool()
        said = nothing if mode.evidence is None else mode.evidence
        return video_reliability(said, visual.valid, stay=self.switch.stay) > 0.5 - 1e-6

    def _counted(self, modes: Sequence[Mode]) -> Tensor:
        """What each frame counts for the noise at first [..., N]: those without lips less, if others have some.

        What the noise has taken of a voice it keeps, and where no lips say what is spoken it comes first.
        """
        own = torch.zeros_like(self.power[..., 0]).bool()
        for mode in modes:
            visual = mode.source.visual
            if mode.needs_lips and visual is not None:
                own = own | (visual.valid if mode.carried is None else visual.valid & ~mode.carried)
        return torch.where(own | ~own.any(-1, keepdim=True), 1.0, UNLED).to(self.power)

    def fit_noise(self, counted: Tensor | None = None) -> None:
        """W and H from the modes' statistics, weighted by r_nk (derivations, eq. 9.22).

        `counted` [..., N] is the weight of each frame; None: all count alike, and the objective does not fall.
        """
        weights = self._weights() if counted is None else self._weights() * counted[..., None]
        variances = [mode.variance() for mode in self.modes]

        def means(noise: Tensor) -> tuple[Tensor, Tensor]:
            p, q = torch.zeros_like(self.power), torch.zeros_like(self.power)
            for k, speech in enumerate(variances):
                inverse = (speech + noise).reciprocal()
                q += weights[..., k, None] * inverse.mean(0)
                p += weights[..., k, None] * (inverse**2).mean(0)
            return self.power * p, q

        self.noise.em_step(Statistics(means))

    def fit_gains(self) -> None:
        """The gains of each mode, which r_nk does not move."""
        if self.config.gain:
            noise = self.noise.variance()
            for mode in self.modes:
                mode.level(noise)

    def fit_transition(self) -> None:
        """T and the first frame's probabilities (derivations, eqs. 9.14, 9.15 and 9.20)."""
        if self.switch.learn and self.chain is not None:
            self.log_transition, self.log_initial = maximise_transition(
                self.chain.pairwise,
                self._weights(),
                self.concentration,
                independent=self.switch.kind == "independent",
            )

    def objective(self) -> Tensor:
        """(log Z + log p(T)) / tau + log p(W, H) (derivations, eq. 9.19), all recordings together."""
        assert self.chain is not None
        rows = torch.xlogy(self.concentration - 1, self.log_transition.exp()).sum((-1, -2))
        return ((self.chain.log_evidence + rows) / self.switch.temper + self.noise.log_prior()).sum()

    def _weights(self) -> Tensor:
        """r_nk [..., N, M], 0 in padded frames."""
        return self.posterior if self.valid is None else self.posterior * self.valid[..., None]

    def _mean(self, frames: Tensor) -> Tensor:
        return frames.mean() if self.valid is None else (frames * self.valid).sum() / self.valid.sum()


def switched_deviation(state: SwitchState, count: int, power: Tensor) -> Tensor:
    """sqrt(E|c|^2 - |E c|^2) of the speech under r [N, F], of the first `count` frames of one recording.

    E|c|^2 = sum_k r_nk mean_r [(v / V)^2 |x|^2 + v (1 - v / V)] (derivations, eqs. 6.5 and 9.17).

    Args:
        state: of a loop on one recording.
        count: N.
        power: |x|^2 of these frames [N, F].
    """
    weights = state.posterior[:count].movedim(-1, 0)[:, None, :, None] / state.variances.shape[1]
    speech, noise = state.variances[:, :, :count], state.noise[:count]
    share = speech / (speech + noise)
    mean = (weights * share).sum((0, 1))
    square = (weights * second_moment(speech, speech + noise, power)).sum((0, 1))
    return (square - mean**2 * power).clamp_min(0).sqrt()
