"""These kernels under `pyro.infer.MCMC`: its bookkeeping, several processes, its summary and diagnostics."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.infer import config_enumerate
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_minvae.inference.mcmc.base import ChainState, Kernel, LogDensity, Target
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual


def speech_target(model: SpeechModel, power: Tensor, visual: Visual | None = None) -> Target:
    """log p(z | v) + log p(s | z, v), alpha and w summed out: the factors of each frame [..., N].

    (derivations, eqs. 2.2, 3.12 and 4.3)
    """
    prior = model.prior.components(visual)
    return Target(lambda z: prior.log_prob(z) + model.log_likelihood(power, z, visual), model.reach)


class PyroKernel(MCMCKernel):
    """A kernel on one unconstrained site z [..., N, L] of a Pyro model whose sites lie in a plate over N.

    `MCMC(PyroKernel(Mala(0.1), model), num_samples=500).run(power, visual)` gives draws of "z" [500, N, L]; each
    chain starts at a draw from the prior or where `initial_params` says. Discrete sites are summed out. MCMC's
    `warmup_steps` become the kernel's `warmup`. Randomness follows `pyro.set_rng_seed`.

    A `SpeechModel` says itself what its factors are: its scale-mixture weights are summed out too, and its frames may
    be coupled.

    Args:
        kernel: the sampler.
        model: the Pyro model.
        site: name of z.
        target: given the arguments of `run`, the log density to sample in place of the model's own; needed for other
            models whose frames are coupled, since Pyro's sites do not tell their factors.
    """

    def __init__(
        self,
        kernel: Kernel,
        model: Callable[..., Any],
        *,
        site: str = "z",
        target: Callable[..., LogDensity] | None = None,
    ) -> None:
        self.kernel, self.model, self.site, self.target = kernel, model, site, target
        self.transforms: dict[str, Any] = {}
        self._initial: dict[str, Tensor] | None = None

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        self._sampler = self.kernel
        if any(field.name == "warmup" for field in dataclasses.fields(self.kernel)):  # type: ignore[arg-type]
            self._sampler = dataclasses.replace(self.kernel, warmup=warmup_steps)  # type: ignore[type-var]
        start = self._initial[self.site] if self._initial else self._drawn(*args, **kwargs)
        self._density = self._target(*args, **kwargs)
        self._generator = torch.Generator(start.device).manual_seed(int(torch.randint(2**31, ())))
        with torch.no_grad():
            self._state: ChainState = self._sampler.init(self._density, start)
        self._steps, self._warmup, self._rate = 0, warmup_steps, torch.zeros((), device=start.device)

    def _drawn(self, *args: Any, **kwargs: Any) -> Tensor:
        node: Any = poutine.trace(self.model).get_trace(*args, **kwargs).nodes[self.site]
        return node["value"].detach()

    def _target(self, *args: Any, **kwargs: Any) -> LogDensity:
        if self.target is not None:
            return self.target(*args, **kwargs)
        if isinstance(self.model, SpeechModel):
            return speech_target(self.model, *args, **kwargs)
        return self._model_target(*args, **kwargs)

    def _model_target(self, *args: Any, **kwargs: Any) -> LogDensity:
        """log p(z_n, observations) of each frame, discrete sites summed out: z [..., N, L] to [..., N]."""
        model = config_enumerate(self.model, default="parallel")

        def log_density(z: Tensor) -> Tensor:
            given = poutine.enum(poutine.condition(model, {self.site: z}), first_available_dim=-z.dim())
            trace = poutine.trace(given).get_trace(*args, **kwargs)
            trace.compute_log_prob()
            joint = z.new_zeros(z.shape[:-1])
            node: Any
            for name, node in trace.nodes.items():
                if node["type"] != "sample" or site_is_subsample(node):
                    continue
                if not node["is_observed"] and node["infer"].get("enumerate") is None:
                    raise ValueError(f"expected {self.site!r} to be the only continuous site, got {name!r}")
                joint = joint + node["log_prob"]
            # Enumerated sites stand in front of the dimensions of z.
            extra = tuple(range(joint.dim() - z.dim() + 1))
            return joint.logsumexp(extra) if extra else joint

        return log_density

    @property
    def initial_params(self) -> dict[str, Tensor]:
        return {self.site: self._state.position}

    @initial_params.setter
    def initial_params(self, params: dict[str, Tensor]) -> None:
        self._initial = params

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            self._state, info = self._sampler.step(self._density, self._state, self._generator)
        rate = info.accepted.float().mean()
        self._steps += 1
        # MCMC does not say when the warm-up ends; its steps do not count.
        self._rate += (rate - self._rate) / max(1, self._steps - self._warmup)
        return {self.site: self._state.position}

    def logging(self) -> OrderedDict[str, str]:
        return OrderedDict([("acc. rate", f"{float(self._rate):.3f}")])

    def diagnostics(self) -> dict[str, float]:
        return {"acceptance rate": float(self._rate)}
