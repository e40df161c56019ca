"""Stock Pyro on the speech model and its guide: what a Pyro user types works, for every kind of part.

The product of priors, guides, decoders and likelihoods is sampled so that every pair of choices occurs.
"""

from __future__ import annotations

import itertools

import pyro
import pytest
import torch
from laws import (
    BINS,
    FAMILY,
    MIXED,
    MODELS,
    Kinds,
    make_frames,
    make_guide,
    make_model,
    make_pair,
    make_prior,
)
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
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor

from pyro_minvae.config.load import load_recipe, recipe_names
from pyro_minvae.guides.speech import SpeechGuide
from pyro_minvae.inference.mcmc.mala import Mala
from pyro_minvae.inference.mcmc.pyro_kernel import PyroKernel, speech_target
from pyro_minvae.inference.svi.elbo import bound_terms
from pyro_minvae.models.speech import SpeechModel, register
from pyro_minvae.systems.system import System
from pyro_minvae.types import Visual


def pairwise(family: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Few members of a family in which every pair of choices occurs that occurs in all of it, greedily."""

    def pairs(kinds: tuple[str, ...]) -> set[tuple[object, ...]]:
        return set(itertools.combinations(enumerate(kinds), 2))

    missing = set().union(*map(pairs, family))
    chosen = []
    while missing:
        best = max(family, key=lambda kinds: len(pairs(kinds) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


FEW: list[Kinds] = pairwise(FAMILY)  # type: ignore[assignment, arg-type]
FEW_MODELS: list[tuple[str, str, str]] = pairwise(MODELS)  # type: ignore[assignment, arg-type]


@pytest.fixture(autouse=True)
def own_store() -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


def programs(kinds: Kinds) -> tuple[SpeechModel, SpeechGuide]:
    model, guide = make_pair(*kinds)
    return model, SpeechGuide(model, guide)


def silent(kinds: Kinds, name: str) -> bool:
    """Of a vamp prior's pseudo-inputs those that its guide does not look at, which nothing can move."""
    unseen = {"audio": "lips", "visual": "log_power"}.get(kinds[1])
    return kinds[0] == "vamp" and unseen is not None and name == f"prior.{unseen}"


def test_the_sample_of_the_family_has_every_pair() -> None:
    assert len(FEW) < len(FAMILY) / 3
    assert {(k[0], k[1]) for k in FEW} == {(k[0], k[1]) for k in FAMILY}


@pytest.mark.parametrize("kinds", FEW, ids="-".join)
def test_a_stock_svi_step_moves_every_parameter(kinds: Kinds) -> None:
    model, guide = programs(kinds)
    named = dict(model.named_parameters()) | dict(guide.network.named_parameters(prefix="guide"))
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    svi = SVI(
        model,
        guide,
        pyro.optim.Adam({"lr": 1e-2}),
        TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
    )
    frames = make_frames(6)
    losses = [svi.step(*frames) for _ in range(2)]
    assert all(torch.isfinite(torch.tensor(losses)))
    still = {name for name, value in named.items() if torch.equal(value, before[name])}
    assert still == {name for name in named if silent(kinds, name)}
    assert len(pyro.get_param_store()) == len(named)


def test_two_models_in_one_process_learn_each_by_itself() -> None:
    """Pyro's store keeps the first tensor of a name; a second model must not train the first one's."""
    frames = make_frames(6)
    for seed in (0, 1):
        model, network = make_pair("standard", "audio", seed=seed)
        before = model.decoder.output.bias.detach().clone()
        svi = SVI(model, SpeechGuide(model, network), pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        svi.step(*frames)
        assert not torch.equal(model.decoder.output.bias, before)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipes_programs_learn_all_that_they_are_made_of(name: str) -> None:
    recipe = load_recipe(name)
    system = System(recipe)
    model, guide = system.model(), system.guide()
    named = dict(model.named_parameters()) | dict(guide.named_parameters(prefix="guide"))
    before = {key: parameter.detach().clone() for key, parameter in named.items()}
    elbo = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    visual = Visual(torch.randn(12, recipe.lips.dimension), torch.rand(12) < 0.8)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), elbo)
    svi.step(torch.rand(12, recipe.stft.bins), visual)
    assert [key for key, value in named.items() if torch.equal(value, before[key])] == []


def test_a_guide_infers_from_something() -> None:
    _, guide = programs(("standard", "audio", "plain", "complex-gaussian"))
    with pytest.raises(ValueError, match="expected power, of which the guide infers z, got None"):
        guide(None, make_frames(3).visual)


def test_rates_by_name_reach_parameters_that_several_models_share() -> None:
    """Pyro asks the store for the name of a tensor: also of one that another model has registered before."""
    model, guide = programs(("standard", "audio", "plain", "complex-gaussian"))
    other, frames = SpeechModel(make_prior("mixture"), model.decoder), make_frames(6)
    asked: list[str] = []

    def rate(name: str) -> dict[str, float]:
        asked.append(name)
        return {"lr": 1e-2 if name.startswith("speech_guide") else 0.0}

    for program in (other, model, other, make_model("standard"), model):
        program(*frames)
    with torch.no_grad():
        register("elsewhere", model.decoder.requires_grad_(True))
    before = model.decoder.output.bias.detach().clone(), guide.network.audio.mean.bias.detach().clone()
    SVI(model, guide, pyro.optim.Adam(rate), Trace_ELBO()).step(*frames)
    assert torch.equal(model.decoder.output.bias, before[0])
    assert not torch.equal(guide.network.audio.mean.bias, before[1])
    wanted = {f"speech_model.{name}" for name, _ in model.named_parameters()}
    assert set(asked) == wanted | {f"speech_guide.{name}" for name, _ in guide.network.named_parameters()}


def test_frozen_parts_stay_and_are_not_registered() -> None:
    model, guide = programs(("standard", "audio", "plain", "complex-gaussian"))
    model.decoder.requires_grad_(False)
    before = model.decoder.output.bias.detach().clone()
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(*make_frames(6))
    assert torch.equal(model.decoder.output.bias, before)
    assert all(name.startswith("speech_guide") for name in pyro.get_param_store())


@pytest.mark.parametrize("kinds", FEW, ids="-".join)
def test_the_default_bound_is_that_of_the_closed_forms(kinds: Kinds) -> None:
    """One default of q(alpha) everywhere: the optimum. Stock ELBO and `bound_terms` agree within their errors."""
    model, guide = programs(kinds)
    frames = make_frames(3, valid=1.0)
    elbo = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    with torch.no_grad():
        stock = torch.tensor([-elbo.loss(model, guide, *frames) for _ in range(60)])
        closed = torch.stack([bound_terms(model, guide, *frames).total.sum() for _ in range(60)])
    error = (stock.var() / 60 + closed.var() / 60).sqrt()
    assert abs(stock.mean() - closed.mean()) < 5 * error + 1e-6 * abs(closed.mean())


@pytest.mark.parametrize("kinds", FEW_MODELS, ids="-".join)
def test_predictive_samples_without_data(kinds: tuple[str, str, str]) -> None:
    model = make_model(*kinds, guide=make_guide("concatenation"))
    visual = make_frames(4).visual
    found = Predictive(model, num_samples=5)(None, visual)
    assert found["s"].shape[-2:] == (4, BINS)
    assert found["s"].shape[0] == found["z"].shape[0] == 5
    assert bool((found["s"] > 0).all())
    if not model.visual:
        assert Predictive(model, num_samples=2)(frames=3)["s"].shape[-2:] == (3, BINS)
    assert Predictive(model, num_samples=2)(None, visual, frames=4)["s"].shape[-2:] == (4, BINS)
    program = SpeechGuide(model, make_guide("mixture" if model.prior.mixed else "concatenation"))
    posterior = Predictive(model, guide=program, num_samples=3)(*make_frames(4))
    assert posterior["z"].shape[0] == 3
    together = Predictive(model, num_samples=5, parallel=True)(None, visual)
    assert {name: value.shape[0] for name, value in together.items()} == dict.fromkeys(found, 5)
    with pytest.raises(ValueError, match="expected power, visual or a number of frames"):
        model()
    with pytest.raises(ValueError, match="expected 4 frames, as power or visual have, got frames=7"):
        model(None, visual, frames=7)


@pytest.mark.parametrize("kinds", FEW, ids="-".join)
def test_handlers_trace_condition_and_replay(kinds: Kinds) -> None:
    model, guide = programs(kinds)
    frames = make_frames(4)
    q = poutine.trace(guide).get_trace(*frames)
    p = poutine.trace(poutine.replay(model, trace=q)).get_trace(*frames)
    latents = set(q.stochastic_nodes) - {"frames"}
    assert latents == set(p.stochastic_nodes) - {"frames"}
    for name in latents:
        assert torch.equal(p.nodes[name]["value"], q.nodes[name]["value"])
    known = {name: q.nodes[name]["value"].detach() for name in latents}
    again = poutine.trace(poutine.condition(model, known)).get_trace(*frames)
    torch.testing.assert_close(again.log_prob_sum(), p.log_prob_sum())


@pytest.mark.parametrize("prior", ["mixture", "visual-mixture"])
def test_the_indicator_can_be_enumerated_and_inferred(prior: str) -> None:
    """infer_discrete draws alpha from p(alpha | z, s) = p(alpha | z): its frequencies are those of Bayes' rule."""
    model, frames = make_model(prior), make_frames(5, valid=1.0)
    z = poutine.trace(model).get_trace(*frames).nodes["z"]["value"].detach()
    given = config_enumerate(poutine.condition(model, {"z": z}), default="parallel")
    draws = torch.stack(
        [
            poutine.trace(infer_discrete(given, first_available_dim=-2))
            .get_trace(*frames)
            .nodes["alpha"]["value"]
            for _ in range(400)
        ]
    )
    components = model.prior.components(frames.visual)
    wanted = components.responsibility(z[None], mean_field=False)
    assert wanted is not None
    torch.testing.assert_close(draws.mean(0), wanted, atol=4 * 0.5 / 20, rtol=0)


@pytest.mark.parametrize("kinds", FEW_MODELS, ids="-".join)
def test_an_automatic_guide_fits_the_latents(kinds: tuple[str, str, str]) -> None:
    """AutoNormal over z (and w), alpha summed out; the networks stay as they are. The loss falls."""
    model = make_model(*kinds, guide=make_guide("concatenation")).requires_grad_(False)
    program = config_enumerate(model, default="parallel") if model.prior.mixed else model
    guide = AutoNormal(poutine.block(program, hide=["alpha"]))
    elbo = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    svi = SVI(program, guide, pyro.optim.Adam({"lr": 0.05}), elbo)
    frames = make_frames(4)
    losses = [svi.step(*frames) for _ in range(60)]
    assert sum(losses[-15:]) < sum(losses[:15])


def latent_names(model: SpeechModel) -> set[str]:
    """The continuous sites."""
    return {"z", "w"} if model.likelihood.weighted else {"z"}


@pytest.mark.parametrize("kinds", FEW_MODELS, ids="-".join)
def test_nuts_runs(kinds: tuple[str, str, str]) -> None:
    model = make_model(*kinds, guide=make_guide("concatenation")).requires_grad_(False)
    mcmc = MCMC(NUTS(model.summed(), max_tree_depth=4), num_samples=6, warmup_steps=6, disable_progbar=True)
    mcmc.run(*make_frames(3))
    found = mcmc.get_samples()
    assert set(found) == latent_names(model)
    assert found["z"].shape == (6, 3, 3)
    assert all(bool(values.isfinite().all()) for values in found.values())
    assert not torch.equal(found["z"][0], found["z"][-1])


@pytest.mark.parametrize("kinds", [kinds for kinds in FEW_MODELS if kinds[0] in MIXED], ids="-".join)
def test_nuts_enumerates_the_indicator_where_it_is_told_the_start(kinds: tuple[str, str, str]) -> None:
    """Given z [N, L], Pyro's enumeration of alpha is the potential of the model without the site."""
    model, frames = make_model(*kinds).requires_grad_(False), make_frames(3)
    start = {"z": torch.randn(3, 3, dtype=torch.float64), "w": torch.randn(3, BINS, dtype=torch.float64)}
    start = {name: start[name] for name in latent_names(model)}
    potentials = [
        initialize_model(program, tuple(frames), initial_params=start)[1](start)
        for program in (model, model.summed())
    ]
    torch.testing.assert_close(*potentials)
    kernel = NUTS(model, max_tree_depth=3)
    mcmc = MCMC(kernel, num_samples=2, warmup_steps=2, initial_params=start, disable_progbar=True)
    mcmc.run(*frames)
    assert mcmc.get_samples()["z"].shape == (2, 3, 3)


@pytest.mark.parametrize("prior", ["mixture", "visual-mixture", "standard", "ar1"])
def test_without_the_site_alpha_the_density_is_the_sum_over_it(prior: str) -> None:
    model, frames = make_model(prior), make_frames(4)
    trace = poutine.trace(model.summed()).get_trace(*frames)
    z = trace.nodes["z"]["value"]
    wanted = (
        model.log_prior(z, frames.visual).sum() + model.log_likelihood(frames.power, z, frames.visual).sum()
    )
    torch.testing.assert_close(trace.log_prob_sum(), wanted)
    assert "alpha" not in trace.nodes


@pytest.mark.parametrize("kinds", FEW_MODELS, ids="-".join)
def test_the_loops_kernels_run_under_pyros_mcmc(kinds: tuple[str, str, str]) -> None:
    """alpha and w are summed out, coupled frames move by their own factors, whose sum is the joint density."""
    model = make_model(*kinds, guide=make_guide("concatenation")).requires_grad_(False)
    frames = make_frames(3)
    mcmc = MCMC(PyroKernel(Mala(0.1), model), num_samples=6, warmup_steps=2, disable_progbar=True)
    mcmc.run(*frames)
    z: Tensor = mcmc.get_samples()["z"]
    assert z.shape == (6, 3, 3)
    assert not torch.equal(z[0], z[-1])
    if not model.likelihood.weighted:
        known = poutine.condition(model.summed(), {"z": z[-1]})
        joint = poutine.trace(known).get_trace(*frames).log_prob_sum()
        torch.testing.assert_close(speech_target(model, *frames)(z[-1]).sum(), joint)


@pytest.mark.parametrize("kinds", FEW_MODELS, ids="-".join)
def test_the_model_can_be_drawn(kinds: tuple[str, str, str]) -> None:
    pytest.importorskip("graphviz")
    model = make_model(*kinds, guide=make_guide("concatenation")).requires_grad_(False)
    graph = pyro.render_model(model, model_args=tuple(make_frames(3)))
    for site in (
        "z",
        "s",
        *(["alpha"] if model.prior.mixed else []),
        *(["w"] if model.likelihood.weighted else []),
    ):
        assert f"\t{site} [" in graph.source
