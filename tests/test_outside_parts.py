"""Parts from outside the package, `examples/outside_parts`: named by a recipe, given as objects, and refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import soundfile
import torch
from signals import speechlike
from tiny_training import FPS, RATE, utterances

from pyro_minvae.config.load import load_recipe
from pyro_minvae.config.schema import Recipe
from pyro_minvae.errors import InputError
from pyro_minvae.inference.svi.trainer import StepEvent, train
from pyro_minvae.pipelines.enhancer import Enhancer
from pyro_minvae.systems.checkpoint import Trained, load_model, save_model
from pyro_minvae.systems.system import System
from pyro_minvae.types import MouthCrops, Shapes, Visual

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "outside_parts"
MODULES = ("my_priors", "my_guide")
SMALL = [
    f"stft={{rate={RATE}, window=32, hop=16}}",
    "crops.size=8",
    "lips={components=3, context=1}",
    "model.latent=2",
    "model.decoder.hidden=[4]",
    "training.batch=64",
    "training.stages.0.epochs=1",
    "noise.rank=2",
    "inference={iterations=2, steps=2, keep=1}",
]
OWN_GUIDE = ["guide={kind='audio'}", "training.stages.0.learn=['decoder','prior','audio']"]
OWN_PRIOR = ["model.prior={kind='standard'}", "training.stages.0.learn=['decoder','guide']"]
WHICH = {"both": [], "prior": OWN_GUIDE, "guide": OWN_PRIOR}


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example's folder on Python's path."""
    with monkeypatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        yield
        forget()


def forget() -> None:
    """Take the example's modules out of memory, as in another process."""
    for name in MODULES:
        sys.modules.pop(name, None)


def recipe(*overrides: str) -> Recipe:
    return load_recipe(EXAMPLE / "recipe.toml", [*SMALL, *overrides])


def train_two_steps(system: System) -> None:
    """Train, and see that everything that learns has moved."""
    before = {id(p): p.detach().clone() for p in system.parameters()}
    steps = [
        event for event in train(system, utterances(5)[:4], utterances(5)[4:]) if isinstance(event, StepEvent)
    ]
    assert len(steps) >= 2
    assert np.isfinite([step.loss for step in steps]).all()
    for part in system.recipe.training.stages[0].learn:
        assert any(not torch.equal(before[id(p)], p) for p in system.parameters_of(part)), part


def check_enhances(trained: Trained) -> np.ndarray:
    """Enhance a second of sound with and without lips; returns the speech found with them."""
    noisy = speechlike(RATE, 1.0, seed=7) + 0.1 * np.random.default_rng(0).standard_normal(RATE)
    crops = np.random.default_rng(1).integers(0, 256, (FPS, 8, 8), dtype=np.uint8)
    lips = MouthCrops(crops, (np.arange(FPS) + 0.5) / FPS, np.ones(FPS, bool))
    results = [Enhancer(trained)(noisy, RATE, video) for video in (None, lips)]
    for result in results:
        assert np.isfinite(result.speech).all()
        assert np.abs(result.speech).max() > 0
        np.testing.assert_allclose(result.speech + result.noise, noisy, atol=1e-12)
    return results[-1].speech


@pytest.mark.parametrize("overrides", WHICH.values(), ids=WHICH)
def test_parts_named_by_a_recipe_train_and_enhance(
    overrides: list[str], importable: None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    system = System(recipe(*overrides))
    train_two_steps(system)
    save_model(tmp_path, system, {})
    in_memory = Trained(
        system.recipe, system.eval().requires_grad_(False).model(), system.guide(), system.lips, {}
    )
    stored = check_enhances(load_model(tmp_path))
    np.testing.assert_array_equal(stored, check_enhances(in_memory))


@pytest.mark.parametrize("overrides", WHICH.values(), ids=WHICH)
def test_parts_given_as_objects_train_and_enhance(overrides: list[str], importable: None) -> None:
    from my_guide import NudgedGuide
    from my_priors import LaplacePrior

    torch.manual_seed(0)
    chosen = recipe(*overrides)
    shapes = Shapes(chosen.model.latent, chosen.stft.bins, chosen.lips.dimension)
    given: dict[str, Any] = {}
    if chosen.model.prior.kind == "import":
        given["prior"] = LaplacePrior(shapes, scale=0.3)
    if chosen.guide.kind == "import":
        given["guide"] = NudgedGuide(shapes, hidden=4)
    system = System(chosen, **given)
    assert system.own_prior is given.get("prior", system.own_prior)
    assert system.own_guide is given.get("guide", system.own_guide)
    train_two_steps(system)
    system.eval().requires_grad_(False)
    check_enhances(Trained(chosen, system.model(), system.guide(), system.lips, {}))


def test_the_prior_is_the_laplace_density(importable: None) -> None:
    from my_priors import LaplacePrior

    prior = LaplacePrior(Shapes(3, 17, 9)).double()
    torch.nn.init.normal_(prior.log_scale)
    z = torch.randn(5, 4, 3, dtype=torch.float64)
    expected = scipy.stats.laplace.logpdf(z.numpy(), scale=prior.log_scale.detach().exp().numpy()).sum(-1)
    np.testing.assert_allclose(prior.log_prob(z, None).detach().numpy(), expected, rtol=1e-12)


def test_the_guide_leaves_out_frames_without_a_face(importable: None) -> None:
    from my_guide import NudgedGuide

    guide, power = NudgedGuide(Shapes(3, 17, 9)), torch.rand(4, 17)
    features = torch.randn(4, 9)
    features[2] = torch.nan
    valid = torch.tensor([True, True, False, True])
    (seen,), (encoder_input,) = (
        guide.posteriors(power, Visual(features, valid)),
        guide.posteriors(power, None),
    )
    torch.testing.assert_close(seen.mean[2], encoder_input.mean[2])
    assert ((seen.mean - encoder_input.mean).abs().amax(-1) > 0).tolist() == valid.tolist()


PRIOR = "model.prior={kind='import', target='my_priors:LaplacePrior', options={%s}}"
WRONG = {
    "module": ("model.prior.target=no_such_module:LaplacePrior", "expected a class that can be imported"),
    "class": ("model.prior.target=my_priors:NoSuchPrior", "expected a class that can be imported"),
    "form": ("model.prior.target=my_priors.LaplacePrior", "model.prior.target: string should match pattern"),
    "no prior": ("model.prior.target=my_guide:NudgedGuide", "expected a subclass of Prior"),
    "no guide": ("guide.target=my_priors:LaplacePrior", "expected a subclass of Guide"),
    "no class": ("guide.target=my_guide:normal", "expected a subclass of"),
    "no decoder": (
        "model.decoder={kind='import', target='my_guide:NudgedGuide'}",
        "expected a subclass of SpectralDecoder",
    ),
    "unknown option": (PRIOR % "size=1", "expected options that the class takes"),
    "bad option": (PRIOR % "scale=-1", "expected options that the class takes"),
    "mixture": (
        "guide={kind='mixture'}\ntraining.stages.0.learn=['decoder','audio','visual','prior']",
        "the guide enumerates a switch alpha",
    ),
}


def test_a_target_with_a_slip_in_its_code_is_one_line(
    importable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slip_in_my_prior.py").write_text("class MyPrior(:\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with pytest.raises(InputError) as error:
            System(recipe("model.prior.target=slip_in_my_prior:MyPrior"))
    assert re.match(r"slip_in_my_prior:MyPrior: .*slip_in_my_prior.py, line 1\)$", str(error.value))


@pytest.mark.parametrize(("overrides", "reason"), WRONG.values(), ids=WRONG)
def test_a_wrong_target_is_one_line(overrides: str, reason: str, importable: None) -> None:
    with pytest.raises(InputError, match=re.escape(reason)) as error:
        System(recipe(*overrides.splitlines()))
    message = str(error.value)
    assert "\n" not in message
    assert "found" in message
    # It names the key, the target or the recipe that is at fault.
    assert re.match(r"\S+: ", message)


def test_a_checkpoint_whose_parts_cannot_be_imported_is_one_line(importable: None, tmp_path: Path) -> None:
    save_model(tmp_path, System(recipe()), {})
    load_model(tmp_path)
    sys.path.remove(str(EXAMPLE))
    forget()
    with pytest.raises(
        InputError, match=r"^my_\w+:\w+: expected a class that can be imported, .*'my_"
    ) as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


def test_the_command_line_tells_of_a_wrong_target_in_one_line(run_cli: Callable, tmp_path: Path) -> None:
    for index in range(2):
        soundfile.write(tmp_path / f"{index}.wav", speechlike(RATE, 0.5, seed=index), RATE)
    settings = [word for item in SMALL for word in ("--set", item)]
    out = tmp_path / "run"
    result = run_cli("train", EXAMPLE / "recipe.toml", "--data", tmp_path, "--out", out, *settings)
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: my_")
    assert "expected a class that can be imported" in line
    assert "Traceback" not in result.stderr
    assert not out.exists()


@pytest.mark.parametrize("found", [True, False], ids=["on the path", "not on the path"])
def test_the_program_finds_parts_on_the_path_of_python(found: bool, importable: None, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", System(recipe()), {})
    soundfile.write(tmp_path / "noisy.wav", speechlike(RATE, 0.5), RATE)
    program = [str(Path(sys.executable).with_name("pyro-minvae")), "enhance", "noisy.wav", "--model", "model"]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLE) if found else ""}
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if found else 2), done.stderr
    assert (tmp_path / "noisy-enhanced.wav").exists() is found


@pytest.mark.parametrize("name", ["my_priors.py", "my_guide.py", "recipe.toml"])
def test_the_tutorial_shows_the_example_word_for_word(name: str) -> None:
    block = f"# {name}\n{(EXAMPLE / name).read_text(encoding='utf-8')}```\n"
    assert block in (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", MODULES)
def test_an_outside_part_is_about_twenty_lines(module: str) -> None:
    lines = (EXAMPLE / f"{module}.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 22
