"""Several speakers with a switch each: what one does given the others, and both voices found without being told."""

from __future__ import annotations

import pytest
import torch
from scenes import BINS, LATENT, complex_normal, si_sdr, vivid_model
from switching_laws import assert_no_update_lowers, noise_of
from torch import Tensor

from pyro_minvae.config.schema import Inference
from pyro_minvae.config.switching import SwitchConfig
from pyro_minvae.inference.switching.engine import Mode, SwitchingEngine
from pyro_minvae.inference.switching.speakers import ConditionedOn, switching_em
from pyro_minvae.models.noisy import Source
from pyro_minvae.pipelines.switching_solver import switched_mask

FRAMES = 60


def scene(seed: int) -> tuple[list[list[Mode]], Tensor, Tensor]:
    """Two speakers who each have both of two voices as modes and start near their z; their speech [2, N, F] and noise.

    The first has the first voice in the first half and the second voice then, the other one the other way round.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    voices = [vivid_model("standard", seed + 10 * k) for k in range(2)]
    late = torch.arange(FRAMES) >= FRAMES // 2
    speech, speakers = [], []
    for j in range(2):
        z = draw(FRAMES, LATENT)
        variances = [voice.variance(z) for voice in voices]
        speech.append(complex_normal(torch.where((late ^ bool(j))[:, None], *reversed(variances)), generator))
        start, spread = z + 0.3 * draw(FRAMES, LATENT), torch.full((FRAMES, LATENT), 0.3).double()
        speakers.append([Mode(Source(voice, None, start, spread)) for voice in voices])
    both = torch.stack(speech)
    noise = complex_normal(0.02 * (both.abs() ** 2).mean() * torch.ones(FRAMES, BINS).double(), generator)
    return speakers, both, noise


def test_no_update_lowers_a_speakers_objective_beside_the_others() -> None:
    speakers, speech, noise = scene(0)
    power = (speech.sum(0) + noise).abs() ** 2
    met = ConditionedOn(noise_of(power))
    met.others = (speech[1].abs() ** 2).clamp_min(1e-3)
    loop = SwitchingEngine(
        speakers[0],
        met,
        power,
        config=Inference(gain_prior=(2.0, 1.0)),
        switch=SwitchConfig(draws=3, lead=0.0),
        generator=torch.Generator().manual_seed(1),
    )
    assert_no_update_lowers(loop, rounds=6)


def test_the_rest_is_the_noise_and_what_the_others_say() -> None:
    """sum_k r_nk mean_r v_k of the other speaker, by hand from its state, once all have moved."""
    speakers, speech, noise = scene(1)
    power = (speech.sum(0) + noise).abs() ** 2
    fitted = noise_of(power)
    *_, states = switching_em(
        speakers,
        fitted,
        power,
        config=Inference(iterations=3),
        switch=SwitchConfig(),
        generator=torch.Generator().manual_seed(0),
    )
    for own, other in (states, states[::-1]):
        said = sum(other.posterior[:, k, None] * other.variances[k].mean(0) for k in range(2))
        torch.testing.assert_close(own.noise, fitted.variance() + said)
    masks = sum(switched_mask(state) for state in states)
    assert isinstance(masks, Tensor)
    assert float(masks.min()) > 0
    assert float(masks.max()) < 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_speakers_are_found_and_when_they_have_which_voice(seed: int) -> None:
    speakers, speech, noise = scene(seed)
    mixture = speech.sum(0) + noise
    *_, states = switching_em(
        speakers,
        noise_of(mixture.abs() ** 2),
        mixture.abs() ** 2,
        config=Inference(iterations=40),
        switch=SwitchConfig(steps=2, temper=1.0),
        generator=torch.Generator().manual_seed(1),
    )
    late = torch.arange(FRAMES) >= FRAMES // 2
    for j, state in enumerate(states):
        right = state.posterior[torch.arange(FRAMES), (late ^ bool(j)).long()]
        assert right.mean() > 0.75
        gain = si_sdr(switched_mask(state) * mixture, speech[j]) - si_sdr(mixture, speech[j])
        assert gain > 3


def test_nobody_is_refused() -> None:
    power = torch.ones(4, BINS)
    loop = switching_em(
        [], noise_of(power), power, config=Inference(), switch=SwitchConfig(), generator=torch.Generator()
    )
    with pytest.raises(ValueError, match="at least one speaker"):
        next(loop)
    loop = switching_em(
        [[]], noise_of(power), power, config=Inference(), switch=SwitchConfig(), generator=torch.Generator()
    )
    with pytest.raises(ValueError, match="at least one mode"):
        next(loop)
