"""Several speakers through a switching system: voices, modes and files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from signals import speechlike
from tiny import lips, save_tiny_model
from typer.testing import CliRunner

from pyro_minvae.cli.main import app
from pyro_minvae.errors import InputError
from pyro_minvae.pipelines.enhancer import Enhancer
from pyro_minvae.pipelines.separator import Separated, Separator

RATE = 16000
MODES = """
name = "two-voices"
[noise]
rank = 2
[inference]
iterations = 4
average = 2
lips = "always"
[[modes]]
name = "lips"
model = "{folder}/av"
component = "lips"
[[modes]]
name = "sound"
model = "{folder}/av"
component = "unpaired"
[[modes]]
name = "other"
model = "{folder}/a"
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voices")
    save_tiny_model(folder / "av")
    save_tiny_model(folder / "a", video=False)
    path = folder / "two-voices.toml"
    path.write_text(MODES.format(folder=folder))
    return path


def mixture() -> np.ndarray:
    return speechlike(RATE, 1.0, seed=0) + speechlike(RATE, 1.0, seed=1)


def separate(system: Path, *videos: object, **options: object) -> Separated:
    return Separator.from_pretrained(system)(mixture(), RATE, videos, seed=3, **options)  # type: ignore[arg-type]


def test_voices_and_background_sum_to_the_mixture_and_each_has_its_modes(system: Path) -> None:
    found = separate(system, lips(1.0, 0), None)
    np.testing.assert_allclose(sum(found.speakers) + found.background, mixture(), atol=1e-12)
    assert found.used_video == [True, False]
    assert len(found.switches) == 2
    for modes, seen in zip(found.switches, (True, False), strict=True):
        assert modes.names == ("lips", "sound", "other")
        np.testing.assert_allclose(modes.probabilities.sum(-1), 1, atol=1e-5)
        assert modes.trust is not None
        # Without lips the mode that needs them is not run.
        assert bool(modes.probabilities[:, 0].any()) == seen == bool(modes.trust.any())
    assert np.abs(found.speakers[0] - found.speakers[1]).max() > 1e-3


def test_swapped_videos_swap_the_voices(system: Path) -> None:
    one, other = separate(system, lips(1.0, 0), lips(1.0, 1)), separate(system, lips(1.0, 1), lips(1.0, 0))
    for j in range(2):
        np.testing.assert_allclose(one.speakers[j], other.speakers[1 - j], atol=1e-6)
        np.testing.assert_allclose(one.switches[j].probabilities, other.switches[1 - j].probabilities)


def test_alike_speakers_come_apart(system: Path) -> None:
    found = separate(system, None, None)
    assert np.abs(found.speakers[0] - found.speakers[1]).max() > 1e-3
    assert "up to chance" in found.warnings[0]


def test_one_speaker_is_what_the_enhancer_gives(system: Path) -> None:
    found = separate(system, lips(1.0, 0))
    enhanced = Enhancer.from_pretrained(system)(mixture(), RATE, lips(1.0, 0), seed=3)
    np.testing.assert_allclose(found.speakers[0], enhanced.speech, atol=1e-12)
    assert enhanced.switches is not None
    np.testing.assert_allclose(found.switches[0].probabilities, enhanced.switches.probabilities)


def test_without_background_the_voices_share_the_sound(system: Path) -> None:
    with_noise, without = (
        separate(system, lips(1.0, 0), lips(1.0, 1), background=background) for background in (True, False)
    )
    assert np.square(without.background).sum() < 0.5 * np.square(with_noise.background).sum()


def test_a_system_is_for_all_speakers(system: Path) -> None:
    with pytest.raises(InputError, match="model: expected a switching system by itself"):
        Separator.from_pretrained([system, "a-vae"])


@pytest.mark.parametrize("switching", [True, False])
def test_the_command_writes_modes_beside_voices(system: Path, switching: bool, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mix.wav", 0.2 * mixture(), RATE)
    model = str(system if switching else system.parent / "a")
    arguments = [
        "separate",
        str(tmp_path / "mix.wav"),
        "--speakers",
        "2",
        "--names",
        "a",
        "b",
        "--model",
        model,
    ]
    result = CliRunner().invoke(
        app, [*arguments, "--switches", "--set", "inference.iterations=2", "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.stderr
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"a.wav", "b.wav", "background.wav"} | ({"a.csv", "b.csv"} if switching else set())
    if not switching:
        assert "--switches: nothing written" in result.stderr
        return
    rows = list(csv.DictReader((tmp_path / "out" / "a.csv").read_text().splitlines()))
    assert {"time_s", "mode", "p_lips", "p_sound", "p_other", "trust"} == set(rows[0])
    assert {row["mode"] for row in rows} <= {"sound", "other"}
