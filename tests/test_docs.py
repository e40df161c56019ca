"""What the documentation tells people to type works: every command and every Python block is run or checked.

Commands of this package run in-process, document by document and in order, in a folder where the recordings
they speak of exist (the synthetic example under other names), with as little computation as shows that they
work. Installing and checking commands are not run here: they must stand in `.ci/run`, which runs them. The Python
blocks of a document share their names; a block whose first line is a comment with a file name is that file.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from signals import speechlike

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "examples" / "README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("docs/derivations/*.md"),
    ]
)
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.(?:py|toml))\n(.*)", re.DOTALL)
SHELL = {"bash", "console", "sh"}
CHECKED_BY_CI = ("pip", "pytest", "ruff", "mypy")
RATE = 16000


def blocks(path: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a document: language and text; without the directives of the site ("{image}")."""
    found = BLOCK.findall(path.read_text(encoding="utf-8"))
    return [(language, text) for language, text in found if not language.startswith("{")]


def commands(text: str) -> Iterator[str]:
    """The commands of a shell block, one by one: continued lines joined, chains cut at &&."""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.removeprefix("$ ").split(" #")[0].strip()
        if line and not line.startswith("#"):
            yield from (part.strip() for part in line.split("&&"))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that the documents' commands run in."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    clip = ROOT / "examples" / "noisy.mkv"
    for name in (
        "interview.mkv",
        "camera.mkv",
        "recordings/a.mkv",
        *(f"grid/s1/clip{n}.mkv" for n in range(3)),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, tmp_path / name)
    (tmp_path / "grid" / "train.txt").write_text("clip0\nclip1\n")
    (tmp_path / "grid" / "val.txt").write_text("clip2\n")
    clean, rate = soundfile.read(ROOT / "examples" / "clean.flac")
    for name in ("memo.wav", "recordings/a.wav", "recordings/b.wav"):
        soundfile.write(tmp_path / name, clean, rate)
    noise = np.random.default_rng(0).standard_normal(4 * RATE)
    write(tmp_path / "noise" / "cafe.flac", 0.1 * noise)
    for speaker in range(8):
        voice = speechlike(RATE, 1.5, seed=speaker)
        write(tmp_path / "librispeech" / "train" / f"{speaker}-1-0000.flac", voice)
        write(tmp_path / "librispeech" / "val" / f"{speaker + 10}-1-0000.flac", voice)
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    # Modules that a document wrote: another one may use their names.
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], "__file__", None) or ROOT).is_relative_to(tmp_path):
            del sys.modules[name]


def write(path: Path, sound: np.ndarray) -> None:
    """A mono file at RATE in a folder that may not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, RATE)


def small(arguments: list[str]) -> list[str]:
    """The same command with as little computation as shows that it works."""
    from pyro_minvae.config.load import load_recipe

    if arguments[0] == "train":
        stages = len(load_recipe(arguments[1]).training.stages) if "--help" not in arguments else 0
        settings = [f"training.stages.{stage}.epochs=1" for stage in range(stages)]
    elif arguments[0] in ("enhance", "evaluate", "separate"):
        settings = ["inference.iterations=2"]
    else:
        settings = []
    given = {item.partition("=")[0] for item in arguments}
    extra = [word for item in settings if item.partition("=")[0] not in given for word in ("--set", item)]
    # Each worker process would load torch anew.
    fewer = {"evaluate": ["--workers", "1"], "elbo": [] if "--frames" in arguments else ["--frames", "3"]}
    return arguments + extra + fewer.get(arguments[0], [])


def check_command(command: str, run_cli: Callable[..., object]) -> None:
    """Run a command of this package; look up any other."""
    program, *arguments = shlex.split(command)
    if program == "pyro-minvae":
        result = run_cli(*small(arguments))
        assert result.exit_code == 0, f"{command}\n{result.stdout}{result.stderr}"
    elif program in CHECKED_BY_CI:
        lines = [line.strip() for line in CI.replace(" -q", "").splitlines()]
        assert any(line == command or line.startswith(f"{command} ") for line in lines), command
    elif program == "python" and arguments[0].endswith(".py"):
        assert (ROOT / arguments[0]).is_file(), command
    else:
        assert command in ("python3 -m venv .venv", "source .venv/bin/activate"), command


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_works(
    path: Path, world: Path, run_cli: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, object] = {"__name__": "__docs__"}
    for language, text in blocks(path):
        if language in SHELL:
            for command in commands(text):
                if command.startswith("export PYTHONPATH="):
                    monkeypatch.syspath_prepend(world / command.partition("=")[2])
                else:
                    check_command(command, run_cli)
        elif file := FILE.fullmatch(text):
            (world / file[1]).write_text(file[2], encoding="utf-8")
        elif language == "python":
            exec(compile(text, f"{path.name}, Python block", "exec"), names)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_name_their_language(path: Path) -> None:
    known = SHELL | {"python", "toml", "text", "json"}
    assert {language for language, _ in blocks(path)} <= known


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []


def test_both_commands_of_the_readme_stand_in_ci() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (
        "pip install -c constraints.txt . && pyro-minvae enhance examples/noisy.mkv --out enhanced.wav"
        in text
    )
    assert 'pip install -c constraints.txt -e ".[test]" && pytest' in text
    assert "pyro-minvae enhance examples/noisy.mkv --out enhanced.wav" in CI


def documented_options() -> dict[str, set[str]]:
    """Command -> options in the first column of its tables in docs/commands.md."""
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    sections = re.split(r"^## `pyro-minvae (\w+)`$", text, flags=re.M)[1:]
    rows = {
        name: re.findall(r"^\| (`-.*?) \|", body, re.M)
        for name, body in zip(sections[::2], sections[1::2], strict=True)
    }
    return {
        name: {option for row in cells for option in re.findall(r"--[\w-]+", row)}
        for name, cells in rows.items()
    }


def test_every_command_and_option_is_documented() -> None:
    import typer

    from pyro_minvae.cli.main import app

    group = typer.main.get_command(app)
    real = {
        name: {
            option
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("--") and option != "--help"
        }
        for name, command in group.commands.items()
    }
    assert documented_options() == real


def test_every_recipe_and_bundled_model_is_documented() -> None:
    from pyro_minvae.config.load import recipe_names
    from pyro_minvae.systems.checkpoint import pretrained_names

    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in recipe_names() + pretrained_names() if f"`{name}`" not in text] == []


def test_every_kind_of_part_is_documented() -> None:
    from pyro_minvae.config.load import KINDS

    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", text, re.M))
    for section, kinds in KINDS.items():
        row = rows[".".join(map(str, (*section, "kind")))]
        assert [kind for kind in kinds if f"`{kind}`" not in row] == [], section
