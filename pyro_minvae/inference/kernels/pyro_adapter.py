"""These kernels under `pyro.infer.MCMC`: its bookkeeping, several processes, its summary and diagnostics."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

from pyro_minvae.inference.kernels.base import ChainState, Kernel, LogDensity


class PyroKernel(MCMCKernel):
    """A kernel on one unconstrained site z [..., N, L] of a Pyro model whose sites lie in a plate over N.

    `MCMC(PyroKernel(Mala(0.1), model), num_samples=500).run(power, visual)` gives draws of "z" [500, N, L]; each
    chain starts at a draw from the prior or where `initial_params` says. A switch that is marked for enumeration is
    summed out. MCMC's `warmup_steps` become the kernel's `warmup`. Randomness follows `pyro.set_rng_seed`.

    Args:
        kernel: the sampler.
        model: the Pyro model.
        site: name of z.
        target: given the arguments of `run`, the log density to sample in place of the model's own; needed where
            frames are coupled, since Pyro's sites do not tell their factors.
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
        self._density = self.target(*args, **kwargs) if self.target else self._model_target(*args, **kwargs)
        self._generator = torch.Generator(start.device).manual_seed(int(torch.randint(2**31, ())))
        with torch.no_grad():
            self._state: ChainState = self._sampler.init(self._density, start)
        self._steps, self._rate = 0, torch.zeros((), device=start.device)

    def _drawn(self, *args: Any, **kwargs: Any) -> Tensor:
        return poutine.trace(self.model).get_trace(*args, **kwargs).nodes[self.site]["value"].detach()

    def _model_target(self, *args: Any, **kwargs: Any) -> LogDensity:
        """log p(z_n, observations | ...) of the model, enumerated sites summed out: z [..., N, L] to [..., N]."""

        def log_density(z: Tensor) -> Tensor:
            model = poutine.condition(self.model, {self.site: z})
            trace = poutine.trace(poutine.enum(model, first_available_dim=-z.dim())).get_trace(
                *args, **kwargs
            )
            trace.compute_log_prob()
            sites = [n for n in trace.nodes.values() if n["type"] == "sample" and "log_prob" in n]
            for node in sites:
                if not node["is_observed"] and node["infer"].get("enumerate") is None:
                    raise ValueError(
                        f"expected {self.site!r} to be the only latent site, got {node['name']!r}"
                    )
            joint: Tensor = sum((node["log_prob"] for node in sites), z.new_zeros(z.shape[:-1]))
            return (
                joint.logsumexp(tuple(range(joint.dim() - z.dim() + 1))) if joint.dim() >= z.dim() else joint
            )

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
        self._steps += 1
        self._rate += (info.accepted.float().mean() - self._rate) / self._steps
        return {self.site: self._state.position}

    def end_warmup(self) -> None:
        self._steps, self._rate = 0, torch.zeros_like(self._rate)

    def logging(self) -> OrderedDict[str, str]:
        return OrderedDict([("acc. rate", f"{float(self._rate):.3f}")])

    def diagnostics(self) -> dict[str, float]:
        return {"acceptance rate": float(self._rate)}
