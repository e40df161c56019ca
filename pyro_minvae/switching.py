"""Switching systems: recipes that name trained models as modes, and the loop that switches between them."""

from __future__ import annotations

import tomllib
from collections import deque
from collections.abc import Iterator, Sequence

# os.path answers False for a name too long for the system, where pathlib raises.
from os.path import isfile
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_minvae.assembly import noise_model
from pyro_minvae.checkpoint import Trained, load_model
from pyro_minvae.config import Inference
from pyro_minvae.denoiser import Denoiser, Filtered, Piece, Watch
from pyro_minvae.errors import InputError
from pyro_minvae.inference.switching.chain import viterbi
from pyro_minvae.inference.switching.engine import Mode, SwitchState, switching_em
from pyro_minvae.models.distributions import gaussian_parameters
from pyro_minvae.models.mixture import Source
from pyro_minvae.models.priors.component import ComponentPrior, UnpairedPrior
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.noise import GammaChain, Noise
from pyro_minvae.parts import Section
from pyro_minvae.recipe import PRESETS, apply_overrides, explain, override_recipe, preset_names
from pyro_minvae.speaker import check_device
from pyro_minvae.switch import Switch
from pyro_minvae.types import Switches, Visual

SYSTEMS = Path(__file__).parent / "systems"


class ModeSection(Section):
    """One mode: a bundled `model` or the folder of one, and which side of it.

    `component`: "whole"; of a model with a mixture prior also "lips" or "sound" alone, or "unpaired", the sound beside
    lips of other times of the recording, which is what speech looks like whose lips are wrong.
    """

    name: str
    model: str
    component: Literal["whole", "lips", "sound", "unpaired"] = "whole"


class SwitchingRecipe(Section):
    """A switching system: `modes` of trained models, the `switch` between them, `noise` and `inference`.

    Of `inference` it uses `iterations`, `average`, `gain`, `gain_prior`, `lips` and the settings of blocks.
    """

    name: str
    switch: Switch = Switch()
    modes: tuple[ModeSection, ...] = Field(min_length=2)
    noise: Noise = GammaChain()
    inference: Inference = Inference()


class Part(NamedTuple):
    """A mode with its trained model, of which `model` is the side that it takes."""

    section: ModeSection
    trained: Trained
    model: SpeechModel

    @property
    def sees(self) -> bool:
        """Whether lips lead the mode."""
        return self.model.visual and self.section.component in ("whole", "lips")


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
    tree.setdefault("noise", {}).setdefault("kind", GammaChain().kind)
    try:
        return SwitchingRecipe.model_validate(apply_overrides(tree, list(overrides)))
    except ValidationError as error:
        raise InputError(f"{'--set' if overrides else source}: {explain(error)}") from None


def _side(mode: ModeSection, trained: Trained, source: Path) -> SpeechModel:
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


class Switcher:
    """The loop of a switching system, in place of `Denoiser`; `leading` is the system that reads the lips."""

    def __init__(
        self, parts: Sequence[Part], recipe: SwitchingRecipe, leading: Trained, device: torch.device
    ) -> None:
        self.parts, self.recipe, self.device = list(parts), recipe, device
        self._leading = leading
        self._guides = Denoiser([part.trained for part in parts], leading.recipe, device)
        self.batches = recipe.inference.tolerance == 0

    @torch.no_grad()
    def __call__(self, pieces: Sequence[Piece], watch: Watch | None = None) -> list[Filtered]:
        """The filters of pieces with one speaker each (derivations, eq. 9.17), of which all or none have lips."""
        found = []
        for piece in pieces:
            recent: deque[Tensor] = deque(maxlen=self.recipe.inference.average)
            state = None
            for state in self.states(piece):
                if state.iteration > self.recipe.inference.iterations - self.recipe.inference.average:
                    recent.append(switched_mask(state))
                if watch is not None:
                    watch(state)  # type: ignore[arg-type]
            assert state is not None
            mean = sum(list(recent)[1:], start=recent[0]) / len(recent)
            rows = self._rows(state, self._able(piece.visuals[0]))
            found.append(Filtered(mean[None], None, state.iteration, state.acceptance, rows))
        return found

    def states(self, piece: Piece) -> Iterator[SwitchState]:
        """The EM loop on a piece."""
        (visual,) = piece.visuals
        generator = torch.Generator(self.device).manual_seed(piece.seed)
        modes = [self.mode(k, piece.power, visual) for k in self._able(visual)]
        recipe, stft = self.recipe, self._leading.recipe.stft
        source = modes[0].source
        noise = noise_model(
            recipe.noise,
            piece.power,
            rate=stft.rate / stft.hop,
            speech=source.model.variance(source.start, source.visual),
            generator=generator,
        )
        return switching_em(
            modes, noise, piece.power, config=recipe.inference, switch=recipe.switch, generator=generator
        )

    def _able(self, visual: Visual | None) -> list[int]:
        """The modes that are run: without any lips those that are led by them are left out."""
        able = [k for k, part in enumerate(self.parts) if visual is not None or not part.sees]
        return able or list(range(len(self.parts)))

    def mode(self, k: int, power: Tensor, visual: Visual | None) -> Mode:
        """Mode k at the lips of a piece, where there are lips and it reads them; it starts where they say."""
        part = self.parts[k]
        if part.trained.lips is None or not part.trained.model.visual:
            visual = None
        source = self._guides.source(power, visual, k)
        lips = None if visual is None else self._led(part, visual)
        if visual is not None and lips is not None and source.spread is not None:
            chosen = visual.valid[..., None]
            source = source._replace(
                start=torch.where(chosen, lips[0], source.start),
                spread=torch.where(chosen, lips[1], source.spread),
            )
        seen = visual if part.model.visual else None
        return Mode(Source(part.model, seen, source.start, source.spread), part.sees)

    def _led(self, part: Part, visual: Visual) -> tuple[Tensor, Tensor] | None:
        """The Gaussian of p(z | lips), if the prior has one."""
        prior = part.trained.model.prior
        return gaussian_parameters(prior.conditionals(visual)[0]) if prior.visual else None

    def _rows(self, state: SwitchState, able: Sequence[int]) -> Tensor:
        """r_nk and the most probable path, one-hot, side by side [N, 2 M]: what `switches` reads."""
        path = viterbi(
            self.recipe.switch.temper * state.log_emissions, state.log_transition, state.log_initial
        )
        rows = state.posterior.new_zeros(len(path), 2, len(self.parts))
        rows[:, 0, list(able)] = state.posterior
        rows[:, 1, list(able)] = one_hot(path, len(able)).to(rows)
        return rows.flatten(1)

    def switches(self, times: np.ndarray, probabilities: np.ndarray) -> Switches:
        """The modes' probabilities and the most probable path, from the rows that the filters came with."""
        names = tuple(part.section.name for part in self.parts)
        shares, path = np.split(probabilities, 2, axis=-1)
        seeing = [k for k, part in enumerate(self.parts) if part.sees]
        trust = shares[:, seeing].sum(-1) if seeing else None
        return Switches(names, times, shares, path.argmax(-1), trust)


def switched_mask(state: SwitchState) -> Tensor:
    """sum_k r_nk mean_r [v_k / (v_k + WH)] [..., N, F], v_k = g_nk sigma^k(z^r) (derivations, eq. 9.17)."""
    masks = torch.stack([(v / (v + state.noise)).mean(0) for v in state.variances])
    return (state.posterior.movedim(-1, 0)[..., None] * masks).sum(0)
