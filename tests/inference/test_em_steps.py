"""One E-step and one M-step at a time: targets by the formulas, and objectives that never fall for fixed draws."""

from __future__ import annotations

import itertools

import pytest
import torch
from laws import DOF, PRIORS
from pyro.distributions import Gamma
from scenes import Frozen, Recording, Scene, draw_scene, points, settings, use_kernel
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_minvae.config.schema import Inference
from pyro_minvae.inference.mcem.loop import EMState, mcem
from pyro_minvae.inference.mcem.statistics import Statistics
from pyro_minvae.inference.mcmc.base import ChainInfo, ChainState, LogDensity
from pyro_minvae.models.distributions import factors
from pyro_minvae.models.noise.nmf import Nmf
from pyro_minvae.models.noisy import Source
from pyro_minvae.types import Visual

TWO = ("mixture", "visual+plain+student-t")
# One of each prior, each decoder, and heavy tails among them.
KINDS = (*PRIORS, "standard+lips", "visual+context", "ar1+context", "standard+plain+student-t")
HEAVY = ("standard+plain+student-t", "mixture+lips+student-t", "random-walk+context+student-t")
SPEAKERS = [*((kind,) for kind in (*KINDS, *HEAVY[1:])), TWO]


class Still(Nmf):
    """Noise that stays as it is, so that only the gains move."""

    def em_step(self, statistics: Statistics) -> None:
        pass


def run(scene: Scene, noise: Nmf, config: Inference) -> list[EMState]:
    generator = torch.Generator().manual_seed(0)
    return list(mcem(scene.sources, noise, scene.power, config=config, generator=generator))


def still_noise(scene: Scene) -> Still:
    return Still(scene.power, rank=2, generator=torch.Generator().manual_seed(0))


def sigma(scene: Scene, j: int, z: Tensor) -> Tensor:
    return scene.sources[j].model.variance(z, scene.sources[j].visual)


def tails(scene: Scene, state: EMState, j: int) -> Tensor:
    """w [N, F] of source j, from g sigma(z) / w; 1 for a complex Gaussian."""
    found = state.gain[j][:, None] * sigma(scene, j, state.draws[j]) / state.variances[j]
    torch.testing.assert_close(found, found[:1].expand_as(found))
    if not scene.sources[j].model.likelihood.weighted:
        torch.testing.assert_close(found, torch.ones_like(found))
    return found[0]


def all_tails(scene: Scene, state: EMState) -> list[Tensor]:
    """w of the sources with heavy tails."""
    weighted = [j for j, source in enumerate(scene.sources) if source.model.likelihood.weighted]
    return [tails(scene, state, j) for j in weighted]


def marginal_objective(scene: Scene, state: EMState) -> float:
    """-mean_r sum_nf [log V + |x|^2 / V] + log p(w), V = sum_j g_j sigma_j / w_j + WH."""
    total = state.variances.sum(0) + state.noise
    of_x = -(total.log() + scene.power / total).mean(0).sum()
    shape = torch.tensor(DOF / 2).double()
    return float(of_x + sum(Gamma(shape, shape).log_prob(w).sum() for w in all_tails(scene, state)))


def mean_field_objective(scene: Scene, state: EMState) -> float:
    """The bound with q(s) at its optimum: log N_c(x; 0, sum_j gamma_j + WH) - KL(q(w) || p(w)).

    gamma_j = 1 / mean_r[E[w] / g sigma], q(w) = Gamma(a + 1, (a + 1) / E[w]). For fixed draws the terms
    log gamma_j - mean_r E log (g sigma / w) that complete it do not depend on g, W, H and the rate of q(w).
    """
    total = state.variances.reciprocal().mean(1).reciprocal().sum(0) + state.noise
    of_x = -(total.log() + scene.power / total).sum()
    shape = torch.tensor(DOF / 2).double()
    of_w = [
        kl_divergence(Gamma(shape + 1, (shape + 1) / w), Gamma(shape, shape)) for w in all_tails(scene, state)
    ]
    return float(of_x - sum(kl.sum() for kl in of_w))


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
    assert_monotone([OBJECTIVES[e_step](scene, state) for state in states])
    if e_step == "marginal":
        # Up to the constant log density of W, uniform over columns that sum to one.
        constant = states[0].objective - marginal_objective(scene, states[0])
        for state in states:
            assert state.objective - constant == pytest.approx(marginal_objective(scene, state))


@pytest.mark.parametrize("e_step", OBJECTIVES)
@pytest.mark.parametrize("kinds", [("standard",), TWO])
def test_gains_alone_never_lower_the_objective(
    kinds: tuple[str, ...], e_step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = draw_scene(kinds)
    use_kernel(monkeypatch, Frozen())
    states = run(scene, still_noise(scene), settings(e_step=e_step, iterations=60))
    assert torch.equal(states[0].noise, states[-1].noise)
    assert_monotone([OBJECTIVES[e_step](scene, state) for state in states])


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


@pytest.mark.parametrize(
    "changes", [{}, {"e_step": "mean-field"}, {"e_step": "mean-field", "last_marginal": 2}]
)
def test_the_last_draws_are_kept_and_chains_go_on(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five moves of 0.3 an iteration, of which the last two are kept; the next iteration starts at the last."""
    scene = draw_scene(("standard",))
    use_kernel(monkeypatch, Recording())
    for state in run(scene, scene.nmf(), settings(iterations=3, steps=5, keep=2, **changes)):
        for place, moves in enumerate((5 * state.iteration - 1, 5 * state.iteration)):
            torch.testing.assert_close(state.draws[0, place], scene.sources[0].start + 0.3 * moves)


@pytest.mark.parametrize(
    ("e_step", "last", "prior"),
    [("marginal", 0, 1), ("marginal", 2, 1), ("mean-field", 1, 3), ("mean-field", 2, 0.5)],
)
@pytest.mark.parametrize("kinds", SPEAKERS)
def test_marginal_target_is_that_of_the_last_m_step(
    kinds: tuple[str, ...], e_step: str, last: int, prior: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """k log p(z_j | v) - sum_f [log V + |x|^2 / V] with gains, noise and weights of the last M-step.

    The last iterations of a mean-field loop have it too, with k of its own.
    """
    scene, kernel = draw_scene(kinds), Recording()
    use_kernel(monkeypatch, kernel)
    usual = {"last_prior": 7.0 if e_step == "marginal" else prior, "last_marginal": last}
    states = run(scene, scene.nmf(), settings(e_step=e_step, iterations=4, steps=1, keep=1, **usual))
    before, now = states[2], states[3]
    for j, source in enumerate(scene.sources):
        z = points(source.start)[0]
        scale = [before.gain[i][:, None] / tails(scene, before, i) for i in range(len(kinds))]
        total = before.noise + scale[j] * sigma(scene, j, z)
        for i in range(len(kinds)):
            if i != j:  # those before have moved in this E-step already, those after have not
                others = (now if i < j else before).draws[i, 0]
                total = total + scale[i] * sigma(scene, i, others)
        expected = prior * source.model.log_prior(z, source.visual)
        expected = expected - (total.log() + scene.power / total).sum(-1)
        torch.testing.assert_close(kernel.notes[3 * len(kinds) + j][0], expected)


@pytest.mark.parametrize("kinds", SPEAKERS)
def test_mean_field_target_follows_the_formula(
    kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """E_q(alpha)[log p(z | alpha, v)] - sum_f [log sigma + (|m|^2 + nu) / sigma] up to a constant."""
    scene, kernel = draw_scene(kinds), Recording()
    use_kernel(monkeypatch, kernel)
    before = run(scene, scene.nmf(), settings(e_step="mean-field", iterations=4, steps=3, keep=2))[2]
    weights = torch.stack([tails(scene, before, j) for j in range(len(kinds))])
    gamma = (before.gain[..., None] / weights) / torch.stack(
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
            speech = before.gain[j][:, None] / weights[j] * sigma(scene, j, z)
            values.append(of_z - (speech.log() + (m_squared + nu) / speech).sum(-1))
        a, b = kernel.notes[3 * len(kinds) + j]
        torch.testing.assert_close(a - b, values[0] - values[1])


class Attentive(Frozen):
    """Moves, and notes what each target says of one point when it is given and at every step."""

    def __init__(self) -> None:
        self.said: list[tuple[LogDensity, list[Tensor]]] = []

    def init(self, log_density: LogDensity, z: Tensor) -> ChainState:
        self.said.append((log_density, [log_density(points(z)[0])]))
        return super().init(log_density, z)

    def step(
        self, log_density: LogDensity, state: ChainState, generator: torch.Generator
    ) -> tuple[ChainState, ChainInfo]:
        for target, values in self.said:
            if target is log_density:
                values.append(log_density(points(state.position)[0]))
        z = state.position + 0.3
        return ChainState(z, log_density(z)), ChainInfo(torch.ones(z.shape[:-1], dtype=torch.bool))


@pytest.mark.parametrize("kinds", [("standard", "standard"), ("mixture", "visual"), TWO])
def test_mean_field_targets_hold_for_a_whole_e_step(
    kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several speakers' targets side by side do not write over each other."""
    kernel, config = Attentive(), settings(e_step="mean-field", iterations=2, steps=3, keep=1)
    use_kernel(monkeypatch, kernel)
    scene = draw_scene(kinds)
    run(scene, scene.nmf(), config)
    assert len(kernel.said) == 2 * len(kinds)
    for _, values in kernel.said:
        assert len(values) == 4
        assert all(torch.equal(one, values[0]) for one in values[1:])


@pytest.mark.parametrize("kind", HEAVY)
def test_weights_follow_their_formulas(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """(a + 1) / (a + t) in the mean field, a / (a + t) in EM steps (derivations, eq. 6.34, 6.38).

    t = mean_r E|c|^2 / (g sigma), given the new gains and noise and the weights before.
    """
    scene, a = draw_scene((kind,)), DOF / 2
    use_kernel(monkeypatch, Frozen())
    for e_step in OBJECTIVES:
        before, after = run(scene, scene.nmf(), settings(e_step=e_step, iterations=2, chains=2))
        w = tails(scene, before, 0)
        plain = after.gain[0][:, None] * sigma(scene, 0, after.draws[0])  # g sigma
        speech = plain / w
        if e_step == "mean-field":
            speech = speech.reciprocal().mean(0, keepdim=True).reciprocal()
        share = speech / (speech + after.noise)
        moment = share**2 * scene.power + speech * (1 - share)
        t = (moment / plain).mean(0)
        expected = (a + 1) / (a + t) if e_step == "mean-field" else a / (a + t)
        torch.testing.assert_close(tails(scene, after, 0), expected)
        assert float((expected - w).abs().max()) > 0.01


@pytest.mark.parametrize("kind", HEAVY)
def test_weights_alone_never_lower_the_objective(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is the maximum of its own coordinate, or an EM step towards it."""
    scene = draw_scene((kind,))
    use_kernel(monkeypatch, Frozen())
    for e_step, objective in OBJECTIVES.items():
        states = run(scene, still_noise(scene), settings(e_step=e_step, gain=False, iterations=40))
        assert_monotone([objective(scene, state) for state in states])
        # They settle: a fixed point of the objective in every weight.
        last = [tails(scene, state, 0) for state in states[-2:]]
        torch.testing.assert_close(last[0], last[1], rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("kind", ["visual-mixture", "ar1+context", "mixture+lips+student-t"])
@pytest.mark.parametrize("e_step", OBJECTIVES)
def test_a_batch_of_recordings_gives_what_each_gives_alone(
    e_step: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = draw_scene((kind,), frames=40)
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
        if source.model.prior.mixed:
            assert whole.responsibility is not None
            assert one.responsibility is not None
            torch.testing.assert_close(whole.responsibility[:, b], one.responsibility)
