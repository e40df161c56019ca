"""Laws of the guides: their sites, what they propose, and frames without lips."""

from __future__ import annotations

import pyro.poutine as poutine
import pytest
import torch
from laws import MIXED, PAIRS, Frames, make_frames, make_guide, make_model, make_prior, normal_draws
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.models.priors import CERTAIN, Gaussian
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.types import Visual

GUIDES = ("audio", "mixture")


def latent_sites(part: SpeechModel | Guide, frames: Frames) -> set[str]:
    trace = poutine.trace(part).get_trace(*frames)
    return {
        name
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and not node["is_observed"] and name != "frames"
    }


@pytest.mark.parametrize(("prior", "kind"), PAIRS)
def test_model_and_guide_have_the_same_sites(prior: str, kind: str) -> None:
    frames = make_frames(4)
    sites = latent_sites(make_guide(kind), frames)
    assert sites == latent_sites(make_model(prior), frames)
    assert sites == ({"alpha", "z"} if kind == "mixture" else {"z"})


@pytest.mark.parametrize(("prior", "kind"), PAIRS)
def test_model_and_guide_share_no_network(prior: str, kind: str) -> None:
    """The house's rule; in a trained system too, where both come from one set of parts."""
    from tiny_training import tiny_recipe

    from pyro_minvae.system import System

    system = System(tiny_recipe("min-vae" if prior == "mixture" else "min-vae-visual-prior"))
    model, guide = system.model(prior), system.guide(kind)
    assert (type(model.prior), type(guide)) == (type(make_prior(prior)), type(make_guide(kind)))
    mine = {id(p) for p in model.parameters()}
    assert mine.isdisjoint(id(p) for p in guide.parameters())


@pytest.mark.parametrize("kind", GUIDES)
def test_density_of_the_guide_follows_the_formula(kind: str) -> None:
    """log q(alpha) + log N(z; m_alpha, v_alpha): component 1 from the sound, component 0 from the lips."""
    guide, (power, visual) = make_guide(kind), make_frames(5)
    z, weight = normal_draws(5, 3, seed=31), torch.tensor([0.2, 0.4, 0.6, 0.7, 0.8], dtype=torch.float64)
    components = {1.0: guide.audio(power)}
    if kind == "mixture":
        mean, scale = guide.visual_network(visual.features)
        seen = visual.valid[:, None]
        components[0.0] = (torch.where(seen, mean, 0.0), torch.where(seen, scale, 1.0))
    for alpha, (mean, scale) in components.items():
        sites = {"z": z, "alpha": torch.full((5,), alpha, dtype=torch.float64)}
        trace = poutine.trace(poutine.condition(guide, sites)).get_trace(power, visual, responsibility=weight)
        expected = torch.distributions.Normal(mean, scale).log_prob(z).sum()
        if kind == "mixture":
            q = torch.where(visual.valid, weight, 1 - CERTAIN)
            expected = expected + (q if alpha else 1 - q).log().sum()
        torch.testing.assert_close(trace.log_prob_sum(), expected)


@pytest.mark.parametrize("garbage", [1e30, float("inf"), float("nan")])
def test_frames_without_lips_are_left_to_the_audio_network(garbage: float) -> None:
    guide, (power, visual) = make_guide("mixture"), make_frames(6)
    spoilt = visual._replace(features=torch.where(visual.valid[:, None], visual.features, garbage))
    proposal, audio, lips = (
        guide.propose(power, spoilt),
        guide.audio(power),
        guide.visual_network(visual.features),
    )
    for got, from_sound, from_lips in zip((proposal.mean, proposal.stddev), audio, lips, strict=True):
        torch.testing.assert_close(got, torch.where(visual.valid[:, None], from_lips, from_sound))
    for _ in range(3):
        trace = poutine.trace(guide).get_trace(power, spoilt, responsibility=torch.full((6,), 0.01))
        assert bool((trace.nodes["alpha"]["value"][~visual.valid] == 1).all())
        assert bool(torch.isfinite(trace.nodes["z"]["value"]).all())


@pytest.mark.parametrize("kind", GUIDES)
def test_without_video_the_guide_is_the_audio_network(kind: str) -> None:
    guide, (power, _) = make_guide(kind), make_frames(6)
    for proposal in (guide.propose(power), guide.propose(power, None)):
        torch.testing.assert_close((proposal.mean, proposal.stddev), guide.audio(power))
    trace = poutine.trace(guide).get_trace(power, None)
    if kind == "mixture":
        assert bool((trace.nodes["alpha"]["value"] == 1).all())


@pytest.mark.parametrize("kind", GUIDES)
def test_proposals_of_a_batch_are_those_of_each_recording(kind: str) -> None:
    guide, (power, visual) = make_guide(kind), make_frames(12)
    batch = Visual(visual.features.reshape(3, 4, -1), visual.valid.reshape(3, 4))
    proposal = guide.propose(power.reshape(3, 4, -1), batch)
    torch.testing.assert_close(proposal.mean.reshape(12, -1), guide.propose(power, visual).mean)


def test_proposal_of_the_mixture_is_the_lips_start() -> None:
    """Chains start from the lips and not from the noisy sound: the sound must not move a frame with lips."""
    guide, (power, visual) = make_guide("mixture"), make_frames(6)
    moved = (guide.propose(power, visual).mean != guide.propose(9 * power, visual).mean).any(-1)
    assert torch.equal(moved, ~visual.valid)


@pytest.mark.parametrize("prior", MIXED)
def test_component_one_is_audio_in_model_and_guide(prior: str) -> None:
    """alpha = 1 means the same on both sides: only component 0 moves with the lips, in either."""
    model, guide, (power, visual) = make_model(prior), make_guide("mixture"), make_frames(4, valid=1.0)
    other = visual._replace(features=-visual.features)

    def moves(before: tuple[Gaussian, ...], after: tuple[Gaussian, ...]) -> list[bool]:
        return [
            not torch.equal(a[0].expand(4, 3), b[0].expand(4, 3)) for a, b in zip(before, after, strict=True)
        ]

    assert moves(guide.posteriors(power, visual), guide.posteriors(power, other)) == [True, False]
    of_prior = moves(model.prior.conditionals(visual), model.prior.conditionals(other))
    assert of_prior == [prior == "visual-mixture", False]


def test_heard_is_what_the_audio_network_hears() -> None:
    guide, (power, visual) = make_guide("mixture"), make_frames(4)
    heard: Tensor = 3 * power + 1
    torch.testing.assert_close(guide.posteriors(power, visual, heard)[1], guide.audio(heard))
