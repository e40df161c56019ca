"""`pyro-minvae train` as typed: TensorBoard, broken files, Ctrl-C, and what is left when nothing came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile
import torch
from signals import speechlike

from pyro_minvae.inference.svi.trainer import EpochEvent, StepEvent
from pyro_minvae.pipelines.train_run import LOG, STATE, Run
from pyro_minvae.systems.checkpoint import load_model, load_state

RATE = 1000
RECIPE = """
name = "tiny"
stft = { rate = 1000, window = 32, hop = 16 }
model = { latent = 2, decoder = { hidden = [8] } }
guide = { kind = "audio", audio = { hidden = [8] } }

[training]
batch = 64
validation_share = 0.3

[[training.stages]]
name = "audio"
prior = "standard"
guide = "audio"
learn = ["decoder", "audio"]
epochs = 3
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    """The command with a tiny recipe and a folder of four short voices."""
    (tmp_path / "tiny.toml").write_text(RECIPE)
    for index in range(4):
        path = tmp_path / "speech" / f"voice{index}" / "1.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, speechlike(RATE, 0.5, seed=index), RATE)
    out = ["--out", tmp_path / "run", "--workers", 1]
    return ["train", tmp_path / "tiny.toml", "--data", tmp_path / "speech", *out]


def epochs_logged(folder: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (folder / LOG).read_text().splitlines()]


def test_tensorboard_gets_the_bound_of_every_epoch(
    run_cli: Callable, arguments: list[object], tmp_path: Path
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = run_cli(*arguments, "--tensorboard")
    assert result.exit_code == 0, result.stderr
    events = accumulator.EventAccumulator(str(tmp_path / "run")).Reload()
    rows = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    scalars = events.Scalars("audio/total")
    assert [scalar.step for scalar in scalars] == [1, 2, 3]
    assert [s.value for s in scalars] == pytest.approx([row["validation_total"] for row in rows])


def test_a_broken_file_is_refused_or_named_and_skipped(
    run_cli: Callable, arguments: list[object], tmp_path: Path
) -> None:
    broken = tmp_path / "speech" / "voice1" / "2.wav"
    broken.write_text("no sound\n" * 9)
    refused = run_cli(*arguments)
    assert refused.exit_code == 2
    assert str(broken) in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()
    result = run_cli(*arguments, "--skip-bad")
    assert result.exit_code == 0, result.stderr
    assert f"warning: skipped {broken}" in result.stderr
    assert load_model(tmp_path / "run").training["finished"]


def test_a_list_of_ids_chooses_what_is_trained_on(
    run_cli: Callable, arguments: list[object], tmp_path: Path
) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("voice0/1\nvoice3/1\nvoice2/1\n")
    result = run_cli(*arguments, "--list", ids)
    assert result.exit_code == 0, result.stderr
    assert "2 utterances to fit, 1 held out" in result.stderr
    ids.write_text("voice0/1\nnobody/1\n")
    refused = run_cli(*arguments, "--list", ids, "--out", tmp_path / "other")
    assert refused.exit_code == 2
    assert f"{ids}: expected ids of" in refused.stderr
    assert "nobody/1" in refused.stderr


def test_a_run_can_start_from_the_weights_of_a_model(
    run_cli: Callable, arguments: list[object], tmp_path: Path
) -> None:
    """Zero rate and one epoch leave the weights of the first run as they are, its decoder's level too."""
    assert run_cli(*arguments).exit_code == 0
    still = ["--set", "training.stages.0.learning_rate=1e-30", "--set", "training.stages.0.epochs=1"]
    more = run_cli(*arguments, *still, "--init", tmp_path / "run", "--out", tmp_path / "more")
    assert more.exit_code == 0, more.stderr
    a, b = (load_model(tmp_path / name).model.state_dict() for name in ("run", "more"))
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    refused = run_cli(
        *arguments, "--set", "model.latent=3", "--init", tmp_path / "run", "--out", tmp_path / "other"
    )
    assert refused.exit_code == 2
    assert "expected a model with the networks of tiny, found" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_ctrl_c_leaves_a_model_and_a_run_to_resume(
    run_cli: Callable, arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Run.events

    def interrupted(self: Run, *rest: object) -> Iterator[StepEvent | EpochEvent]:
        for event in events(self, *rest):
            yield event
            if isinstance(event, EpochEvent):
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "events", interrupted)
        result = run_cli(*arguments)
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr
    assert load_model(tmp_path / "run").training["epoch"] == 1
    assert epochs_logged(tmp_path / "run") == [1]
    assert "go on with --resume" in run_cli(*arguments).stderr
    resumed = run_cli(*arguments, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert epochs_logged(tmp_path / "run") == [1, 2, 3]
    whole = run_cli(*[tmp_path / "whole" if a == tmp_path / "run" else a for a in arguments])
    assert whole.exit_code == 0, whole.stderr
    a, b = (load_state(tmp_path / name / STATE).weights for name in ("run", "whole"))
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_places_and_seeds_that_cannot_be_are_refused_first(
    run_cli: Callable, arguments: list[object], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    results = {
        "expected a folder for the run": run_cli(*arguments, "--out", tmp_path / "file"),
        "expected a folder": run_cli(*arguments, "--data", tmp_path / "nowhere"),
        "--seed": run_cli(*arguments, "--seed", -1),
    }
    for words, result in results.items():
        assert result.exit_code == 2
        assert words in result.stderr
    assert not (tmp_path / "run").exists()
