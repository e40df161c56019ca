"""Samplers by the names that recipes give them."""

from __future__ import annotations

from collections.abc import Callable

from pyro_minvae.config.schema import Inference
from pyro_minvae.inference.mcmc.adam import MapAdam
from pyro_minvae.inference.mcmc.base import Kernel
from pyro_minvae.inference.mcmc.hmc import Hmc
from pyro_minvae.inference.mcmc.independence import Independence
from pyro_minvae.inference.mcmc.langevin import UnadjustedLangevin
from pyro_minvae.inference.mcmc.laplace import Laplace
from pyro_minvae.inference.mcmc.mala import Mala
from pyro_minvae.inference.mcmc.metropolis import Metropolis
from pyro_minvae.models.noisy import Source

# Samplers by the name in `Inference.kernel`.
STEPPING: dict[str, Callable[..., Kernel]] = {
    "metropolis": Metropolis,
    "langevin": UnadjustedLangevin,
    "mala": Mala,
    "hmc": Hmc,
    "map": MapAdam,
}
# Those among them whose step size adapts.
ADAPTIVE = ("metropolis", "mala", "hmc")


def make_kernel(config: Inference, source: Source) -> Kernel:
    """The sampler that the configuration names, for one source.

    Raises:
        ValueError: if it proposes from the guide and the source has no `spread`.
    """
    if config.kernel == "laplace":
        return Laplace(source.start)
    if config.kernel == "independence":
        if source.spread is None:
            raise ValueError("expected a source with a spread for the independence sampler, got none")
        return Independence(source.start, source.spread)
    settings: dict[str, float | int] = {}
    if config.step_size is not None:
        settings["step_size"] = config.step_size
    if config.kernel in ADAPTIVE:
        settings["warmup"] = config.warmup
    if config.kernel == "hmc":
        settings["leapfrogs"] = config.leapfrogs
    return STEPPING[config.kernel](**settings)
