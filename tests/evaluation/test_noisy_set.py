"""The files of a noisy set and the manifest that lists them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from signals import speechlike

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.manifest import NAME, NoisyItem, read_manifest, write_manifest
from pyro_minvae.evaluation.mixing import NoiseSource, White, babble, recordings
from pyro_minvae.evaluation.noisy_set import make_noisy_set, select
from pyro_minvae.features.rumble import audible
from pyro_minvae.types import Utterance

RATE = 16000


def voices(folder: Path, *numbers: int) -> list[Utterance]:
    """Utterances of the synthetic voices."""
    return [Utterance(f"s/voice{n}", f"voice{n}", folder / f"voice{n}.wav", None, "val") for n in numbers]


@pytest.fixture
def noises(noise_file: Path, speech_folder: Path) -> list[NoiseSource]:
    return [White(), *recordings(noise_file), babble(speech_folder)]


def test_files_hold_speech_plus_noise_at_the_snr(
    tmp_path: Path, speech_folder: Path, noises: list[NoiseSource]
) -> None:
    encoder_input: list[str] = []
    items = make_noisy_set(
        voices(speech_folder, 0, 1), noises, snrs_db=[-5, 2.5], out=tmp_path, advance=encoder_input.append
    )
    assert len(items) == len(encoder_input) == 2 * 3 * 2
    assert (tmp_path / "rumble" / "2.5dB" / "s" / "voice0.flac").is_file()
    for item in items:
        (mixture, rate), (clean, _) = soundfile.read(item.mixture), soundfile.read(item.clean)
        assert rate == item.rate == RATE
        assert soundfile.info(item.mixture).subtype == "PCM_24"
        noise = mixture - item.scale * clean
        level = 10 * np.log10(np.sum((item.scale * clean) ** 2) / np.sum(noise**2))
        assert level == pytest.approx(item.snr_db, abs=1e-3)
        assert np.abs(mixture).max() < 1
        # The noise is there as it was drawn, less mean and rumble: a second drawing gives the same to the last bit.
        drawn = next(n for n in noises if n.name == item.noise).draw(
            len(clean), RATE, generator(item), Path(f"{speech_folder / item.speaker}.wav")
        )
        assert item.gain is not None
        np.testing.assert_allclose(
            mixture, item.scale * (clean + item.gain * audible(drawn, RATE)), atol=1e-6
        )


def generator(item: NoisyItem) -> np.random.Generator:
    """The random stream of an item."""
    from pyro_minvae.evaluation.mixing import generator_for

    return generator_for(item.seed, item.id, item.noise, item.snr_db)


def test_sub_sets_reproduce(tmp_path: Path, speech_folder: Path, noises: list[NoiseSource]) -> None:
    whole = make_noisy_set(voices(speech_folder, 0, 1), noises, snrs_db=[-5, 0], out=tmp_path / "whole")
    part = make_noisy_set(voices(speech_folder, 1), noises[2:], snrs_db=[0], out=tmp_path / "part")
    (twin,) = [item for item in whole if (item.id, item.noise, item.snr_db) == ("s/voice1", "babble", 0)]
    assert twin.mixture.read_bytes() == part[0].mixture.read_bytes()
    other = make_noisy_set(voices(speech_folder, 1), noises[2:], snrs_db=[0], out=tmp_path / "other", seed=1)
    assert other[0].mixture.read_bytes() != part[0].mixture.read_bytes()


def test_speech_beyond_full_scale_becomes_float(tmp_path: Path) -> None:
    sound = 3 * speechlike(RATE, 0.5)
    soundfile.write(tmp_path / "hot.wav", sound, RATE, "FLOAT")
    hot = Utterance("hot", "", tmp_path / "hot.wav", None, "test")
    (item,) = make_noisy_set([hot], [White()], snrs_db=[5], out=tmp_path / "set")
    assert item.clean.suffix == ".wav"
    assert np.abs(soundfile.read(item.clean)[0]).max() == pytest.approx(np.abs(sound - sound.mean()).max())
    assert np.abs(soundfile.read(item.mixture)[0]).max() <= 1


def test_an_interrupted_set_has_no_manifest(tmp_path: Path, speech_folder: Path) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    make_noisy_set(voices(speech_folder, 0), [White()], snrs_db=[0], out=tmp_path)
    assert (tmp_path / NAME).is_file()
    with pytest.raises(KeyboardInterrupt):
        make_noisy_set(voices(speech_folder, 0), [White()], snrs_db=[0], out=tmp_path, advance=stop)
    assert not (tmp_path / NAME).exists()


def test_what_cannot_be_mixed_is_named(tmp_path: Path, speech_folder: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(100), RATE)
    silent = Utterance("silent", "", tmp_path / "silent.wav", None, "test")
    with pytest.raises(InputError, match=r"silent\.wav: expected speech, found silence"):
        make_noisy_set([silent], [White()], snrs_db=[0], out=tmp_path / "set")
    good = voices(speech_folder, 0)
    for utterances, noises, fault in (
        (good * 2, [White()], "different utterances"),
        (good, [White(), White()], "different noises"),
        (good, [White("clean")], "another name"),
        ([], [White()], "found none"),
    ):
        with pytest.raises(InputError, match=fault):
            make_noisy_set(utterances, noises, snrs_db=[0], out=tmp_path / "set")


def test_select_by_split_list_and_number(tmp_path: Path) -> None:
    corpus = [Utterance(f"s1/u{n}", "s1", Path(), None, "val" if n % 2 else "train") for n in range(10)]
    assert [u.id for u in select(corpus, source=tmp_path, split="val", limit=2)] == ["s1/u1", "s1/u5"]
    names = tmp_path / "names.txt"
    names.write_text("u3\ns1/u4\n\n")
    assert [u.id for u in select(corpus, source=tmp_path, ids=names)] == ["s1/u3", "s1/u4"]
    with pytest.raises(InputError, match="split test, found train, val"):
        select(corpus, source=tmp_path, split="test")
    names.write_text("u99\n")
    with pytest.raises(InputError, match="found u99"):
        select(corpus, source=tmp_path, ids=names)


def test_manifest_round_trip_in_a_folder_that_moves(tmp_path: Path, noisy_set: list[NoisyItem]) -> None:
    folder = noisy_set[0].clean.parents[1]
    assert read_manifest(folder) == read_manifest(folder / NAME) == noisy_set
    row = json.loads((folder / NAME).read_text().splitlines()[0])
    assert row["mixture"] == "white/-5dB/voice5.flac"
    assert row["clean"] == "clean/voice5.flac"
    shutil.copytree(folder, tmp_path / "moved")
    assert read_manifest(tmp_path / "moved")[0].mixture == tmp_path / "moved/white/-5dB/voice5.flac"


def test_a_video_elsewhere_is_kept_absolute(tmp_path: Path, noisy_set: list[NoisyItem]) -> None:
    (tmp_path / "set").mkdir()
    video = tmp_path / "clips" / "a.mkv"
    write_manifest(tmp_path / "set" / NAME, [noisy_set[0].model_copy(update={"video": video})])
    assert read_manifest(tmp_path / "set")[0].video == video


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "at least one mixture"),
        ("not json\n", "line 1: expected a mixture, found invalid json"),
        (
            '\n{"id": "a", "noise": "white", "snr_db": 0, "mixture": "m.flac"}\n',
            "line 2.*clean: field required",
        ),
        (
            '{"id": "a", "noise": "w", "snr_db": "loud", "mixture": "m", "clean": "c"}\n',
            "snr_db: input should be",
        ),
        ('{"id": "a", "noise": "w", "snr_db": NaN, "mixture": "m", "clean": "c"}\n', "snr_db"),
        ("[1, 2]\n", "line 1"),
    ],
)
def test_bad_manifests_are_explained(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(InputError, match=fault) as error:
        read_manifest(tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_or_binary_manifest_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no file"):
        read_manifest(tmp_path)
    (tmp_path / NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="readable manifest"):
        read_manifest(tmp_path)
