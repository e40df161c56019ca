"""Mixtures of clean voices: the mixture is heard, the voice stays the target, the seed decides all that is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_training import tiny_recipe, utterances

from pyro_minvae.data import mixed_speech
from pyro_minvae.data.loader import FrameSet, frame_set
from pyro_minvae.data.mixed_speech import mixed
from pyro_minvae.features.stft import analyse
from pyro_minvae.features.stft import power as power_of
from pyro_minvae.types import Prepared

STFT = tiny_recipe("a-vae").stft
LEVELS = (-6.0, 4.0)


def clips(count: int) -> list[Prepared]:
    """Voices of different lengths."""
    return [
        clip._replace(waveform=clip.waveform[: 500 - 37 * index])
        for index, clip in enumerate(utterances(count, video=False))
    ]


def mix(frames: FrameSet, voices: list[Prepared], seed: int = 0) -> FrameSet:
    generator = torch.Generator().manual_seed(seed)
    return mixed(frames, voices, level_db=LEVELS, stft=STFT, generator=generator)


def heard_waveforms(
    monkeypatch: pytest.MonkeyPatch, voices: list[Prepared], others: int, seed: int = 0
) -> tuple[FrameSet, list[np.ndarray]]:
    """The mixtures, and the waveforms that were analysed for them."""
    seen: list[np.ndarray] = []

    def listening(waveform: torch.Tensor, stft: object) -> torch.Tensor:
        seen.append(waveform.double().numpy())
        return analyse(waveform, STFT)

    monkeypatch.setattr(mixed_speech, "analyse", listening)
    monkeypatch.setattr(mixed_speech, "OTHERS", (others,))
    return mix(frame_set(voices, STFT), voices, seed), seen


def full_scale(clip: Prepared) -> np.ndarray:
    return clip.waveform.astype(np.float64) / np.abs(clip.waveform).max()


def loops(waveform: np.ndarray, length: int) -> np.ndarray:
    """The waveform read in a loop from every sample on: [S, length]."""
    return waveform[(np.arange(len(waveform))[:, None] + np.arange(length)) % len(waveform)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_mixture_is_the_target_and_another_voice_at_a_level_in_the_range(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    voices = clips(4)
    clean = frame_set(voices, STFT)
    result, waveforms = heard_waveforms(monkeypatch, voices, 1, seed)
    assert result.encoder_input is not None
    for index, (mixture, span) in enumerate(zip(waveforms, clean.spans(), strict=True)):
        part = slice(span.start, span.stop)
        # A recording is played at max|x| = 1, and what is heard is its power.
        assert np.abs(mixture).max() == pytest.approx(1, abs=1e-6)
        expected = power_of(analyse(torch.as_tensor(mixture, dtype=torch.float32), STFT))
        torch.testing.assert_close(result.encoder_input[part], expected)
        # The target is the clean voice, scaled along with the mixture and not changed otherwise.
        squared = (result.power[part] / clean.power[part]).flatten()
        torch.testing.assert_close(squared, squared[:1].expand_as(squared), rtol=1e-4, atol=0)
        target = full_scale(voices[index]) * float(squared[0]) ** 0.5
        rest = mixture - target
        level = 10 * np.log10((rest**2).sum() / (target**2).sum())
        assert LEVELS[0] - 1e-3 <= level <= LEVELS[1] + 1e-3
        # What is left is one of the other voices, read in a loop.
        fits = []
        for place, voice in enumerate(voices):
            every = loops(voice.waveform.astype(np.float64), len(rest))
            cosine = every @ rest / np.linalg.norm(every, axis=1) / np.linalg.norm(rest)
            fits.append(cosine.max() if place != index else -cosine.max())
        assert max(fits) > 0.9999


def test_levels_and_voices_vary_over_the_whole_range(monkeypatch: pytest.MonkeyPatch) -> None:
    voices, levels = clips(3), []
    for seed in range(40):
        result, waveforms = heard_waveforms(monkeypatch, voices, 1, seed)
        clean = frame_set(voices, STFT)
        for clip, mixture, span in zip(voices, waveforms, clean.spans(), strict=True):
            scale = float(result.power[span.start].sum() / clean.power[span.start].sum()) ** 0.5
            target = full_scale(clip) * scale
            levels.append(10 * np.log10(((mixture - target) ** 2).sum() / (target**2).sum()))
    counts, _ = np.histogram(levels, bins=5, range=LEVELS)
    assert counts.sum() == 120
    # Uniform: 24 each, with a standard deviation of 4.4.
    assert counts.min() > 24 - 4 * 4.4


def test_two_others_are_louder_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    voices = clips(4)

    def mean_level(others: int) -> float:
        total = []
        for seed in range(10):
            result, _ = heard_waveforms(monkeypatch, voices, others, seed)
            assert result.encoder_input is not None
            total.append(float((result.encoder_input.sum() / result.power.sum()).log()))
        return float(np.mean(total))

    assert mean_level(2) > mean_level(1) + 0.2
    monkeypatch.undo()
    assert set(mixed_speech.OTHERS) == {1, 2}


def test_the_seed_decides_the_mixture() -> None:
    voices = clips(4)
    frames = frame_set(voices, STFT)
    one, again, other = mix(frames, voices, 3), mix(frames, voices, 3), mix(frames, voices, 4)
    assert one.encoder_input is not None
    assert again.encoder_input is not None
    assert other.encoder_input is not None
    assert torch.equal(one.encoder_input, again.encoder_input)
    assert torch.equal(one.power, again.power)
    assert not torch.allclose(one.encoder_input, other.encoder_input)
    # The frames that were given are as they were.
    assert frames.encoder_input is None
    assert torch.equal(frames.power, frame_set(voices, STFT).power)


def test_no_voice_is_mixed_with_itself() -> None:
    (voice,) = clips(1)
    with pytest.raises(ValueError, match="expected another utterance to mix in, got none"):
        mix(frame_set([voice], STFT), [voice])
    # Another recording of the same name is another.
    assert mix(frame_set([voice], STFT), [clips(1)[0]]).encoder_input is not None


def test_a_pause_of_another_voice_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece of a long recording may be silent: no level makes it loud, and nothing is divided by zero."""
    voice = clips(1)[0]
    pause = voice._replace(waveform=np.zeros(200_000, np.float32))
    pause.waveform[0] = 1
    clean, result = frame_set([voice], STFT), mix(frame_set([voice], STFT), [pause])
    assert result.encoder_input is not None
    torch.testing.assert_close(result.encoder_input, clean.power)
    torch.testing.assert_close(result.power, clean.power)


def test_some_utterances_of_many_are_their_frames() -> None:
    frames = frame_set(clips(4), STFT)
    part, index = frames.some([2, 0])
    spans = frames.spans()
    assert index.tolist() == [*spans[2], *spans[0]]
    assert torch.equal(part.power, frames.power[index])
    assert [len(span) for span in part.spans()] == [len(spans[2]), len(spans[0])]
    assert [
        u.waveform is frames.utterances[k].waveform for u, k in zip(part.utterances, (2, 0), strict=True)
    ] == [
        True,
        True,
    ]
    assert [len(times) for times in part.times] == [len(spans[2]), len(spans[0])]
