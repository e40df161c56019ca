"""Several speakers, each with a switch of its own: the EM loop of one, in turn, beside what the others should say.

Speaker j has modes m_j, draws z_j and gains of its own. Given the others' expected variance

    o_jn = sum_(i != j) sum_k r_i,nk mean_r [g_i,nk sigma^k(z_i^r)]

its updates are those of a single speaker in the noise o_j + WH (derivations, eq. 9.29): none lowers its own objective
at that o_j. All speakers' modes at once would be M^J combinations in each frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pyro_minvae.config.schema import Inference
from pyro_minvae.config.switching import SwitchConfig
from pyro_minvae.inference.mcem.statistics import Statistics
from pyro_minvae.inference.mcmc.draws import Randomness
from pyro_minvae.inference.switching.engine import Mode, SwitchingEngine, SwitchState, checked_modes
from pyro_minvae.models.noise.nmf import Nmf


class ConditionedOn:
    """The noise as one speaker meets it: WH, which is fitted, and the variance `others` [..., N, F], which is given."""

    def __init__(self, noise: Nmf) -> None:
        self.noise = noise
        self.others: Tensor | None = None

    def variance(self) -> Tensor:
        own = self.noise.variance()
        return own if self.others is None else own + self.others

    def em_step(self, statistics: Statistics) -> None:
        others = self.others
        self.noise.em_step(statistics if others is None else Statistics(lambda own: statistics(own + others)))

    def log_prior(self) -> Tensor:
        return self.noise.log_prior()


@torch.no_grad()
def switching_em(
    speakers: Sequence[Sequence[Mode]],
    noise: Nmf,
    power: Tensor,
    *,
    config: Inference,
    switch: SwitchConfig,
    generator: Randomness,
    valid: Tensor | None = None,
) -> Iterator[tuple[SwitchState, ...]]:
    """Variational EM on the mixture's `power` [..., N, F]: one state for each speaker an iteration.

    `speakers` are their modes; `noise` is fitted in place. Other arguments as for `mcem`; of `config` it uses
    `iterations`, `gain` and `gain_prior`. A state's `noise` is all that is not its speaker's.

    Raises:
        ValueError: for no speaker or mode, latent vectors of several lengths, or a model that couples frames or has
            heavy tails.
    """
    if not speakers:
        raise ValueError("expected at least one speaker, got none")
    for modes in speakers:
        checked_modes(modes)
    met = [ConditionedOn(noise) for _ in speakers]
    engines = [
        SwitchingEngine(modes, own, power, config=config, switch=switch, generator=generator, valid=valid)
        for modes, own in zip(speakers, met, strict=True)
    ]
    # A single speaker is beside nobody: then none of it is computed.
    together = engines if len(engines) > 1 else []
    expected = [engine.expected() for engine in together]
    for iteration in range(1, config.iterations + 1):
        states = []
        for j, engine in enumerate(engines):
            met[j].others = _beside(expected, j)
            states.append(engine.iterate(iteration))
            if together:
                expected[j] = engine.expected()
        # The later ones have moved since the earlier ones did.
        for j, own in enumerate(met):
            own.others = _beside(expected, j)
        yield tuple(state._replace(noise=own.variance()) for state, own in zip(states, met, strict=True))


def _beside(expected: Sequence[Tensor], j: int) -> Tensor | None:
    """o_j [..., N, F]; None for a single speaker."""
    others = [one for i, one in enumerate(expected) if i != j]
    return sum(others[1:], start=others[0]) if others else None
