"""Switching systems by name: recipes that name trained models as modes."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence

# os.path answers False for a name too long for the system, where pathlib raises.
from os.path import isfile
from pathlib import Path

import torch
from pydantic import ValidationError

from pyro_minvae.config.load import PRESETS, SHIPPED, apply_overrides, explain, override_recipe, preset_names
from pyro_minvae.config.noise import GammaChainConfig
from pyro_minvae.config.switching import ModeConfig, SwitchingRecipe
from pyro_minvae.errors import InputError
from pyro_minvae.models.priors.component import ComponentPrior, UnpairedPrior
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.pipelines.switching_solver import Part, Switcher
from pyro_minvae.pipelines.video_guidance import check_device
from pyro_minvae.systems.checkpoint import Trained, load_model

SYSTEMS = SHIPPED / "systems"


def system_names() -> list[str]:
    """The switching systems that ship with the package."""
    return sorted(path.stem for path in SYSTEMS.glob("*.toml"))


def is_switching(name: str | Path) -> bool:
    """Whether a model's name is that of a switching system, bundled or a .toml file."""
    return str(name) in system_names() or Path(name).suffix == ".toml"


def load_switching(
    name: str | Path, *, device: str = "cpu", preset: str | None = None, overrides: Sequence[str] = ()
) -> tuple[Trained, Switcher]:
    """A bundled switching system or a .toml file: the model that reads the lips, with its settings, and the loop.

    `preset` stands in for the noise model and the inference; `overrides` change settings of `switch`, `noise` and
    `inference`, and `crops.face`.

    Raises:
        InputError: if there is no such system, or its settings or models cannot go together.
    """
    check_device(device)
    source = SYSTEMS / f"{name}.toml" if str(name) in system_names() else Path(name)
    recipe = read_recipe(
        source, preset=preset, overrides=[o for o in overrides if not o.startswith("crops.face")]
    )
    loaded = {mode.model: load_model(mode.model, device) for mode in recipe.modes}
    parts = [Part(mode, loaded[mode.model], _side(mode, loaded[mode.model], source)) for mode in recipe.modes]
    fault = _fault(parts)
    if fault:
        raise InputError(f"{source}: {fault}")
    leading = next((part for part in parts if part.sees), parts[0]).trained
    settings = {"name": recipe.name, "noise": recipe.noise, "inference": recipe.inference}
    own = override_recipe(
        leading.recipe.model_copy(update=settings), [o for o in overrides if o.startswith("crops.face")]
    )
    leading = leading._replace(recipe=own)
    return leading, Switcher(parts, recipe, leading, torch.device(device))


def read_recipe(source: Path, *, preset: str | None = None, overrides: Sequence[str] = ()) -> SwitchingRecipe:
    """A switching recipe from a file.

    Raises:
        InputError: for a file that is none, or a setting that it does not allow.
    """
    if not isfile(source):
        raise InputError(f"{source}: expected the recipe of a switching system, found no file")
    fixed = [item for item in overrides if item.partition(".")[0] not in ("inference", "noise", "switch")]
    if fixed:
        raise InputError(f"--set {fixed[0]}: expected a setting of inference, noise or switch, or crops.face")
    if preset is not None and preset not in preset_names():
        raise InputError(f"--preset {preset}: expected one of {', '.join(preset_names())}")
    try:
        tree = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{source}: expected TOML, found {error}") from error
    if preset is not None:
        tree |= tomllib.loads((PRESETS / f"{preset}.toml").read_text(encoding="utf-8"))
    tree.setdefault("noise", {}).setdefault("kind", GammaChainConfig().kind)
    try:
        return SwitchingRecipe.model_validate(apply_overrides(tree, list(overrides)))
    except ValidationError as error:
        raise InputError(f"{'--set' if overrides else source}: {explain(error)}") from None


def _side(mode: ModeConfig, trained: Trained, source: Path) -> SpeechModel:
    """The side of a model that a mode takes."""
    model = trained.model
    if mode.component == "whole":
        return model
    if not model.prior.mixed:
        raise InputError(
            f"{source}: expected a model with a mixture prior for {mode.component} in mode {mode.name}, "
            f"found {mode.model}"
        )
    prior = (
        UnpairedPrior(model.prior)
        if mode.component == "unpaired"
        else ComponentPrior(model.prior, int(mode.component == "sound"))
    )
    return SpeechModel(prior, model.decoder, model.likelihood)


def _fault(parts: Sequence[Part]) -> str | None:
    """Why these modes cannot go together, in one sentence; None if they can."""
    names = [part.section.name for part in parts]
    if len(set(names)) < len(names):
        return f"expected modes of different names, found {', '.join(names)}"
    first = parts[0]
    for part in parts:
        own, others = part.trained.recipe, first.trained.recipe
        if own.stft != others.stft:
            return f"expected one stft in all modes, found two ({part.section.model}, {first.section.model})"
        if own.model.latent != others.model.latent:
            return (
                f"expected latent vectors of one length, found {others.model.latent} and {own.model.latent}"
            )
        if part.model.coupled or part.model.likelihood.weighted:
            return (
                f"expected complex Gaussian speech and independent frames in all modes, "
                f"found others in {part.section.model}"
            )
    seeing = {part.section.model for part in parts if part.model.visual}
    if len(seeing) > 1:
        return f"expected at most one model that sees lips, found {' and '.join(sorted(seeing))}"
    return None
