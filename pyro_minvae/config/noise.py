"""Noise models as sections of a recipe: a union tagged by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pyro_minvae.config.components import Section


class BaseNoiseConfig(Section):
    """`quiet` > 0 starts the spectra from that share of the frames, those in which the model expects least speech."""

    quiet: float = Field(0.0, ge=0, le=1)


class NmfConfig(BaseNoiseConfig):
    """Noise variance W H of `rank` components; with `smooth_s` > 0, H is a sum of bumps that long (s).

    `start` = "loud" draws factors far louder than the mixture, "published" uniform on (0, 1), as the papers do.
    """

    kind: Literal["nmf"] = "nmf"
    rank: int = Field(16, ge=1)
    smooth_s: float = Field(0.0, ge=0)
    start: Literal["loud", "published"] = "loud"


class GammaChainConfig(BaseNoiseConfig):
    """NMF of `rank` components whose levels move by about 1 / sqrt(`strength`) from frame to frame (in the log).

    `smooth_s` as for "nmf".
    """

    kind: Literal["gamma-chain"] = "gamma-chain"
    rank: int = Field(16, ge=1)
    strength: float = Field(100.0, gt=0)
    smooth_s: float = Field(0.0, ge=0)


class ArdConfig(BaseNoiseConfig):
    """NMF that finds its rank, `rank` at most: components without use die out (automatic relevance determination).

    `shape` is that of the relevances' inverse-gamma prior, the smaller the fewer components stay, above 2 so that the
    noise has a mean; `smooth_s` as for "nmf".
    """

    kind: Literal["ard"] = "ard"
    rank: int = Field(16, ge=1)
    shape: float = Field(3.0, gt=2)
    smooth_s: float = Field(0.0, ge=0)


class StationaryConfig(BaseNoiseConfig):
    """One spectrum at a constant level, or at one that moves in bumps `slow_s` long (s)."""

    kind: Literal["stationary"] = "stationary"
    slow_s: float = Field(0.0, ge=0)


class FloorConfig(Section):
    """No noise but a floor `level_db` below the mixture's mean spectrum (dB), for speakers without background."""

    kind: Literal["floor"] = "floor"
    level_db: float = Field(-30.0, lt=0)


NoiseConfig = Annotated[
    NmfConfig | GammaChainConfig | ArdConfig | StationaryConfig | FloorConfig, Field(discriminator="kind")
]
