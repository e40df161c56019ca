"""Recipes: the configuration tree from TOML files, by name or path, and changed by `--set a.b=c`."""

from __future__ import annotations

import copy
import tomllib

# os.path answers False for a name too long for the system, where pathlib raises.
from os.path import isfile
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from pyro_minvae.config import components, noise
from pyro_minvae.config.rules import recipe_error
from pyro_minvae.config.schema import Recipe
from pyro_minvae.errors import InputError

# The folder of every TOML file that ships with the package.
SHIPPED = Path(__file__).parent
RECIPES = SHIPPED / "recipes"
PRESETS = SHIPPED / "presets"


def _kinds(union: Any) -> tuple[str, ...]:
    """The valid `kind`s of a tagged union."""
    return tuple(
        get_args(member.model_fields["kind"].annotation)[0] for member in get_args(get_args(union)[0])
    )


# Sections that `kind` chooses, with the valid kinds; and every key that may hold one of several types.
KINDS: dict[tuple[str | int, ...], tuple[str, ...]] = {
    ("model", "prior"): _kinds(components.PriorConfig),
    ("model", "decoder"): _kinds(components.DecoderConfig),
    ("model", "likelihood"): _kinds(components.LikelihoodConfig),
    ("guide",): _kinds(components.GuideConfig),
    ("noise",): _kinds(noise.NoiseConfig),
}
UNIONS = {*KINDS, ("crops", "face")}


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(source: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe by its name ("min-vae") or from a TOML file, then apply `overrides` such as "training.batch=512".

    Raises `InputError` for an unknown name, broken TOML, or a key or value that the tree does not allow.
    """
    path = Path(source)
    if path.suffix != ".toml":
        path = RECIPES / f"{source}.toml"
        if not isfile(path):
            raise InputError(
                f"{source}: expected a recipe name ({', '.join(recipe_names())}) or a .toml file, found neither"
            )
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a readable recipe file, found {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: expected TOML, found {error}") from error
    return parse_recipe(tree, overrides, source=str(path))


def parse_recipe(tree: dict[str, Any], overrides: list[str] | None = None, *, source: str) -> Recipe:
    """Check a plain tree of dicts (`source` names it in errors) after applying `overrides`."""
    tree = apply_overrides(tree, overrides or [])
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error)}") from None
    fault = recipe_error(recipe)
    if fault:
        raise InputError(f"{source}: {fault}")
    return recipe


def preset_names() -> list[str]:
    """The presets of the enhancement that ship with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def preset_recipe(recipe: Recipe, name: str) -> Recipe:
    """A copy of `recipe` with the noise model and the inference of a preset: "fast", "best" or "paper".

    Raises:
        InputError: for another name.
    """
    if name not in preset_names():
        raise InputError(f"--preset {name}: expected one of {', '.join(preset_names())}")
    preset = tomllib.loads((PRESETS / f"{name}.toml").read_text(encoding="utf-8"))
    return parse_recipe({**recipe.model_dump(mode="json"), **preset}, source=f"preset {name}")


def override_recipe(recipe: Recipe, overrides: list[str]) -> Recipe:
    """A copy of `recipe` with `overrides` such as "inference.iterations=50" applied and checked."""
    return parse_recipe(recipe.model_dump(mode="json"), overrides, source="--set")


def apply_overrides(tree: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Set dotted keys in a copy of `tree`; values are TOML literals, and bare words are strings.

    List items are addressed by number: `training.stages.0.epochs=5`. Another `kind` starts its section anew, so kinds
    are set before all else.
    """
    tree = copy.deepcopy(tree)
    for item in sorted(overrides, key=lambda item: _section_of_kind(item) is None):
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise InputError(f"--set {item}: expected key=value, for example inference.iterations=50")
        *parents, last = key.strip().split(".")
        node: Any = tree
        for parent in parents:
            if isinstance(node, list) and parent.isdigit() and int(parent) < len(node):
                node = node[int(parent)]
            elif isinstance(node, dict):
                node = node.setdefault(parent, {})
            else:
                raise InputError(f"--set {item}: {key} is not a key of the recipe")
        if not isinstance(node, dict):
            raise InputError(f"--set {item}: {key} is not a key of the recipe")
        value = _literal(text.strip())
        if _section_of_kind(item) is not None and value != node.get("kind"):
            # Another kind has other keys: those of the former one go.
            node.clear()
        node[last] = value
    return tree


def _section_of_kind(item: str) -> tuple[str, ...] | None:
    """The section whose `kind` an override sets; None if it sets something else."""
    *section, last = item.partition("=")[0].strip().split(".")
    return tuple(section) if last == "kind" and tuple(section) in KINDS else None


def _literal(text: str) -> Any:
    """A TOML value, or the text itself where it is none (so that strings need no quotes in the shell)."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def explain(error: ValidationError) -> str:
    """The first faults in words: the dotted key, what was expected and what was found."""
    lines = []
    faults = error.errors()
    # A tuple whose items are wrong is also called too short.
    inner = {fault["loc"][:-1] for fault in faults}
    for fault in [f for f in faults if f["type"] != "too_short" or f["loc"] not in inner][:3]:
        key = _key(fault["loc"])
        kinds = ", ".join(KINDS.get(fault["loc"], ()))
        if fault["type"] == "extra_forbidden":
            lines.append(f"unknown key {key}")
        elif fault["type"] == "union_tag_invalid":
            lines.append(f"{key}.kind: expected one of {kinds}, found {fault['ctx']['tag']}")
        elif fault["type"] == "union_tag_not_found":
            lines.append(f"{key}.kind: expected one of {kinds}, found none")
        else:
            # All but the first letter stays: it may be a pattern or a name.
            message = fault["msg"][:1].lower() + fault["msg"][1:]
            lines.append(f"{key or 'recipe'}: {message}, found {_short(fault['input'])}")
    return "; ".join(lines)


def _key(location: tuple[str | int, ...]) -> str:
    """The dotted key of pydantic's path, in which the chosen member of a union is a step but no key of the recipe."""
    steps = [str(step) for index, step in enumerate(location) if location[:index] not in UNIONS]
    return ".".join(steps)


def _short(value: Any) -> str:
    """A value as it may stand in one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
