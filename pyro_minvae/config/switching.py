"""The recipe of a switching system: its modes, and how it chooses among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pyro_minvae.config.components import Section
from pyro_minvae.config.noise import GammaChainConfig, NoiseConfig
from pyro_minvae.config.schema import Inference

if TYPE_CHECKING:
    from torch import Tensor


class SwitchConfig(Section):
    """The prior of the switch, and how each mode's r(z given the mode) is fitted.

    `kind` = "markov": the mode of a frame depends on that of the frame before (SwVAE); "independent": it does not
    (VAE-MM). `stay` is the prior probability of staying in a mode from one frame to the next, `strength` how many
    frames this prior counts for in each row of the transition matrix, which is learnt from the recording if `learn`.
    `temper` is the weight of a frame's evidence: neighbouring frames share their samples, so that a hop of a quarter of
    the window counts a quarter.
    In the first iterations, a share `lead` of all, frames whose pictures look right go to the modes that lips lead:
    only with noise that is known to some extent does the sound say which lips are right.
    `draws`, `steps` and `rate` are those of the fit: draws of each bound, Adam steps in each EM iteration and their
    size.
    """

    kind: Literal["markov", "independent"] = "markov"
    stay: float = Field(0.97, gt=0, lt=1)
    strength: float = Field(100.0, gt=0)
    learn: bool = True
    lead: float = Field(0.5, ge=0, le=1)
    temper: float = Field(0.25, gt=0, le=1)
    draws: int = Field(2, ge=1)
    steps: int = Field(1, ge=1)
    rate: float = Field(0.1, gt=0)

    def led(self, iterations: int) -> int:
        """How many of so many iterations follow the lips."""
        return int(self.lead * iterations)

    def concentration(self, modes: int) -> Tensor:
        """kappa [M, M] of the Dirichlet prior on each row of the transition matrix (derivations, eq. 9.15)."""
        import torch

        if self.kind == "independent":
            return torch.full((modes, modes), 1 + self.strength / modes)
        others = self.strength * (1 - self.stay) / max(modes - 1, 1)
        return 1 + torch.full((modes, modes), others).fill_diagonal_(self.strength * self.stay)


class ModeConfig(Section):
    """One mode: its `name` in tables and plots, a bundled `model` or the folder of one, and which side of it.

    `component`: "whole"; of a model with a mixture prior also "lips" or "sound" alone, or "unpaired", the sound beside
    lips of other times of the recording, which is what speech looks like whose lips are wrong.
    """

    name: str
    model: str
    component: Literal["whole", "lips", "sound", "unpaired"] = "whole"


class SwitchingInference(Inference):
    """`Inference` of a switching system: posteriors that climb by one step in each iteration need more of them."""

    iterations: int = Field(50, ge=1)
    average: int = Field(10, ge=1)


class SwitchingRecipe(Section):
    """A switching system: `modes` of trained models, the `switch` between them, `noise` and `inference`.

    `name` is what messages call it. Of `inference` it uses `iterations`, `average`, `gain`, `gain_prior`, `lips`
    and the settings of blocks.
    """

    name: str
    switch: SwitchConfig = SwitchConfig()
    modes: tuple[ModeConfig, ...] = Field(min_length=2)
    noise: NoiseConfig = GammaChainConfig()
    inference: SwitchingInference = SwitchingInference()
