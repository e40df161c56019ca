"""The kernels under `pyro.infer.MCMC`."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from chains import autoregressive, covariance_off, gaussian_of
from pyro.infer import MCMC
from torch import Tensor

from pyro_minvae.inference.mcmc.base import Target
from pyro_minvae.inference.mcmc.hmc import Hmc
from pyro_minvae.inference.mcmc.langevin import UnadjustedLangevin
from pyro_minvae.inference.mcmc.mala import Mala
from pyro_minvae.inference.mcmc.metropolis import Metropolis
from pyro_minvae.inference.mcmc.pyro_kernel import PyroKernel

DATA = torch.tensor([[0.3, -1.0], [2.0, 0.5], [-1.5, 4.0]], dtype=torch.float64)


def gaussian_model(data: Tensor) -> None:
    """z ~ N(1, 4), data ~ N(z, 1/4): the posterior is N((1/4 + 4 data) / 4.25, 1 / 4.25)."""
    with pyro.plate("frames", len(data), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.ones_like(data), 2.0).to_event(1))
        pyro.sample("s", dist.Normal(z, 0.5).to_event(1), obs=data)


def switched_model(data: Tensor) -> None:
    """A switch picks the prior of each frame."""
    with pyro.plate("frames", len(data), dim=-1):
        alpha = pyro.sample("alpha", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)))
        mean = (3 * alpha - 1)[..., None].expand(*alpha.shape, data.shape[-1])
        z = pyro.sample("z", dist.Normal(mean, 0.8).to_event(1))
        pyro.sample("s", dist.Normal(z, 1.5).to_event(1), obs=data)


def switched_density(z: Tensor) -> Tensor:
    """log p(z, data) with the switch summed out by hand."""

    def normal(x: Tensor, mean: Tensor | float, scale: float) -> Tensor:
        return (-0.5 * ((x - mean) / scale) ** 2 - math.log(scale * math.sqrt(2 * math.pi))).sum(-1)

    prior = torch.logaddexp(math.log(0.3) + normal(z, 2.0, 0.8), math.log(0.7) + normal(z, -1.0, 0.8))
    return prior + normal(DATA, z, 1.5)


def run(kernel: PyroKernel, *, steps: int, warmup: int, start: Tensor | None = None, seed: int = 0) -> MCMC:
    pyro.set_rng_seed(seed)
    initial = None if start is None else {"z": start}
    mcmc = MCMC(kernel, num_samples=steps, warmup_steps=warmup, initial_params=initial, disable_progbar=True)
    mcmc.run(DATA)
    return mcmc


@pytest.mark.parametrize("kernel", [Metropolis(), Mala(), Hmc()], ids=lambda k: type(k).__name__)
def test_draws_follow_the_posterior(kernel) -> None:  # type: ignore[no-untyped-def]
    """Several chains at once are leading dimensions of z; MCMC's warm-up adapts the step."""
    chains, mean = 400, (0.25 + 4 * DATA) / 4.25
    start = torch.zeros(chains, 3, 2, dtype=torch.float64)
    mcmc = run(PyroKernel(kernel, gaussian_model), steps=20, warmup=40, start=start)
    z = mcmc.get_samples()["z"]
    assert z.shape == (20, chains, 3, 2)
    covariance = torch.eye(6, dtype=torch.float64) / 4.25
    assert covariance_off(z[-1], mean.flatten(), covariance) < 4.8
    rate = mcmc.diagnostics()["acceptance rate"]["chain 0"]
    assert rate == pytest.approx(kernel.target_acceptance, abs=0.1)


def test_switches_are_summed_out_and_draws_are_those_of_the_bare_kernel() -> None:
    start, kernel = torch.zeros(5, 3, 2, dtype=torch.float64), Mala(0.7)
    found = run(PyroKernel(kernel, switched_model), steps=12, warmup=0, start=start, seed=4).get_samples()[
        "z"
    ]
    pyro.set_rng_seed(4)
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    state, expected = kernel.init(switched_density, start), []
    for _ in range(12):
        state, _ = kernel.step(switched_density, state, generator)
        expected.append(state.position)
    torch.testing.assert_close(found, torch.stack(expected))
    torch.testing.assert_close(state.log_density, switched_density(found[-1]))


def test_chains_start_in_the_prior_and_the_seed_is_pyros() -> None:
    kernel = PyroKernel(UnadjustedLangevin(0.1), gaussian_model)
    one, two, other = (run(kernel, steps=6, warmup=2, seed=seed).get_samples()["z"] for seed in (1, 1, 2))
    assert one.shape == (6, 3, 2)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    summary = run(kernel, steps=6, warmup=2).diagnostics()
    assert {"z", "acceptance rate"} <= set(summary)


def test_coupled_frames_need_a_target() -> None:
    target = Target(autoregressive, (0, 1))
    kernel = PyroKernel(Mala(), gaussian_model, target=lambda data: target)
    start = torch.zeros(800, 4, 2, dtype=torch.float64)
    z = run(kernel, steps=5, warmup=60, start=start).get_samples()["z"]
    assert covariance_off(z[-1], *gaussian_of(target, 4, 2)) < 4.8


def test_a_second_latent_site_is_refused() -> None:
    def model(data: Tensor) -> None:
        pyro.sample("extra", dist.Normal(0.0, 1.0))
        gaussian_model(data)

    with pytest.raises(ValueError, match="expected 'z' to be the only continuous site, got 'extra'"):
        run(PyroKernel(Mala(), model), steps=1, warmup=0)
