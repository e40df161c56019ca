"""Priors p(alpha) p(z | alpha, v), one short class each; `base.Prior` is their contract."""

from pyro_minvae.models.priors.base import CERTAIN, Components, Prior, at_valid, seen
from pyro_minvae.models.priors.markov import Ar1Prior, RandomWalkPrior
from pyro_minvae.models.priors.mixture import MixturePrior, VisualMixturePrior
from pyro_minvae.models.priors.standard import StandardPrior
from pyro_minvae.models.priors.vamp import VampPrior
from pyro_minvae.models.priors.visual import VisualPrior

__all__ = [
    "CERTAIN",
    "Ar1Prior",
    "Components",
    "MixturePrior",
    "Prior",
    "RandomWalkPrior",
    "StandardPrior",
    "VampPrior",
    "VisualMixturePrior",
    "VisualPrior",
    "at_valid",
    "seen",
]
