"""Trained systems on disk: a folder with `config.json` (the recipe and how training went) and `model.safetensors`."""

from __future__ import annotations

import json

# os.path answers False for a name too long for the system, where pathlib raises.
from os.path import isfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyro_minvae import __version__
from pyro_minvae.config.load import parse_recipe
from pyro_minvae.config.schema import Recipe
from pyro_minvae.errors import InputError
from pyro_minvae.features.visual import LipProjection
from pyro_minvae.guides.speech import SpeechGuide
from pyro_minvae.inference.svi.state import RunState
from pyro_minvae.media.files import atomic
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.systems.system import System

PRETRAINED = Path(__file__).parent / "pretrained"
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class Trained(NamedTuple):
    """A system ready for use: Pyro programs whose networks are in evaluation mode, without gradients."""

    recipe: Recipe
    model: SpeechModel
    guide: SpeechGuide
    lips: LipProjection | None
    training: dict[str, Any]


def pretrained_names() -> list[str]:
    """The systems whose weights ship with the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{CONFIG}"))


def find_model(name: str | Path) -> Path:
    """The folder of a bundled model's name or of a path.

    Raises:
        InputError: if it is neither.
    """
    for folder in (PRETRAINED / str(name), Path(name)):
        if isfile(folder / CONFIG) and isfile(folder / WEIGHTS):
            return folder
    names = ", ".join(pretrained_names())
    raise InputError(
        f"{name}: expected a bundled model ({names}) or a folder with {CONFIG} and {WEIGHTS}, found neither"
    )


def _whole(model: SpeechModel, guide: SpeechGuide, lips: LipProjection | None) -> nn.ModuleDict:
    """What is stored of a system: the recipe's final model and guide and the lips, nothing that only a stage used."""
    whole = nn.ModuleDict({"model": model, "guide": guide.network})
    if lips is not None:
        whole["lips"] = lips
    return whole


def _tensors(system: System) -> dict[str, Tensor]:
    """The weights to store."""
    weights = _whole(system.model(), system.guide(), system.lips).state_dict()
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def save_model(folder: Path, system: System, training: dict[str, Any]) -> None:
    """Write the final model and guide of a system; each file appears whole or not at all.

    Raises:
        ValueError: if parts were given as objects: the recipe could not name them when it is read again.
    """
    from safetensors.torch import save

    if system.given:
        raise ValueError(
            f'expected parts that the recipe names (kind = "import" for your own), got objects for '
            f"{', '.join(system.given)}"
        )
    config = {
        "format": 1,
        "version": __version__,
        "recipe": system.recipe.model_dump(mode="json"),
        "training": training,
    }
    with atomic(folder / WEIGHTS) as path:
        path.write_bytes(save(_tensors(system)))
    with atomic(folder / CONFIG) as path:
        path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def load_model(name: str | Path, device: str | torch.device = "cpu") -> Trained:
    """Read a bundled model by name or any folder that `save_model` wrote.

    Raises:
        InputError: if it is missing, damaged, or does not fit its own recipe.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = find_model(name)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        recipe = parse_recipe(config["recipe"], source=str(folder / CONFIG))
        tensors = load_file(folder / WEIGHTS)
    except InputError:
        raise
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{folder}: expected a trained model, found {type(error).__name__}: {reason}"
        ) from None
    system = System(recipe)
    model, guide = system.model(), system.guide()
    whole = _whole(model, guide, system.lips)
    try:
        whole.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{folder / WEIGHTS}: expected the weights of its recipe, found {reason}") from None
    whole.eval().requires_grad_(False).to(device)
    return Trained(recipe, model, guide, system.lips, config.get("training", {}))


def start_from(system: System, name: str | Path) -> None:
    """Copy the weights of a bundled model, or of a folder with one, into a system that is to learn on from there.

    Raises:
        InputError: if there is no such model, or its networks are not those of the system.
    """
    trained = load_model(name)
    weights = _whole(trained.model, trained.guide, trained.lips).state_dict()
    try:
        _whole(system.model(), system.guide(), system.lips).load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(
            f"{name}: expected a model with the networks of {system.recipe.name}, found {reason}"
        ) from None


def save_state(path: Path, state: RunState) -> None:
    """Write a run's state atomically."""
    with atomic(path) as temporary:
        torch.save(state._asdict(), temporary)


def load_state(path: Path) -> RunState:
    """Read a run's state.

    Raises:
        InputError: if the file is missing or damaged.
    """
    try:
        return RunState(**torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise InputError(f"{path}: expected the state of an earlier run, found no file") from None
    except Exception as error:
        raise InputError(f"{path}: expected the state of a run, found {type(error).__name__}") from None
