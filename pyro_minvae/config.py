"""One typed tree for everything that can be set: recipes (TOML), `--set a.b=c`, and what a checkpoint remembers.

A section whose parts can be swapped is a union tagged by `kind`. Unknown keys are refused with their path, and an
unknown kind with the valid ones.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pyro_minvae.errors import InputError

RECIPES = Path(__file__).parent / "recipes"


class Section(BaseModel):
    """A frozen part of the tree that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Stft(Section):
    """Short-time Fourier transform: `rate` Hz, `window` and `hop` in samples (sine window)."""

    rate: int = Field(16000, ge=1000)
    window: int = Field(1024, ge=2)
    hop: int = Field(256, ge=1)

    @property
    def bins(self) -> int:
        """F, the number of frequency bins."""
        return self.window // 2 + 1


class LipCrops(Section):
    """Mouth crops: `size` x `size` grey pixels; `face` picks "largest" or the n-th face from the left (0, 1, ...)."""

    size: int = Field(67, ge=8)
    face: Literal["largest"] | Annotated[int, Field(ge=0)] = "largest"


class LipFeatures(Section):
    """Lip vectors: `components` principal components, taken at `context` instants `spacing_s` apart on either side."""

    components: int = Field(64, ge=1)
    context: int = Field(4, ge=0)
    spacing_s: float = Field(0.04, gt=0)

    @property
    def dimension(self) -> int:
        """D, the length of the stacked vector."""
        return self.components * (2 * self.context + 1)


class StandardPrior(Section):
    """z ~ N(0, I)."""

    kind: Literal["standard"] = "standard"


class MixturePrior(Section):
    """alpha ~ Bernoulli(pi), z | alpha ~ N(mu_alpha, s_alpha I), all learned (MIN-VAE)."""

    kind: Literal["mixture"] = "mixture"


class VisualPrior(Section):
    """z | v ~ N(mu(v), diag sigma^2(v)) from a network with the given `hidden` layers."""

    kind: Literal["visual"] = "visual"
    hidden: tuple[int, ...] = (256, 128)
    dropout: float = Field(0.3, ge=0, lt=1)


class VisualMixturePrior(Section):
    """MIN-VAE's mixture whose component alpha = 0 is the visual prior p(z | v)."""

    kind: Literal["visual-mixture"] = "visual-mixture"
    hidden: tuple[int, ...] = (256, 128)
    dropout: float = Field(0.3, ge=0, lt=1)


Prior = Annotated[
    StandardPrior | MixturePrior | VisualPrior | VisualMixturePrior, Field(discriminator="kind")
]


class Decoder(Section):
    """sigma_f(z): `hidden` tanh layers; `floor` is the least variance (linear power at full scale 1)."""

    hidden: tuple[int, ...] = (128,)
    floor: float = Field(1e-4, gt=0)


class AudioEncoder(Section):
    """Layers of q(z | s); `input` is what they see of the power spectrum."""

    hidden: tuple[int, ...] = (128,)
    input: Literal["log-power", "power"] = "log-power"


class VisualEncoder(Section):
    """Layers of q(z | v), with dropout on the features and between the layers."""

    hidden: tuple[int, ...] = (256, 128)
    dropout: float = Field(0.3, ge=0, lt=1)


class AudioGuide(Section):
    """q(z | s)."""

    kind: Literal["audio"] = "audio"
    audio: AudioEncoder = AudioEncoder()


class MixtureGuide(Section):
    """q(alpha) q(z | s)^alpha q(z | v)^(1 - alpha): the mixture of inference networks (MIN-VAE)."""

    kind: Literal["mixture"] = "mixture"
    audio: AudioEncoder = AudioEncoder()
    visual: VisualEncoder = VisualEncoder()


Guide = Annotated[AudioGuide | MixtureGuide, Field(discriminator="kind")]


class Model(Section):
    """p(alpha) p(z | alpha, v) p(s | z)."""

    latent: int = Field(32, ge=1)
    prior: Prior = StandardPrior()
    decoder: Decoder = Decoder()


class Stage(Section):
    """One stretch of SVI: which prior and guide meet the decoder, which parts learn, and when to stop.

    Parts that bear the same name (`decoder`, `audio`, `visual`, `visual-prior`, `mixture`) are the same networks in
    every stage. `learn` lists those that are trained, the others are frozen. `warm_start` copies weights between two
    parts of one architecture before the stage begins: `{ visual = "visual-prior" }` starts the visual encoder as the
    network of p(z | v).
    """

    name: str
    prior: Literal["standard", "mixture", "visual", "visual-mixture"]
    guide: Literal["audio", "mixture"]
    learn: tuple[Literal["decoder", "audio", "visual", "visual-prior", "mixture"], ...]
    warm_start: dict[str, str] = {}
    data: Literal["all", "video"] = "all"
    epochs: int = Field(ge=1)
    patience: int = Field(10, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    corrupt_audio: float = Field(0.0, ge=0, le=1)
    augment_lips: bool = False


class Training(Section):
    """SVI settings shared by the stages. Levels are drawn uniformly in `level_db` below full scale."""

    stages: tuple[Stage, ...]
    batch: int = Field(256, ge=1)
    level_db: tuple[float, float] = (-20.0, 0.0)
    clip_norm: float = Field(100.0, gt=0)
    validation_share: float = Field(0.05, gt=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)


class Nmf(Section):
    """Noise variance W H of `rank` components; with `smooth_s` > 0 the activations H are sums of bumps that long (s)."""

    kind: Literal["nmf"] = "nmf"
    rank: int = Field(8, ge=1)
    smooth_s: float = Field(0.32, ge=0)


class Inference(Section):
    """Monte-Carlo EM: `iterations` of an E-step with `steps` kernel moves of which the last `keep` are averaged.

    The estimate is the mean of the Wiener filters of the last `average` iterations. `start` is where the chains
    begin: the guide's own proposal ("guide": the lips for MIN-VAE), or "audio", the audio encoder on the mixture.
    `tolerance` > 0 stops early once the objective gains less than that share of its total gain in five iterations.
    """

    iterations: int = Field(50, ge=1)
    e_step: Literal["marginal", "mean-field"] = "marginal"
    kernel: Literal["metropolis"] = "metropolis"
    step_size: float = Field(0.1, gt=0)
    steps: int = Field(10, ge=1)
    keep: int = Field(5, ge=1)
    chains: int = Field(1, ge=1)
    average: int = Field(10, ge=1)
    gain: bool = True
    start: Literal["guide", "audio"] = "guide"
    tolerance: float = Field(0.0, ge=0)


class Recipe(Section):
    """Everything that names a system: features, model, guide, training, noise and inference."""

    name: str
    seed: int = 0
    stft: Stft = Stft()
    crops: LipCrops = LipCrops()
    lips: LipFeatures = LipFeatures()
    model: Model = Model()
    guide: Guide = AudioGuide()
    training: Training
    noise: Nmf = Nmf()
    inference: Inference = Inference()


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
        if not path.is_file():
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
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{source}: {_explain(error)}") from None


def override_recipe(recipe: Recipe, overrides: list[str]) -> Recipe:
    """A copy of `recipe` with `overrides` such as "inference.iterations=50" applied and checked."""
    return parse_recipe(recipe.model_dump(mode="json"), overrides, source="--set")


def apply_overrides(tree: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Set dotted keys in a copy of `tree`; values are TOML literals, and bare words are strings.

    List items are addressed by number: `training.stages.0.epochs=5`.
    """
    import copy

    tree = copy.deepcopy(tree)
    for item in overrides:
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
        node[last] = _literal(text.strip())
    return tree


def _literal(text: str) -> Any:
    """A TOML value, or the text itself where it is none (so that strings need no quotes in the shell)."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: ValidationError) -> str:
    """The first faults in words: the dotted key, what was expected and what was found."""
    lines = []
    for fault in error.errors()[:3]:
        # The tag of a union's member is a step of pydantic's path but no key of the recipe.
        key = ".".join(str(step) for step in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"unknown key {key}")
        else:
            lines.append(f"{key or 'recipe'}: {fault['msg'].lower()}, found {_short(fault['input'])}")
    return "; ".join(lines)


def _short(value: Any) -> str:
    """A value as it may stand in one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
