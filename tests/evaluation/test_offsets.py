"""Offsets and rumble, which nobody hears, change neither the level of a mixture nor a score; silence is drawn anew."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from signals import at_snr, speechlike

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.manifest import NoisyItem, read_manifest
from pyro_minvae.evaluation.metrics import HEADINGS, score
from pyro_minvae.evaluation.mixing import RecordedNoise, White, babble, sounding
from pyro_minvae.evaluation.noisy_set import make_noisy_set
from pyro_minvae.evaluation.separated import judge
from pyro_minvae.evaluation.separation_set import make_separation_set
from pyro_minvae.types import Utterance

RATE = 16000
VOICES = [speechlike(RATE, 2.0, seed) for seed in range(2)]
TIME = np.arange(2 * RATE) / RATE
UNHEARD = {
    "nothing": 0 * TIME,
    "offset": np.full(len(TIME), 0.2),
    "small offset": np.full(len(TIME), 0.005),
    "rumble": 0.2 * np.sin(2 * np.pi * 6 * TIME),
}


def utterance(path: Path, sound: np.ndarray, speaker: str = "") -> Utterance:
    soundfile.write(path, sound, RATE, "FLOAT")
    return Utterance(path.stem, speaker, path, None, "test")


def power(signal: np.ndarray) -> float:
    """Of what is heard: above 20 Hz, by the Fourier transform."""
    spectrum = np.fft.rfft(signal)
    return float(np.sum(np.abs(spectrum[np.fft.rfftfreq(len(signal), 1 / RATE) > 25]) ** 2))


@pytest.mark.parametrize("unheard", UNHEARD)
@pytest.mark.parametrize("where", ["speech", "noise"])
def test_the_label_is_the_ratio_of_what_is_heard(tmp_path: Path, unheard: str, where: str) -> None:
    generator = np.random.default_rng(0)
    extra = UNHEARD[unheard]
    clean = VOICES[0] + extra * (where == "speech")
    soundfile.write(
        tmp_path / "n.wav",
        0.1 * generator.standard_normal(len(TIME)) + extra * (where == "noise"),
        RATE,
        "FLOAT",
    )
    (item,) = make_noisy_set(
        [utterance(tmp_path / "a.wav", clean)],
        [RecordedNoise("n", tmp_path / "n.wav")],
        snrs_db=[5],
        out=tmp_path / "set",
    )
    mixture, speech = (soundfile.read(path)[0] for path in (item.mixture, item.clean))
    noise = mixture - item.scale * speech
    assert 10 * np.log10(power(item.scale * speech) / power(noise)) == pytest.approx(5, abs=0.1)
    for signal in (speech, noise):
        assert abs(signal.mean()) < 0.01 * signal.std()
    assert score(item.scale * speech, mixture, RATE).values["si_sdr"] == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize("unheard", UNHEARD)
@pytest.mark.parametrize("level", [0.0, 6.0])
def test_levels_of_speakers_are_those_of_what_is_heard(tmp_path: Path, unheard: str, level: float) -> None:
    cast = tuple(
        utterance(tmp_path / f"{n}.wav", voice + UNHEARD[unheard] * n, f"{n}")
        for n, voice in enumerate(VOICES)
    )
    (item,) = make_separation_set([cast], [], levels_db=[level], out=tmp_path / "set")
    one, other = (soundfile.read(speaker.clean)[0] for speaker in item.speakers)
    assert 10 * np.log10(power(one) / power(other)) == pytest.approx(level, abs=0.1)


@pytest.mark.parametrize("unheard", UNHEARD)
def test_scores_do_not_see_what_is_not_heard(unheard: str) -> None:
    """In the reference, in the estimate, or in both."""
    clean, extra = VOICES[0], UNHEARD[unheard]
    estimate = clean + at_snr(clean, np.random.default_rng(0).standard_normal(len(clean)), 5)
    expected = score(clean, estimate, RATE).values
    for pair in ((clean + extra, estimate), (clean, estimate + extra), (clean + extra, estimate - extra)):
        found = score(*pair, RATE).values
        assert found.keys() == HEADINGS.keys()
        assert found["si_sdr"] == pytest.approx(expected["si_sdr"], abs=0.1)
        for name in ("pesq", "stoi", "estoi"):
            assert found[name] == pytest.approx(expected[name], abs=0.03)


def test_separated_voices_are_scored_without_offsets() -> None:
    speakers = np.stack(VOICES)
    estimates = speakers + 0.1 * speakers[::-1]
    expected, found = (
        judge(speakers + a, estimates + b, RATE, fixed=(True, True)).scores
        for a, b in ((0, 0), ([[0.3], [0.0]], [[0.0], [-0.2]]))
    )
    for one, other in zip(expected, found, strict=True):
        for name in ("sdr", "sir", "si_sdr"):
            assert other.values[name] == pytest.approx(one.values[name], abs=0.05)


def test_a_constant_is_silence() -> None:
    constant = np.full(RATE, 0.1)
    voice = VOICES[0][:RATE]
    assert "reference is silent" in score(constant, voice, RATE).reasons["si_sdr"]
    assert "estimate is silent" in score(voice, constant, RATE).reasons["si_sdr"]


def test_the_command_labels_what_is_heard(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    voice = 0.1 * speechlike(16000, 2.0)
    (tmp_path / "speech").mkdir()
    soundfile.write(tmp_path / "speech" / "a.wav", voice + 5 * voice.std(), 16000, "FLOAT")
    soundfile.write(
        tmp_path / "hiss.wav", 0.3 + 0.05 * np.random.default_rng(0).standard_normal(64000), 16000, "FLOAT"
    )
    out = tmp_path / "set"
    result = run_cli("mix", tmp_path / "speech", "--noise", tmp_path / "hiss.wav", "--snr", 5, "--out", out)
    assert result.exit_code == 0, result.stderr
    for item in read_manifest(out):
        assert isinstance(item, NoisyItem)
        mixture, clean = (soundfile.read(path)[0] for path in (item.mixture, item.clean))
        noise = mixture - clean
        ratio = 10 * np.log10(np.var(clean) / np.var(noise))
        assert ratio == pytest.approx(item.snr_db, abs=0.05)
        assert abs(clean.mean()) < 1e-4


def test_scores_do_not_mind_an_offset() -> None:
    clean = speechlike(16000, 2.0)
    estimate = clean + 0.05 * np.random.default_rng(1).standard_normal(len(clean))
    plain, offset = score(clean, estimate, 16000), score(clean + 0.4, estimate - 0.2, 16000)
    for name, value in plain.values.items():
        assert offset.values[name] == pytest.approx(value, abs=1e-6)


# --- silence ---


def test_another_stretch_is_drawn_where_there_is_silence() -> None:
    """Nine tenths of silence: every draw holds sound, and a draw that does anyway is the one without the rule."""
    sound = np.zeros(10 * RATE)
    sound[:RATE] = np.random.default_rng(0).standard_normal(RATE)
    starts = []
    for seed in range(50):
        part = sounding(sound, RATE // 2, np.random.default_rng(seed), name="n")
        assert part.shape == (RATE // 2,)
        assert np.mean(part**2) >= 1e-6 * np.mean(sound**2)
        first = np.random.default_rng(seed).integers(len(sound) - RATE // 2 + 1)
        if first < RATE - 100:
            np.testing.assert_array_equal(part, sound[first:][: RATE // 2])
            starts.append(first)
    assert starts


def test_a_click_in_silence_is_found() -> None:
    sound = np.zeros(100 * RATE)
    sound[70 * RATE] = 0.5
    for length in (10, RATE):
        parts = [sounding(sound, length, np.random.default_rng(seed), name="n") for seed in range(5)]
        assert all(part.max() == 0.5 for part in parts)
        assert len({int(part.argmax()) for part in parts}) > 1
    with pytest.raises(InputError, match=r"^n: expected sound, found silence$"):
        sounding(np.zeros(100), 10, np.random.default_rng(0), name="n")


def test_a_silent_utterance_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    silent, good = utterance(tmp_path / "a.wav", np.full(RATE, 0.1)), utterance(tmp_path / "b.wav", VOICES[0])
    items = make_noisy_set([silent, good], [White()], snrs_db=[0, 5], out=tmp_path / "set")
    assert [item.id for item in items] == ["b", "b"]
    (record,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert record.getMessage() == f"{silent.audio}: left out, expected speech, found silence"
    assert not (tmp_path / "set" / "clean" / "a.flac").exists()
    with pytest.raises(InputError, match=r"a\.wav: expected speech, found silence in all"):
        make_noisy_set([silent], [White()], snrs_db=[0], out=tmp_path / "none")


def test_a_silent_speaker_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    silent = utterance(tmp_path / "a.wav", np.zeros(RATE), "a")
    one, two = (utterance(tmp_path / f"{n}.wav", voice, n) for n, voice in zip("bc", VOICES, strict=True))
    items = make_separation_set([(one, silent), (one, two)], [], levels_db=[0], out=tmp_path / "set")
    assert [item.id for item in items] == ["b+c"]
    assert [one.getMessage() for one in caplog.records] == [
        f"{silent.audio}: left out with the mixture b+a, expected speech, found silence"
    ]


def test_silent_voices_are_left_out_of_babble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(3):
        soundfile.write(tmp_path / f"{n}.wav", VOICES[0] * (n > 0), RATE)
    noise = babble(tmp_path, count=3)
    sound = noise.draw(RATE, RATE, np.random.default_rng(0), Path("target.wav"))
    assert sound.any()
    assert ["0.wav" in one.getMessage() for one in caplog.records] == [True]
