"""The Python API of separation with tiny models: what sums, what swaps, what one speaker gives, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from signals import at_snr, speechlike
from tiny import lips, save_tiny_model
from tiny_training import tiny_recipe
from torch import Tensor

from pyro_minvae.errors import InputError
from pyro_minvae.inference.mcem.loop import EMState
from pyro_minvae.inference.mcem.statistics import Statistics
from pyro_minvae.models.noise.floor import Floor
from pyro_minvae.pipelines.enhancer import Enhancer
from pyro_minvae.pipelines.mcem_solver import Block, Denoiser
from pyro_minvae.pipelines.recording import Mixture
from pyro_minvae.pipelines.separator import Separated, Separator
from pyro_minvae.pipelines.video_guidance import load_trained
from pyro_minvae.systems.checkpoint import save_model
from pyro_minvae.systems.system import System

RATE = 16000
ALWAYS = "inference.lips=always"
E_STEPS = ("auto", "marginal", "mean-field")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("separator") / "model")


def voices(seconds: float, *seeds: int) -> np.ndarray:
    """Several voices and faint noise, their sum [S]."""
    sound = sum(speechlike(RATE, seconds, seed) for seed in seeds)
    assert isinstance(sound, np.ndarray)
    return sound + at_snr(sound, np.random.default_rng(seeds).standard_normal(len(sound)), 20)


def separator(model: Path, *settings: str) -> Separator:
    return Separator.from_pretrained(model, overrides=[ALWAYS, "inference.iterations=3", *settings])


def assert_sums(result: Separated, mixture: np.ndarray, *, atol: float = 1e-12) -> None:
    assert all(part.shape == mixture.shape for part in (*result.speakers, result.background))
    assert all(np.isfinite(part).all() for part in result.speakers)
    np.testing.assert_allclose(sum(result.speakers) + result.background, mixture, rtol=0, atol=atol)


@pytest.mark.parametrize("e_step", E_STEPS)
@pytest.mark.parametrize("seen", [True, False])
def test_one_speaker_is_enhancement(model: Path, e_step: str, seen: bool) -> None:
    settings = [ALWAYS, f"inference.e_step={e_step}", "inference.block_s=1.024", "inference.overlap_s=0.128"]
    sound, video = voices(1.5, 0, 1), lips(1.5, 0) if seen else None
    enhanced = Enhancer.from_pretrained(model, overrides=settings)(sound, RATE, video, seed=3)
    separated = Separator.from_pretrained(model, overrides=settings)(sound, RATE, [video], seed=3)
    np.testing.assert_array_equal(separated.speakers[0], enhanced.speech)
    np.testing.assert_array_equal(separated.background, enhanced.noise)
    assert separated.responsibilities is not None
    np.testing.assert_array_equal(separated.responsibilities[0], enhanced.responsibilities)
    assert (separated.used_video, separated.without_video) == (
        [enhanced.used_video],
        [enhanced.without_video],
    )
    assert (separated.iterations, separated.acceptance) == (enhanced.iterations, enhanced.acceptance)
    assert enhanced.used_video == seen


@pytest.mark.parametrize("e_step", E_STEPS)
@pytest.mark.parametrize("background", [True, False])
def test_swapping_the_videos_swaps_the_outputs(model: Path, e_step: str, background: bool) -> None:
    sound, faces = voices(0.6, 0, 1, 2), [lips(0.6, seed) for seed in range(3)]
    run = separator(model, f"inference.e_step={e_step}")
    orders = [0, 1, 2], [1, 0, 2], [2, 0, 1]
    results = [run(sound, RATE, [faces[j] for j in order], background=background) for order in orders]
    for order, result in zip(orders, results, strict=True):
        assert_sums(result, sound)
        for j, speaker in zip(order, result.speakers, strict=True):
            np.testing.assert_array_equal(speaker, results[0].speakers[j])
    # Sharp: the speakers differ, and so does another seed.
    first, second = results[0].speakers[:2]
    assert np.abs(first - second).max() > 1e-3 * np.abs(first).max()
    other = run(sound, RATE, faces, background=background, seed=1)
    assert np.abs(other.speakers[0] - first).max() > 1e-6


@pytest.mark.parametrize("noise", ["gamma-chain", "nmf", "ard", "stationary", "floor"])
def test_company_changes_nothing(model: Path, noise: str) -> None:
    """Blocks of recordings of several lengths, in which not the same speakers have lips, side by side and alone."""
    run = separator(model, f"noise.kind={noise}", "inference.batch=4")
    mixtures = []
    for index, seconds in enumerate((0.5, 1.1, 0.3, 0.8, 0.6)):
        faces = [lips(seconds, 10 + index) if index != 4 else None, lips(seconds, 20 + index)]
        videos = [*faces, None] if index == 2 else faces[:: (-1) ** index]
        mixtures.append(Mixture(voices(seconds, index, 9), RATE, videos, 5 + index))
    for mixture, together in zip(mixtures, run.many(mixtures), strict=True):
        alone = run(*mixture[:3], seed=mixture.seed)
        assert together.used_video == alone.used_video == [video is not None for video in mixture.videos]
        assert_sums(together, np.asarray(mixture.waveform))
        for one, other in zip(together.speakers, alone.speakers, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())
        np.testing.assert_allclose(together.responsibilities, alone.responsibilities, atol=1e-3)


def test_a_long_recording_is_its_blocks_faded_together(model: Path) -> None:
    sound = voices(3.0, 0, 1)
    sound[100] = 4.0  # the loudest sample in the first block, so that both have the same level
    run = separator(model, "inference.block_s=1.024", "inference.overlap_s=0.128")
    block, overlap = round(1.024 * RATE), round(0.128 * RATE)
    # The second speaker is gone after the first block, the first one is always there.
    faces = [lips(3.0, 0), lips(1.0, 1)]
    whole, first = run(sound, RATE, faces), run(sound[:block], RATE, [lips(3.0, 0), faces[1]])
    for one, other in zip(whole.speakers, first.speakers, strict=True):
        # Side by side with another block, so that rounding may differ.
        until = block - overlap
        np.testing.assert_allclose(one[:until], other[:until], rtol=0, atol=1e-4 * np.abs(other).max())
        # Every block has been filtered: nowhere is a speaker silence.
        assert np.abs(one).reshape(-1, 1000).max(1).min() > 0
    assert whole.used_video == [True, True]
    assert_sums(whole, sound)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("samples", [1, 255, 7001])
def test_lengths_and_channels_are_the_mixtures(model: Path, rate: int, samples: int) -> None:
    sound = 0.3 * np.random.default_rng(0).standard_normal((2, samples))
    result = separator(model)(sound, rate, [lips(1.0, 0), None])
    assert_sums(result, sound)
    assert result.rate == rate
    assert result.seconds == pytest.approx(samples / rate)
    assert np.abs(result.speakers[0]).max() > 0


def test_channels_share_the_filters(model: Path) -> None:
    sound, faces = voices(0.5, 0, 1), [lips(0.5, 0), lips(0.5, 1)]
    run = separator(model)
    one, two = run(sound, RATE, faces), run(np.stack([sound, -sound]), RATE, faces)
    for mono, both in zip(one.speakers, two.speakers, strict=True):
        np.testing.assert_allclose(both, [mono, -mono], atol=1e-6)


def test_silence_is_silence(model: Path) -> None:
    result = separator(model)(np.zeros(4000), RATE, [lips(1.0, 0), None])
    assert not np.any(result.speakers)
    assert not result.background.any()


@pytest.mark.parametrize("e_step", E_STEPS)
def test_the_same_lips_twice_are_told_and_cost_no_more(model: Path, e_step: str) -> None:
    sound, face = voices(0.6, 0, 1), lips(0.6, 0)
    result = separator(model, f"inference.e_step={e_step}")(sound, RATE, [face, None, face._replace()])
    assert_sums(result, sound)
    (warning,) = result.warnings
    assert warning == "speakers 1 and 3 have the same lips: who of them says what is up to chance"
    assert np.abs(result.speakers[0] - result.speakers[2]).max() > 1e-3 * np.abs(result.speakers[0]).max()
    assert separator(model)(sound, RATE, [face, lips(0.6, 1)]).warnings == ()


@pytest.mark.parametrize("kernel", ["metropolis", "map"])
def test_speakers_without_lips_part(model: Path, kernel: str) -> None:
    """Alike to the guide and, with the kernel "map", without a random step to part them."""
    sound = voices(0.6, 0, 1)
    result = separator(model, f"inference.kernel={kernel}")(sound, RATE, [None] * 3)
    assert_sums(result, sound)
    assert result.used_video == [False] * 3
    assert result.without_video == ["no video"] * 3
    assert result.warnings == (
        "speakers 1 and 2 and 3 are only heard: who of them says what is up to chance",
    )
    for one, other in ((0, 1), (0, 2), (1, 2)):
        apart = np.abs(result.speakers[one] - result.speakers[other]).max()
        assert apart > 1e-2 * np.abs(result.speakers[one]).max()


def runner(model: Path) -> tuple[Denoiser, Tensor]:
    """The loop, and power [N, F] to try it on."""
    trained = load_trained(model)
    power = torch.rand(7, 513, generator=torch.Generator().manual_seed(0))
    return Denoiser([trained], trained.recipe, torch.device("cpu")), power


def test_alike_speakers_start_apart_and_others_where_their_guide_says(model: Path) -> None:
    loop, power = runner(model)
    speaker = Enhancer(loop.systems[0])
    for visual in (None, speaker.visual(lips(0.5, 0), 7)):
        first, second, third = loop.sources(Block(power, (visual,) * 3, 0))
        torch.testing.assert_close(first.start, loop.source(power, visual).start, rtol=0, atol=0)
        for one, other in ((first, second), (first, third), (second, third)):
            assert float((one.start - other.start).abs().amax()) > 0.01
        # In other blocks they start apart in the same direction.
        later = loop.sources(Block(2 * power[:5], (None,) * 3, 1))
        ways = [
            (group[2].start - group[0].start) / group[0].spread for group in ([first, second, third], later)
        ]
        if visual is None:
            torch.testing.assert_close(ways[0][0], ways[1][0], rtol=1e-4, atol=1e-4)


def test_beside_seen_speakers_the_guide_hears_what_they_leave(model: Path) -> None:
    loop, power = runner(model)
    visual = Enhancer(loop.systems[0]).visual(lips(0.5, 0), 7)
    face, encoder_input = loop.sources(Block(power, (visual, None), 0))
    torch.testing.assert_close(face.start, loop.source(power, visual).start, rtol=0, atol=0)
    variance = loop.systems[0].model.variance
    seen, left = variance(face.start, visual), power
    for _ in range(2):
        own = variance(loop.source(left, None).start)
        left = power * (own / (own + seen)) ** 2
    torch.testing.assert_close(encoder_input.start, loop.source(left, None).start)
    assert float((encoder_input.start - loop.source(power, None).start).abs().amax()) > 1e-3


def test_lips_that_cannot_be_used_leave_the_sound(model: Path) -> None:
    sound, face = voices(0.6, 0, 1), lips(0.6, 0)
    blind = face._replace(valid=np.zeros(len(face.valid), bool))
    late = face._replace(times=face.times + 100)
    # As without any video: what cannot be used has no say.
    plain = separator(model)(sound, RATE, [None] * 2)
    for video, reason in ((blind, "no face found"), (late, "no face while there is sound")):
        result = separator(model)(sound, RATE, [video, None])
        assert result.used_video == [False, False]
        assert result.without_video == [reason, "no video"]
        for one, other in zip(result.speakers, plain.speakers, strict=True):
            np.testing.assert_array_equal(one, other)
    strange = Separator.from_pretrained(model)
    limit = strange.voices[0].trained.lips.limit  # type: ignore[union-attr]
    limit.fill_(-1.0)
    reasons = strange(sound, RATE, [face, lips(0.6, 1)]).without_video
    assert all("unlike those the model learnt" in reason for reason in reasons)


def test_without_background_the_speakers_share_the_sound(model: Path) -> None:
    sound, faces = voices(0.6, 0, 1), [lips(0.6, 0), lips(0.6, 1)]
    run = separator(model)
    noises: dict[bool, list[EMState]] = {True: [], False: []}
    left = {}
    for background, states in noises.items():
        result = run(sound, RATE, faces, background=background, watch=states.append)
        assert_sums(result, sound)
        left[background] = np.sum(result.background**2)
    assert left[False] < 0.1 * left[True]
    # The floor is not fitted.
    first, *_, last = noises[False]
    torch.testing.assert_close(first.noise, last.noise, rtol=0, atol=0)
    assert float(last.noise.max()) < float(noises[True][-1].noise.max())


def test_the_floor_is_below_the_mean_spectrum() -> None:
    power = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(0))
    floor = Floor(power, level=-20.0)
    torch.testing.assert_close(floor.variance(), (0.01 * power.mean(-2, keepdim=True)).expand_as(power))
    before = floor.variance().clone()
    floor.em_step(Statistics(lambda noise: (1 / noise, noise)))
    torch.testing.assert_close(floor.variance(), before, rtol=0, atol=0)
    torch.testing.assert_close(floor.sites(), before, rtol=0, atol=0)
    assert floor.log_prior().tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="below 0 dB"):
        Floor(power, level=0.0)


def test_a_system_of_their_own_for_each_speaker(model: Path, tmp_path: Path) -> None:
    deaf = save_tiny_model(tmp_path / "a-vae", video=False)
    sound, faces = voices(0.6, 0, 1), [lips(0.6, 0), lips(0.6, 1)]
    settings = [ALWAYS, "inference.iterations=3"]
    one = Separator.from_pretrained([model, deaf], overrides=settings)(sound, RATE, faces)
    assert one.used_video == [True, False]
    assert one.without_video == ["", "the model has no visual network"]
    assert_sums(one, sound)
    # Another system may tell them apart.
    assert (
        Separator.from_pretrained([model, deaf], overrides=settings)(sound, RATE, [None] * 2).warnings == ()
    )
    other = Separator.from_pretrained([deaf, model], overrides=settings)(sound, RATE, faces[::-1])
    for mine, yours in zip(one.speakers, other.speakers[::-1], strict=True):
        np.testing.assert_array_equal(mine, yours)
    # The same model named twice is one model for both.
    both = Separator.from_pretrained([model, model], overrides=settings)(sound, RATE, faces)
    single = separator(model)(sound, RATE, faces)
    np.testing.assert_array_equal(both.speakers, single.speakers)


def test_systems_that_do_not_go_together_are_refused(model: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        save_model(tmp_path, System(tiny_recipe("a-vae")), {})
    with pytest.raises(InputError, match="expected the STFT of tiny") as error:
        Separator.from_pretrained([model, tmp_path])
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="model: expected one"):
        Separator.from_pretrained([])
    with pytest.raises(InputError, match="no-such-model"):
        Separator.from_pretrained([model, "no-such-model"])


def bad_calls() -> dict[str, tuple[Sequence[Any], str]]:
    face, sound = lips(0.5, 0), voices(0.5, 0, 1)
    return {
        "nobody": ((sound, RATE, []), "videos: expected a list"),
        "one video, not in a list": ((sound, RATE, face), "videos: expected a list"),
        "a path, not in a list": ((sound, RATE, "a.mkv"), "videos: expected a list"),
        "more speakers than models": (
            (sound, RATE, [face, None, None]),
            "expected 2 speakers, one for each model",
        ),
        "rate": ((sound, 0, [face, None]), "rate: expected a positive"),
        "no samples": ((sound[:0], RATE, [face, None]), "at least one sample"),
        "not finite": ((sound + np.nan, RATE, [face, None]), "finite samples"),
        "missing": ((sound, RATE, [face, "no-such.mkv"]), r"no-such\.mkv: expected"),
        "no lips": ((sound, RATE, [face, face._replace(crops=face.crops[0])]), "lips: expected crops"),
    }


@pytest.mark.parametrize("case", list(bad_calls()))
def test_bad_calls_are_refused(model: Path, case: str) -> None:
    arguments, message = bad_calls()[case]
    run = Separator.from_pretrained([model, model])
    with pytest.raises(InputError, match=message):
        run(*arguments)


def test_models_whose_training_stopped_are_told(model: Path) -> None:
    trained = load_trained(model)
    stopped = trained._replace(training={"finished": False, "stage": "audio", "stages": ["audio", "both"]})
    assert Separator([trained, stopped]).cautions == ["tiny: training stopped in stage 'audio' (1 of 2)"]
    result = Separator([stopped])(voices(0.3, 0), RATE, [lips(0.3, 0)])
    assert result.without_video == ["the visual network is not trained yet"]
