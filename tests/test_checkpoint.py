"""Checkpoints: what is read is what was written, and damaged files are one line of the user's language."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import tiny_recipe, utterances

from pyro_minvae.data.loader import frame_set
from pyro_minvae.errors import InputError
from pyro_minvae.inference.svi.elbo import bound_terms
from pyro_minvae.inference.svi.trainer import train
from pyro_minvae.systems.checkpoint import CONFIG, WEIGHTS, load_model, save_model
from pyro_minvae.systems.system import System

SYSTEMS = ("a-vae", "min-vae", "min-vae-visual-prior")


@pytest.fixture(scope="module", params=SYSTEMS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[System, Path]:
    """A system after one epoch a stage, in memory and on disk."""
    recipe = tiny_recipe(request.param)
    stages = [stage.model_copy(update={"epochs": 1}) for stage in recipe.training.stages]
    recipe = recipe.model_copy(
        update={"training": recipe.training.model_copy(update={"stages": tuple(stages)})}
    )
    system, folder = System(recipe), tmp_path_factory.mktemp("model")
    data = utterances(4, video=request.param != "a-vae")
    list(train(system, data[:2], data[2:]))
    save_model(folder, system, {"epoch": 1})
    return system.eval().requires_grad_(False), folder


def copy_of(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_round_trip_gives_identical_outputs(saved: tuple[System, Path]) -> None:
    system, folder = saved
    trained = load_model(folder)
    assert trained.recipe == system.recipe
    assert trained.training == {"epoch": 1}
    frames = frame_set(utterances(2), system.recipe.stft)
    visual = frames.visual(system.lips) if system.lips is not None else None
    if trained.lips is not None:
        again = frames.visual(trained.lips)
        assert visual is not None
        assert torch.equal(visual.features, again.features)
        assert torch.equal(visual.valid, again.valid)
    bounds = []
    for model, guide in ((system.model(), system.guide()), (trained.model, trained.guide)):
        torch.manual_seed(0)
        terms = bound_terms(model, guide, frames.power, visual)
        bounds.append(terms.total)
        assert torch.equal(
            guide.propose(frames.power, visual).mean, system.guide().propose(frames.power, visual).mean
        )
    assert torch.equal(*bounds)


def test_nothing_but_the_final_system_is_stored(saved: tuple[System, Path]) -> None:
    system, folder = saved
    names = load_file(folder / WEIGHTS).keys()
    assert {path.name for path in folder.iterdir()} == {CONFIG, WEIGHTS}
    # The base MIN-VAE needed the network of p(z | v) only on the way.
    has_visual_prior = any(name.startswith("model.prior.network") for name in names)
    assert has_visual_prior == (system.recipe.model.prior.kind == "visual-mixture")
    assert all(name.startswith(("model.", "guide.", "lips.")) for name in names)


DAMAGES = {
    "truncated weights": (WEIGHTS, lambda content: content[: len(content) // 2]),
    "empty weights": (WEIGHTS, lambda _: b""),
    "no weights": (WEIGHTS, lambda _: b"not safetensors at all"),
    "empty config": (CONFIG, lambda _: b""),
    "config is a list": (CONFIG, lambda _: b"[]"),
    "config is a number": (CONFIG, lambda _: b"3"),
    "config is no text": (CONFIG, lambda _: b"\xff\xfe\x00{"),
    "config without recipe": (CONFIG, lambda _: b"{}"),
    "recipe is a list": (CONFIG, lambda _: b'{"recipe": []}'),
    "recipe without training": (CONFIG, lambda _: b'{"recipe": {"name": "x"}}'),
    "another recipe": (CONFIG, lambda content: content.replace(b'"latent": 2', b'"latent": 3')),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_models_are_refused_in_one_line(
    saved: tuple[System, Path], damage: str, tmp_path: Path
) -> None:
    folder, (name, spoil) = copy_of(saved[1], tmp_path / "model"), DAMAGES[damage]
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(spoil(before))
    assert (folder / name).read_bytes() != before
    with pytest.raises(InputError) as refusal:
        load_model(folder)
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)
    assert re.search("expected|required|found", str(refusal.value))


def test_weights_of_another_system_are_refused(saved: tuple[System, Path], tmp_path: Path) -> None:
    folder = copy_of(saved[1], tmp_path / "model")
    tensors = load_file(folder / WEIGHTS)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(InputError, match="expected the weights of its recipe"):
        load_model(folder)


def test_missing_models_are_refused_with_the_names(tmp_path: Path) -> None:
    for name in ("no-such-model", tmp_path):
        with pytest.raises(InputError, match="expected a bundled model"):
            load_model(name)
