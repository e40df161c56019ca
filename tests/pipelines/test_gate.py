"""Lips of faces that the bundled model does not know are left out, those of the one that it knows are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pyro_minvae import Enhancer
from pyro_minvae.media.audio import read_audio


def held_out(data_root: Path, count: int) -> list[Path]:
    lines = (data_root / "grid" / "val.txt").read_text(encoding="utf-8").split()
    return [data_root / "grid" / "s1" / f"{Path(line).stem}.mkv" for line in lines[:: len(lines) // count]][
        :count
    ]


@pytest.mark.real_data
def test_the_known_face_is_used_and_others_are_not(data_root: Path) -> None:
    enhancer = Enhancer.from_pretrained("min-vae-grid")
    for clip in held_out(data_root, 3):
        assert enhancer.unusable(enhancer.lips(clip)) == ""
    for speaker in ("s2", "s3", "s4", "s5", "s30", "s31"):
        clip = sorted((data_root / "grid_faces" / speaker).glob("*.mkv"))[0]
        assert enhancer.unusable(enhancer.lips(clip)).startswith(
            "the lips move unlike those the model learnt"
        )


@pytest.mark.real_data
def test_refused_lips_change_nothing_to_the_digit(data_root: Path) -> None:
    clip = sorted((data_root / "grid_faces" / "s4").glob("*.mkv"))[0]
    audio = read_audio(clip)
    noisy = audio.waveform + 0.05 * np.random.default_rng(0).standard_normal(audio.waveform.shape)
    auto = Enhancer.from_pretrained("min-vae-grid")(noisy, audio.rate, clip)
    never = Enhancer.from_pretrained("min-vae-grid", overrides=["inference.lips=never"])(
        noisy, audio.rate, clip
    )
    assert not auto.used_video
    np.testing.assert_array_equal(auto.speech, never.speech)


@pytest.mark.real_data
def test_lips_that_come_late_or_stand_still_change_nothing_to_the_digit(data_root: Path) -> None:
    enhancer = Enhancer.from_pretrained("min-vae-grid")
    never = Enhancer.from_pretrained("min-vae-grid", overrides=["inference.lips=never"])
    clip = held_out(data_root, 1)[0]
    audio, lips = read_audio(clip), enhancer.lips(clip)
    assert lips is not None
    noise = np.random.default_rng(0).standard_normal(audio.waveform.shape)
    noisy = audio.waveform + audio.waveform.std() * noise
    alone = never(noisy, audio.rate).speech
    right = enhancer(noisy, audio.rate, lips)
    assert right.used_video
    assert "right lag against others" in right.lips_evidence
    late = lips._replace(crops=np.roll(lips.crops, 20, 0), valid=np.roll(lips.valid, 20))
    still = lips._replace(crops=np.repeat(lips.crops[:1], len(lips.crops), 0))
    for wrong, why in ((late, "do not go with the sound"), (still, "unlike those the model learnt")):
        found = enhancer(noisy, audio.rate, wrong)
        assert not found.used_video
        assert why in found.without_video
        np.testing.assert_array_equal(found.speech, alone)
