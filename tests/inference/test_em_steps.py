"""One E-step and one M-step at a time: targets by the formulas, and objectives that never fall for fixed draws."""

from __future__ import annotations

import itertools

import pytest
import torch
from laws import PRIORS
from scenes import Frozen, Recording, Scene, draw_scene, points, settings, use_kernel
from torch import Tensor

from pyro_minvae.config import Inference
from pyro_minvae.inference.mcem import EMState, mcem
from pyro_minvae.models.distributions import factors
from pyro_minvae.models.mixture import Source
from pyro_minvae.models.noise import Nmf, Statistics
from pyro_minvae.types import Visual

TWO = ("mixture", "visual")
SPEAKERS = [*((kind,) for kind in PRIORS), TWO]


class Still(Nmf):
    """Noise that stays as it is, so that only the gains move."""

    def update(self, statistics: Statistics) -> None:
        pass


def run(scene: Scene, noise: Nmf, config: Inference) -> list[EMState]:
    generator = torch.Generator().manual_seed(0)
    return list(mcem(scene.sources, noise, scene.power, config=config, generator=generator))


def still_noise(scene: Scene) -> Still:
    return Still(scene.power, rank=2, generator=torch.Generator().manual_seed(0))


def marginal_objective(state: EMState, power: Tensor) -> float:
    """-mean_r sum_nf [log V + |x|^2 / V], V = sum_j g_j sigma_j + WH."""
    total = state.variances.sum(0) + state.noise
    return float(-(total.log() + power / total).mean(0).sum())


def mean_field_objective(state: EMState, power: Tensor) -> float:
    """The bound with q(s) at its optimum: log N_c(x; 0, sum_j gamma_j + WH) with gamma_j = 1 / mean_r[1 / g sigma].

    For fixed draws the terms log gamma_j - mean_r log g sigma that complete it do not depend on g, W and H.
    """
    total = state.variances.reciprocal().mean(1).reciprocal().sum(0) + state.noise
    return float(-(total.log() + power / total).sum())


OBJECTIVES = {"marginal": marginal_objective, "mean-field": mean_field_objective}


def assert_monotone(values: list[float]) -> None:
    assert all(b >= a - 1e-9 * abs(a) for a, b in itertools.pairwise(values))
    assert values[-1] > values[0]


@pytest.mark.parametrize("gain", [True, False])
@pytest.mark.parametrize("e_step", OBJECTIVES)
@pytest.mark.parametrize("kinds", SPEAKERS)
def test_em_never_lowers_the_objective_for_fixed_draws(
    kinds: tuple[str, ...], e_step: str, gain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = draw_scene(kinds)
    use_kernel(monkeypatch, Frozen())
    states = run(scene, scene.nmf(rank=3), settings(e_step=e_step, gain=gain, iterations=25, chains=2))
    assert_monotone([OBJECTIVES[e_step](state, scene.power) for state in states])
    if e_step == "marginal":
        for state in states:
            assert state.objective == pytest.approx(marginal_objective(state, scene.power))


@pytest.mark.parametrize("e_step", OBJECTIVES)
@pytest.mark.parametrize("kinds", [("standard",), TWO])
def test_gains_alone_never_lower_the_objective(
    kinds: tuple[str, ...], e_step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = draw_scene(kinds)
    use_kernel(monkeypatch, Frozen())
    states = run(scene, still_noise(scene), settings(e_step=e_step, iterations=60))
    assert torch.equal(states[0].noise, states[-1].noise)
    assert_monotone([OBJECTIVES[e_step](state, scene.power) for state in states])


@pytest.mark.parametrize("e_step", OBJECTIVES)
def test_gains_follow_their_formulas(e_step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """g sqrt(sum_f |x|^2 mean_r sigma V^-2 / sum_f mean_r sigma V^-1); mean-field: mean_f E|s|^2 / gamma."""
    scene = draw_scene(("standard",))
    use_kernel(monkeypatch, Frozen())
    before, after = run(scene, still_noise(scene), settings(e_step=e_step, iterations=2, chains=2))
    s, g, x = sigma(scene, 0, before.draws[0]), before.gain[0], scene.power
    if e_step == "marginal":
        total = g[:, None] * s + before.noise
        ratio = (x * (s / total**2).mean(0)).sum(-1) / (s / total).mean(0).sum(-1)
        expected = g * ratio.sqrt()
    else:
        gamma = 1 / (1 / s).mean(0)
        speech = g[:, None] * gamma
        total = speech + before.noise
        second_moment = (speech / total) ** 2 * x + speech * before.noise / total
        expected = (second_moment / gamma).mean(-1)
    torch.testing.assert_close(after.gain[0], expected)
    torch.testing.assert_close(after.variances[0], after.gain[0, :, None] * s)


def test_the_last_draws_are_kept_and_chains_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five moves of 0.3 an iteration, of which the last two are kept; the next iteration starts at the last."""
    scene = draw_scene(("standard",))
    use_kernel(monkeypatch, Recording())
    for state in run(scene, scene.nmf(), settings(iterations=3, steps=5, keep=2)):
        for place, moves in enumerate((5 * state.iteration - 1, 5 * state.iteration)):
            torch.testing.assert_close(state.draws[0, place], scene.sources[0].start + 0.3 * moves)


def sigma(scene: Scene, j: int, z: Tensor) -> Tensor:
    return scene.sources[j].model.variance(z, scene.sources[j].visual)


@pytest.mark.parametrize("kinds", SPEAKERS)
def test_marginal_target_is_that_of_the_last_m_step(
    kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """log p(z_j | v) - sum_f [log V + |x|^2 / V] with gains and noise of the last M-step."""
    scene, kernel = draw_scene(kinds), Recording()
    use_kernel(monkeypatch, kernel)
    states = run(scene, scene.nmf(), settings(iterations=4, steps=1, keep=1))
    before, now = states[2], states[3]
    for j, source in enumerate(scene.sources):
        z = points(source.start)[0]
        total = before.noise + before.gain[j][:, None] * sigma(scene, j, z)
        for i in range(len(kinds)):
            if i != j:  # those before have moved in this E-step already, those after have not
                others = (now if i < j else before).draws[i, 0]
                total = total + before.gain[i][:, None] * sigma(scene, i, others)
        expected = source.model.log_prior(z, source.visual) - (total.log() + scene.power / total).sum(-1)
        torch.testing.assert_close(kernel.notes[3 * len(kinds) + j][0], expected)


@pytest.mark.parametrize("kinds", SPEAKERS)
def test_mean_field_target_follows_the_formula(
    kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """E_q(alpha)[log p(z | alpha, v)] - sum_f [log sigma + (|m|^2 + nu) / sigma] up to a constant."""
    scene, kernel = draw_scene(kinds), Recording()
    use_kernel(monkeypatch, kernel)
    before = run(scene, scene.nmf(), settings(e_step="mean-field", iterations=4, steps=3, keep=2))[2]
    gamma = before.gain[..., None] / torch.stack(
        [sigma(scene, j, before.draws[j]).reciprocal().mean(0) for j in range(len(kinds))]
    )
    total = gamma.sum(0) + before.noise
    for j, source in enumerate(scene.sources):
        weight = before.responsibility[j] if before.responsibility is not None else None
        if source.model.prior.mixed and weight is None:
            continue  # the state names responsibilities only if every speaker has one
        values = []
        for z in points(source.start):
            parts = [factors(p, z) for p in source.model.prior.conditionals(source.visual)]
            of_z = parts[0] if weight is None else weight * parts[1] + (1 - weight) * parts[0]
            # Of sqrt(g) s given x: mean m and variance nu.
            m_squared, nu = (gamma[j] / total) ** 2 * scene.power, gamma[j] * (1 - gamma[j] / total)
            speech = before.gain[j][:, None] * sigma(scene, j, z)
            values.append(of_z - (speech.log() + (m_squared + nu) / speech).sum(-1))
        a, b = kernel.notes[3 * len(kinds) + j]
        torch.testing.assert_close(a - b, values[0] - values[1])


@pytest.mark.parametrize("e_step", OBJECTIVES)
def test_a_batch_of_recordings_gives_what_each_gives_alone(
    e_step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = draw_scene(("visual-mixture",), frames=40)
    use_kernel(monkeypatch, Recording())
    (source,) = scene.sources
    assert source.visual is not None
    power = scene.power.reshape(2, 20, -1)
    lips = Visual(source.visual.features.reshape(2, 20, -1), source.visual.valid.reshape(2, 20))
    start = source.start.reshape(2, 20, -1)
    noise = Nmf(power, rank=2, generator=torch.Generator().manual_seed(0))
    alone = [Nmf(power[b], rank=2) for b in range(2)]
    for b, nmf in enumerate(alone):
        nmf.W, nmf.A = noise.W[b], noise.A[b]
    config = settings(e_step=e_step, iterations=3, chains=2)

    def last(source: Source, noise: Nmf, power: Tensor) -> EMState:
        return list(mcem([source], noise, power, config=config, generator=torch.Generator()))[-1]

    whole = last(Source(source.model, lips, start), noise, power)
    for b, nmf in enumerate(alone):
        one = last(Source(source.model, Visual(lips.features[b], lips.valid[b]), start[b]), nmf, power[b])
        for name in ("draws", "variances"):
            torch.testing.assert_close(getattr(whole, name)[:, :, b], getattr(one, name))
        torch.testing.assert_close(whole.gain[:, b], one.gain)
        torch.testing.assert_close(whole.noise[b], one.noise)
        assert whole.responsibility is not None
        assert one.responsibility is not None
        torch.testing.assert_close(whole.responsibility[:, b], one.responsibility)
