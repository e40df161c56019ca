"""Pictures of every model and guide, drawn by `pyro.render_model` from the code: `python docs/pictures.py FOLDER`.

Grey nodes are observed, a frame is a plate, and the note lists the distribution of each site ("Given": an input that
the model does not explain). The lips v are an input of some models, the clean speech s of guides; here they are sites,
so that the arrows from them show who looks at what.

And a picture of separation: spectrograms of two synthetic voices, of their mixture, and of what filters make of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pygraphviz
import pyro
import pyro.distributions as dist
import soundfile
import torch
from pyro import poutine
from pyro.ops.provenance import detach_provenance
from torch import Tensor
from torch.distributions import constraints

from pyro_minvae.config.load import load_recipe, recipe_names
from pyro_minvae.config.schema import Stft
from pyro_minvae.evaluation.mixing import mix_speakers
from pyro_minvae.evaluation.plots import draw
from pyro_minvae.features.stft import analyse, power, synthesise
from pyro_minvae.inference.mcem.wiener import masks
from pyro_minvae.models.noise.nmf import Nmf
from pyro_minvae.models.noisy import NoisyMixture, Source
from pyro_minvae.systems.system import System
from pyro_minvae.types import Visual

FRAMES, LIPS = 4, 2
SMALL = ["stft.window=32", "stft.hop=16", f"lips.components={LIPS}", "lips.context=0", "model.latent=2"]
# Systems that no recipe names: picture -> recipe and overrides.
VARIANTS = {
    "vamp": ("a-vae", ["model.prior.kind=vamp"]),
    "ar1": ("a-vae", ["model.prior.kind=ar1"]),
    "context": ("a-vae", ["model.decoder.kind=context"]),
    "student-t": ("a-vae", ["model.likelihood.kind=student-t"]),
}
NOISY = "noisy-speech"


class Given(dist.ImproperUniform):
    """An input: observed, and explained by nothing."""


def given(name: str, value: Tensor, coupled: bool) -> Tensor:
    """`value` [N, ...] as an observed site, in the plate "frames" unless the model couples frames."""
    if coupled:
        return pyro.sample(name, Given(constraints.real, (), value.shape), obs=value)
    # The model opens the plate of this name itself, and a trace holds a name once.
    with poutine.block(hide=["frames"]):
        frames = pyro.plate("frames", len(value), dim=-1)
    with frames:
        return pyro.sample(name, Given(constraints.real, (), value.shape[1:]), obs=value)


class Scene:
    """A system with small random networks, and the frames to draw it with."""

    def __init__(self, recipe: str, overrides: list[str]) -> None:
        self.system = System(load_recipe(recipe, [*SMALL, *overrides])).eval().requires_grad_(False)
        self.power = torch.rand(FRAMES, self.system.recipe.stft.bins)
        self.features = torch.randn(FRAMES, LIPS)
        likelihood = self.system.likelihood
        prior_of = likelihood.weight_prior
        # It only takes the shape of its argument, where the tracing of arrows would see a dependence.
        likelihood.weight_prior = lambda like: prior_of(detach_provenance(like))

    def _visual(self, looks: bool) -> Visual | None:
        """Lips whose features are the site "v", if anybody looks at them."""
        if not looks:
            return None
        features = given("v", self.features, self.system.model().coupled)
        return Visual(features, torch.ones(FRAMES, dtype=torch.bool))

    def model(self) -> None:
        """p(alpha, z, s | v)."""
        model = self.system.model()
        model(self.power, self._visual(model.visual))

    def guide(self) -> None:
        """q(alpha, z | s, v), with the optimal q(alpha) where there is no learned one."""
        model, guide = self.system.model(), self.system.guide()
        visual = self._visual(guide.visual or model.decoder.visual)
        power = given("s", self.power, model.coupled)
        guide(power, visual)

    def noisy(self) -> None:
        """p(W, H, g, alpha, z, x | v): what Monte-Carlo EM fits to a recording."""
        model = self.system.model()
        source = Source(model, self._visual(model.visual), self.power)
        NoisyMixture([source], Nmf(self.power, rank=2), proper=True)(self.power)


def render(drawn: Callable[[], None]) -> bytes:
    """The SVG of a Pyro program without arguments."""
    pyro.clear_param_store()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        graph = pyro.render_model(
            drawn, render_distributions=True, render_params=True, render_deterministic=True
        )
    pyro.clear_param_store()
    graph.attr(nodesep="0.4", ranksep="0.35")
    graph.attr("node", fontname="Helvetica,Arial,sans-serif", fontsize="12")
    graph.attr("edge", arrowsize="0.7")
    return pygraphviz.AGraph(string=graph.source).draw(format="svg", prog="dot")


def pictures() -> dict[str, Callable[[], Any]]:
    """File name without suffix -> the Pyro program to draw."""
    found: dict[str, Callable[[], Any]] = {}
    for name, (recipe, overrides) in {**{n: (n, []) for n in recipe_names()}, **VARIANTS}.items():
        scene = Scene(recipe, overrides)
        found |= {f"{name}-model": scene.model, f"{name}-guide": scene.guide}
    return found | {NOISY: Scene("min-vae-visual-prior", []).noisy}


def draw_separation(path: Path) -> Path:
    """The example's voice against itself played backwards, and the Wiener filters (7.6) of their true powers."""
    clean, rate = soundfile.read(Path(__file__).parents[1] / "examples" / "clean.flac")
    voices = mix_speakers(np.stack([clean, clean[::-1]]), level_db=0.0)
    stft = Stft()
    spectra = analyse(torch.as_tensor(voices.speakers), stft)
    variances = power(spectra)[:, None]
    filters = masks(variances, torch.full_like(variances[0, 0], 1e-8))
    estimates = synthesise(filters * spectra.sum(0), len(clean), stft).numpy()
    signals = {"mixture": voices.mixture}
    for number, (voice, estimate) in enumerate(zip(voices.speakers, estimates, strict=True), start=1):
        signals |= {f"estimate {number}": estimate, f"speaker {number}": voice}
    draw(path, signals, rate=rate)
    return path


def draw_all(folder: Path) -> list[Path]:
    """Write every picture into `folder`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, drawn in pictures().items():
        written.append(folder / f"{name}.svg")
        written[-1].write_bytes(render(drawn))
    return [*written, draw_separation(folder / "separation.png")]


if __name__ == "__main__":
    for path in draw_all(Path(sys.argv[1])):
        print(path)
