"""`pyro-minvae separate`: files that sum to the mixture, several faces in one video, and every refusal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from faces import face_pictures, write_video
from signals import speechlike
from tiny import save_tiny_model

from pyro_minvae.cli.separation_files import parse_faces, plan_separation
from pyro_minvae.errors import InputError
from pyro_minvae.media.crop_files import save_lips
from pyro_minvae.types import MouthCrops

RATE = 16000
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("separate") / "model")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `a.mkv` and `b.mkv`, one drawn face each, `both.mkv` with both and sound, and `mix.wav`."""
    folder = tmp_path_factory.mktemp("films")
    steps = np.arange(25)
    alone = [face_pictures(0.5 - 0.5 * np.cos(steps / pace)) for pace in (2, 3)]
    sound = voices(2)
    for name, pictures in zip("ab", alone, strict=True):
        write_video(folder / f"{name}.mkv", pictures)
    write_video(
        folder / "both.mkv",
        [np.hstack(pair) for pair in zip(*alone, strict=True)],
        sound=sound,
        sound_codec="flac",
    )
    soundfile.write(folder / "mix.wav", sound[0], RATE, subtype="PCM_16")
    return folder


def voices(count: int, seconds: float = 1.0) -> np.ndarray:
    """[1, S]."""
    return 0.6 * sum(speechlike(RATE, seconds, seed)[None] for seed in range(count))  # type: ignore[no-any-return]


@pytest.fixture
def separate(run_cli: Run, model: Path, tmp_path: Path) -> Run:
    """`separate(mix, *options)` with the tiny model into tmp_path/out."""

    def run(source: Path, *options: object) -> Any:
        given = ["--model", model] if "--model" not in options else []
        return run_cli(
            "separate", source, "--out", tmp_path / "out", *given, "--set", "inference.lips=always", *options
        )

    return run


def assert_refused(result: Any, *words: object) -> None:
    """Exit code 2 and a single line on standard error that holds all `words`."""
    assert result.exit_code == 2, result.stdout + result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith("error: ")
    for word in words:
        assert str(word) in line
    assert result.stdout == ""


def read(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: soundfile.read(path, dtype="float64")[0] for path in sorted(folder.iterdir())}


def test_a_mixture_becomes_a_file_for_each_speaker(separate: Run, films: Path, tmp_path: Path) -> None:
    result = separate(
        films / "mix.wav", "--video", films / "a.mkv", "--video", films / "b.mkv", "--names", "anna", "ben"
    )
    assert result.exit_code == 0, result.stderr
    found = read(tmp_path / "out")
    assert list(found) == ["anna", "background", "ben"]
    mixture, _ = soundfile.read(films / "mix.wav")
    # To the sample: the files are on the grid of 16 bits.
    np.testing.assert_array_equal(sum(found.values()), mixture)
    for name, line in zip(("anna", "ben", "background"), result.stdout.splitlines(), strict=True):
        assert line.startswith(f"{tmp_path / 'out' / name}.wav: {name}, 1.00 s, ")
        assert ("audio-visual" in line) == (name != "background")
        assert re.search(r"real-time factor \d+\.\d\d$", line)
        info = soundfile.info(tmp_path / "out" / f"{name}.wav")
        assert (info.frames, info.samplerate, info.subtype) == (RATE, RATE, "PCM_16")


def test_names_may_stand_anywhere_or_be_the_videos_own(separate: Run, films: Path, tmp_path: Path) -> None:
    both = "--video", films / "a.mkv", "--video", films / "b.mkv"
    outputs = []
    for names in ((), ("--names", "a", "--names", "b"), ("--names", "b", "a")):
        result = separate(
            films / "mix.wav", *names, *(both if names[-1:] != ("a",) else (both[2:] + both[:2]))
        )
        assert result.exit_code == 0, result.stderr
        outputs.append(read(tmp_path / "out"))
    for other in outputs[1:]:
        assert list(other) == ["a", "b", "background"]
        for name, sound in outputs[0].items():
            np.testing.assert_array_equal(other[name], sound)
    assert not np.array_equal(outputs[0]["a"], outputs[0]["b"])


@pytest.mark.parametrize(
    ("suffix", "subtype", "rate"),
    [(".flac", "PCM_24", 8000), (".wav", "PCM_24", 44100), (".wav", "FLOAT", 16000)],
)
def test_channels_rate_and_coding_are_kept(
    suffix: str, subtype: str, rate: int, separate: Run, films: Path, tmp_path: Path
) -> None:
    sound = 0.4 * np.stack([speechlike(rate, 0.5, seed) for seed in range(2)], 1)
    source = tmp_path / f"in{suffix}"
    soundfile.write(source, sound, rate, subtype=subtype)
    result = separate(source, "--video", films / "a.mkv", "--speakers", 2, "--no-background")
    assert result.exit_code == 0, result.stderr
    names = [path.name for path in sorted((tmp_path / "out").iterdir())]
    assert names == [f"{name}{suffix}" for name in ("a", "background", "speaker-2")]
    info = soundfile.info(tmp_path / "out" / names[0])
    assert (info.frames, info.channels, info.samplerate, info.subtype) == (*sound.shape, rate, subtype)
    found, mixture = read(tmp_path / "out"), soundfile.read(source)[0]
    np.testing.assert_allclose(sum(found.values()), mixture, rtol=0, atol=0 if subtype != "FLOAT" else 1e-6)
    # The floor leaves little to the background.
    assert np.sum(found["background"] ** 2) < 0.1 * np.sum(mixture**2)
    assert "audio-only (no video)" in result.stdout.splitlines()[1]


def test_faces_of_one_video_are_speakers(separate: Run, films: Path, tmp_path: Path) -> None:
    found = {}
    for faces, names in (("left,right", "left right"), ("all", "face-0 face-1"), ("1,0", "face-0 face-1")):
        result = separate(films / "both.mkv", "--faces", faces)
        assert result.exit_code == 0, result.stderr
        assert result.stdout.count("audio-visual") == 2
        found[faces] = read(tmp_path / "out")
        assert set(found[faces]) >= {*names.split(), "background"}
        mixture = np.round(voices(2)[0] * 2**15) / 2**15
        np.testing.assert_allclose(
            sum(found[faces][name] for name in (*names.split(), "background")), mixture, atol=2**-14
        )
    np.testing.assert_array_equal(found["all"]["face-0"], found["left,right"]["left"])
    np.testing.assert_array_equal(found["all"]["face-1"], found["1,0"]["face-1"])
    assert not np.array_equal(found["all"]["face-0"], found["all"]["face-1"])


def test_faces_may_come_from_another_file_than_the_sound(separate: Run, films: Path, tmp_path: Path) -> None:
    options = (
        "--video",
        films / "both.mkv",
        "--faces",
        "all",
        "--speakers",
        3,
        "--names",
        "anna",
        "ben",
        "eve",
    )
    result = separate(films / "mix.wav", *options)
    assert result.exit_code == 0, result.stderr
    assert list(read(tmp_path / "out")) == ["anna", "background", "ben", "eve"]
    assert [("audio-only" in line) for line in result.stdout.splitlines()] == [False, False, True, False]


def test_what_is_known_of_lips_and_models_is_told(
    separate: Run, films: Path, model: Path, tmp_path: Path
) -> None:
    deaf = save_tiny_model(tmp_path / "a-vae", video=False)
    same = "--video", films / "a.mkv", "--video", films / "a.mkv", "--names", "one", "two"
    result = separate(films / "mix.wav", *same)
    assert result.exit_code == 0, result.stderr
    assert "warning: speakers 1 and 2 have the same lips" in result.stderr
    result = separate(films / "mix.wav", *same, "--model", model, "--model", deaf)
    assert result.exit_code == 0, result.stderr
    assert "one, 1.00 s, audio-visual" in result.stdout
    assert "two, 1.00 s, audio-only (the model has no visual network)" in result.stdout
    grey = write_video(tmp_path / "grey.mkv", [np.full((96, 96), 99, np.uint8)] * 5)
    result = separate(films / "mix.wav", "--video", grey)
    assert result.exit_code == 0, result.stderr
    assert "grey, 1.00 s, audio-only (no face found)" in result.stdout


# What is asked for, and the words of the one line that answers.
REFUSED = {
    "nobody": ("{mix}", "{mix}", "--video, --faces or --speakers"),
    "nobody in a video": ("{both}", "{both}", "--video, --faces or --speakers"),
    "no mixture": ("{tmp}/none.wav --speakers 2", "none.wav", "found no such file"),
    "a folder": ("{films} --speakers 2", "{films}", "found a folder"),
    "two mixtures": ("{mix} {both} --speakers 2", "{both}", "a single MIX"),
    "broken mixture": ("{letter} --speakers 2", "{letter}", "expected", "found"),
    "silent mixture": ("{a} --speakers 2", "{a}", "expected", "found"),
    "no video": ("{mix} --video {tmp}/none.mkv", "none.mkv", "found no such file"),
    "broken video": ("{mix} --video {letter}", "{letter}", "expected", "found"),
    "few names": ("{two} --names a", "--names", "expected 2", "found 1"),
    "many names": ("{two} --names a b c", "--names", "expected 2", "found 3"),
    "names of faces": ("{both} --faces all --names a", "--names", "expected 2", "found 1"),
    "equal names": ("{two} --names a A", "--names", "different", "'a' 2 times"),
    "equal videos": ("{mix} --video {a} --video {a}", "--names", "different", "'a' 2 times"),
    "a path": ("{two} --names a ../b", "'../b'", "a name that a file may have"),
    "hidden": ("{two} --names a .b", "'.b'", "a name that a file may have"),
    "no name": ("{two} --names a ''", "--names ''", "a name that a file may have"),
    "long name": ("{two} --names a " + 300 * "b", "a name that a file may have"),
    "background": ("{two} --names a Background", "Background", "that of the background"),
    "few speakers": ("{two} --speakers 1", "--speakers 1", "at least the 2"),
    "few speakers for faces": ("{both} --faces all --speakers 1", "--speakers 1", "at least the 2"),
    "odd faces": ("{both} --faces top", "--faces top", "all", "left"),
    "no faces": ("{both} --faces ''", "--faces", "all", "left"),
    "a face twice": ("{both} --faces left,left", "--faces left,left", "different faces"),
    "the same face": ("{both} --faces left,0", "{both}", "different faces"),
    "too few faces": ("{both} --faces 0,1,2", "{both}", "at least 3 faces, found 2"),
    "one face": ("{mix} --video {a} --faces left,right", "{a}", "at least 2 faces, found 1"),
    "faces of two videos": ("{two} --faces all", "--faces all", "one video", "2 videos"),
    "faces of a sound": ("{mix} --faces all", "--faces all", "one video", "no video"),
    "faces of crops": ("{mix} --video {crops} --faces all", "{crops}", "several faces"),
    "no folder": ("{two} --out {letter}/out", "{letter}", "expected", "found"),
    "out is a file": ("{two} --out {letter}", "{letter}", "expected", "found"),
    "out is the input": ("{two} --out {films} --names mix b", "{mix}", "apart from the inputs"),
    "model": ("{two} --model no-such-model", "no-such-model", "expected"),
    "models": ("{mix} --speakers 2 --model {m} --model {m} --model {m}", "3 speakers, one for each model"),
    "setting": ("{two} --set inference.iteration=3", "iteration"),
    "device": ("{two} --device no-such-device", "no-such-device"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_bad_input_is_one_line_and_leaves_nothing(
    case: str, separate: Run, films: Path, model: Path, tmp_path: Path
) -> None:
    names = {
        "a": films / "a.mkv",
        "both": films / "both.mkv",
        "mix": films / "mix.wav",
        "films": films,
        "m": model,
    }
    names |= {"tmp": tmp_path, "letter": tmp_path / "letter.mkv", "crops": tmp_path / "crops.npz"}
    names["letter"].write_text("no video\n" * 50)
    save_lips(names["crops"], MouthCrops(np.zeros((3, 8, 8), np.uint8), np.arange(3) / 25, np.ones(3, bool)))
    two = "{mix} --video {a} --video {films}/b.mkv".format(**names)
    asked, *words = (text.format(two=two, **names) for text in REFUSED[case])
    before = {path: path.stat().st_mtime_ns for folder in (tmp_path, films) for path in folder.rglob("*")}
    assert_refused(separate(*shlex.split(asked)), *words)
    assert before == {
        path: path.stat().st_mtime_ns for folder in (tmp_path, films) for path in folder.rglob("*")
    }


def test_faces_as_they_are_written() -> None:
    assert parse_faces("all") == "all"
    assert parse_faces("left, right,1") == ["left", "right", 1]
    for text in ("", "left,", "-1", "1.0", "all,left", "½"):
        with pytest.raises(InputError, match="--faces"):
            parse_faces(text)


def test_a_folder_is_made_only_when_there_is_something_to_write(films: Path, tmp_path: Path) -> None:
    job = plan_separation(films / "mix.wav", speakers=2, out=tmp_path / "deep" / "er")
    assert job.called(0) == ["speaker-1", "speaker-2"]
    assert list(tmp_path.iterdir()) == []
