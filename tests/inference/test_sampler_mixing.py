"""The run of the sampler that a report judges: its target is EM's, its chains start apart, stuck ones are told."""

from __future__ import annotations

import pytest
import torch
from laws import PRIORS
from scenes import FRAMES, LATENT, Frozen, Scene, draw_scene, settings
from torch import Tensor

from pyro_minvae.config.schema import Inference
from pyro_minvae.inference.mcem.loop import EMState, _Engine, mcem
from pyro_minvae.inference.mcem.schedule import is_mean_field, stretches
from pyro_minvae.inference.mcmc import mixing
from pyro_minvae.inference.mcmc.mixing import dispersed, first_frames, judge, last_target, mixed
from pyro_minvae.models.noisy import Source

KINDS = (*PRIORS, "standard+lips", "visual+context", "standard+plain+student-t", "mixture+lips+student-t")


def last_state(scene: Scene, config: Inference) -> EMState:
    generator = torch.Generator().manual_seed(0)
    *_, state = mcem(scene.sources, scene.nmf(), scene.power, config=config, generator=generator)
    return state


@pytest.mark.parametrize("last_marginal", [0, 1])
@pytest.mark.parametrize("e_step", ["marginal", "mean-field", "auto"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_that_of_the_next_e_step(kind: str, e_step: str, last_marginal: int) -> None:
    scene = draw_scene((kind,))
    config = settings(e_step=e_step, iterations=3, last_marginal=last_marginal, last_prior=3)
    generator = torch.Generator().manual_seed(0)
    engine = _Engine(scene.sources, scene.nmf(), scene.power, config, generator, None)
    for stretch in stretches(config, is_mean_field(config, scene.sources)):
        *_, state = engine.run(stretch)
    target, scale = last_target(scene.sources[0], state, scene.power, config)
    expected = engine._target(0)
    z = torch.randn(3, FRAMES, LATENT, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(target(z), expected(z))
    assert target.reach == expected.reach
    # The factor on sigma(z) is the one in the variances of the kept draws.
    source = scene.sources[0]
    variances = scale * source.model.variance(state.draws[0], source.visual)
    torch.testing.assert_close(variances, state.variances[0])


@pytest.mark.parametrize("kind", PRIORS)
def test_chains_start_at_draws_of_the_prior(kind: str) -> None:
    source = draw_scene((kind,)).sources[0]
    before = torch.get_rng_state()
    z = dispersed(source, 4000, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(dispersed(source, 4000, seed=0), z)
    assert z.shape == (4000, FRAMES, LATENT)
    mean, variance = moments(source)
    assert ((z.mean(0) - mean).abs() < 5 * (variance / 4000).sqrt()).all()
    torch.testing.assert_close(z.var(0), variance, atol=0, rtol=0.3)


def moments(source: Source) -> tuple[Tensor, Tensor]:
    """Mean and variance [N, L] of p(z | v), by the laws of total expectation and variance over alpha."""
    prior, visual = source.model.prior, source.visual
    parts = prior.conditionals(visual)
    if prior.coupled:
        parts = tuple(part.over(FRAMES) for part in parts)
    share = [1.0]
    if prior.mixed:
        audio = prior.audio_weight(visual)[..., None]
        share = [1 - audio, audio]
    mean = sum(w * part.mean for w, part in zip(share, parts, strict=True))
    square = sum(w * (part.variance + part.mean**2) for w, part in zip(share, parts, strict=True))
    shape = FRAMES, LATENT
    return mean.expand(shape), (square - mean**2).expand(shape)


def test_a_stuck_chain_is_seen_in_its_frame() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(6, 200, 3, LATENT, generator=generator)
    draws[0, :, 1] = 3.0
    draws[:, :, 2, 0] = 1.0
    accepted = torch.ones(6, 200, 3, dtype=torch.bool)
    accepted[:, 50:, 1] = False
    found = mixed(accepted, draws)
    assert found.draws == 1200
    assert found.acceptance.tolist() == [1.0, 0.25, 1.0]
    assert found.rhat[0] < 1.02
    assert found.ess[0] > 800
    assert found.rhat[1] > 1.1
    assert found.ess[1] < 100
    # A dimension that no chain ever moved makes the frame bad, whatever the others do.
    assert torch.isnan(torch.as_tensor([found.rhat[2], found.ess[2]])).all()


def test_chains_that_never_move_are_judged_as_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, config = draw_scene(("standard",)), settings()
    monkeypatch.setattr(mixing, "make_kernel", lambda *_: Frozen())
    found, _ = judge(scene.sources[0], last_state(scene, config), scene.power, config, seed=0)
    assert found is not None
    assert (found.rhat > 1.1).all()
    assert (found.ess < 20).all()
    assert (found.acceptance == 0).all()


def test_chains_that_mix_are_judged_so() -> None:
    """Without any speech in the sound the target is the prior, where MALA mixes quickly."""
    scene = draw_scene(("standard",))
    config = settings(kernel="mala", step_size=1.0, warmup=50)
    state = last_state(scene, config)
    state = state._replace(gain=torch.full_like(state.gain, 1e-12))
    found, deviation = judge(scene.sources[0], state, scene.power, config, seed=0)
    assert found is not None
    assert (found.rhat < 1.1).all()
    assert (found.ess > 100).all()
    assert found.aim is not None
    assert abs(found.acceptance.mean() - found.aim) < 0.25
    assert float(deviation.max()) < 1e-3 * float(scene.power.max().sqrt())


@pytest.mark.parametrize("kernel", ["map", "metropolis"])
def test_deviation_is_small_where_little_is_heard_and_never_above_what_is_there(kernel: str) -> None:
    scene, config = draw_scene(("mixture",)), settings(kernel=kernel)
    state = last_state(scene, config)
    found, deviation = judge(scene.sources[0], state, scene.power, config, seed=0)
    assert (found is None) == (kernel == "map")
    assert deviation.shape == scene.power.shape
    # var(s | x) <= the noise's variance + |x|^2 / 4: masks lie in [0, 1] and v (1 - m) = noise m.
    assert (deviation.square() <= state.noise + scene.power / 4 + 1e-12).all()
    assert (deviation > 0).all()


def test_judging_leaves_the_global_random_state_alone() -> None:
    scene, config = draw_scene(("visual-mixture",)), settings()
    state, before = last_state(scene, config), torch.get_rng_state()
    judge(scene.sources[0], state, scene.power, config, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_first_frames_of_a_batch_are_the_first_recordings() -> None:
    scene, config = draw_scene(("mixture",)), settings()
    alone = last_state(scene, config)

    def twice(values: Tensor | None, place: int) -> Tensor | None:
        return None if values is None else torch.stack([values, values + 1], place)

    batch = alone._replace(
        draws=twice(alone.draws, 2),
        sigma=twice(alone.sigma, 2),
        noise=twice(alone.noise, 0),
        gain=twice(alone.gain, 1),
        responsibility=twice(alone.responsibility, 1),
    )
    for state in (alone, batch):
        first = first_frames(state, 7)
        torch.testing.assert_close(first.draws, alone.draws[..., :7, :])
        torch.testing.assert_close(first.variances, alone.variances[..., :7, :])
        torch.testing.assert_close(first.noise, alone.noise[:7])
        torch.testing.assert_close(first.gain, alone.gain[:, :7])
        assert alone.responsibility is not None
        torch.testing.assert_close(first.responsibility, alone.responsibility[:, :7])
