"""What noise models are tested on: fixed draws of speech in a mixture, the EM objective, and a table of the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from pyro_minvae.inference.mcem.statistics import Statistics
from pyro_minvae.models.noise.ard import ArdNmf
from pyro_minvae.models.noise.gamma_chain import ChainNmf
from pyro_minvae.models.noise.nmf import Nmf
from pyro_minvae.models.noise.stationary import stationary

Make = Callable[..., Nmf]
# Each is called as make(power, generator=..., rank=...); stationary noise has no rank.
MODELS: dict[str, Make] = {
    "plain": Nmf,
    "bumps": lambda power, **given: Nmf(power, smooth=4.0, **given),
    "chain": lambda power, **given: ChainNmf(power, strength=7.0, **given),
    "strong chain": lambda power, **given: ChainNmf(power, strength=2000.0, sweeps=2, **given),
    "chain of bumps": lambda power, **given: ChainNmf(power, strength=3.0, smooth=3.0, **given),
    "ard": lambda power, **given: ArdNmf(power, shape=3.0, **given),
    "ard of bumps": lambda power, **given: ArdNmf(power, shape=30.0, smooth=4.0, **given),
    "stationary": lambda power, generator, rank=1: stationary(power, generator=generator),
    "slow level": lambda power, generator, rank=1: stationary(power, slow=5.0, generator=generator),
}


class Problem(NamedTuple):
    """Fixed draws: `speech` variances [J, R, ..., N, F] and the mixture's `power` [..., N, F]."""

    speech: Tensor
    power: Tensor

    def likelihood(self, noise: Tensor) -> Tensor:
        """-mean_r sum_nf [log V + |x|^2 / V] for a noise variance [..., N, F]: [...]."""
        total = self.speech.sum(0) + noise
        return -(total.log() + self.power / total).mean(0).sum((-1, -2))

    def objective(self, model: Nmf) -> Tensor:
        """Likelihood + log prior of each recording [...]."""
        return self.likelihood(model.variance()) + model.log_prior()

    def statistics(self) -> Statistics:
        """mean_r |x|^2 V^-2 and mean_r V^-1."""

        def means(noise: Tensor) -> tuple[Tensor, Tensor]:
            total = self.speech.sum(0) + noise
            return self.power * (total**-2).mean(0), (1 / total).mean(0)

        return Statistics(means)

    def to(self, dtype: torch.dtype) -> Problem:
        return Problem(self.speech.to(dtype), self.power.to(dtype))


def make_problem(
    seed: int,
    *,
    frames: int = 9,
    bins: int = 6,
    batch: tuple[int, ...] = (),
    sources: int = 2,
    draws: int = 3,
    level: float = 1.0,
    spread: float = 2.0,
    dead: float = 0.0,
) -> Problem:
    """Log-normal power and speech of that level, `spread` nats wide; a share `dead` of the speech is zero."""
    generator = torch.Generator().manual_seed(seed)

    def variances(*shape: int) -> Tensor:
        values = (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).exp()
        return values * (torch.rand(shape, generator=generator) >= dead) * level

    speech = 0.3 * variances(sources, draws, *batch, frames, bins)
    return Problem(speech, variances(*batch, frames, bins) + 1e-3 * level)


def make_model(name: str, power: Tensor, *, rank: int = 3, seed: int = 0) -> Nmf:
    """The model of that name at its random start."""
    return MODELS[name](power, rank=rank, generator=torch.Generator().manual_seed(seed))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Shapes and levels of all sorts; some power and some speech is zero."""
    return make_problem(
        draw(st.integers(0, 10**6)),
        frames=draw(st.integers(1, 12)),
        bins=draw(st.integers(1, 8)),
        batch=draw(st.sampled_from([(), (2,), (2, 3)])),
        sources=draw(st.integers(1, 2)),
        draws=draw(st.integers(1, 3)),
        level=10.0 ** draw(st.integers(-6, 4)),
        spread=3.0,
        dead=draw(st.sampled_from([0.0, 0.1])),
    )
