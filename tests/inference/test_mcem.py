"""The EM loop as its consumers see it: a seeded generator that finds the speech in recordings of every shape."""

from __future__ import annotations

import gc
import inspect
import itertools
import weakref
from typing import Any, get_args

import pytest
import torch
from laws import MIXED, PRIORS
from scenes import BINS, FRAMES, LATENT, Scene, draw_scene, settings, si_sdr
from torch import Tensor

from pyro_minvae.config.schema import Inference
from pyro_minvae.inference.mcem.convergence import LOOK_BACK
from pyro_minvae.inference.mcem.e_step import Chains
from pyro_minvae.inference.mcem.loop import EMState, mcem
from pyro_minvae.inference.mcem.wiener import masks

E_STEPS = ("marginal", "mean-field")
# Models with other decoders and with heavy tails, beside the priors.
OTHERS = (
    "standard+lips",
    "visual+context",
    "ar1+context",
    "standard+plain+student-t",
    "mixture+lips+student-t",
)


def run(scene: Scene, config: Inference, seed: int = 0) -> list[EMState]:
    generator = torch.Generator().manual_seed(seed)
    return list(mcem(scene.sources, scene.nmf(seed=seed), scene.power, config=config, generator=generator))


def same(a: EMState, b: EMState) -> bool:
    return all(
        torch.equal(x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else x == y
        for x, y in zip(a, b, strict=True)
    )


def test_it_is_a_generator_that_works_only_when_asked() -> None:
    scene, nmf = draw_scene(("standard",)), draw_scene(("standard",)).nmf()
    before = nmf.W
    states = mcem(scene.sources, nmf, scene.power, config=settings(), generator=torch.Generator())
    assert inspect.isgenerator(states)
    assert torch.equal(nmf.W, before)
    first = next(states)
    assert first.iteration == 1
    assert not torch.equal(nmf.W, before)
    assert [state.iteration for state in states] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("e_step", E_STEPS)
@pytest.mark.parametrize("kind", [*PRIORS, *OTHERS])
def test_same_seed_same_states(kind: str, e_step: str) -> None:
    scene, config = draw_scene((kind,)), settings(e_step=e_step)
    assert all(same(a, b) for a, b in zip(run(scene, config), run(scene, config), strict=True))
    assert not same(run(scene, config)[0], run(scene, config, seed=1)[0])


@pytest.mark.parametrize("kind", ["mixture", "ar1", "standard+plain+student-t"])
def test_states_are_snapshots(kind: str) -> None:
    """A consumer may keep states: later iterations do not change them."""
    scene, config = draw_scene((kind,)), settings()
    kept, alone = run(scene, config), []
    for count in range(1, config.iterations + 1):
        generator = torch.Generator().manual_seed(0)
        states = mcem(scene.sources, scene.nmf(), scene.power, config=config, generator=generator)
        alone.append(next(itertools.islice(states, count - 1, None)))
    assert all(same(a, b) for a, b in zip(kept, alone, strict=True))


@pytest.mark.parametrize("kernel", get_args(Inference.model_fields["kernel"].annotation))
@pytest.mark.parametrize(
    "kinds", [("standard",), ("ar1+context",), ("mixture+lips+student-t", "random-walk")]
)
def test_variances_are_those_of_the_draws(kinds: tuple[str, ...], kernel: str) -> None:
    """The loop never decodes twice: what it kept is g sigma(z) / w of the draws, with one w for all of them."""
    scene = draw_scene(kinds)
    wide = [source._replace(spread=torch.full_like(source.start, 0.6)) for source in scene.sources]
    config = settings(kernel=kernel, step_size=0.2, chains=2, iterations=3)
    for state in run(scene._replace(sources=wide), config):
        for j, source in enumerate(scene.sources):
            sigma = source.model.variance(state.draws[j], source.visual)
            tails = state.gain[j][:, None] * sigma / state.variances[j]
            torch.testing.assert_close(tails, tails[:1].expand_as(tails))
            if not source.model.likelihood.weighted:
                torch.testing.assert_close(tails, torch.ones_like(tails))


@pytest.mark.parametrize("chains", [1, 3])
@pytest.mark.parametrize("gain", [True, False])
@pytest.mark.parametrize("e_step", E_STEPS)
@pytest.mark.parametrize(
    "kinds", [("standard",), ("visual-mixture",), ("mixture", "visual-mixture"), ("ar1",)]
)
def test_shapes_and_ranges(kinds: tuple[str, ...], e_step: str, gain: bool, chains: int) -> None:
    scene, config = draw_scene(kinds), settings(e_step=e_step, gain=gain, chains=chains)
    sources, draws = len(kinds), chains * config.keep
    for state in run(scene, config):
        assert state.draws.shape == (sources, draws, FRAMES, LATENT)
        assert state.variances.shape == (sources, draws, FRAMES, BINS)
        assert state.noise.shape == (FRAMES, BINS)
        assert state.gain.shape == (sources, FRAMES)
        assert all(
            bool(torch.isfinite(v).all()) for v in (state.draws, state.variances, state.noise, state.gain)
        )
        assert min(float(v.min()) for v in (state.variances, state.noise, state.gain)) > 0
        assert 0 < state.acceptance < 1
        if kinds[0] in MIXED:
            assert state.responsibility is not None
            assert state.responsibility.shape == (sources, FRAMES)
            assert 0 <= float(state.responsibility.min()) <= float(state.responsibility.max()) <= 1
        else:
            assert state.responsibility is None
    if chains > 1:
        first = state.draws[0].reshape(config.keep, chains, FRAMES, LATENT)[0]
        assert bool((first[0] != first[1]).any())  # the chains part


@pytest.mark.parametrize("kind", PRIORS)
def test_automatic_e_step_is_mean_field_where_lips_chose_the_start(kind: str) -> None:
    scene = draw_scene((kind,))
    blind = scene._replace(sources=[source._replace(visual=None) for source in scene.sources])
    by_sound = scene._replace(sources=[source._replace(led=False) for source in scene.sources])
    for where, chosen in ((scene, "mean-field"), (blind, "marginal"), (by_sound, "marginal")):
        by_itself, by_name = (run(where, settings(e_step=e_step))[-1] for e_step in ("auto", chosen))
        assert same(by_itself, by_name)


@pytest.mark.parametrize("kind", [*PRIORS, *OTHERS])
def test_the_last_iterations_go_on_from_where_the_mean_field_ends(kind: str) -> None:
    scene = draw_scene((kind,))
    whole = run(scene, settings(e_step="mean-field", last_marginal=2))
    field = run(scene, settings(e_step="mean-field", iterations=4))
    assert [state.iteration for state in whole] == [1, 2, 3, 4, 5, 6]
    assert all(same(a, b) for a, b in zip(whole[:4], field, strict=True))
    assert not same(whole[4], run(scene, settings(e_step="mean-field"))[4])


@pytest.mark.parametrize("kind", PRIORS)
def test_more_last_iterations_than_there_are_leave_no_mean_field(kind: str) -> None:
    scene = draw_scene((kind,))
    for count in (6, 100):
        last = run(scene, settings(e_step="mean-field", last_marginal=count))
        assert all(same(a, b) for a, b in zip(last, run(scene, settings()), strict=True))
    # A loop of marginal E-steps has no other ones to end.
    marginal = run(scene, settings(last_marginal=3, last_prior=5.0))
    assert all(same(a, b) for a, b in zip(marginal, run(scene, settings()), strict=True))


def test_each_kind_of_iterations_ends_when_it_has_settled() -> None:
    scene = draw_scene(("visual-mixture",))
    config = settings(e_step="mean-field", iterations=60, last_marginal=30, tolerance=1e9)
    assert len(run(scene, config)) == 2 * (LOOK_BACK + 1)
    assert len(run(scene, config.model_copy(update={"last_marginal": 0}))) == LOOK_BACK + 1
    assert len(run(scene, config.model_copy(update={"tolerance": 0.0}))) == 60


def test_speakers_move_together_in_the_last_iterations_of_joint_sweeps() -> None:
    """In the mean field each decides by itself, whatever the sweep."""
    scene = draw_scene(("visual-mixture", "standard"))
    states = run(scene, settings(e_step="mean-field", sweep="joint", last_marginal=3))
    for state in states:
        moved = (state.draws[:, 1] != state.draws[:, 0]).any(-1)  # [J, N]
        assert bool((moved[0] == moved[1]).all()) == (state.iteration > 3)


@pytest.mark.parametrize("e_step", E_STEPS)
def test_gain_moves_only_if_asked_for(e_step: str) -> None:
    """A known fault of the published code: a gain that is there and never updated."""
    scene = draw_scene(("standard",))
    still = run(scene, settings(e_step=e_step, gain=False))[-1]
    moved = run(scene, settings(e_step=e_step, gain=True))[-1]
    assert torch.equal(still.gain, torch.ones_like(still.gain))
    assert bool((moved.gain != 1).all())


@pytest.mark.parametrize("kind", MIXED)
def test_responsibilities_follow_their_formulas(kind: str) -> None:
    """Marginal: E[p(alpha = 1 | z)]. Mean-field: sigmoid(logit pi + E[log N_a - log N_v]). Over the kept draws."""
    scene = draw_scene((kind,))
    prior, visual = scene.sources[0].model.prior, scene.sources[0].visual
    lips, audio = prior.conditionals(visual)
    pi = prior.audio_weight(visual)
    for e_step in E_STEPS:
        state = run(scene, settings(e_step=e_step))[-1]
        z = state.draws[0]
        log_a, log_v = audio.log_prob(z), lips.log_prob(z)
        if e_step == "marginal":
            expected = (pi * log_a.exp() / (pi * log_a.exp() + (1 - pi) * log_v.exp())).mean(0)
        else:
            odds = pi / (1 - pi) * (log_a - log_v).mean(0).exp()
            expected = odds / (1 + odds)
        assert state.responsibility is not None
        torch.testing.assert_close(state.responsibility[0], expected)


@pytest.mark.parametrize("e_step", E_STEPS)
@pytest.mark.parametrize("kind", PRIORS)
def test_objective_mostly_rises(kind: str, e_step: str) -> None:
    objectives = [
        state.objective for state in run(draw_scene((kind,)), settings(e_step=e_step, iterations=40))
    ]
    rises = sum(b > a for a, b in itertools.pairwise(objectives[:15]))
    assert rises >= 9
    assert objectives[-1] > objectives[0]


@pytest.mark.parametrize("moves", ["many", "default"])
@pytest.mark.parametrize("e_step", E_STEPS)
@pytest.mark.parametrize("kind", [*PRIORS, *OTHERS])
def test_speech_drawn_from_the_model_is_enhanced(kind: str, e_step: str, moves: str) -> None:
    usual = Inference().model_dump(include={"iterations", "kernel", "step_size", "steps", "keep"})
    chosen = usual if moves == "default" else {"iterations": 40, "steps": 10, "keep": 5}
    gains = []
    for seed in range(2):
        scene = draw_scene((kind,), seed=seed)
        state = run(scene, settings(e_step=e_step, **chosen))[-1]
        mask = masks(state.variances, state.noise)[0]
        gains.append(si_sdr(mask * scene.mixture, scene.speech[0]) - si_sdr(scene.mixture, scene.speech[0]))
    assert min(gains) > 3.0
    assert sum(gains) > 10.0


def test_two_speakers_are_parted() -> None:
    """Separation is the same loop with two sources, told apart by their lips and their decoders."""
    scene = draw_scene(("visual", "visual"), snr_db=15.0)
    state = run(scene, settings(iterations=40, steps=10, keep=5))[-1]
    for mask, speech in zip(masks(state.variances, state.noise), scene.speech, strict=True):
        assert si_sdr(mask * scene.mixture, speech) > si_sdr(scene.mixture, speech) + 3


def test_bad_arguments_are_refused() -> None:
    scene = draw_scene(("standard",))
    with pytest.raises(ValueError, match="keep <= steps, got 5 > 4"):
        run(scene, settings(keep=5))
    with pytest.raises(ValueError, match="at least one source"):
        run(scene._replace(sources=[]), settings())


def test_the_loop_leaves_nothing_to_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arrays are freed when it ends: an hour of sound goes through hundreds of loops."""
    made: list[weakref.ref[Chains]] = []
    scene, begin = draw_scene(("mixture",)), Chains.__init__

    def remembered(self: Chains, *arguments: Any) -> None:
        begin(self, *arguments)
        made.append(weakref.ref(self))

    monkeypatch.setattr(Chains, "__init__", remembered)
    gc.disable()
    try:
        for e_step in ("marginal", "mean-field"):
            config = settings(e_step=e_step, kernel="langevin", step_size=0.1)
            generator = torch.Generator().manual_seed(0)
            for _ in mcem(scene.sources, scene.nmf(), scene.power, config=config, generator=generator):
                pass
        assert [one() for one in made] == [None, None]
    finally:
        gc.enable()
