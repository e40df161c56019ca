"""Long recordings in blocks and several recordings side by side: as if each came alone and whole."""

from __future__ import annotations

import itertools
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from signals import speechlike
from tiny import lips, save_tiny_model
from tiny_training import RATE as SLOW
from tiny_training import tiny_recipe

from pyro_minvae.config.load import load_recipe, preset_names, preset_recipe
from pyro_minvae.errors import InputError
from pyro_minvae.inference.mcem.loop import EMState
from pyro_minvae.pipelines.blocks import fade, packed, spans
from pyro_minvae.pipelines.enhancer import Enhancer
from pyro_minvae.pipelines.recording import Recording
from pyro_minvae.systems.checkpoint import load_model, save_model
from pyro_minvae.systems.system import System

RATE = 16000


@given(st.integers(1, 5000), st.integers(0, 100), st.integers(1, 400))
def test_blocks_cover_the_recording_and_fades_add_up_to_one(samples: int, overlap: int, more: int) -> None:
    block = 2 * overlap + more
    found = spans(samples, block=block, overlap=overlap)
    total = torch.zeros(samples)
    for span in found:
        assert 0 <= span.start < span.stop <= samples
        assert span.start % (block - overlap) == 0
        total[span.start : span.stop] += fade(span, samples=samples, overlap=overlap)
    torch.testing.assert_close(total, torch.ones(samples))
    # Memory is bounded: a last block may take in a rest of less than twice the overlap.
    assert max(map(len, found)) < block + 2 * overlap + 1
    assert len(spans(block, block=block, overlap=overlap)) == 1


def test_blocks_no_longer_than_their_overlaps_are_refused() -> None:
    with pytest.raises(ValueError, match="longer than twice the overlap"):
        spans(100, block=20, overlap=10)
    with pytest.raises(
        InputError, match=r"inference.block_s: expected more than twice inference.overlap_s = 1"
    ):
        load_recipe("a-vae", ["inference.block_s=1.5"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("blocks") / "model")


def recordings() -> list[Recording]:
    """Four lengths, with and without lips, each with a seed of its own."""
    found = []
    for index, seconds in enumerate((0.5, 1.1, 0.3, 0.8)):
        sound = speechlike(RATE, seconds, seed=index)
        sound = sound + 0.2 * np.random.default_rng(index).standard_normal(len(sound))
        found.append(Recording(sound, RATE, lips(seconds, index) if index % 2 else None, 10 + index))
    return found


@pytest.mark.parametrize("noise", ["gamma-chain", "nmf", "ard", "stationary"])
@pytest.mark.parametrize("e_step", ["auto", "marginal"])
def test_company_changes_nothing(model: Path, noise: str, e_step: str) -> None:
    settings = [f"noise.kind={noise}", f"inference.e_step={e_step}", "inference.lips=always"]
    enhancer = Enhancer.from_pretrained(
        model, overrides=[*settings, "inference.batch=4", "inference.iterations=4"]
    )
    together = enhancer.many(recordings())
    for recording, one in zip(recordings(), together, strict=True):
        alone = enhancer(*recording[:3], seed=recording.seed)
        assert one.used_video == alone.used_video == (recording.video is not None)
        np.testing.assert_allclose(one.speech, alone.speech, rtol=0, atol=1e-4 * np.abs(alone.speech).max())
        np.testing.assert_allclose(one.speech + one.noise, recording.waveform, rtol=0, atol=1e-12)
        assert alone.responsibilities is not None
        np.testing.assert_allclose(one.responsibilities, alone.responsibilities, atol=1e-3)
    # Sharp: another seed is another output.
    other = enhancer(*recordings()[0][:3], seed=99)
    assert np.abs(other.speech - together[0].speech).max() > 1e-3 * np.abs(other.speech).max()


def test_a_long_recording_is_its_blocks_faded_together(model: Path) -> None:
    """Where only the first block speaks the result is that of the first block alone, sample by sample."""
    sound = speechlike(RATE, 3.0, seed=1)
    # The loudest sample lies in the first block, so that both have the same level.
    sound[100] = 2.0
    settings = ["inference.block_s=1.024", "inference.overlap_s=0.128", "inference.iterations=3"]
    enhancer = Enhancer.from_pretrained(model, overrides=settings)
    whole = enhancer(sound, RATE)
    block, overlap = round(1.024 * RATE), round(0.128 * RATE)
    first = enhancer(sound[:block], RATE)
    np.testing.assert_array_equal(whole.speech[: block - overlap], first.speech[: block - overlap])
    np.testing.assert_allclose(whole.speech + whole.noise, sound, rtol=0, atol=1e-12)
    assert whole.iterations == 3
    assert whole.responsibilities is not None
    assert len(whole.responsibilities) == len(whole.times)
    # Every block has been filtered: nowhere is the speech silence.
    assert np.abs(whole.speech).reshape(-1, 1000).max(1).min() > 0


def test_a_block_without_a_face_is_like_a_recording_without_video(model: Path) -> None:
    """The lips of the first second say nothing of the last: there the sound decides, by the E-step that suits it."""
    sound = speechlike(RATE, 3.0, seed=2)
    sound[100] = 2.0  # in the first block, for one level
    settings = ["inference.block_s=1.024", "inference.overlap_s=0.128", "inference.lips=always"]
    enhancer = Enhancer.from_pretrained(model, overrides=[*settings, "inference.iterations=3"])
    track = lips(1.0, 0)
    seen = enhancer(sound, RATE, track)
    encoder_input = enhancer(sound, RATE)
    assert seen.used_video
    # The last block starts beyond the lips' reach: the same as without video, sample by sample.
    np.testing.assert_array_equal(seen.speech[-RATE // 2 :], encoder_input.speech[-RATE // 2 :])
    assert np.abs(seen.speech[: RATE // 2] - encoder_input.speech[: RATE // 2]).max() > 0


@pytest.mark.parametrize("e_step", ["mean-field", "marginal"])
def test_thousands_of_iterations_stay_finite(tmp_path: Path, e_step: str) -> None:
    """In the single precision that is used: no factor runs away or dies of rounding."""
    torch.manual_seed(0)
    save_model(tmp_path, System(tiny_recipe("a-vae")), {})
    settings = [
        "inference.iterations=4000",
        "inference.steps=1",
        "inference.keep=1",
        f"inference.e_step={e_step}",
    ]
    sound = speechlike(SLOW, 0.2, seed=3) + 0.1 * np.random.default_rng(3).standard_normal(SLOW // 5)
    recent: deque[EMState] = deque(maxlen=1)
    Enhancer.from_pretrained(tmp_path, overrides=settings)(sound, SLOW, watch=recent.append)
    (last,) = recent
    assert last.iteration == 4000
    assert np.isfinite(last.objective)
    assert all(bool(torch.isfinite(t).all()) for t in (last.variances, last.noise, last.gain, last.draws))
    assert float(last.noise.min()) > 0


def test_silence_among_recordings_stays_silent(model: Path) -> None:
    silence = Recording(np.zeros(4000), RATE)
    results = Enhancer.from_pretrained(model).many([recordings()[0], silence])
    assert not results[1].speech.any()
    assert results[0].speech.any()


def test_fast_is_what_a_recipe_does_that_says_nothing() -> None:
    recipe = load_recipe("a-vae")
    assert preset_names() == ["best", "fast", "paper"]
    best, fast = preset_recipe(recipe, "best"), preset_recipe(recipe, "fast")
    assert (fast.noise, fast.inference) == (recipe.noise, recipe.inference)
    for name in ("a-vae", "min-vae-grid"):
        bundled = load_model(name).recipe
        assert (bundled.noise, bundled.inference) == (fast.noise, fast.inference)
    moves = [one.inference.iterations * one.inference.steps for one in (fast, best)]
    assert 10 * moves[0] < moves[1]
    paper = preset_recipe(recipe, "paper")
    # The published numbers (derivations, section 6): 40 moves of variance 0.01, 10 kept, 100 iterations, rank 10.
    assert (paper.inference.steps, paper.inference.keep, paper.inference.iterations) == (40, 10, 100)
    assert paper.inference.step_size == pytest.approx(0.01**0.5)
    assert (paper.noise.kind, paper.noise.rank, paper.noise.smooth_s) == ("nmf", 10, 0.0)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="--preset slow: expected one of best, fast, paper"):
        preset_recipe(recipe, "slow")


@pytest.mark.parametrize("preset", ["fast", "best", "paper"])
def test_presets_run_and_settings_come_on_top(model: Path, preset: str) -> None:
    enhancer = Enhancer.from_pretrained(model, preset=preset, overrides=["inference.iterations=2"])
    assert enhancer.recipe.inference.iterations == 2
    assert enhancer.recipe.inference.steps == preset_recipe(load_recipe("a-vae"), preset).inference.steps
    assert enhancer(speechlike(RATE, 0.4, seed=0), RATE).speech.any()


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 6), st.integers(1, 120))
def test_groups_side_by_side_fill_their_room_and_no_more(lengths: list[int], most: int, room: int) -> None:
    groups = packed(lengths, most=most, room=room)
    assert [length for group in groups for length in lengths[group]] == lengths
    for group in groups:
        inside = lengths[group]
        assert len(inside) == 1 or (len(inside) <= most and max(inside) * len(inside) <= room)
    for group, following in itertools.pairwise(groups):
        inside = [*lengths[group], lengths[following.start]]
        assert len(inside) > most or max(inside) * len(inside) > room, "the next one had room"
