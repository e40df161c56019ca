"""A noisy recording as a Pyro program: its density is the loop's, and stock inference runs on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import pyro
import pytest
import torch
from noise_problems import MODELS
from pyro import poutine
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    config_enumerate,
    infer_discrete,
)
from pyro.infer.autoguide import AutoNormal
from scenes import Scene, draw_scene, settings
from torch import Tensor

from pyro_minvae.inference.mcem.loop import EMState, mcem
from pyro_minvae.inference.mcem.targets import marginal_target
from pyro_minvae.inference.mcmc.mala import Mala
from pyro_minvae.inference.mcmc.pyro_kernel import PyroKernel
from pyro_minvae.models.gain import FLAT, GainPrior
from pyro_minvae.models.noise.floor import Floor
from pyro_minvae.models.noise.nmf import Nmf
from pyro_minvae.models.noisy import NoisyMixture
from pyro_minvae.types import Visual

NOISES = {**MODELS, "floor": lambda power, **_: Floor(power, level=-10.0)}
SPEAKERS = [
    ("standard",),
    ("vamp+plain+student-t",),
    ("mixture+lips+student-t",),
    ("visual-mixture",),
    ("visual+plain+student-t",),
    ("ar1+context",),
    ("random-walk+lips+student-t",),
    ("mixture", "standard+plain+student-t"),
    ("visual", "ar1"),
]
# Flat, improper but not flat, and proper.
GAINS = (FLAT, GainPrior(1.2, 0.0), GainPrior(1.5, 1.3))
E_STEPS = ("marginal", "mean-field")


class Case(NamedTuple):
    """What the law is tried on."""

    noise: str
    speakers: tuple[str, ...]
    e_step: str
    gain: GainPrior
    draws: int


# Every noise with every speaker; all else meets both of these, and each other.
CASES = [
    Case(noise, speakers, E_STEPS[(k + n) % 2], GAINS[(k + n) % 3], (1, 4)[(k + n) // 6 % 2])
    for (k, noise), (n, speakers) in itertools.product(enumerate(NOISES), enumerate(SPEAKERS))
]


@pytest.fixture(autouse=True)
def own_store() -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def values(scene: Scene, noise: Nmf, state: EMState, draw: int = 0) -> dict[str, Tensor]:
    """What a state of the loop is at one of its draws, by the names of the sites."""
    found = {**noise.site_values(), "gain": state.gain}
    for j, source in enumerate(scene.sources):
        z = found[f"z_{j}"] = state.draws[j, draw]
        if source.model.likelihood.weighted:
            found[f"w_{j}"] = source.model.variance(z, source.visual) / state.sigma[j, draw]
    return found


def log_prior(scene: Scene, found: dict[str, Tensor]) -> float:
    """sum_j log p(z_j | v_j), alpha summed out."""
    pairs = [(source, found[f"z_{j}"]) for j, source in enumerate(scene.sources)]
    return float(sum(source.model.log_prior(z, source.visual).detach().sum() for source, z in pairs))


def test_the_cases_are_pairwise() -> None:
    """Any two values of any two axes meet."""
    for i, j in itertools.combinations(range(len(Case._fields)), 2):
        met = {(case[i], case[j]) for case in CASES}
        assert met == set(itertools.product({case[i] for case in CASES}, {case[j] for case in CASES}))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.noise}-{'+'.join(case.speakers)}")
def test_the_density_is_the_loops_objective(case: Case) -> None:
    """log p(W, H, g, z, w, x) by Pyro = the objective + log p(z), in the mean over the draws, at every state.

    In the mean field w is a mean and no mode, so that the objective there is without log p(w).
    """
    scene = draw_scene(case.speakers, frames=7)
    noise = NOISES[case.noise](scene.power, rank=2, generator=seeded())
    config = settings(
        e_step=case.e_step,
        keep=math.isqrt(case.draws),
        chains=math.isqrt(case.draws),
        iterations=4,
        gain_prior=tuple(case.gain),
    )
    mixture, count = NoisyMixture(scene.sources, noise, case.gain, summed=True), 0
    for state in mcem(scene.sources, noise, scene.power, config=config, generator=seeded(1)):
        differences = []
        for draw in range(case.draws):
            found = values(scene, noise, state, draw)
            trace = poutine.trace(poutine.condition(mixture, found)).get_trace(scene.power)
            total = float(trace.log_prob_sum().detach()) - log_prior(scene, found)
            if case.e_step == "mean-field":
                trace.compute_log_prob()
                total -= sum(float(trace.nodes[name]["log_prob"].sum()) for name in found if name[0] == "w")
            differences.append(total)
            torch.testing.assert_close(trace.nodes["noise"]["value"], state.noise)
        assert sum(differences) / len(differences) == pytest.approx(state.objective, rel=1e-11, abs=1e-9)
        count += 1
    assert count == 4


@pytest.mark.parametrize("speakers", [("standard",), ("visual-mixture",), ("ar1", "visual+plain+student-t")])
@pytest.mark.parametrize("name", ["plain", "chain", "ard", "slow level", "floor"])
def test_the_density_of_a_batch_is_that_of_its_recordings(name: str, speakers: tuple[str, ...]) -> None:
    scenes = [draw_scene(speakers, frames=6, seed=seed) for seed in (0, 1)]
    power = torch.stack([scene.power for scene in scenes])
    sources = []
    for j, source in enumerate(scenes[0].sources):
        lips = [scene.sources[j].visual for scene in scenes]
        both = Visual(torch.stack([v.features for v in lips]), torch.stack([v.valid for v in lips]))
        start = torch.stack([scene.sources[j].start for scene in scenes])
        sources.append(source._replace(visual=both, start=start))
    whole = scenes[0]._replace(sources=sources)
    noise = NOISES[name](power, rank=2, generator=seeded())
    mixture = NoisyMixture(sources, noise, GAINS[2], summed=True)
    config = settings(keep=1, iterations=2, gain_prior=tuple(GAINS[2]))
    for state in mcem(sources, noise, power, config=config, generator=seeded(1)):
        found = values(whole, noise, state)
        trace = poutine.trace(poutine.condition(mixture, found)).get_trace(power)
        expected = state.objective + log_prior(whole, found)
        assert float(trace.log_prob_sum()) == pytest.approx(expected, rel=1e-11)


SWITCHED = [
    ("mixture",),
    ("visual-mixture+lips+student-t",),
    ("mixture", "visual-mixture"),
    ("visual", "mixture"),
]


def last_state(scene: Scene, noise: Nmf) -> EMState:
    *_, last = mcem(scene.sources, noise, scene.power, config=settings(keep=1), generator=seeded(1))
    return last


@pytest.fixture
def double() -> Iterator[None]:
    """Pyro's own ones and zeros in float64 too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("speakers", SWITCHED)
def test_alpha_as_a_site_is_summed_out_by_pyro(speakers: tuple[str, ...]) -> None:
    """Enumerated, the program has the density that it has with alpha summed out in the prior of z."""
    scene = draw_scene(speakers, frames=7)
    noise = Nmf(scene.power, rank=2, generator=seeded())
    state = last_state(scene, noise)
    found = values(scene, noise, state)
    given = config_enumerate(poutine.condition(NoisyMixture(scene.sources, noise), found))
    trace = poutine.trace(given).get_trace(scene.power)
    assert {name for name in trace.nodes if name.startswith("alpha")} == {
        f"alpha_{j}" for j, kind in enumerate(speakers) if "mixture" in kind
    }
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    expected = state.objective + log_prior(scene, found)
    assert -elbo.loss(given, lambda power: None, scene.power) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("speakers", SWITCHED)
def test_the_likelier_alpha_is_found_by_infer_discrete(speakers: tuple[str, ...]) -> None:
    """Where the loop's p(alpha = 1 | z) is above 1/2 (derivations, eq. 6.10)."""
    scene = draw_scene(speakers, frames=40)
    noise = Nmf(scene.power, rank=2, generator=seeded())
    found = values(scene, noise, last_state(scene, noise))
    given = config_enumerate(poutine.condition(NoisyMixture(scene.sources, noise), found))
    likeliest = infer_discrete(given, first_available_dim=-2, temperature=0)
    nodes = poutine.trace(likeliest).get_trace(scene.power).nodes
    seen = set()
    for j, source in enumerate(scene.sources):
        weight = source.model.given(source.visual).prior.responsibility(
            found[f"z_{j}"][None], mean_field=False
        )
        if weight is not None:
            assert torch.equal(nodes[f"alpha_{j}"]["value"].bool(), weight > 0.5)
            seen |= set((weight > 0.5).tolist())
    assert seen == {False, True}


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_predictive_samples_whole_recordings(name: str, parallel: bool) -> None:
    """Mixtures drawn from proper priors, noise and gains too."""
    scene = draw_scene(("standard+plain+student-t", "mixture"), frames=6)
    noise = NOISES[name](scene.power, rank=2, generator=seeded())
    program = NoisyMixture(scene.sources, noise, proper=True)
    found = Predictive(program, num_samples=5, parallel=parallel)()
    assert found["x"].shape == (5, *scene.power.shape)
    assert bool((found["x"] > 0).all())
    assert {"W", "gain", "z_0", "z_1", "w_0", "alpha_1"} <= set(found)
    assert bool((found["gain"] > 0).all())
    assert len(found["noise"][..., 0, 0].unique()) == 5


@pytest.mark.parametrize("speakers", [*SPEAKERS[:3], *SPEAKERS[5:8]])
@pytest.mark.parametrize("name", NOISES)
def test_plates_around_the_program_are_so_many_recordings(name: str, speakers: tuple[str, ...]) -> None:
    """Draws in parallel have the shapes of draws one by one, and each its own density, with flat priors too."""
    scene = draw_scene(speakers, frames=6)
    noise = NOISES[name](scene.power, rank=2, generator=seeded())
    proper, flat = (
        NoisyMixture(scene.sources, noise, GAINS[1], proper=one, summed=True) for one in (True, False)
    )
    coupled = any(source.model.coupled for source in scene.sources)
    drawn = poutine.trace(pyro.plate("particles", 3, dim=-1 if coupled else -2)(proper)).get_trace()
    sites = {n: drawn.nodes[n]["value"] for n in drawn.stochastic_nodes if n not in ("particles", "frames")}
    assert sites["x"].shape == (3, *scene.power.shape)
    whole = poutine.condition(pyro.plate("particles", 3, dim=-1 if coupled else -2)(flat), sites)
    total = poutine.trace(whole).get_trace().log_prob_sum().detach()
    alone = 0.0
    for k in range(3):
        # Sites outside the plate of frames have a one in its place.
        own = {
            site: value[k] if coupled or site == "x" or site[:2] in ("z_", "w_") else value[k, 0]
            for site, value in sites.items()
        }
        alone += float(poutine.trace(poutine.condition(flat, own)).get_trace().log_prob_sum().detach())
    assert float(total) == pytest.approx(alone, rel=1e-11)


def test_flat_priors_cannot_be_sampled_and_wrong_shapes_are_refused() -> None:
    scene = draw_scene(("standard",), frames=5)
    noise = Nmf(scene.power, rank=2, generator=seeded())
    with pytest.raises(NotImplementedError):
        NoisyMixture(scene.sources, noise)(scene.power)
    with pytest.raises(ValueError, match=r"expected power of shape \[5, 24\], got \[4, 24\]"):
        NoisyMixture(scene.sources, noise, proper=True)(scene.power[:4])


@pytest.mark.parametrize(
    "speakers", [("standard",), ("mixture",), ("ar1", "visual"), ("vamp+plain+student-t",)]
)
@pytest.mark.parametrize("name", ["plain", "chain", "ard", "stationary"])
def test_nuts_runs_on_a_noisy_mixture(name: str, speakers: tuple[str, ...]) -> None:
    scene = draw_scene(speakers, frames=4)
    noise = NOISES[name](scene.power, rank=1, generator=seeded())
    program = NoisyMixture(scene.sources, noise, proper=True, summed=True)
    mcmc = MCMC(NUTS(program, max_tree_depth=3), num_samples=5, warmup_steps=5, disable_progbar=True)
    mcmc.run(scene.power)
    found = mcmc.get_samples()
    assert {"gain", "z_0", *noise.site_values()} <= set(found)
    assert all(bool(value.isfinite().all()) for value in found.values())
    assert all(len(value[..., 0].flatten().unique()) > 1 for value in found.values())
    if name != "ard":
        torch.testing.assert_close(found["W"].sum(-1), torch.ones(5, 1, dtype=torch.float64))


@pytest.mark.parametrize("speakers", [("mixture",), ("standard", "visual-mixture+plain+student-t")])
def test_an_automatic_guide_fits_a_noisy_mixture(speakers: tuple[str, ...]) -> None:
    scene = draw_scene(speakers, frames=5)
    noise = Nmf(scene.power, rank=2, generator=seeded())
    program = NoisyMixture(scene.sources, noise, proper=True, summed=True)
    svi = SVI(program, AutoNormal(program), pyro.optim.Adam({"lr": 0.03}), Trace_ELBO())
    losses = torch.tensor([svi.step(scene.power) for _ in range(120)])
    assert float(losses[-20:].median()) < float(losses[:20].median())


@pytest.mark.parametrize("speakers", [("standard+plain+student-t",), ("visual-mixture",)])
def test_our_kernels_under_mcmc_take_the_steps_of_the_loop(speakers: tuple[str, ...]) -> None:
    """One z is open, all else conditioned: the chain is that of the bare kernel on the loop's own target."""
    scene = draw_scene(speakers, frames=6)
    (source,), noise = scene.sources, Nmf(scene.power, rank=2, generator=seeded())
    found = values(scene, noise, last_state(scene, noise))
    start = found.pop("z_0")
    program = poutine.condition(NoisyMixture(scene.sources, noise), found)
    pyro.set_rng_seed(4)
    mcmc = MCMC(
        PyroKernel(Mala(0.4), program, site="z_0"),
        num_samples=15,
        warmup_steps=0,
        initial_params={"z_0": start},
        disable_progbar=True,
    )
    mcmc.run(scene.power)
    scale = found["gain"][0][:, None] / found.get("w_0", 1.0)
    target = marginal_target(
        source.model.given(source.visual), scale=scale, others=noise.variance(), power=scene.power
    )
    pyro.set_rng_seed(4)
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    kernel, expected = Mala(0.4, warmup=0), []
    state = kernel.init(target, start)
    for _ in range(15):
        state, _ = kernel.step(target, state, generator)
        expected.append(state.position)
    torch.testing.assert_close(mcmc.get_samples()["z_0"], torch.stack(expected))
    assert not torch.equal(expected[0], expected[-1])


def test_it_can_be_drawn() -> None:
    pytest.importorskip("graphviz")
    scene = draw_scene(("mixture+plain+student-t",), frames=4)
    noise = Nmf(scene.power, rank=2, generator=seeded())
    graph = pyro.render_model(NoisyMixture(scene.sources, noise, proper=True), model_args=(scene.power,))
    for site in ("W", "H", "gain", "alpha_0", "z_0", "w_0", "x"):
        assert f"\t{site} [" in graph.source
