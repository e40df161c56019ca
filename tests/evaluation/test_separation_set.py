"""Mixtures of several speakers: levels, sums, who speaks with whom, and the manifest that lists them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from signals import speechlike

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.manifest import (
    NAME,
    NoisyItem,
    SeparationItem,
    read_manifest,
    read_separation,
    read_set,
)
from pyro_minvae.evaluation.mixing import PEAK, White, mix_speakers
from pyro_minvae.evaluation.separation_set import casts, make_separation_set, stage
from pyro_minvae.types import Utterance

RATE = 16000


def voices(folder: Path, *numbers: int, video: Path | None = None) -> list[Utterance]:
    """Utterances of the synthetic voices, each by a speaker of their own."""
    return [Utterance(f"s{n}/voice{n}", f"s{n}", folder / f"voice{n}.wav", video, "val") for n in numbers]


def sounds(item: SeparationItem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mixture [S], speakers [J, S] and noise [S] of the files, as whole numbers of 24 bits."""
    mixture = soundfile.read(item.mixture)[0]
    speakers = np.stack([soundfile.read(speaker.clean)[0] for speaker in item.speakers])
    noise = np.zeros_like(mixture) if item.background is None else soundfile.read(item.background)[0]
    return mixture * 2**23, speakers * 2**23, noise * 2**23


def decibels(power: float, other: float) -> float:
    """The ratio of two powers."""
    return 10 * np.log10(power / other)


@given(level=st.floats(-30, 30), snr=st.floats(-30, 30), count=st.integers(2, 4), loud=st.floats(0.01, 30))
def test_levels_and_sum_hold_for_any_signals(level: float, snr: float, count: int, loud: float) -> None:
    random = np.random.default_rng(count)
    signals = random.standard_normal((count, 400)) * loud ** np.arange(count)[:, None]
    noise = random.standard_normal(400)
    chorus = mix_speakers(signals, level, noise, snr)
    np.testing.assert_allclose(chorus.speakers.sum(0) + chorus.noise, chorus.mixture, atol=1e-12)
    for other in chorus.speakers[1:]:
        assert decibels((chorus.speakers[0] ** 2).sum(), (other**2).sum()) == pytest.approx(level, abs=1e-6)
    speech = (chorus.speakers.sum(0) ** 2).sum()
    assert decibels(speech, (chorus.noise**2).sum()) == pytest.approx(snr, abs=1e-6)
    assert max(np.abs(part).max() for part in (chorus.mixture, *chorus.speakers, chorus.noise)) <= max(
        PEAK, 1
    )
    # The first speaker keeps their level but for the common scale.
    np.testing.assert_allclose(chorus.speakers[0], chorus.scale * signals[0])


def test_one_speaker_without_power_is_refused() -> None:
    with pytest.raises(ValueError, match="power"):
        mix_speakers(np.stack([np.ones(10), np.zeros(10)]), 0.0)
    with pytest.raises(ValueError, match="signals"):
        mix_speakers(np.ones(10), 0.0)


def test_files_add_up_to_the_last_bit(tmp_path: Path, speech_folder: Path) -> None:
    encoder_input: list[str] = []
    pool = voices(speech_folder, *range(8))
    items = make_separation_set(
        casts(pool[:2], pool, count=3, seed=0), [White()], levels_db=[0, -5], snrs_db=[5], out=tmp_path,
        advance=encoder_input.append,
    )  # fmt: skip
    assert len(items) == len(encoder_input) == 4
    assert items == read_separation(tmp_path) == read_set(tmp_path)
    for item in items:
        mixture, speakers, noise = sounds(item)
        np.testing.assert_array_equal(speakers.sum(0) + noise, mixture)
        level = decibels((speakers[0] ** 2).sum(), (speakers[2] ** 2).sum())
        assert level == pytest.approx(item.level_db, abs=1e-3)
        assert decibels((speakers.sum(0) ** 2).sum(), (noise**2).sum()) == pytest.approx(5, abs=1e-3)
        assert item.voices == "different"
    assert (tmp_path / "white" / "5dB" / "level-5dB" / "s3").is_dir()


def test_without_noise_there_is_only_speech(tmp_path: Path, speech_folder: Path) -> None:
    pool = voices(speech_folder, 0, 1)
    (item, _) = make_separation_set(casts(pool, pool, count=2, seed=0), [], levels_db=[2.5], out=tmp_path)
    assert (item.noise, item.snr_db, item.background) == (None, None, None)
    assert item.mixture.parent == tmp_path / "quiet" / "level2.5dB" / "mix"
    mixture, speakers, _ = sounds(item)
    np.testing.assert_array_equal(speakers.sum(0), mixture)


def test_a_part_of_a_set_is_the_same_as_in_the_whole(tmp_path: Path, speech_folder: Path) -> None:
    pool = voices(speech_folder, *range(8))

    def make(name: str, first: list[Utterance], seed: int = 0) -> list[SeparationItem]:
        cast = casts(first, pool, count=2, seed=seed)
        return make_separation_set(
            cast, [White()], levels_db=[0], snrs_db=[0], out=tmp_path / name, seed=seed
        )

    whole, part, other = make("whole", pool), make("part", pool[3:4]), make("other", pool[3:4], seed=5)
    (twin,) = [item for item in whole if item.id == part[0].id]
    assert twin.mixture.read_bytes() == part[0].mixture.read_bytes()
    assert twin.mixture.read_bytes() != other[0].mixture.read_bytes()


def test_other_people_are_drawn_where_there_are_any(speech_folder: Path) -> None:
    mine = [Utterance(f"a{n}", "ann", speech_folder / f"voice{n}.wav", None, "val") for n in range(3)]
    hers = [Utterance(f"b{n}", "bea", speech_folder / f"voice{n}.wav", None, "val") for n in (3, 4)]
    for seed in range(20):
        ((first, other),) = casts(mine[:1], mine + hers, count=2, seed=seed)
        assert (first, other.speaker) == (mine[0], "bea")
        # Three people are asked for where there are two, or one: the same people again, but never the same clip.
        for pool, count in ((mine + hers, 3), (mine, 2)):
            (cast,) = casts(mine[:1], pool, count=count, seed=seed)
            assert len({one.id for one in cast}) == count
    drawn = {casts(mine[:1], hers, count=2, seed=seed)[0][1].id for seed in range(20)}
    assert drawn == {"b3", "b4"}
    with pytest.raises(InputError, match=r"voice0\.wav: expected 2 other utterances to mix with, found 1"):
        casts(mine[:1], mine[:2], count=3, seed=0)


def test_clips_with_video_start_at_their_beginning(tmp_path: Path, speech_folder: Path) -> None:
    video = tmp_path / "lips.npz"
    seen, unseen = voices(speech_folder, 6, video=video), voices(speech_folder, 7)
    short = voices(speech_folder, 0)
    starts = set()
    for seed in range(4):
        scene = stage((short[0], seen[0], unseen[0]), seed=seed)
        length = soundfile.info(short[0].audio).frames
        assert scene.signals.shape == (3, length)
        start = soundfile.read(seen[0].audio)[0][:length]
        np.testing.assert_allclose(scene.signals[1], start - start.mean(), atol=1e-6)
        whole = np.diff(soundfile.read(unseen[0].audio)[0])
        starts |= {
            n
            for n in range(len(whole) - length + 2)
            if np.allclose(whole[n : n + length - 1], np.diff(scene.signals[2]), atol=1e-6)
        }
    assert len(starts) > 1


def test_the_manifest_moves_with_its_folder(tmp_path: Path, speech_folder: Path) -> None:
    pool = voices(speech_folder, 0, 1, video=tmp_path / "elsewhere.mkv")
    make_separation_set(
        casts(pool[:1], pool, count=2, seed=0), [White()], levels_db=[0], snrs_db=[3], out=tmp_path / "set"
    )
    row = json.loads((tmp_path / "set" / NAME).read_text())
    assert row["speakers"][1]["clean"] == "white/3dB/level0dB/s2/s0-voice0+s1-voice1.flac"
    assert row["background"] == "white/3dB/level0dB/noise/s0-voice0+s1-voice1.flac"
    assert row["speakers"][0]["video"] == str(tmp_path / "elsewhere.mkv")
    shutil.copytree(tmp_path / "set", tmp_path / "moved")
    (item,) = read_separation(tmp_path / "moved")
    assert item.speakers[0].clean.is_relative_to(tmp_path / "moved")
    assert item.speakers[0].clean.is_file()


def test_the_kinds_of_sets_are_told_apart(
    tmp_path: Path, speech_folder: Path, noisy_set: list[NoisyItem]
) -> None:
    pool = voices(speech_folder, 0, 1)
    make_separation_set(casts(pool[:1], pool, count=2, seed=0), [], levels_db=[0], out=tmp_path)
    noisy = noisy_set[0].clean.parents[1]
    assert read_set(noisy) == noisy_set
    with pytest.raises(InputError, match=r"line 1: expected a noisy set .* found a line of a separation set"):
        read_manifest(tmp_path)
    with pytest.raises(InputError, match=r"line 1: expected a separation set .* found a line of a noisy set"):
        read_separation(noisy)
    # One speaker is no separation set, and a damaged line is explained as what its keys say that it is.
    row = json.loads((tmp_path / NAME).read_text())
    (tmp_path / NAME).write_text(json.dumps(row | {"speakers": row["speakers"][:1]}) + "\n")
    with pytest.raises(InputError, match="line 1: expected a mixture, found speakers"):
        read_set(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--with", "nowhere", "--speakers", 2], "nowhere: expected a folder of recordings"),
        (["--level", 0, "--white", "--snr", 0], "expected --speakers 2 or more"),
        (["--speakers", 2, "--snr", 0], "expected a kind of noise .* for --snr"),
        (["--speakers", 2, "--white"], "at least one --snr"),
        (["--speakers", 2, "--level", "nan"], "--level nan: expected a finite level"),
        (["--speakers", 2, "--level", 3, "--level", 3], "3 dB: expected different levels"),
        (["--speakers", 2, "--limit", 1, "--list", "one.txt"], "expected 1 other utterances"),
        (["--speakers", 2, "--noise", "quiet.wav", "--snr", 0], "quiet: expected another name"),
        (["--speakers", 2, "--with", "silent"], r"expected speech, found silence in all"),
    ],
)
def test_bad_requests_are_one_line(
    arguments: list[Any],
    fault: str,
    run_cli: Callable[..., Any],
    tmp_path: Path,
    speech_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.txt").write_text("voice3\n")
    (tmp_path / "silent").mkdir()
    soundfile.write("quiet.wav", speechlike(RATE, 0.5), RATE)
    soundfile.write("silent/nobody.wav", np.zeros(RATE), RATE)
    done = run_cli("mix", speech_folder, "--out", tmp_path / "set", *arguments)
    assert done.exit_code == 2
    *words, line = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert re.search(fault, line), line
    # Each mixture that is left out is named.
    named = [word for word in words if word.startswith("warning: ")]
    assert all("silent/nobody.wav: left out" in word for word in named)
    assert len(named) == (8 if "silent" in arguments else 0)
    assert not (tmp_path / "set" / NAME).exists()


def test_the_command_makes_every_kind_of_mixture(
    run_cli: Callable[..., Any], tmp_path: Path, speech_folder: Path
) -> None:
    done = run_cli(
        *("mix", speech_folder, "--speakers", 2, "--limit", 2, "--level", 0, "--level", -5),
        *("--white", "--snr", 0, "--snr", 10, "--out", tmp_path, "--seed", 3),
    )
    assert done.exit_code == 0, done.stderr
    assert "8 mixtures of 2 speakers" in done.stdout
    kinds = {(item.noise, item.snr_db, item.level_db, item.seed) for item in read_separation(tmp_path)}
    assert kinds == {("white", snr, level, 3) for snr in (0, 10) for level in (0, -5)}
