"""The Monte-Carlo EM loop: sample the speech's latent vectors, fit the noise and the gains, again and again.

One loop serves enhancement (one source) and separation (several). It is a generator: progress bars, early stopping,
plots and tests consume its states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.config import Inference
from pyro_minvae.inference.kernels.base import Kernel, Target
from pyro_minvae.inference.kernels.metropolis import Metropolis
from pyro_minvae.inference.targets import marginal_target, mean_field_target
from pyro_minvae.inference.wiener import second_moment
from pyro_minvae.models.distributions import factors
from pyro_minvae.models.mixture import Source, log_likelihood
from pyro_minvae.models.noise import Nmf, Statistics

# Samplers by the name in `Inference.kernel`: each takes the step size.
KERNELS: dict[str, Callable[[float], Kernel]] = {"metropolis": Metropolis}


class EMState(NamedTuple):
    """What one iteration leaves.

    `draws` [J, D, ..., N, L] are the kept draws (D = chains x keep), `variances` [J, D, ..., N, F] their g sigma(z)
    (g sigma(z) / w for heavy-tailed speech), `noise` [..., N, F] the noise variance, `gain` [J, ..., N]; `objective`
    is -mean_r sum [log V + |x|^2 / V] over the recording in nats, plus log p(w) in marginal E-steps; `acceptance`
    the share of accepted proposals; `responsibility` [J, ..., N] the probability of the audio component (None for
    priors without alpha).
    """

    iteration: int
    draws: Tensor
    variances: Tensor
    noise: Tensor
    gain: Tensor
    objective: float
    acceptance: float
    responsibility: Tensor | None


def make_kernel(config: Inference) -> Kernel:
    """The sampler that the configuration names."""
    return KERNELS[config.kernel](config.step_size)


@torch.no_grad()
def mcem(
    sources: Sequence[Source],
    noise: Nmf,
    power: Tensor,
    *,
    config: Inference,
    generator: torch.Generator,
) -> Iterator[EMState]:
    """Monte-Carlo EM on the mixture's `power` [..., N, F]; `noise` is fitted in place.

    E-step "marginal" samples p(z | x) (Leglaive et al. 2018); "mean-field" samples the optimal q(z) of
    q(s) q(z) q(alpha) (Sadeghi & Alameda-Pineda 2021, sec. IV). The M-step updates W, H and, if `config.gain`, g.

    Raises:
        ValueError: if `config.keep` exceeds `config.steps`, or there is no source.
    """
    if config.keep > config.steps:
        raise ValueError(f"expected keep <= steps, got {config.keep} > {config.steps}")
    if not sources:
        raise ValueError("expected at least one source, got none")
    engine = _Engine(sources, noise, power, config, generator)
    for iteration in range(1, config.iterations + 1):
        yield engine.iterate(iteration)


def marginal_statistics(variances: Tensor, power: Tensor) -> Statistics:
    """The M-step's P = mean_r |x|^2 V^-2 and Q = mean_r V^-1 for V = sum_j variances_j [J, D, ..., N, F] + noise.

    (derivations, eq. 6.18)
    """
    speech = variances.sum(0)

    def statistics(noise: Tensor) -> tuple[Tensor, Tensor]:
        inverse = (speech + noise).reciprocal()
        return power * (inverse**2).mean(0), inverse.mean(0)

    return statistics


def mean_field_statistics(expected: Tensor) -> Statistics:
    """P and Q of NMF on the expected noise power E|b|^2 [..., N, F] (derivations, eq. 6.30)."""

    return lambda noise: _inverses(noise, expected)


class _Engine:
    """The loop's variables; every method is one line of the algorithm."""

    def __init__(
        self,
        sources: Sequence[Source],
        noise: Nmf,
        power: Tensor,
        config: Inference,
        generator: torch.Generator,
    ) -> None:
        self.sources, self.noise, self.power = sources, noise, power
        self.config, self.generator = config, generator
        self.kernel = make_kernel(config)
        seen = all(source.visual is not None for source in sources)
        self.mean_field = config.e_step == "mean-field" or (config.e_step == "auto" and seen)
        # Chains start together: they part with the first proposals.
        self.z = [s.start.expand(config.chains, *s.start.shape).contiguous() for s in sources]
        self.gain = power.new_ones(len(sources), *power.shape[:-1])
        # w [..., N, F] of heavy-tailed speech, None for complex Gaussians.
        self.tails = [torch.ones_like(power) if s.model.likelihood.weighted else None for s in sources]
        self.sigma = [self._sigma(j, z) for j, z in enumerate(self.z)]  # one value per chain [R, ..., N, F]
        self.kept = torch.stack(self.sigma)  # [J, D, ..., N, F]
        self.responsibility = [self._weight(j, z) for j, z in enumerate(self.z)]

    def iterate(self, iteration: int) -> EMState:
        """One E-step and one M-step."""
        draws, accepted = zip(*(self._sample(j) for j in range(len(self.sources))), strict=True)
        self.kept = torch.stack([self._sigma(j, d) for j, d in enumerate(draws)])
        self.responsibility = [self._weight(j, d) for j, d in enumerate(draws)]
        self._maximise()
        variances = self.gain[:, None, ..., None] * self.kept
        objective = log_likelihood(self.power, variances.sum(0) + self.noise.variance()).mean(0).sum()
        objective = objective + self._log_tails()
        weights = [w for w in self.responsibility if w is not None]
        return EMState(
            iteration,
            torch.stack(draws),
            variances,
            self.noise.variance(),
            self.gain.clone(),
            float(objective),
            float(torch.stack(accepted).mean()),
            torch.stack(weights) if len(weights) == len(self.sources) else None,
        )

    def _sigma(self, j: int, z: Tensor) -> Tensor:
        """sigma(z), or sigma(z) / w of heavy-tailed speech: [..., N, F]."""
        sigma, tails = self.sources[j].model.variance(z, self.sources[j].visual), self.tails[j]
        return sigma if tails is None else sigma / tails

    def _weight(self, j: int, z: Tensor) -> Tensor | None:
        """Probability of alpha = 1 given draws z [D, ..., N, L]: [..., N].

        Mean-field: sigmoid(logit pi + E[log N_a - log N_v]), the optimal q(alpha) (derivations, eq. 6.29). Marginal:
        E[p(alpha = 1 | z)] (eq. 6.10).
        """
        prior, visual = self.sources[j].model.prior, self.sources[j].visual
        if not prior.mixed:
            return None
        lips, audio = prior.conditionals(visual)
        ratio = factors(audio, z) - factors(lips, z)
        logit = torch.logit(prior.audio_weight(visual))
        if self.mean_field:
            return (logit + ratio.mean(0)).sigmoid()
        return (logit + ratio).sigmoid().mean(0)

    def _sample(self, j: int) -> tuple[Tensor, Tensor]:
        """Move the chains of source j; the kept draws [D, ..., N, L] and the mean acceptance."""
        log_density = self._target(j)
        state = self.kernel.init(log_density, self.z[j])
        draws, accepted = [], []
        for step in range(self.config.steps):
            state, info = self.kernel.step(log_density, state, self.generator)
            accepted.append(info.accepted.float().mean())
            if step >= self.config.steps - self.config.keep:
                draws.append(state.position)
        self.z[j] = state.position
        if len(self.sources) > 1:
            self.sigma[j] = self._sigma(j, state.position)
        return torch.cat(draws), torch.stack(accepted).mean()

    def _target(self, j: int) -> Target:
        """What the chains of source j sample in this E-step."""
        source, scale, tails = self.sources[j], self.gain[j][..., None], self.tails[j]
        if tails is not None:
            scale = scale / tails
        if self.mean_field:
            speech = self._posterior_variance()
            expected = second_moment(speech[j], speech.sum(0) + self.noise.variance(), self.power)
            return mean_field_target(source, scale=scale, expected=expected, weight=self.responsibility[j])
        others = sum(
            (self.gain[i][..., None] * s for i, s in enumerate(self.sigma) if i != j),
            start=self.noise.variance(),
        )
        return marginal_target(source, scale=scale, others=others, power=self.power)

    def _posterior_variance(self) -> Tensor:
        """gamma_j = g / mean_r[1 / sigma]: the variance of q(s)'s prior factor [J, ..., N, F] (eq. 6.25)."""
        return self.gain[..., None] / self.kept.reciprocal().mean(1)

    def _maximise(self) -> None:
        """M-step: the noise, the gains, then the weights; none lowers the objective for the kept draws."""
        if self.mean_field:
            self._maximise_mean_field()
        else:
            self._maximise_marginal()
        for j, tails in enumerate(self.tails):
            if tails is not None:
                self._reweight(j, tails)

    def _maximise_marginal(self) -> None:
        self.noise.update(marginal_statistics(self.gain[:, None, ..., None] * self.kept, self.power))
        if self.config.gain:
            for j in range(len(self.sources)):
                variances = self.gain[:, None, ..., None] * self.kept
                p, q = _inverses(variances.sum(0) + self.noise.variance(), self.power)
                up, down = (self.kept[j] * p).mean(0).sum(-1), (self.kept[j] * q).mean(0).sum(-1)
                self.gain[j] *= (up / down.clamp_min(1e-30)).sqrt()

    def _maximise_mean_field(self) -> None:
        speech = self._posterior_variance()
        noise = self.noise.variance()
        total = speech.sum(0) + noise
        self.noise.update(mean_field_statistics(second_moment(noise, total, self.power)))
        if self.config.gain:
            # g = mean_f E|s|^2 mean_r[1 / sigma], the exact maximiser (derivations, eq. 6.31).
            expected = second_moment(speech, total, self.power)
            self.gain = (expected * self.kept.reciprocal().mean(1)).mean(-1)

    def _reweight(self, j: int, tails: Tensor) -> None:
        """The weights of heavy-tailed speech given E|sqrt(g) s|^2 / (g sigma): q(w)'s mean, or an EM step's mode."""
        sigma = self.gain[j][..., None] * self.kept[j] * tails
        if self.mean_field:
            speech = self._posterior_variance()
            moment = second_moment(speech[j], speech.sum(0) + self.noise.variance(), self.power)
        else:
            variances = self.gain[:, None, ..., None] * self.kept
            moment = second_moment(variances[j], variances.sum(0) + self.noise.variance(), self.power)
        ratio = (moment / sigma).mean(0)
        weight = self.sources[j].model.likelihood.weight(ratio, mode=not self.mean_field)
        self.kept[j] *= tails / weight
        self.sigma[j] = self.sigma[j] * tails / weight
        self.tails[j] = weight

    def _log_tails(self) -> Tensor:
        """log p(w), which EM steps of w climb together with the likelihood."""
        total = self.power.new_zeros(())
        for source, tails in zip(self.sources, self.tails, strict=True):
            if tails is not None and not self.mean_field:
                total = total + source.model.likelihood.log_weight_density(tails).sum()
        return total


def _inverses(variance: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
    """|x|^2 V^-2 and V^-1."""
    inverse = variance.reciprocal()
    return power * inverse**2, inverse
