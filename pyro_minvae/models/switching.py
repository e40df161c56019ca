"""Switching noisy speech as Pyro programs: a Markov chain over modes, each with its own prior and decoder."""

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
from pyro_minvae.models.speech import register

ModeConditional = Callable[[int, Tensor], TorchDistribution]
"""From a frame's number n and a tensor of modes m to r(z_n | m)."""


class SwitchingMixture:
    """The Pyro model p(m) prod_n p_{m_n}(z_n | v_n) N_c(x_n; 0, g_{n m_n} sigma^{m_n}(z_n) + (WH)_n).

    (derivations, eqs. 9.1, 9.2 and 9.18)

    Sites "m_n", "z_n" [L] and "x_n" [F] for n = 0 .. N - 1 under `pyro.markov`, without plates: z and x are observed,
    conditioned on or sampled, m enumerated by `config_enumerate` or in the guide (`SwitchingGuide`). The engine
    (`inference.switching`) computes the same bound without handlers.

    Args:
        modes: the models at their lips; their `start` is not used.
        noise: (W H)' [N, F], linear power.
        gain: g [M, N].
        transition: T [M, M], rows sum to one.
        initial: probabilities of the first frame's modes [M].

    Raises:
        ValueError: if the shapes of these do not go together, or a mode's prior is not one Gaussian in each frame.
    """

    def __init__(
        self, modes: Sequence[Source], noise: Tensor, gain: Tensor, *, transition: Tensor, initial: Tensor
    ) -> None:
        count, frames = len(modes), len(noise)
        found = (*gain.shape, *transition.shape, *initial.shape)
        if found != (count, frames, count, count, count):
            raise ValueError(
                f"expected gain [{count}, {frames}], transition [{count}, {count}] and initial [{count}], got "
                f"{list(gain.shape)}, {list(transition.shape)} and {list(initial.shape)}"
            )
        for mode in modes:
            _gaussian(mode)
        self.modes, self.noise, self.gain = modes, noise, gain
        self.transition, self.initial = transition, initial

    def __call__(self, power: Tensor | None = None) -> Tensor:
        """The program; parameters of the modes that learn are registered with Pyro.

        Args:
            power: |x|^2 [N, F], linear power; None samples it.

        Returns:
            x [N, F].
        """
        for k, mode in enumerate(self.modes):
            register(f"mode_{k}", mode.model)
        means, scales = self._priors()
        variances = [mode.model.given(mode.visual).variance for mode in self.modes]
        m, heard = None, []
        for n in pyro.markov(range(len(self.noise))):
            m = pyro.sample(f"m_{n}", dist.Categorical(self.initial if m is None else self.transition[m]))
            z = pyro.sample(f"z_{n}", normal(means[m, n], scales[m, n]))
            variance = self.noise[n].expand(*z.shape[:-1], -1)
            for k, sigma in enumerate(variances):
                spread = self.gain[k, n] * sigma(z) + self.noise[n]
                variance = torch.where((m == k)[..., None], spread, variance)
            observed = None if power is None else power[n]
            x = pyro.sample(f"x_{n}", ComplexGaussianPower(variance.log()).to_event(1), obs=observed)
            heard.append(x)
        return torch.stack(torch.broadcast_tensors(*heard), -2)

    def _priors(self) -> tuple[Tensor, Tensor]:
        """Means and scales of p_k(z_n | v_n) [M, N, L]."""
        found = [[part.expand(len(self.noise), part.shape[-1]) for part in _gaussian(m)] for m in self.modes]
        means, scales = zip(*found, strict=True)
        return torch.stack(means), torch.stack(scales)


class SwitchingGuide:
    """r(m) prod_n r(z_n | m_n) with the sites and the call of `SwitchingMixture`; m is enumerated.

    (derivations, eqs. 9.4 and 9.5)

    Args:
        conditional: r(z_n | m) of a frame's number and a tensor of modes.
        pairwise: r(m_n = j, m_(n+1) = k) [N - 1, M, M].
        first: r(m_1) [M].
    """

    def __init__(self, conditional: ModeConditional, *, pairwise: Tensor, first: Tensor) -> None:
        self.conditional, self.first, self.pairwise = conditional, first, pairwise

    def __call__(self, power: Tensor | None = None) -> None:
        """The program; `power` is not looked at, as it has been to find r."""
        transition = self.pairwise / self.pairwise.sum(-1, keepdim=True).clamp_min(1e-30)
        m = None
        for n in pyro.markov(range(len(self.pairwise) + 1)):
            chain = dist.Categorical(self.first if m is None else transition[n - 1][m])
            m = pyro.sample(f"m_{n}", chain, infer={"enumerate": "parallel"})
            pyro.sample(f"z_{n}", self.conditional(n, m))


def _gaussian(mode: Source) -> tuple[Tensor, Tensor]:
    """Mean and scale of p_k(z_n | v_n), each broadcastable to [N, L].

    Raises:
        ValueError: if it is another distribution.
    """
    conditionals = mode.model.prior.conditionals(mode.visual)
    gaussian = gaussian_parameters(conditionals[0])
    if gaussian is None or len(conditionals) > 1:
        name = type(mode.model.prior).__name__
        raise ValueError(f"expected priors of one Gaussian in each frame, got {name}")
    return gaussian
