"""Laws of the guides: their sites, what they propose, and frames without lips."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from formulas import EPSILON, log_gaussian, posterior_moments, switch_weight
from laws import (
    FAMILY,
    GUIDES,
    MIXED,
    MIXED_GUIDES,
    Frames,
    Kinds,
    make_frames,
    make_guide,
    make_model,
    make_pair,
    make_program,
    make_sequences,
    normal_draws,
)
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.guides.speech import SpeechGuide
from pyro_minvae.models.distributions import gaussian_parameters
from pyro_minvae.types import Visual

LOOKING = tuple(kind for kind in GUIDES if kind != "audio")
LISTENING = tuple(kind for kind in GUIDES if kind != "visual")


def latent_sites(part: torch.nn.Module, frames: Frames) -> dict[str, Any]:
    trace = poutine.trace(part).get_trace(*frames)
    return {
        name: node["fn"]
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and not node["is_observed"] and name not in ("frames", "sequences")
    }


def nobody(frames: Frames) -> Visual:
    return frames.visual._replace(valid=torch.zeros_like(frames.visual.valid))


def assert_same_gaussians(a: tuple[TorchDistribution, ...], b: tuple[TorchDistribution, ...]) -> None:
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one.mean, other.mean)
        torch.testing.assert_close(one.stddev, other.stddev)


@pytest.mark.parametrize("kinds", FAMILY, ids="-".join)
def test_model_and_guide_have_the_same_sites_of_the_same_shapes(kinds: Kinds) -> None:
    model, guide = make_pair(*kinds)
    for frames in (make_frames(4), *([make_sequences(2, 4)] if model.coupled else [])):
        mine, yours = latent_sites(SpeechGuide(model, guide), frames), latent_sites(model, frames)
        expected = {"z", "alpha"} if model.prior.mixed else {"z"}
        expected |= {"w"} if model.likelihood.weighted else set()
        assert set(mine) == set(yours) == expected
        for name in expected:
            assert mine[name].batch_shape == yours[name].batch_shape
            assert mine[name].event_shape == yours[name].event_shape
        # Coupled frames are one event, independent ones a plate.
        dims = 2 if model.coupled else 1
        assert mine["z"].event_shape == (*frames.power.shape[-2:-1], 3)[-dims:]


@pytest.mark.parametrize("kind", GUIDES)
def test_density_of_the_guide_follows_the_formula(kind: str) -> None:
    """log q(alpha) + log N(z; m_alpha, v_alpha): component 1 hears the sound, component 0 sees the lips only."""
    program, (power, visual) = make_program(kind), make_frames(5)
    guide = program.network
    z, weight = normal_draws(5, 3, seed=31), torch.tensor([0.2, 0.4, 0.6, 0.7, 0.8], dtype=torch.float64)
    for alpha, (mean, scale) in enumerate(posterior_moments(kind, guide, Frames(power, visual))):
        sites = {"z": z, "alpha": torch.full((5,), float(alpha), dtype=torch.float64)}
        with program.given(responsibility=weight):
            trace = poutine.trace(poutine.condition(program, sites)).get_trace(power, visual)
        expected = log_gaussian(z, mean, scale**2).sum()
        if guide.mixed:
            q = switch_weight(weight, visual)
            expected = expected + (q if alpha else 1 - q).log().sum()
        torch.testing.assert_close(trace.log_prob_sum(), expected)


@pytest.mark.parametrize("kind", [kind for kind in GUIDES if kind not in MIXED_GUIDES])
def test_density_over_coupled_frames_is_that_of_independent_ones(kind: str) -> None:
    """The guide stays independent from frame to frame; only its event is the whole sequence."""
    model, guide = make_pair("ar1", kind)
    for frames in (make_frames(4), make_sequences(2, 4)):
        z = normal_draws(*frames.power.shape[:-1], 3, seed=32)
        trace = poutine.trace(poutine.condition(SpeechGuide(model, guide), {"z": z})).get_trace(*frames)
        trace.compute_log_prob()
        ((mean, scale),) = posterior_moments(kind, guide, frames)
        assert trace.nodes["z"]["log_prob"].shape == frames.power.shape[:-2]
        torch.testing.assert_close(trace.nodes["z"]["log_prob"], log_gaussian(z, mean, scale**2).sum(-1))


@pytest.mark.parametrize("kind", GUIDES)
def test_without_video_a_guide_does_as_without_a_face(kind: str) -> None:
    """`visual=None` and a video in which no face was ever found are the same to every guide."""
    guide, frames = make_guide(kind), make_frames(6)
    assert_same_gaussians(
        guide.posteriors(frames.power, None), guide.posteriors(frames.power, nobody(frames))
    )
    proposals = guide.propose(frames.power), guide.propose(frames.power, nobody(frames))
    assert_same_gaussians(proposals[:1], proposals[1:])
    if guide.mixed:
        weights = [guide.audio_weight(frames.power, lips) for lips in (None, nobody(frames))]
        assert (weights[0] is None) == ("amortised" not in kind)
        torch.testing.assert_close(weights[0], weights[1])
        trace = poutine.trace(make_program(kind)).get_trace(frames.power, None)
        assert float(trace.nodes["alpha"]["fn"].probs.detach().min()) == 1 - EPSILON


@pytest.mark.parametrize("kind", ["audio", "mixture", "mixture+amortised"])
def test_without_video_the_guide_is_the_audio_network(kind: str) -> None:
    guide, (power, _) = make_guide(kind), make_frames(6)
    proposal = guide.propose(power)
    torch.testing.assert_close((proposal.mean, proposal.stddev), guide.audio(power))


@pytest.mark.parametrize("garbage", [1e30, float("inf"), float("nan")])
@pytest.mark.parametrize("kind", LOOKING)
def test_features_of_frames_without_lips_count_for_nothing(kind: str, garbage: float) -> None:
    guide, (power, visual) = make_guide(kind), make_frames(6)
    spoilt = visual._replace(features=torch.where(visual.valid[:, None], visual.features, garbage))
    for a, b in zip(guide.posteriors(power, visual), guide.posteriors(power, spoilt), strict=True):
        assert torch.equal(a.mean, b.mean)
        assert torch.equal(a.stddev, b.stddev)
    assert torch.equal(guide.propose(power, visual).mean, guide.propose(power, spoilt).mean)
    program = make_program(kind)
    for _ in range(3):
        with program.given(responsibility=torch.full((6,), 0.01)):
            trace = poutine.trace(program).get_trace(power, spoilt)
        assert bool(torch.isfinite(trace.nodes["z"]["value"]).all())
        if guide.mixed:
            assert bool((trace.nodes["alpha"]["value"][~visual.valid] == 1).all())


@pytest.mark.parametrize("kind", GUIDES)
def test_a_guide_looks_and_listens_where_it_should(kind: str) -> None:
    """Which of the proposals' frames move with the lips and with the sound."""
    guide, frames = make_guide(kind), make_frames(6)
    power, visual = frames
    start = guide.propose(power, visual).mean
    by_lips = guide.propose(power, visual._replace(features=-visual.features)).mean != start
    by_sound = guide.propose(9 * power, visual).mean != start
    blind, deaf = torch.zeros(6, dtype=torch.bool), {"visual": torch.zeros(6, dtype=torch.bool)}
    # Chains of a mixture start from the lips alone: the noisy sound must not move a frame with lips.
    deaf |= dict.fromkeys(MIXED_GUIDES, ~visual.valid)
    # Within reach of a frame with lips everything moves.
    seen = torch.ones(6, dtype=torch.bool) if guide.reach else visual.valid
    assert torch.equal(by_lips.any(-1), blind if kind == "audio" else seen)
    assert torch.equal(by_sound.any(-1), deaf.get(kind, torch.ones(6, dtype=torch.bool)))
    assert guide.visual == (kind != "audio")


@pytest.mark.parametrize("kind", GUIDES)
def test_a_batch_of_recordings_is_as_each_alone(kind: str) -> None:
    guide, (batch, lips) = make_guide(kind), make_sequences(3, 4)
    together, proposals = guide.posteriors(batch, lips), guide.propose(batch, lips).mean
    for b, power in enumerate(batch):
        visual = Visual(lips.features[b], lips.valid[b])
        for whole, alone in zip(together, guide.posteriors(power, visual), strict=True):
            torch.testing.assert_close(whole.mean[b], alone.mean)
            torch.testing.assert_close(whole.stddev[b], alone.stddev)
        torch.testing.assert_close(proposals[b], guide.propose(power, visual).mean)


@pytest.mark.parametrize("kind", GUIDES)
def test_a_guide_looks_as_far_as_its_reach(kind: str) -> None:
    """A change of sound and lips in one frame moves the answers within `reach` frames of it, and no others."""
    guide, (power, visual) = make_guide(kind), make_frames(20, valid=1.0)
    features = visual.features.clone()
    features[9] += 1
    louder = torch.where((torch.arange(20) == 9)[:, None], 9 * power, power)
    pairs = zip(
        guide.posteriors(power, visual),
        guide.posteriors(louder, visual._replace(features=features)),
        strict=True,
    )
    moved = sum(((a.mean != b.mean).any(-1) for a, b in pairs), start=torch.zeros(20, dtype=torch.bool))
    assert moved.nonzero()[:, 0].tolist() == list(range(9 - guide.reach, 10 + guide.reach))
    assert guide.reach == (6 if kind == "mixed-speech" else 0)


@pytest.mark.parametrize("kind", MIXED_GUIDES)
def test_proposal_of_a_mixture_without_lips_is_its_sound(kind: str) -> None:
    guide, (power, visual) = make_guide(kind), make_frames(6)
    lips, sound = guide.posteriors(power, visual)
    seen, proposal = visual.valid[:, None], guide.propose(power, visual)
    torch.testing.assert_close(proposal.mean, torch.where(seen, lips.mean, sound.mean))
    torch.testing.assert_close(proposal.stddev, torch.where(seen, lips.stddev, sound.stddev))


@pytest.mark.parametrize("kind", ["mixture", "mixture-of-products"])
@pytest.mark.parametrize("prior", MIXED)
def test_component_one_is_audio_in_model_and_guide(prior: str, kind: str) -> None:
    """alpha = 1 means the same on both sides: component 0 never hears the sound, and only it has the prior's lips."""
    model, guide, (power, visual) = make_model(prior), make_guide(kind), make_frames(4, valid=1.0)
    other = visual._replace(features=-visual.features)

    def moves(before: tuple[TorchDistribution, ...], after: tuple[TorchDistribution, ...]) -> list[bool]:
        return [not torch.equal(a.mean, b.mean) for a, b in zip(before, after, strict=True)]

    assert moves(guide.posteriors(power, visual), guide.posteriors(power, other)) == [
        True,
        kind == "mixture-of-products",
    ]
    assert moves(guide.posteriors(power, visual), guide.posteriors(9 * power, visual)) == [False, True]
    of_prior = moves(model.prior.conditionals(visual), model.prior.conditionals(other))
    assert of_prior == [prior == "visual-mixture", False]


@pytest.mark.parametrize("kind", LISTENING)
def test_heard_is_what_encoders_of_sound_hear(kind: str) -> None:
    guide, (power, visual) = make_guide(kind), make_frames(4)
    encoder_input: Tensor = 3 * power + 1
    assert_same_gaussians(
        guide.posteriors(power, visual, encoder_input), guide.posteriors(encoder_input, visual)
    )
    if "amortised" in kind:
        weight = guide.audio_weight(power, visual, encoder_input)
        torch.testing.assert_close(weight, guide.weight(encoder_input, visual))
        assert not torch.equal(weight, guide.weight(power, visual))


@pytest.mark.parametrize("kind", GUIDES)
def test_answers_are_gaussians_of_which_closed_forms_know(kind: str) -> None:
    guide, frames = make_guide(kind), make_frames(4)
    for answer in guide.posteriors(*frames):
        parameters = gaussian_parameters(answer)
        assert parameters is not None
        assert answer.event_shape == (3,)
        assert answer.batch_shape == (4,)


class Answering(Guide):
    """A guide with the given answer."""

    def __init__(self, answer: TorchDistribution) -> None:
        super().__init__()
        self.answer = answer

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        return (self.answer,)


STANDARD = dist.Normal(torch.zeros(4, 3), torch.ones(4, 3))


@pytest.mark.parametrize(
    ("answer", "coupled"),
    [
        (STANDARD, False),
        (STANDARD.to_event(2), False),
        (STANDARD, True),
        (dist.Poisson(torch.ones(4, 3)).to_event(1), False),
    ],
    ids=["no event", "all frames", "no event of coupled frames", "no rsample"],
)
def test_posteriors_of_another_shape_are_refused(answer: TorchDistribution, coupled: bool) -> None:
    guide, (power, visual) = Answering(answer), make_frames(4)
    model = make_model("ar1" if coupled else "standard", "plain", "complex-gaussian")
    with pytest.raises(ValueError, match="expected posteriors over one frame's z"):
        SpeechGuide(model, guide)(power, visual)


def test_coupled_frames_may_have_a_posterior_over_all_of_them() -> None:
    """As the exact posterior is, against which the check holds every bound."""
    power, visual = make_frames(4)
    model = make_model("ar1", "plain", "complex-gaussian")
    by_frame, whole = (SpeechGuide(model, Answering(STANDARD.to_event(n))) for n in (1, 2))
    draws = []
    for guide in (by_frame, whole):
        torch.manual_seed(0)
        draws.append(guide(power, visual))
    torch.testing.assert_close(*draws)
