"""The EM loop of switching systems: every update raises the objective, and the switch finds who speaks when."""

from __future__ import annotations

import pytest
import torch
from scenes import BINS, FRAMES, LATENT, complex_normal, vivid_model
from switching_laws import assert_no_update_lowers, noise_of
from torch import Tensor

from pyro_minvae.config.schema import Inference
from pyro_minvae.config.switching import SwitchConfig
from pyro_minvae.inference.mcmc.draws import Streams
from pyro_minvae.inference.switching.engine import UNLED, Mode, SwitchingEngine, SwitchState
from pyro_minvae.inference.switching.speakers import switching_em
from pyro_minvae.models.noise.nmf import stack
from pyro_minvae.models.noisy import Source
from pyro_minvae.types import Visual

SPEAKERS = ("standard", "standard")


def made(
    kinds: tuple[str, ...] = SPEAKERS, *, seed: int = 0, frames: int = FRAMES
) -> tuple[list[Mode], Tensor, Tensor]:
    """Modes, the power of a recording that is the first's in its first half and the second's then, and the truth."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    models = [vivid_model(kind, seed + 10 * k) for k, kind in enumerate(kinds)]
    visual = Visual(draw(frames, 4), torch.arange(frames) % 5 > 0)
    truth = (torch.arange(frames) >= frames // 2).long()
    z = draw(frames, LATENT)
    spoken = torch.stack([model.variance(z, visual) for model in models])
    speech = complex_normal(torch.where((truth == 1)[:, None], spoken[-1], spoken[0]), generator)
    noise = complex_normal(0.02 * spoken.mean() * torch.ones(frames, BINS).double(), generator)
    start, spread = torch.zeros(frames, LATENT).double(), torch.ones(frames, LATENT).double()
    modes = [Mode(Source(model, visual, start, spread), model.visual) for model in models]
    return modes, (speech + noise).abs() ** 2, truth


def engine(modes: list[Mode], power: Tensor, switch: SwitchConfig, **settings: object) -> SwitchingEngine:
    return SwitchingEngine(
        modes,
        noise_of(power),
        power,
        config=Inference.model_validate(settings),
        switch=switch,
        generator=torch.Generator().manual_seed(1),
    )


@pytest.mark.parametrize("kind", ["markov", "independent"])
@pytest.mark.parametrize("kinds", [SPEAKERS, ("standard", "visual"), ("visual", "mixture", "vamp")])
def test_no_update_lowers_the_objective(kind: str, kinds: tuple[str, ...]) -> None:
    modes, power, _ = made(kinds)
    settings = SwitchConfig(kind=kind, temper=0.5, lead=0.0, draws=3)  # type: ignore[arg-type]
    loop = engine(modes, power, settings, gain_prior=(2.0, 1.0))
    assert_no_update_lowers(loop, rounds=8)


def test_the_objective_is_what_the_formula_says() -> None:
    """sum r log b - KL / tau + ... at any r(m) is below it, and at the best one it is it (derivations, eq. 9.19)."""
    modes, power, _ = made()
    loop = engine(modes, power, SwitchConfig(temper=0.5, lead=0.0))
    with torch.no_grad():
        loop.iterate(1)
        b, chain = loop.emissions(), loop.chain
    assert chain is not None
    r, pairs = chain.posterior, chain.pairwise
    log_q = pairs.xlogy(pairs).sum() - r[1:-1].xlogy(r[1:-1]).sum()  # E log r(m)
    log_p = (pairs * loop.log_transition).sum() + (r[0] * loop.log_initial).sum()
    prior = ((loop.concentration - 1) * loop.log_transition).sum()
    value = (r * b).sum() + (log_p - log_q + prior) / 0.5 + loop.noise.log_prior()
    torch.testing.assert_close(loop.objective(), value)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_switch_finds_who_speaks_when(seed: int) -> None:
    modes, power, truth = made(seed=seed)
    *_, (state,) = switching_em(
        [modes],
        noise_of(power),
        power,
        config=Inference(iterations=40),
        switch=SwitchConfig(steps=4, rate=0.1, temper=1.0),
        generator=torch.Generator().manual_seed(1),
    )
    right = state.posterior[torch.arange(FRAMES), truth]
    assert right.mean() > 0.9
    assert state.log_transition.exp().diagonal().min() > 0.8


def test_frames_without_lips_go_to_the_mode_that_needs_none() -> None:
    modes, power, _ = made(("visual", "standard"))
    *_, (state,) = switching_em(
        [modes],
        noise_of(power),
        power,
        config=Inference(iterations=10),
        switch=SwitchConfig(kind="independent", learn=False),
        generator=torch.Generator().manual_seed(1),
    )
    visual = modes[0].source.visual
    assert visual is not None
    assert state.posterior[~visual.valid, 0].max() < 0.5
    assert state.posterior[visual.valid, 0].mean() > 10 * state.posterior[~visual.valid, 0].mean()


def test_lips_lead_at_first() -> None:
    modes, power, _ = made(("visual", "standard"))
    loop = engine(modes, power, SwitchConfig(lead=1.0))
    with torch.no_grad():
        loop.fit()
        loop.choose(loop.emissions())
        loop.follow_lips()
    visual = modes[0].source.visual
    assert visual is not None
    assert (loop.posterior[visual.valid, 0] == 1).all()
    assert (loop.posterior[~visual.valid, 0] < 1).all()


@pytest.mark.parametrize("lead", [0.0, 1.0])
def test_frames_without_lips_count_less_for_the_noise_while_lips_lead(lead: float) -> None:
    """Lips of their own: a frame that has others' carried to it counts like one without."""
    modes, power, _ = made(("visual", "standard"))
    visual = modes[0].source.visual
    assert visual is not None
    gaps = torch.arange(FRAMES) % 5 == 1
    modes[0] = modes[0]._replace(carried=gaps)
    found, wanted = (engine(modes, power, SwitchConfig(lead=lead)) for _ in range(2))
    torch.testing.assert_close(found.counted, torch.where(visual.valid & ~gaps, 1.0, UNLED).double())
    with torch.no_grad():
        state = found.iterate(1)
        wanted.fit()
        if lead:
            wanted.follow_lips()
        wanted.fit_noise(wanted.counted if lead else None)
    torch.testing.assert_close(state.noise, wanted.noise.variance())
    # Without any lips all frames are alike.
    assert (engine(modes[1:], power, SwitchConfig()).counted == 1).all()


def test_company_changes_nothing() -> None:
    """A padded batch gives each recording what it gets alone."""
    config, switch = Inference(iterations=4), SwitchConfig()
    alone: list[SwitchState] = []
    parts: list[tuple[list[Mode], Tensor]] = []
    for seed, count in ((0, 20), (1, 13)):
        modes, power, _ = made(seed=seed, frames=count)
        modes = [
            mode._replace(source=mode.source._replace(model=made()[0][k].source.model))
            for k, mode in enumerate(modes)
        ]
        parts.append((modes, power))
        generator = torch.Generator().manual_seed(seed)
        *_, (state,) = switching_em(
            [modes], noise_of(power), power, config=config, switch=switch, generator=generator
        )
        alone.append(state)
    frames = [len(power) for _, power in parts]
    longest = max(frames)

    def padded(values: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros(longest - len(values), *values.shape[1:])])

    sources = [
        Source(
            parts[0][0][k].source.model,
            None,
            torch.stack([padded(modes[k].source.start) for modes, _ in parts]),
            torch.stack([padded(modes[k].source.spread) for modes, _ in parts]),
        )
        for k in range(2)
    ]
    *_, (state,) = switching_em(
        [[Mode(source) for source in sources]],
        stack([noise_of(power) for _, power in parts], longest),
        torch.stack([padded(power) for _, power in parts]),
        config=config,
        switch=switch,
        generator=Streams([torch.Generator().manual_seed(seed) for seed in (0, 1)], frames),
        valid=torch.arange(longest) < torch.tensor(frames)[:, None],
    )
    for one, length in enumerate(frames):
        torch.testing.assert_close(state.posterior[one, :length], alone[one].posterior)
        torch.testing.assert_close(state.noise[one, :length], alone[one].noise)
        torch.testing.assert_close(state.log_transition[one], alone[one].log_transition)


@pytest.mark.parametrize("kind", ["ar1", "standard+plain+student-t"])
def test_models_that_the_loop_cannot_switch_are_refused(kind: str) -> None:
    modes, power, _ = made(("standard", "standard"))
    odd = modes[0]._replace(source=modes[0].source._replace(model=vivid_model(kind, 0)))
    loop = switching_em(
        [[modes[0], odd]],
        noise_of(power),
        power,
        config=Inference(),
        switch=SwitchConfig(),
        generator=torch.Generator(),
    )
    with pytest.raises(ValueError, match="independent frames"):
        next(loop)
