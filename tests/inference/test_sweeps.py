"""Chains of several speakers: one after another or all at once, both leave the posterior of all speakers as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, get_args

import pytest
import torch
from laws import make_decoder, random_parameters
from scenes import BINS, FRAMES, LATENT, Frozen, Scene, draw_scene, settings, use_kernel
from test_em_steps import OBJECTIVES, TWO, Still, assert_monotone, sigma, tails
from torch import Tensor
from torch.nn.functional import pad

from pyro_minvae.config.schema import Inference
from pyro_minvae.inference.mcem import loop as module
from pyro_minvae.inference.mcem.e_step import Chains
from pyro_minvae.inference.mcem.loop import EMState, mcem
from pyro_minvae.inference.mcem.targets import joint_target
from pyro_minvae.inference.mcmc.base import Kernel
from pyro_minvae.inference.mcmc.draws import Streams
from pyro_minvae.inference.mcmc.hmc import Hmc
from pyro_minvae.inference.mcmc.independence import Independence
from pyro_minvae.inference.mcmc.laplace import Laplace
from pyro_minvae.inference.mcmc.mala import Mala
from pyro_minvae.inference.mcmc.metropolis import Metropolis
from pyro_minvae.models.noise.nmf import stack
from pyro_minvae.models.noisy import Source
from pyro_minvae.models.priors import StandardPrior
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual

SWEEPS = get_args(Inference.model_fields["sweep"].annotation)
E_STEPS = ("marginal", "mean-field")
KERNELS: dict[str, Callable[[Tensor], Kernel]] = {
    "metropolis": lambda zero: Metropolis(0.8),
    "mala": lambda zero: Mala(0.6),
    "hmc": lambda zero: Hmc(0.5, leapfrogs=2),
    "independence": lambda zero: Independence(zero + 0.3, torch.full_like(zero, 1.3)),
    "laplace": lambda zero: Laplace(zero, search=25, inflate=1.6),
}


class Problem(NamedTuple):
    """Two speakers with one latent number each, and exact draws [J, R, N, 1] of p(z_1, z_2 | x)."""

    sources: list[Source]
    power: Tensor
    noise: Still
    draws: Tensor
    moments: Tensor
    deviations: Tensor


def functions(z: Tensor) -> Tensor:
    """Means, squares and the product of z [2, ..., N, 1]: [5, ..., N]."""
    a, b = z[..., 0]
    return torch.stack([a, b, a**2, b**2, a * b])


def problem(count: int = 6000) -> Problem:
    """Frames in which the speakers share the sound's power, so that their z depend on each other."""
    generator = torch.Generator().manual_seed(3)
    models = []
    for seed in (10, 60):
        decoder = make_decoder("plain", latent=1, floor=1e-3, bins=4, hidden=3)
        random_parameters(decoder, torch.Generator().manual_seed(seed), 2.5)
        models.append(SpeechModel(StandardPrior(1).double(), decoder).requires_grad_(False))
    power = torch.rand(3, 4, generator=generator, dtype=torch.float64) * 8
    noise = Still(power, rank=1, generator=generator)
    noise.A = noise.A * (0.05 / float(noise.variance().mean()))
    line = torch.linspace(-6, 6, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)[:, None].expand(-1, 3, 2)
    one = torch.ones(3, 1, dtype=torch.float64)
    target = joint_target(
        [m.given() for m in models], scales=[one, one], others=noise.variance(), power=power
    )
    weights = (target(grid) - target(grid).amax(0)).exp()
    weights = weights / weights.sum(0)
    of_grid = functions(grid.movedim(-1, 0)[..., None])
    moments = (weights * of_grid).sum(1)
    deviations = ((weights * (of_grid - moments[:, None]).square()).sum(1)).sqrt()
    places = torch.stack([torch.multinomial(w, count, True, generator=generator) for w in weights.T], 1)
    draws = grid[places, torch.arange(3)].movedim(-1, 0)[..., None]
    step = (torch.rand(draws.shape, generator=generator, dtype=torch.float64) - 0.5) * float(
        line[1] - line[0]
    )
    sources = [Source(m, None, z) for m, z in zip(models, draws, strict=True)]
    return Problem(sources, power, noise, draws + step, moments, deviations)


PROBLEM = problem()


def moments_off(draws: Tensor) -> float:
    """How many standard errors the worst moment of draws [J, R, N, 1] is off."""
    error = (functions(draws).mean(1) - PROBLEM.moments).abs() * draws.shape[1] ** 0.5
    return float((error / PROBLEM.deviations).max())


def stepped(name: str, sweep: str, patch: pytest.MonkeyPatch, steps: int = 8) -> EMState:
    """Chains that start in the posterior, some moves later; noise and gains stay as they are."""

    def kernel(_: Inference, source: Source) -> Kernel:
        return KERNELS[name](torch.zeros(source.start.shape[-1], dtype=torch.float64))

    patch.setattr(module, "make_kernel", kernel)
    sources = [s._replace(start=z) for s, z in zip(PROBLEM.sources, PROBLEM.draws, strict=True)]
    power = PROBLEM.power.expand(PROBLEM.draws.shape[1], -1, -1)
    config = settings(sweep=sweep, gain=False, iterations=1, steps=steps, keep=1)
    (state,) = mcem(sources, PROBLEM.noise, power, config=config, generator=torch.Generator().manual_seed(7))
    return state


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("sweep", SWEEPS)
def test_the_posterior_of_two_speakers_is_left_invariant(
    name: str, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = stepped(name, sweep, monkeypatch)
    assert moments_off(state.draws[:, 0]) < 4.5
    assert 0.05 < state.acceptance < 0.97
    # They depend on each other, and each chain has moved.
    covariance = PROBLEM.moments[4] - PROBLEM.moments[0] * PROBLEM.moments[1]
    assert float((covariance.abs() / PROBLEM.deviations[0] / PROBLEM.deviations[1]).max()) > 0.2
    assert float((state.draws[:, 0] - PROBLEM.draws).abs().mean()) > 0.2


def test_moving_speakers_without_looking_at_each_other_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: targets that are not renewed after the other speaker has moved."""
    renewed = Chains.aim

    def once(self: Chains, target: object) -> None:
        if self.state is None:
            renewed(self, target)  # type: ignore[arg-type]

    monkeypatch.setattr(Chains, "aim", once)
    assert moments_off(stepped("metropolis", "alternate", monkeypatch, steps=30).draws[:, 0]) > 8


def run(scene: Scene, config: Inference) -> list[EMState]:
    generator = torch.Generator().manual_seed(0)
    return list(mcem(scene.sources, scene.nmf(), scene.power, config=config, generator=generator))


@pytest.mark.parametrize("kernel", get_args(Inference.model_fields["kernel"].annotation))
@pytest.mark.parametrize("kind", ["visual-mixture", "ar1+context", "standard+plain+student-t"])
def test_one_speaker_is_the_same_either_way(kind: str, kernel: str) -> None:
    scene = draw_scene((kind,))
    spread = [source._replace(spread=torch.full_like(source.start, 0.6)) for source in scene.sources]
    alternate, joint = (
        run(scene._replace(sources=spread), settings(sweep=sweep, kernel=kernel, iterations=3))[-1]
        for sweep in SWEEPS
    )
    for a, b in zip(alternate, joint, strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b


def test_in_the_mean_field_speakers_are_independent() -> None:
    """Then joint is alternate, number by number; in marginal E-steps it is not."""
    scene = draw_scene(("mixture", "visual"))
    for e_step in E_STEPS:
        alternate, joint = (run(scene, settings(sweep=sweep, e_step=e_step))[-1] for sweep in SWEEPS)
        assert torch.equal(alternate.draws, joint.draws) == (e_step == "mean-field")


@pytest.mark.parametrize("kernel", get_args(Inference.model_fields["kernel"].annotation))
@pytest.mark.parametrize("kinds", [("standard", "mixture"), ("mixture+lips+student-t", "random-walk")])
def test_joint_moves_remember_what_the_decoders_said(kinds: tuple[str, ...], kernel: str) -> None:
    """What was kept is g sigma(z) / w of the draws of each speaker, and every kernel can move them at once."""
    scene = draw_scene(kinds)
    wide = [source._replace(spread=torch.full_like(source.start, 0.6)) for source in scene.sources]
    config = settings(sweep="joint", kernel=kernel, step_size=0.2, chains=2, iterations=3)
    for state in run(scene._replace(sources=wide), config):
        assert state.draws.shape == (2, 4, FRAMES, LATENT)
        for j in range(2):
            tails(scene, state, j)


def test_a_joint_move_decides_for_all_speakers_of_a_frame() -> None:
    """In each frame all speakers go or none does."""
    scene = draw_scene(("standard", "visual"))
    states = run(scene, settings(sweep="joint", iterations=2, steps=1, keep=1))
    moved = (states[1].draws != states[0].draws).any(-1)[:, 0]
    assert torch.equal(moved[0], moved[1])
    assert bool(moved[0].any())
    assert not bool(moved[0].all())


def test_joint_target_follows_its_formula() -> None:
    """log p(z_1) + log p(z_2) - sum_f [log V + |x|^2 / V] (derivations, eq. 7.3), and its reach is the wider one."""
    scene = draw_scene(("visual+context", "ar1"))
    z = torch.randn(3, FRAMES, 2 * LATENT, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parts = z[..., :LATENT], z[..., LATENT:]
    gains, others = (torch.rand(2, FRAMES, 1).double(), torch.rand(FRAMES, BINS).double())
    target = joint_target(
        [source.model.given(source.visual) for source in scene.sources],
        scales=list(gains),
        others=others,
        power=scene.power,
    )
    total = others + sum(gains[j] * sigma(scene, j, parts[j]) for j in range(2))
    expected = -(total.log() + scene.power / total).sum(-1)
    for source, part in zip(scene.sources, parts, strict=True):
        expected = expected + source.model.log_prior(part, source.visual)
    torch.testing.assert_close(target(z), expected)
    assert target.reach == (1, 1)


@pytest.mark.parametrize("e_step", E_STEPS)
def test_joint_em_never_lowers_the_objective_for_fixed_draws(
    e_step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = draw_scene(TWO)
    use_kernel(monkeypatch, Frozen())
    states = run(scene, settings(sweep="joint", e_step=e_step, iterations=25, chains=2))
    assert_monotone([OBJECTIVES[e_step](scene, state) for state in states])


@pytest.mark.parametrize("e_step", E_STEPS)
@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_padded_batch_gives_what_each_recording_gives_alone(sweep: str, e_step: str) -> None:
    scene, lengths = draw_scene(("mixture", "visual")), (25, 15)
    parts = [slice(0, 25), slice(25, 40)]
    config = settings(sweep=sweep, e_step=e_step, chains=2)

    def sources(cut: Callable[[Tensor], Tensor]) -> list[Source]:
        return [
            s._replace(visual=Visual(cut(s.visual.features), cut(s.visual.valid)), start=cut(s.start))
            for s in scene.sources
            if s.visual is not None
        ]

    def padded(values: Tensor) -> Tensor:
        rows = [values[part] for part in parts]
        return torch.stack([pad(row, (0,) * (2 * row.dim() - 1) + (25 - len(row),)) for row in rows])

    pieces = [scene._replace(noise=scene.noise[part], speech=scene.speech[:, part]) for part in parts]
    noises = [piece.nmf(seed=b) for b, piece in enumerate(pieces)]
    valid = torch.arange(25) < torch.tensor(lengths)[:, None]
    streams = Streams([torch.Generator().manual_seed(b) for b in range(2)], lengths)
    *_, whole = mcem(
        sources(padded), stack(noises, 25), padded(scene.power), config=config, generator=streams, valid=valid
    )
    for b, (piece, part, length) in enumerate(zip(pieces, parts, lengths, strict=True)):
        alone_sources = sources(lambda values, part=part: values[part])
        generator = torch.Generator().manual_seed(b)
        *_, alone = mcem(alone_sources, piece.nmf(seed=b), piece.power, config=config, generator=generator)
        torch.testing.assert_close(whole.draws[:, :, b, :length], alone.draws)
        torch.testing.assert_close(whole.variances[:, :, b, :length], alone.variances)
        torch.testing.assert_close(whole.gain[:, b, :length], alone.gain)


def test_latent_vectors_of_different_lengths_are_refused() -> None:
    scene = draw_scene(("standard", "standard"))
    other = scene.sources[1]._replace(start=scene.sources[1].start[:, :1])
    with pytest.raises(ValueError, match=r"latent vectors of one length, got lengths \[2, 1\]"):
        run(scene._replace(sources=[scene.sources[0], other]), settings())
