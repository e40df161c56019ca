"""Noise at the asked SNR, drawn the same way whatever else is in the set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from signals import speechlike

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.mixing import (
    Babble,
    RecordedNoise,
    White,
    babble,
    generator_for,
    mix,
    recordings,
    segment,
    spread,
    stable_seed,
    voice_of,
)

RATE = 16000
CLEAN = speechlike(RATE, 1.0)
NOISE = np.random.default_rng(1).standard_normal(len(CLEAN))
TARGET = Path("target.wav")


def decibels(signal: np.ndarray, noise: np.ndarray) -> float:
    """The ratio of powers."""
    return float(10 * np.log10((signal @ signal) / (noise @ noise)))


@pytest.mark.parametrize("snr_db", [-20, -5, 0, 2.5, 40])
def test_snr_is_exact_and_the_parts_sum_to_the_mixture(snr_db: float) -> None:
    mixed = mix(CLEAN, NOISE, snr_db)
    assert decibels(mixed.clean, mixed.noise) == pytest.approx(snr_db, abs=1e-9)
    np.testing.assert_allclose(mixed.clean + mixed.noise, mixed.mixture, atol=1e-15)
    np.testing.assert_allclose(mixed.scale * (CLEAN + mixed.gain * NOISE), mixed.mixture, atol=1e-12)


def test_a_loud_mixture_is_scaled_and_a_quiet_one_is_not() -> None:
    loud, quiet = mix(CLEAN, NOISE, -20), mix(CLEAN, NOISE, 20)
    assert loud.scale < 1
    assert np.abs(loud.mixture).max() == pytest.approx(0.999)
    assert quiet.scale == 1
    np.testing.assert_array_equal(quiet.clean, CLEAN)


def test_silence_has_no_snr() -> None:
    for clean, noise in ((CLEAN, 0 * CLEAN), (0 * CLEAN, NOISE)):
        with pytest.raises(ValueError, match="signals with power"):
            mix(clean, noise, 0)
    with pytest.raises(ValueError, match="one length"):
        mix(CLEAN, NOISE[1:], 0)


def test_draws_depend_on_names_seed_and_snr_alone() -> None:
    def draw(*key: object) -> np.ndarray:
        return White().draw(10, RATE, generator_for(*key), TARGET)  # type: ignore[arg-type]

    first = draw(0, "a", "white", -5)
    np.testing.assert_array_equal(first, draw(0, "a", "white", -5.0))
    for other in ((1, "a", "white", -5), (0, "b", "white", -5), (0, "a", "pink", -5), (0, "a", "white", 0)):
        assert (first != draw(*other)).all()
    # A fixed number: the same on every machine and in every version.
    assert stable_seed(0, "a", "white", "-5") == 2512330156757714106


@pytest.mark.parametrize("length", [1, 7, 10, 25])
def test_segments_are_cut_or_repeated(length: int) -> None:
    for seed in range(20):
        part = segment(np.arange(10), length, np.random.default_rng(seed))
        assert len(part) == length
        assert set(np.diff(part)) <= {1, -9}


def test_noise_files_give_different_segments(noise_file: Path) -> None:
    (noise,) = recordings(noise_file)
    assert noise == RecordedNoise("rumble", noise_file)
    parts = [noise.draw(1000, RATE, np.random.default_rng(seed), TARGET) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(parts[0], parts[1])
    assert (parts[0] != parts[2]).any()
    assert len(noise.draw(10 * RATE, RATE, np.random.default_rng(0), TARGET)) == 10 * RATE
    assert [item.name for item in recordings(noise_file.parent)] == ["rumble"]


def test_silent_noise_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "nothing.wav", np.zeros(1000), RATE)
    with pytest.raises(InputError, match="found silence"):
        RecordedNoise("nothing", tmp_path / "nothing.wav").draw(100, RATE, np.random.default_rng(0), TARGET)


def test_babble_sums_six_voices_and_never_the_target(speech_folder: Path) -> None:
    noise = babble(speech_folder)
    target = speech_folder / "voice3.wav"
    seen = set()
    for seed in range(30):
        chosen = noise.choose(np.random.default_rng(seed), target)
        assert len(set(chosen)) == 6
        assert target not in chosen
        seen |= set(chosen)
    assert len(seen) == 7
    sound = noise.draw(RATE, RATE, np.random.default_rng(0), target)
    assert sound.shape == (RATE,)
    # Voices are independent: their powers of one each add up.
    assert np.mean(sound**2) == pytest.approx(6, rel=0.35)


def test_babble_knows_speakers_by_name_and_by_folder(tmp_path: Path) -> None:
    assert voice_of(Path("a/1034-121119-0000.flac"), tmp_path) == "1034"
    assert voice_of(tmp_path / "s1" / "x.wav", tmp_path) == "s1"
    assert voice_of(tmp_path / "x.wav", tmp_path) != voice_of(tmp_path / "y.wav", tmp_path)
    files = {str(n): [tmp_path / f"{n}-1-{k}.flac" for k in range(2)] for n in range(7)}
    noise = Babble("babble", tmp_path, files)
    for seed in range(10):
        chosen = noise.choose(np.random.default_rng(seed), tmp_path / "elsewhere" / "3-9-9.flac")
        assert sorted(path.name[0] for path in chosen) == list("012456")


def test_babble_needs_enough_speakers(speech_folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "one.wav", CLEAN, RATE)
    with pytest.raises(InputError, match="at least 6 speakers for babble, found 1"):
        babble(tmp_path)
    with pytest.raises(InputError, match="expected a folder of speech"):
        babble(tmp_path / "none")
    noise = babble(speech_folder, count=6)
    few = noise._replace(voices=dict(list(noise.voices.items())[:6]))
    with pytest.raises(InputError, match=r"not counting that of voice0\.wav, found 5"):
        few.choose(np.random.default_rng(0), speech_folder / "voice0.wav")


def test_spread_is_even() -> None:
    assert spread(range(100), 10) == list(range(0, 100, 10))
    assert spread(range(5), 3) == [0, 1, 3]
    assert spread(range(3), 9) == spread(range(3), None) == [0, 1, 2]
