"""The Python API with a tiny model: what guides it, what it reports, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from signals import speechlike
from tiny import save_tiny_model

from pyro_minvae.errors import InputError
from pyro_minvae.inference.mcem.convergence import LOOK_BACK, until_settled
from pyro_minvae.media.mouths import read_lips
from pyro_minvae.pipelines import video_guidance as module
from pyro_minvae.pipelines.enhancer import Enhancer
from pyro_minvae.pipelines.recording import reference
from pyro_minvae.types import MouthCrops

EXAMPLE = Path(__file__).parents[1] / "examples" / "noisy.mkv"
RATE = 16000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def lips() -> MouthCrops:
    return read_lips(EXAMPLE, size=16)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return speechlike(RATE, 1.0)


def test_strange_lips_are_used_only_on_demand(model: Path, lips: MouthCrops, sound: np.ndarray) -> None:
    used, reasons = {}, {}
    for choice in ("auto", "always", "never"):
        enhancer = Enhancer.from_pretrained(model, overrides=[f"inference.lips={choice}"])
        assert enhancer.trained.lips is not None
        enhancer.trained.lips.limit.fill_(-1.0)
        result = enhancer(sound, RATE, lips)
        used[choice], reasons[choice] = result.used_video, result.without_video
    assert used == {"auto": False, "always": True, "never": False}
    assert "unlike those the model learnt" in reasons["auto"]
    assert reasons["always"] == ""
    assert reasons["never"] == "inference.lips = never"


@pytest.mark.parametrize("late", [-100.0, 100.0])
def test_lips_at_another_time_than_the_sound_are_none(
    model: Path, lips: MouthCrops, sound: np.ndarray, late: float
) -> None:
    enhancer = Enhancer.from_pretrained(model, overrides=["inference.lips=always"])
    alone, apart = (enhancer(sound, RATE, v) for v in (None, lips._replace(times=lips.times + late)))
    assert (apart.used_video, apart.without_video) == (False, "no face while there is sound")
    np.testing.assert_array_equal(apart.speech, alone.speech)
    assert enhancer(sound, RATE, lips).used_video


def test_no_face_is_looked_for_in_vain(
    model: Path, sound: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> MouthCrops:
        raise AssertionError("read without need")

    monkeypatch.setattr(module, "read_lips", refuse)
    blind = Enhancer.from_pretrained(model, overrides=["inference.lips=never"])
    assert blind(sound, RATE, EXAMPLE).without_video == "inference.lips = never"
    deaf = Enhancer.from_pretrained(save_tiny_model(tmp_path / "a-vae", video=False))
    assert deaf(sound, RATE, EXAMPLE).without_video == "the model has no visual network"
    assert deaf(sound, RATE).without_video == "no video"


def test_crops_of_another_size_are_fitted(model: Path, lips: MouthCrops, sound: np.ndarray) -> None:
    enhancer = Enhancer.from_pretrained(model)
    large = MouthCrops(lips.crops.repeat(2, 1).repeat(2, 2), lips.times, lips.valid)
    assert enhancer(sound, RATE, large).used_video
    np.testing.assert_array_equal(enhancer(sound, RATE, large).speech, enhancer(sound, RATE, lips).speech)
    for bad in (lips._replace(crops=lips.crops[0]), lips._replace(times=lips.times[1:])):
        with pytest.raises(InputError, match="lips: expected"):
            enhancer(sound, RATE, bad)


@pytest.mark.parametrize("rate", [0, -1, 16000.5])
def test_bad_rates_are_refused(rate: Any, model: Path, sound: np.ndarray) -> None:
    with pytest.raises(InputError, match="rate: expected a positive"):
        Enhancer.from_pretrained(model)(sound, rate)


def test_watch_sees_every_iteration(model: Path, sound: np.ndarray) -> None:
    seen: list[int] = []
    enhancer = Enhancer.from_pretrained(model, overrides=["inference.iterations=4"])
    result = enhancer(sound, RATE, watch=lambda state: seen.append(state.iteration))
    assert seen == [1, 2, 3, 4]
    assert result.iterations == 4


def test_until_settled_stops_where_little_is_gained() -> None:
    def states() -> Any:
        return (SimpleNamespace(objective=100 * (1 - 0.5**n)) for n in range(100))

    assert len(list(until_settled(states(), 0.0))) == 100
    # The gain over LOOK_BACK steps is 100 * 0.5^(n - 5) * (1 - 0.5^5) for the n-th state, counted from 0.
    assert len(list(until_settled(states(), 0.01))) == 7 + LOOK_BACK + 1


def test_tolerance_ends_the_inference(model: Path, sound: np.ndarray) -> None:
    settings = ["inference.iterations=30", "inference.tolerance=1000"]
    assert Enhancer.from_pretrained(model, overrides=settings)(sound, RATE).iterations == LOOK_BACK + 1


def test_channels_that_cancel_do_not_silence_the_speech(model: Path, sound: np.ndarray) -> None:
    enhancer = Enhancer.from_pretrained(model)
    one = enhancer(sound, RATE)
    two = enhancer(np.stack([sound, -sound]), RATE)
    np.testing.assert_allclose(two.speech, [one.speech, -one.speech], atol=1e-6)
    assert np.abs(two.speech).max() > 0


def test_reference_is_the_mean_unless_channels_cancel() -> None:
    wave = torch.sin(torch.arange(100.0))
    for channels, expected in (
        ([wave, 0 * wave], wave / 2),
        ([wave, -0.5 * wave], wave / 4),
        ([-0.9 * wave, wave], wave),
        ([0 * wave, 0 * wave], 0 * wave),
    ):
        torch.testing.assert_close(reference(torch.stack(channels)), expected)


def test_the_face_may_be_chosen_but_not_the_crops(model: Path, sound: np.ndarray) -> None:
    first = Enhancer.from_pretrained(model, overrides=["crops.face=0"])
    assert first(sound, RATE, EXAMPLE).used_video
    with pytest.raises(InputError, match=r"noisy\.mkv: expected"):
        Enhancer.from_pretrained(model, overrides=["crops.face=1"])(sound, RATE, EXAMPLE)
    with pytest.raises(InputError, match=r"crops\.size=20: expected a setting of inference or noise"):
        Enhancer.from_pretrained(model, overrides=["crops.size=20"])
