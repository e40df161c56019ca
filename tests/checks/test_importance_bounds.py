"""Laws of importance weights: unbiased, in pieces as in one, tighter with more draws."""

from __future__ import annotations

import pytest
import torch
from small import ANY_STAGE

from pyro_minvae.checks.grid import exact
from pyro_minvae.checks.subject import Frames, Subject, synthetic, toy, untrained
from pyro_minvae.config.load import load_recipe
from pyro_minvae.inference.svi import importance
from pyro_minvae.inference.svi.elbo import bound_terms
from pyro_minvae.inference.svi.importance import iwae, log_weights
from pyro_minvae.types import Visual

SYSTEMS = [
    ("a-vae",),
    ("av-cvae", "model.likelihood.kind=student-t"),
    ("min-vae",),
    ("moe-poe", "guide.responsibility=amortised", ANY_STAGE),
    ("a-vae", "model.prior.kind=vamp"),
    ("av-vae", "model.prior.kind=ar1"),
    ("av-vae", "model.decoder.kind=context"),
]


def toy_of(name: str, *settings: str, seed: int = 1) -> tuple[Subject, Frames]:
    subject = toy(load_recipe(name, list(settings)), seed)
    return subject, synthetic(subject, 2 if subject.model.coupled else 3, seed)


@pytest.mark.parametrize("system", SYSTEMS, ids=" ".join)
@torch.no_grad()
def test_weights_average_to_the_evidence(system: tuple[str, ...]) -> None:
    """E w = p(s), with alpha and the weights of heavy tails summed out (derivations, eq. 10.3, 10.9)."""
    subject, frames = toy_of(*system)
    truth = exact(subject, frames).log_evidence
    torch.manual_seed(0)
    ratio = (log_weights(subject.model, subject.guide, *frames, 40000) - truth).exp()
    error = ratio.std(0) / 40000**0.5
    assert float(error.max()) < 0.1
    assert bool(((ratio.mean(0) - 1).abs() < 5 * error + 1e-12).all())


@pytest.mark.parametrize("system", SYSTEMS[::2], ids=" ".join)
@torch.no_grad()
def test_bounds_rise_to_the_evidence(system: tuple[str, ...]) -> None:
    subject, frames = toy_of(*system)
    torch.manual_seed(0)
    truth = float(exact(subject, frames).log_evidence.sum())
    means = [
        float(torch.stack([iwae(subject.model, subject.guide, *frames, k).sum() for _ in range(200)]).mean())
        for k in (1, 30, 1000)
    ]
    assert means[0] < means[1] - 0.05 < truth
    assert means[1] < means[2] + 0.02
    assert means[2] == pytest.approx(truth, abs=0.1)


@torch.no_grad()
def test_one_draw_is_the_elbo_where_there_is_no_alpha() -> None:
    subject, frames = toy_of("a-vae")
    repeated = frames.repeated(20000, flat=True)
    torch.manual_seed(0)
    bound = iwae(subject.model, subject.guide, *repeated, 1).reshape(20000, -1)
    elbo = bound_terms(subject.model, subject.guide, *repeated).total.reshape(20000, -1)
    error = ((bound.var(0) + elbo.var(0)) / 20000).sqrt()
    assert bool(((bound.mean(0) - elbo.mean(0)).abs() < 5 * error).all())


def constant_weights(prior: str = "standard") -> tuple[Subject, Frames, torch.Tensor]:
    """A guide that is the prior and a decoder that ignores z: every weight is p(s) (derivations, eq. 10.14)."""
    subject = untrained(
        load_recipe("a-vae", [f"model.prior.kind={prior}", "stft.window=16", "stft.hop=8"]), 0
    )
    with torch.no_grad():
        for module in (subject.guide.audio.mean, subject.guide.audio.log_variance):
            module.weight.zero_()
            module.bias.zero_()
        subject.model.decoder.output.weight.zero_()
    frames = synthetic(subject, 11, 0)
    sigma = subject.model.decoder.output.bias.exp() + subject.model.decoder.floor
    return subject, frames, -(sigma.log() + frames.power / sigma).sum(-1)


@pytest.mark.parametrize("block", [1, 50, 9 * 11 * 3, 10**6])
@pytest.mark.parametrize("k", [1, 7])
def test_pieces_of_any_size_give_the_same(block: int, k: int) -> None:
    subject, frames, expected = constant_weights()
    bound = iwae(subject.model, subject.guide, *frames, k, block=block)
    torch.testing.assert_close(bound, expected.detach(), rtol=1e-12, atol=0)


def test_no_array_is_larger_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, frames, _ = constant_weights()
    sizes = []
    right = importance.log_weights

    def watched(model: object, guide: object, power: torch.Tensor, *rest: object, **more: object) -> object:
        found = right(model, guide, power, *rest, **more)
        sizes.append(found.numel() * power.shape[-1])
        return found

    monkeypatch.setattr(importance, "log_weights", watched)
    iwae(subject.model, subject.guide, *frames, 100, block=300)
    assert max(sizes) <= 300
    assert sum(sizes) == 100 * frames.power.numel()


def test_lips_and_what_is_heard_stay_with_their_frames() -> None:
    """Pieces of one frame each, against each frame alone."""
    subject = untrained(load_recipe("moe-poe", ["stft.window=16", "stft.hop=8", "model.latent=2"]), 0)
    power, visual = synthetic(subject, 6, 0)
    encoder_input = power.flip(0) + 1
    torch.manual_seed(3)
    whole = iwae(subject.model, subject.guide, power, visual, 5, encoder_input=encoder_input, block=1)
    torch.manual_seed(3)
    single = [
        iwae(
            subject.model,
            subject.guide,
            power[n : n + 1],
            Visual(visual.features[n : n + 1], visual.valid[n : n + 1]),
            5,
            encoder_input=encoder_input[n : n + 1],
            block=1,
        )
        for n in range(6)
    ]
    torch.testing.assert_close(whole, torch.cat(single))


def test_shapes_and_refusals() -> None:
    subject, frames = toy_of("a-vae")
    assert iwae(subject.model, subject.guide, *frames, 2).shape == (3,)
    coupled, two = toy_of("av-vae", "model.prior.kind=ar1")
    assert iwae(coupled.model, coupled.guide, *two, 2).shape == ()
    four = two.repeated(4, flat=False)
    assert iwae(coupled.model, coupled.guide, *four, 2).shape == (4,)
    with pytest.raises(ValueError, match="expected at least one draw, got 0"):
        iwae(subject.model, subject.guide, *frames, 0)
