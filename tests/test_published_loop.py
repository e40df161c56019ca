# ruff: noqa: E402
"""The papers' loop of the benchmarks against the package's own: equal formulas, and equal results up to chance."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

# The benchmarks are programs, not a package, and the scenes belong to the tests of the EM loop.
sys.path[:0] = [str(Path(__file__).parents[1] / "benchmarks"), str(Path(__file__).parent / "inference")]

from published import (
    Prior,
    Result,
    Settings,
    marginal,
    marginal_density,
    marginal_statistics,
    mean_field,
    mean_field_density,
    metropolis,
    started,
    update_noise,
)
from scenes import FRAMES, Frozen, Scene, draw_scene, settings, si_sdr, use_kernel

from pyro_minvae.inference.mcem.loop import EMState, mcem
from pyro_minvae.inference.mcem.schedule import exponent_of
from pyro_minvae.inference.mcem.statistics import MixtureStatistics
from pyro_minvae.inference.mcem.targets import marginal_target, mean_field_target
from pyro_minvae.inference.mcem.wiener import masks
from pyro_minvae.models.noise.nmf import Nmf

PAPER = {"kernel": "metropolis", "step_size": 0.1, "average": 1}


def prior_of(scene: Scene) -> Prior:
    """The scene's prior as numbers."""
    source = scene.sources[0]
    components = source.model.prior.components(source.visual)
    shape = source.start.shape
    gaussians = components.conditionals
    return Prior(
        np.stack([one.mean.expand(shape).numpy() for one in gaussians]),
        np.stack([one.variance.expand(shape).numpy() for one in gaussians]),
        None if components.weight is None else components.weight.expand(shape[0]).numpy(),
    )


def decode_of(scene: Scene):
    source = scene.sources[0]
    return lambda z: source.model.variance(torch.as_tensor(z), source.visual).numpy().T


@pytest.mark.parametrize("kind", ["standard", "mixture", "visual", "visual-mixture"])
@pytest.mark.parametrize("e_step", ["mean-field", "marginal"])
def test_targets_are_those_of_the_package(kind: str, e_step: str) -> None:
    """Log densities differ by the same constant in every frame, wherever z is."""
    scene, generator = draw_scene((kind,), seed=3), torch.Generator().manual_seed(1)
    source, prior, decode = scene.sources[0], prior_of(scene), decode_of(scene)
    speech = source.model.given(source.visual)
    gain, pi = torch.rand((2, FRAMES), generator=generator, dtype=torch.float64) + 0.1
    pi = None if prior.weight is None else pi.clamp(max=0.9)
    other = torch.rand(scene.power.shape, generator=generator, dtype=torch.float64)
    if e_step == "mean-field":
        own = mean_field_density(prior, None if pi is None else pi.numpy(), other.T.numpy(), gain.numpy())
        theirs = mean_field_target(speech, scale=gain[:, None], ratio=other / gain[:, None], weight=pi)
    else:
        own = marginal_density(prior, scene.power.T.numpy(), gain.numpy(), other.T.numpy())
        theirs = marginal_target(speech, scale=gain[:, None], others=other, power=scene.power)
    shift = []
    for _ in range(3):
        z = torch.randn(source.start.shape, generator=generator, dtype=torch.float64)
        shift.append(theirs(z).numpy() - own(z.numpy(), decode(z)))
    np.testing.assert_allclose(shift[1], shift[0], rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(shift[2], shift[0], rtol=1e-9, atol=1e-8)


def test_noise_updates_are_those_of_the_package() -> None:
    """At the same draws, three updates in a row."""
    scene = draw_scene(("standard",), seed=1)
    noise = Nmf(scene.power, rank=3, generator=torch.Generator().manual_seed(0))
    W, H = noise.W.numpy().copy(), noise.H.numpy().copy()
    variances = torch.rand((4, *scene.power.shape), dtype=torch.float64) + 0.1
    for _ in range(3):
        noise.em_step(MixtureStatistics(scene.power, variances[None]))
        statistics = marginal_statistics(scene.power.T.numpy(), variances.mT.numpy())
        W, H = update_noise(W, H, statistics, 0.5)
    np.testing.assert_allclose(W, noise.W.numpy(), rtol=1e-10)
    np.testing.assert_allclose(H, noise.H.numpy(), rtol=1e-10)


def test_sampler_draws_from_its_target() -> None:
    """Moments of a known Gaussian, in every frame by itself."""
    mean, spread = np.array([[1.0], [-2.0], [0.0]]), np.array([[0.5], [1.0], [2.0]])

    def log_density(z: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return -0.5 * (((z - mean) / spread) ** 2).sum(-1)

    def decode(z: np.ndarray) -> np.ndarray:
        return np.exp(z).T

    kept = Settings(steps=60_000, keep=59_000, variance=1.0)
    chain = metropolis(started(mean.copy(), decode), log_density, decode, kept, np.random.default_rng(0))
    np.testing.assert_allclose(chain.draws.mean(0), mean, atol=0.15)
    np.testing.assert_allclose(chain.draws.std(0), spread, rtol=0.08)
    np.testing.assert_allclose(chain.sigmas, np.exp(chain.draws).transpose(0, 2, 1))


class SharedRandom:
    """NumPy's interface to the package's stream of random numbers."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).numpy()

    def random(self, count: int) -> np.ndarray:
        return torch.rand(count, generator=self.generator, dtype=torch.float64).numpy()


def both(
    kind: str,
    e_step: str,
    seed: int,
    *,
    gain: bool,
    iterations: int,
    variance: float = 0.01,
    letter: bool = False,
) -> tuple[Scene, Result, EMState]:
    """A scene, the papers' loop on it and the package's, from the same start, W, H and random numbers.

    By the `letter` the papers' loop is as they have it, and the package's as its preset "paper" has it.
    """
    scene = draw_scene((kind,), seed=seed, snr_db=-5)
    noise = Nmf(scene.power, rank=2, generator=torch.Generator().manual_seed(seed))
    factors = noise.W.numpy().copy(), noise.H.numpy().copy()
    config = settings(**PAPER, e_step=e_step, iterations=iterations, steps=40, keep=10, gain=gain)
    if letter:
        config = config.model_copy(update={"mean_field": "published"})
        noise.exponent = exponent_of(config, scene.sources)
    *_, last = mcem(
        scene.sources, noise, scene.power, config=config, generator=torch.Generator().manual_seed(seed)
    )
    loop = mean_field if e_step == "mean-field" else marginal
    result = loop(
        scene.power.T.numpy(),
        decode_of(scene),
        prior_of(scene),
        scene.sources[0].start.numpy(),
        settings=Settings(iterations)
        if letter
        else Settings(iterations, exponent=0.5, gain=gain, variance=variance),
        random=SharedRandom(seed),
        factors=factors,
    )
    return scene, result, last


@pytest.mark.parametrize("kind", ["standard", "visual-mixture"])
@pytest.mark.parametrize("gain", [True, False])
def test_marginal_loop_is_that_of_the_package(kind: str, gain: bool) -> None:
    """Number for number, over six iterations."""
    _, own, theirs = both(kind, "marginal", 0, gain=gain, iterations=6)
    assert own.chain.acceptance == pytest.approx(theirs.acceptance)
    np.testing.assert_allclose(own.chain.draws, theirs.draws[0].numpy(), rtol=1e-6)
    np.testing.assert_allclose((own.W @ own.H).T, theirs.noise.numpy(), rtol=1e-6)
    np.testing.assert_allclose(own.gain, theirs.gain[0].numpy(), rtol=1e-6)
    np.testing.assert_allclose(own.mask.T, masks(theirs.variances, theirs.noise)[0].numpy(), rtol=1e-6)
    if own.pi is None:
        assert theirs.responsibility is None


@pytest.mark.parametrize("kind", ["standard", "mixture", "visual-mixture"])
@pytest.mark.parametrize("gain", [True, False])
def test_mean_field_updates_are_those_of_the_package(
    kind: str, gain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """q(s), q(alpha), W, H and g over six iterations, number for number, while the chains stand still."""
    use_kernel(monkeypatch, Frozen())
    _, own, theirs = both(kind, "mean-field", 0, gain=gain, iterations=6, variance=0.0)
    np.testing.assert_allclose((own.W @ own.H).T, theirs.noise.numpy(), rtol=1e-9)
    np.testing.assert_allclose(own.gain, theirs.gain[0].numpy(), rtol=1e-9)
    np.testing.assert_allclose(own.mask.T, masks(theirs.variances, theirs.noise)[0].numpy(), rtol=1e-9)
    if own.pi is not None:
        assert theirs.responsibility is not None
        np.testing.assert_allclose(own.pi, theirs.responsibility[0].numpy(), atol=1e-9)


@pytest.mark.parametrize("kind", ["standard", "mixture", "visual-mixture"])
@pytest.mark.parametrize("e_step", ["mean-field", "marginal"])
def test_preset_paper_is_the_published_loop(kind: str, e_step: str) -> None:
    """To the letter, number for number: draws, noise, gains, filter and responsibilities."""
    _, own, theirs = both(kind, e_step, 2, gain=True, iterations=6, letter=True)
    np.testing.assert_allclose(own.chain.draws, theirs.draws[0].numpy(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose((own.W @ own.H).T, theirs.noise.numpy(), rtol=1e-6)
    np.testing.assert_allclose(own.gain, theirs.gain[0].numpy(), rtol=1e-6)
    np.testing.assert_allclose(own.mask.T, theirs.filters()[0].numpy(), rtol=1e-6)
    if own.pi is not None and e_step == "mean-field":
        assert theirs.responsibility is not None
        np.testing.assert_allclose(own.pi, theirs.responsibility[0].numpy(), atol=1e-9)


def test_mean_field_results_are_those_of_the_package() -> None:
    """The papers' q(s) starts at the mixture and stays as it is in the M-step: equal decibels, not equal numbers."""
    pairs = []
    for seed in range(6):
        scene, own, theirs = both("visual-mixture", "mean-field", seed, gain=True, iterations=20)
        estimates = torch.as_tensor(own.mask.T), masks(theirs.variances, theirs.noise)[0]
        pairs.append([si_sdr(mask * scene.mixture, scene.speech[0]) for mask in estimates])
    own_mean, their_mean = np.mean(pairs, 0)
    assert min(own_mean, their_mean) > -2, pairs  # the mixtures are at -5 dB
    assert own_mean == pytest.approx(their_mean, abs=0.7), pairs
