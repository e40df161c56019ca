"""The Monte-Carlo EM loop: sample the speech's latent vectors, fit the noise and the gains, again and again.

One loop serves enhancement (one source) and separation (several). It is a generator: progress bars, early stopping,
plots and tests consume its states.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.config.schema import Inference
from pyro_minvae.inference import ops
from pyro_minvae.inference.mcem.convergence import until_settled
from pyro_minvae.inference.mcem.e_step import Chains, move
from pyro_minvae.inference.mcem.m_step import (
    harmonic_mean,
    maximise_marginal,
    maximise_mean_field,
    tail_ratio,
)
from pyro_minvae.inference.mcem.schedule import Phase, is_mean_field, stretches
from pyro_minvae.inference.mcem.source import SourceState
from pyro_minvae.inference.mcem.targets import joint_target, mean_field_target
from pyro_minvae.inference.mcem.wiener import masks, mean_of
from pyro_minvae.inference.mcmc.base import Target
from pyro_minvae.inference.mcmc.draws import Randomness
from pyro_minvae.inference.mcmc.registry import make_kernel
from pyro_minvae.inference.ops.workspace import Workspace
from pyro_minvae.models.gain import GainPrior
from pyro_minvae.models.noise.nmf import Nmf
from pyro_minvae.models.noisy import Source, log_likelihood


class EMState(NamedTuple):
    """What one iteration leaves.

    `draws` [J, D, ..., N, L] are the kept draws (D = chains x keep), `sigma` [J, D, ..., N, F] their sigma(z)
    (sigma(z) / w for heavy-tailed speech), `noise` [..., N, F] the noise variance, `gain` [J, ..., N]; `objective`
    is -mean_r sum [log V + |x|^2 / V] + log p(noise) + log p(g) in nats, all recordings together, plus log p(w) in
    marginal E-steps; `acceptance` the share of accepted proposals; `responsibility` [J, ..., N] the probability of the
    audio component (None for priors without alpha). `published` tells that the loop is the papers' mean-field one.
    """

    iteration: int
    draws: Tensor
    sigma: Tensor
    noise: Tensor
    gain: Tensor
    objective: float
    acceptance: float
    responsibility: Tensor | None
    published: bool = False

    @property
    def variances(self) -> Tensor:
        """g sigma(z), or g sigma(z) / w, of the kept draws [J, D, ..., N, F]."""
        return self.gain[:, None, ..., None] * self.sigma

    def filters(self) -> Tensor:
        """The Wiener filters [J, ..., N, F]: the mean over the draws, or the papers' gamma / (gamma + WH).

        (derivations, eqs. 6.9 and 6.25)
        """
        sigma = harmonic_mean(self.sigma)[:, None] if self.published else self.sigma
        return masks(sigma, self.noise, self.gain)


@torch.no_grad()
def mcem(
    sources: Sequence[Source],
    noise: Nmf,
    power: Tensor,
    *,
    config: Inference,
    generator: Randomness,
    valid: Tensor | None = None,
    watched: bool = True,
) -> Iterator[EMState]:
    """Monte-Carlo EM on the mixture's `power` [..., N, F]; `noise` is fitted in place.

    E-step "marginal" samples p(z | x) (Leglaive et al. 2018); "mean-field" samples the optimal q(z) of
    q(s) q(z) q(alpha) (Sadeghi & Alameda-Pineda 2021, sec. IV), and gives way to the marginal one in the last
    `config.last_marginal` iterations, where log p(z | v) counts `config.last_prior` times (derivations, eq. 6.46). The
    M-step updates W, H and, if `config.gain`, g. Each of these two stretches ends early by `config.tolerance`.

    Several recordings are a batch [B, N, F], padded to the longest one; `valid` [B, N] are the frames that exist
    (None: all). With `Streams` as the generator each gets what it would get alone. States that are not `watched` cost
    less: the objective is NaN (`config.tolerance` needs it), and `sigma` and `noise` hold until the loop goes on.

    Raises:
        ValueError: if `config.keep` exceeds `config.steps`, there is no source, the sources' latent vectors differ in
            length, or a padded batch is given to a model that couples frames.
    """
    if config.keep > config.steps:
        raise ValueError(f"expected keep <= steps, got {config.keep} > {config.steps}")
    if not sources:
        raise ValueError("expected at least one source, got none")
    lengths = [source.start.shape[-1] for source in sources]
    if len(set(lengths)) > 1:
        raise ValueError(f"expected latent vectors of one length, got lengths {lengths}")
    if valid is not None and any(source.model.coupled for source in sources):
        raise ValueError("expected independent frames in a padded batch, got a model that couples them")
    engine = _Engine(sources, noise, power, config, generator, valid, watched)
    for stretch in stretches(config, is_mean_field(config, sources)):
        yield from until_settled(engine.run(stretch), config.tolerance)


class _Engine:
    """The loop's variables; every method is one line of the algorithm."""

    def __init__(
        self,
        sources: Sequence[Source],
        noise: Nmf,
        power: Tensor,
        config: Inference,
        generator: Randomness,
        valid: Tensor | None,
        watched: bool = True,
    ) -> None:
        self.noise, self.power, self.config, self.generator = noise, power, config, generator
        self.watched = noise.lasting = watched
        self.padding = None if valid is None else valid.to(power)  # [..., N]
        self.valid = torch.ones_like(power[..., 0]) if self.padding is None else self.padding
        self.sources, self.iteration = sources, 0
        self.voices = [SourceState(source, config.chains, power) for source in sources]
        self.gain = power.new_ones(len(sources), *power.shape[:-1])
        self.gain_prior = GainPrior(*config.gain_prior)
        self.workspace = Workspace()
        # Of one recording: what else is in a batch with it decides nothing.
        numbers = power.shape[-2:].numel() * len(sources) * config.chains
        ops.expect(numbers, moves=config.steps, iterations=config.iterations)

    def run(self, stretch: Phase) -> Iterator[EMState]:
        """Iterations of one kind, from where chains, noise and gains are."""
        self._begin(stretch)
        for _ in range(stretch.iterations):
            self.iteration += 1
            yield self._iterate()

    def _begin(self, stretch: Phase) -> None:
        self.mean_field, self.prior, config = stretch.mean_field, stretch.prior, self.config
        # How many sources are decided upon together; in the mean field each is by itself (derivations, sec. 7).
        size = 1 if config.sweep == "alternate" or self.mean_field else len(self.voices)
        self.groups = []
        for j in range(0, len(self.voices), size):
            kernel = make_kernel(config, _joined(self.sources[j : j + size]))
            workspace = self.workspace if size == len(self.voices) else Workspace()
            self.groups.append(Chains(self.voices[j : j + size], kernel, workspace))
        # E|s|^2 under the papers' q(s), whose g are 1, [J, ..., N, F]: the mixture at first, then the last E-step's.
        published = self.mean_field and config.mean_field == "published"
        self.moment = self.power.expand(len(self.voices), *self.power.shape) if published else None
        self._gather()
        self.responsibility = self._responsibilities()
        if published:
            self.responsibility = [
                None if w is None else torch.full_like(w, 0.5) for w in self.responsibility
            ]

    def _gather(self) -> None:
        """What the M-step sees of the chains: variances [J, D, ..., N, F] without gain, and responsibilities."""
        self.kept = _stacked([voice.kept for voice in self.voices])
        if self.mean_field:
            self.harmonic = harmonic_mean(self.kept)

    def _iterate(self) -> EMState:
        """One E-step and one M-step."""
        accepted = move(
            self.groups,
            self._target,
            self.generator,
            steps=self.config.steps,
            keep=self.config.keep,
            coupled=not self.mean_field,
        )
        self._gather()
        self.responsibility = self._responsibilities()
        self._maximise()
        weights = [w for w in self.responsibility if w is not None]
        return EMState(
            self.iteration,
            _stacked([voice.draws for voice in self.voices]),
            self.kept.clone() if self.watched else self.kept,
            self.noise.variance(),
            self.gain,
            self._objective() if self.watched else math.nan,
            self._share(accepted),
            _stacked(weights) if len(weights) == len(self.voices) else None,
            self.moment is not None,
        )

    def _share(self, accepted: Tensor) -> float:
        """Of the frames [S, R, ..., N] that exist."""
        if self.padding is None:
            return int(torch.count_nonzero(accepted)) / accepted.numel()
        moves = accepted.shape[0] * accepted.shape[1]
        return float((accepted * self.padding).sum() / (self.padding.sum() * moves))

    def _objective(self) -> float:
        """See `EMState`: the likelihood, and log p of what the M-step fits, noise, gains and modes of weights."""
        variances = self.gain[:, None, ..., None] * self.kept
        total = variances.sum(0) if len(variances) > 1 else variances[0]
        frames = mean_of(log_likelihood(self.power, total + self.noise.variance()))
        frames = frames + self.gain_prior.log_prob(self.gain).sum(0)
        if not self.mean_field:
            frames = frames + sum(voice.log_tails() for voice in self.voices)
        return float(self.noise.log_prior().sum() + (frames * self.valid).sum())

    def _responsibilities(self) -> list[Tensor | None]:
        return [voice.responsibility(mean_field=self.mean_field) for voice in self.voices]

    def _target(self, k: int) -> Target:
        """What the chains of group k sample in this E-step, given where the others are."""
        group, noise = self.groups[k], self.noise.variance()
        scales = [self._scale(j) for j in range(len(self.voices))]
        if self.mean_field:
            # In the group's own arrays, since it holds for the whole E-step.
            moment = self._moment(k, group.workspace) if self.moment is None else self.moment[k]
            tails = self.voices[k].tails
            return mean_field_target(
                group.speeches[0],
                scale=scales[k],
                ratio=moment if tails is None else moment * tails,
                weight=self.responsibility[k],
                workspace=group.workspace,
            )
        own = [voice in group.voices for voice in self.voices]
        others = sum(
            (self.gain[i][..., None] * other.sigma for i, other in enumerate(self.voices) if not own[i]),
            start=noise,
        )
        scales = [scale for scale, mine in zip(scales, own, strict=True) if mine]
        return joint_target(
            group.speeches,
            scales=scales,
            others=others,
            power=self.power,
            prior=self.prior,
            workspace=group.workspace,
        )

    def _moment(self, j: int, workspace: Workspace) -> Tensor:
        """E|s_j|^2 [..., N, F] under q(s), in `scratch`."""
        noise = self.noise.variance()
        moment = workspace("expected", noise)
        return ops.speech_moment(
            self.harmonic, self.gain, noise, self.power, j, out=moment, workspace=workspace
        )

    def _scale(self, j: int) -> Tensor:
        """The factor g [..., N, 1] or g / w [..., N, F] on sigma(z_j)."""
        gain, tails = self.gain[j][..., None], self.voices[j].tails
        return gain if tails is None else gain / tails

    def _maximise(self) -> None:
        """M-step: the noise, the gains, then the weights; none lowers the objective for the kept draws."""
        prior = self.gain_prior if self.config.gain and self.moment is None else None
        if self.moment is not None:
            self.moment = torch.stack(
                [self._moment(j, self.workspace).clone() for j in range(len(self.voices))]
            )
        maximise = maximise_mean_field if self.mean_field else maximise_marginal
        self.gain = maximise(
            self.noise,
            self.gain,
            self.harmonic if self.mean_field else self.kept,
            self.power,
            prior=prior,
            valid=self.padding,
            workspace=self.workspace,
        )
        for j, voice in enumerate(self.voices):
            if voice.tails is not None:
                ratio = tail_ratio(
                    self.voices,
                    j,
                    gain=self.gain,
                    noise=self.noise.variance(),
                    power=self.power,
                    mean_field=self.mean_field,
                )
                voice.reweight(ratio, mode=not self.mean_field)
                self._gather()


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """In a new first dimension; a single one is not copied."""
    return parts[0][None] if len(parts) == 1 else torch.stack(list(parts))


def _joined(sources: Sequence[Source]) -> Source:
    """What kernels need of sources that move together: start and spread side by side."""
    first, *others = sources
    if not others:
        return first
    spreads = [source.spread for source in sources if source.spread is not None]
    return first._replace(
        start=torch.cat([source.start for source in sources], -1),
        spread=torch.cat(spreads, -1) if len(spreads) == len(sources) else None,
    )
