"""NTCD-TIMIT: sounds, mixtures and crops found in a miniature of the corpus."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_minvae.config.schema import CropConfig, Stft
from pyro_minvae.data.cache import prepare
from pyro_minvae.data.ntcd_timit import noisy, ntcd_timit
from pyro_minvae.errors import InputError

SPEAKERS = {"01M": "train", "08F": "dev", "33F": "test"}
SENTENCES = ("si1", "sx2")


@pytest.fixture
def corpus(tmp_path: Path, touch: Callable[..., Path]) -> Path:
    for speaker, split in SPEAKERS.items():
        for sentence in SENTENCES:
            home = Path("volunteers", speaker, "straightcam", f"{sentence}.wav")
            touch(tmp_path / "Clean" / home)
            touch(tmp_path / "Noisy" / "set" / "Babble" / "-5" / home)
            touch(tmp_path / "Noisy" / "set" / "Cafe" / "SNR 10dB" / home)
            touch(tmp_path / "matlab_raw" / split / speaker / f"{sentence}.mat")
    touch(tmp_path / "Clean" / "volunteers" / "01M" / "30degcam" / "si1.wav")
    return tmp_path


def test_clean_utterances(corpus: Path) -> None:
    found = list(ntcd_timit(corpus))
    assert [(item.id, item.speaker, item.split) for item in found] == [
        (f"{speaker}/{sentence}", speaker, {"dev": "val"}.get(split, split))
        for speaker, split in SPEAKERS.items()
        for sentence in SENTENCES
    ]
    assert found[0].audio == corpus / "Clean" / "volunteers" / "01M" / "straightcam" / "si1.wav"
    assert found[0].video == corpus / "matlab_raw" / "train" / "01M" / "si1.mat"


def test_nesting_does_not_matter(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("other")
    shutil.move(corpus / "Clean", root / "audio" / "16k" / "Clean")
    shutil.move(corpus / "matlab_raw", root / "video" / "matlab_raw")
    assert len(list(ntcd_timit(root))) == 6


def test_mixtures(corpus: Path) -> None:
    found = list(noisy(corpus))
    assert len(found) == 12
    assert {(item.noise, item.snr_db) for item in found} == {("Babble", -5.0), ("Cafe", 10.0)}
    for item in found:
        assert item.mixture.name == item.utterance.audio.name
        assert item.utterance.speaker in item.mixture.parts


@pytest.mark.parametrize(
    ("removed", "found"),
    [
        ("Clean", "expected sounds in Clean/volunteers"),
        ("matlab_raw", "found no folder matlab_raw"),
        ("matlab_raw/dev/08F", r"08F/straightcam/si1.wav: expected crops of speaker 08F in a split"),
    ],
)
def test_missing_parts(corpus: Path, removed: str, found: str) -> None:
    shutil.rmtree(corpus / removed)
    with pytest.raises(InputError, match=found):
        list(ntcd_timit(corpus))


@pytest.mark.parametrize(
    ("removed", "where"),
    [
        ("matlab_raw/train/01M/si1.mat", "matlab_raw/train/01M/si1.mat"),
        ("Clean/volunteers/01M/straightcam/si1.wav", "Clean/volunteers/01M/straightcam/si1.wav"),
    ],
)
def test_a_missing_piece_is_named_when_it_is_read(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory, removed: str, where: str
) -> None:
    (corpus / removed).unlink()
    found = list(ntcd_timit(corpus))
    assert len(found) == 6
    with pytest.raises(InputError, match=rf"{where}: expected a readable file, found: No such file"):
        prepare(found[:1], stft=Stft(), crops=CropConfig(), cache=tmp_path_factory.mktemp("cache"))


def test_speaker_in_two_splits(corpus: Path) -> None:
    shutil.copytree(corpus / "matlab_raw" / "train" / "01M", corpus / "matlab_raw" / "test" / "01M")
    with pytest.raises(InputError, match="expected each speaker in one split, found it in test too"):
        list(ntcd_timit(corpus))


def test_unknown_split(corpus: Path) -> None:
    (corpus / "matlab_raw" / "spare").mkdir()
    with pytest.raises(InputError, match=r"expected a split \(train, dev or test\), found spare"):
        list(ntcd_timit(corpus))


def test_faulty_mixtures(corpus: Path, touch: Callable[..., Path]) -> None:
    shutil.rmtree(corpus / "Noisy")
    with pytest.raises(InputError, match="expected mixtures in Noisy"):
        list(noisy(corpus))
    stray = touch(corpus / "Noisy/Babble/-5/volunteers/01M/straightcam/gone.wav")
    with pytest.raises(InputError, match=r"gone\.wav: expected a clean recording of this sentence"):
        list(noisy(corpus))
    stray.unlink()
    touch(corpus / "Noisy/Babble/loud/volunteers/01M/straightcam/si1.wav")
    with pytest.raises(InputError, match="found no SNR in loud"):
        list(noisy(corpus))


def test_lips_come_out_as_pixels(
    tmp_path: Path, make_wav: Callable[..., Path], make_mat: Callable[[Path, np.ndarray], Path]
) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (4, 67, 67), np.uint8)
    make_wav(tmp_path / "Clean/volunteers/01M/straightcam/si1.wav")
    make_mat(tmp_path / "matlab_raw/train/01M/si1.mat", crops)
    (item,), faults = prepare(
        list(ntcd_timit(tmp_path)), stft=Stft(), crops=CropConfig(), cache=tmp_path / "cache"
    )
    assert not faults
    assert item.lips is not None
    np.testing.assert_array_equal(item.lips.crops, crops)
    np.testing.assert_allclose(item.lips.times, np.arange(4) / 30)
    assert item.lips.valid.all()
