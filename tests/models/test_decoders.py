"""The decoders: the variance by hand, what of z and of the lips reaches it, and the floor."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import BINS, DECODERS, FEATURES, make_decoder, make_frames, make_sequences, normal_draws
from torch import Tensor

from pyro_minvae.models.decoders import ContextDecoder, SpectralDecoder, VisualDecoder
from pyro_minvae.types import Visual


def by_hand(kind: str, decoder: SpectralDecoder, z: Tensor, visual: Visual) -> Tensor:
    """floor + exp(d_f(.)) with the layers multiplied out, frame by frame (derivations, eq. 1.10): [N, L] to [N, F]."""
    first, last = decoder.trunk[0], decoder.output
    rows = []
    for n in range(len(z)):
        inputs = z[n]
        if kind == "context":
            beyond = torch.zeros_like(z[0])
            around = [z[m] if 0 <= m < len(z) else beyond for m in (n - 1, n, n + 1)]
            inputs = torch.cat(around)
        if kind == "lips":
            one, two = decoder.embedding[0], decoder.embedding[2]
            inner = (one.weight @ visual.features[n] + one.bias).clamp(min=0)
            seen = (two.weight @ inner + two.bias).clamp(min=0)
            inputs = torch.cat([z[n], seen if visual.valid[n] else torch.zeros_like(seen)])
        d = last.weight @ torch.tanh(first.weight @ inputs + first.bias) + last.bias
        rows.append(decoder.floor + d.exp())
    return torch.stack(rows)


@pytest.mark.parametrize("kind", DECODERS)
def test_variance_follows_the_formula(kind: str) -> None:
    decoder, visual, z = make_decoder(kind), make_frames(6).visual, normal_draws(6, 3, seed=1)
    expected = by_hand(kind, decoder, z, visual)
    torch.testing.assert_close(decoder.variance(z, visual), expected)
    torch.testing.assert_close(decoder.log_variance(z, visual), expected.log())
    torch.testing.assert_close(decoder.given(visual)(z), expected)


@pytest.mark.parametrize("kind", DECODERS)
def test_deeper_decoders_are_more_layers(kind: str) -> None:
    made = {
        "plain": lambda: SpectralDecoder(BINS, 3, (7, 6), 1e-2),
        "lips": lambda: VisualDecoder(BINS, 3, (7, 6), 1e-2, lips=FEATURES, embedding=(4,), dropout=0.0),
        "context": lambda: ContextDecoder(BINS, 3, (7, 6), 1e-2, context=2),
    }
    decoder = made[kind]().double()
    z, visual = normal_draws(6, 3, seed=2), make_frames(6).visual
    hidden = decoder.inputs(z, visual)
    for layer in (decoder.trunk[0], decoder.trunk[2]):
        hidden = torch.tanh(hidden @ layer.weight.T + layer.bias)
    d = hidden @ decoder.output.weight.T + decoder.output.bias
    torch.testing.assert_close(decoder.variance(z, visual), 1e-2 + d.exp())


@pytest.mark.parametrize("context", [0, 1, 2])
def test_a_latent_vector_moves_the_frames_within_reach(context: int) -> None:
    """sigma_f of the frames n - c .. n + c, all of them, and no others."""
    decoder = (
        make_decoder("plain")
        if context == 0
        else ContextDecoder(BINS, 3, (7,), 1e-2, context=context).double()
    )
    assert decoder.reach == context
    z = normal_draws(7, 3, seed=3)
    start = decoder.variance(z)
    for m in range(7):
        moved = z.clone()
        moved[m] += 0.5
        changed = (decoder.variance(moved) != start).any(-1)
        assert changed.tolist() == [abs(n - m) <= context for n in range(7)]


def test_beyond_the_ends_the_context_is_zero() -> None:
    """A sequence embedded in zeros has the same spectra; embedded in other vectors its ends change."""
    decoder = ContextDecoder(BINS, 3, (7,), 1e-2, context=2).double()
    z, zeros, others = normal_draws(5, 3, seed=4), torch.zeros(2, 3).double(), normal_draws(2, 3, seed=5)
    alone = decoder.variance(z)
    torch.testing.assert_close(decoder.variance(torch.cat([zeros, z, zeros]))[2:-2], alone)
    changed = (decoder.variance(torch.cat([others, z, others]))[2:-2] != alone).any(-1)
    assert changed.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("garbage", [1e30, float("inf"), float("nan")])
def test_lips_of_invalid_frames_reach_neither_value_nor_gradient(garbage: float) -> None:
    decoder, visual, z = make_decoder("lips"), make_frames(6).visual, normal_draws(6, 3, seed=6)
    spoilt = visual._replace(features=torch.where(visual.valid[:, None], visual.features, garbage))
    results = []
    for lips in (visual, spoilt):
        value = decoder.log_variance(z, lips)
        results.append([value.detach(), *torch.autograd.grad(value.sum(), list(decoder.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert all(bool((gradient != 0).any()) for gradient in results[1][1:])


def test_without_lips_the_embedding_is_zero() -> None:
    """No video, no face and the by-hand zero embedding are the same; a face is not."""
    decoder, visual, z = make_decoder("lips"), make_frames(6).visual, normal_draws(6, 3, seed=7)
    nobody = visual._replace(valid=torch.zeros(6, dtype=torch.bool))
    zeros = torch.cat([z, torch.zeros(6, 3).double()], -1)
    expected = decoder.output(decoder.trunk(zeros)).exp() + decoder.floor
    torch.testing.assert_close(decoder.variance(z, None), expected)
    torch.testing.assert_close(decoder.variance(z, nobody), expected)
    torch.testing.assert_close(decoder.given(None)(z), expected)
    assert torch.equal((decoder.variance(z, visual) != expected).any(-1), visual.valid)


@pytest.mark.parametrize("kind", DECODERS)
def test_only_decoders_that_say_so_look_at_lips(kind: str) -> None:
    decoder, visual, z = make_decoder(kind), make_frames(6).visual, normal_draws(6, 3, seed=8)
    other = decoder.variance(z, visual._replace(features=-visual.features))
    moved = (other != decoder.variance(z, visual)).any(-1)
    assert torch.equal(moved, visual.valid if decoder.visual else torch.zeros_like(moved))
    assert decoder.visual == (kind == "lips")


@pytest.mark.parametrize("kind", DECODERS)
def test_chains_and_recordings_are_leading_dimensions(kind: str) -> None:
    decoder, visual, z = make_decoder(kind), make_sequences(2, 5).visual, normal_draws(3, 2, 5, 3, seed=9)
    for whole in (
        decoder.variance(z, visual),
        decoder.given(visual)(z),
        decoder.log_variance(z, visual).exp(),
    ):
        assert whole.shape == (3, 2, 5, BINS)
        for b in range(2):
            lips = Visual(visual.features[b], visual.valid[b])
            torch.testing.assert_close(decoder.variance(z[2, b], lips), whole[2, b])
    alone = decoder.variance(z)
    assert alone.shape == (3, 2, 5, BINS)


@given(
    st.sampled_from(DECODERS),
    st.integers(0, 1000),
    st.floats(0.1, 30.0),
    st.sampled_from([1e-8, 1e-4, 1.0]),
)
def test_variance_and_its_logarithm_agree_and_stay_above_the_floor(
    kind: str, seed: int, size: float, floor: float
) -> None:
    decoder = make_decoder(kind, floor=floor).float()
    generator = torch.Generator().manual_seed(seed)
    visual = Visual(torch.randn(4, FEATURES, generator=generator), torch.tensor([True, False, True, True]))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
        z = 3 * torch.randn(4, 3, generator=generator)
        variance, log_variance = decoder.variance(z, visual), decoder.log_variance(z, visual)
    assert bool(torch.isfinite(variance).all())
    assert float(variance.min()) >= floor * (1 - 1e-6)
    tame = log_variance < 79
    torch.testing.assert_close(variance[tame].log(), log_variance[tame], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", DECODERS)
def test_decoder_starts_at_the_average_spectrum(kind: str) -> None:
    decoder = make_decoder(kind, floor=1e-4).float()
    average = torch.tensor([-6.0, -3.0, 0.0, 1.0, 2.0])
    decoder.start_at(average)
    with torch.no_grad():
        decoder.output.weight.zero_()
        got = decoder.variance(torch.zeros(1, 3))[0]
    torch.testing.assert_close(got, average.exp() + 1e-4)
