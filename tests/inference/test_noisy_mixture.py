"""A noisy recording as a Pyro program: its density is the loop's, and stock inference runs on it."""

from __future__ import annotations

import itertools
import math

import pyro
import pytest
import torch
from noise_problems import MODELS as NOISES
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from scenes import Scene, draw_scene, settings
from torch import Tensor

from pyro_minvae.inference.mcem.loop import EMState, mcem
from pyro_minvae.inference.mcmc.mala import Mala
from pyro_minvae.inference.mcmc.pyro_kernel import PyroKernel
from pyro_minvae.models.gain import FLAT, GainPrior
from pyro_minvae.models.noise.floor import Floor
from pyro_minvae.models.noise.nmf import Nmf
from pyro_minvae.models.noisy import NoisyMixture

SPEAKERS = [
    ("standard",),
    ("mixture+lips+student-t",),
    ("visual-mixture",),
    ("visual+plain+student-t",),
    ("ar1+context",),
    ("random-walk+lips+student-t",),
    ("mixture", "standard+plain+student-t"),
    ("visual", "ar1"),
]


@pytest.fixture(autouse=True)
def own_store() -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def values(scene: Scene, noise: Nmf, state: EMState) -> dict[str, Tensor]:
    """What a state of the loop is, by the names of the sites."""
    found = {**noise.site_values(), "gain": state.gain}
    for j, source in enumerate(scene.sources):
        (found[f"z_{j}"],) = state.draws[j]
        if source.model.likelihood.weighted:
            found[f"w_{j}"] = source.model.variance(state.draws[j, 0], source.visual) / state.sigma[j, 0]
    return found


# Every noise with every speaker, and both E-steps where the loop's objective holds log p(w).
CASES = [
    (noise, speakers, e_step, rate)
    for (k, noise), (n, speakers) in itertools.product(enumerate(NOISES), enumerate(SPEAKERS))
    for e_step, rate in [[("marginal", 0.0), ("mean-field", 1.5)][(k + n) % 2]]
    if e_step == "marginal" or not any("student-t" in one for one in speakers)
]


@pytest.mark.parametrize(("noise", "speakers", "e_step", "rate"), CASES)
def test_the_density_is_the_loops_objective(
    noise: str, speakers: tuple[str, ...], e_step: str, rate: float
) -> None:
    """log p(W, H, g, z, w, x) by Pyro = the objective + log p(z), at every state, alpha summed out."""
    scene = draw_scene(speakers, frames=7)
    model = NOISES[noise](scene.power, rank=2, generator=seeded())
    config = settings(e_step=e_step, keep=1, iterations=4, gain_prior=(1.2, rate))
    mixture = NoisyMixture(scene.sources, model, GainPrior(1.2, rate), summed=True)
    count = 0
    for state in mcem(scene.sources, model, scene.power, config=config, generator=seeded(1)):
        given = poutine.condition(mixture, values(scene, model, state))
        trace = poutine.trace(given).get_trace(scene.power)
        prior = sum(
            source.model.log_prior(state.draws[j, 0], source.visual).sum()
            for j, source in enumerate(scene.sources)
        )
        assert float(trace.log_prob_sum()) == pytest.approx(state.objective + float(prior), rel=1e-9)
        torch.testing.assert_close(trace.nodes["noise"]["value"], state.noise)
        count += 1
    assert count == 4


@pytest.mark.parametrize("noise", NOISES)
def test_predictive_samples_whole_recordings(noise: str) -> None:
    """Mixtures drawn from proper priors, noise and gains too."""
    scene = draw_scene(("standard+plain+student-t", "mixture"), frames=6)
    model = NOISES[noise](scene.power, rank=2, generator=seeded())
    found = Predictive(NoisyMixture(scene.sources, model, proper=True), num_samples=5)()
    assert found["x"].shape == (5, *scene.power.shape)
    assert bool((found["x"] > 0).all())
    assert {"W", "gain", "z_0", "z_1", "w_0", "alpha_1"} <= set(found)
    assert bool((found["gain"] > 0).all())


def test_flat_priors_cannot_be_sampled_and_wrong_shapes_are_refused() -> None:
    scene = draw_scene(("standard",), frames=5)
    noise = Nmf(scene.power, rank=2, generator=seeded())
    with pytest.raises(NotImplementedError):
        NoisyMixture(scene.sources, noise)(scene.power)
    with pytest.raises(ValueError, match=r"expected power of shape \[5, 24\], got \[4, 24\]"):
        NoisyMixture(scene.sources, noise, proper=True)(scene.power[:4])


@pytest.mark.parametrize("speakers", [("standard",), ("mixture",), ("ar1", "visual")])
def test_nuts_runs_on_a_noisy_mixture(speakers: tuple[str, ...]) -> None:
    scene = draw_scene(speakers, frames=4)
    noise = Nmf(scene.power, rank=1, generator=seeded())
    program = NoisyMixture(scene.sources, noise, proper=True, summed=True)
    mcmc = MCMC(NUTS(program, max_tree_depth=4), num_samples=6, warmup_steps=6, disable_progbar=True)
    mcmc.run(scene.power)
    found = mcmc.get_samples()
    assert {"W", "H", "gain", "z_0"} <= set(found)
    assert all(bool(value.isfinite().all()) for value in found.values())
    torch.testing.assert_close(found["W"].sum(-1), torch.ones(6, 1, dtype=torch.float64))


def test_it_can_be_drawn() -> None:
    pytest.importorskip("graphviz")
    scene = draw_scene(("mixture+plain+student-t",), frames=4)
    noise = Nmf(scene.power, rank=2, generator=seeded())
    graph = pyro.render_model(NoisyMixture(scene.sources, noise, proper=True), model_args=(scene.power,))
    for site in ("W", "H", "gain", "alpha_0", "z_0", "w_0", "x"):
        assert f"\t{site} [" in graph.source


def test_nuts_svi_and_the_loop_agree_on_the_speech() -> None:
    """E[sigma / (sigma + noise)], the Wiener filter of the posterior mean (eq. 6.9), in three ways.

    The noise and the gains are known here, so that the loop's point estimates are no approximation. 24 bins tell so
    much of two latent numbers that the posterior is near a Gaussian, which AutoMultivariateNormal needs.
    """
    scene = draw_scene(("standard",), frames=3, snr_db=5.0)
    (source,), noise = scene.sources, Floor(scene.power, level=-10.0)
    variance, ones = noise.variance(), torch.ones(1, 3, dtype=torch.float64)
    program = poutine.condition(NoisyMixture(scene.sources, variance, FLAT), {"gain": ones})

    def filtered(z: Tensor) -> Tensor:
        sigma = source.model.variance(z, source.visual)
        return (sigma / (sigma + variance)).mean(0)

    mcmc = MCMC(NUTS(program), num_samples=600, warmup_steps=200, disable_progbar=True)
    mcmc.run(scene.power)
    by_nuts = filtered(mcmc.get_samples()["z_0"])

    kernel = MCMC(PyroKernel(Mala(0.2), poutine.block(program, hide=["gain"]), site="z_0"), num_samples=4000,
                  warmup_steps=500, disable_progbar=True)  # fmt: skip
    kernel.run(scene.power)
    by_mala = filtered(kernel.get_samples()["z_0"])

    guide = AutoMultivariateNormal(program)
    svi = SVI(
        program, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO(num_particles=8, vectorize_particles=False)
    )
    for _ in range(500):
        svi.step(scene.power)
    with torch.no_grad():
        by_svi = filtered(torch.stack([guide(scene.power)["z_0"] for _ in range(1000)]))

    config = settings(kernel="mala", step_size=0.2, steps=10, keep=10, iterations=250, gain=False)
    states = list(mcem(scene.sources, noise, scene.power, config=config, generator=seeded(3)))
    by_loop = torch.stack([state.filters()[0] for state in states[30:]]).mean(0)

    # Filters lie between 0 and 1; what they differ by where nothing is known shows that the tolerances are sharp.
    prior = filtered(torch.randn(2000, 3, 2, dtype=torch.float64))
    assert float((prior - by_nuts).abs().max()) > 0.2
    for other, most in ((by_mala, 0.03), (by_loop, 0.03), (by_svi, 0.06)):
        difference = float((other - by_nuts).square().mean().sqrt())
        assert math.isfinite(difference)
        assert difference < most
