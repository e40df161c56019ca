"""Noise-agnostic audio-visual speech enhancement with deep generative models in Pyro.

Importing the package is light: torch, Pyro and the video library load on first use of a name below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Enhancer",
    "InputError",
    "NoisyMixture",
    "Separator",
    "SpeechGuide",
    "SpeechModel",
    "System",
    "__version__",
    "load_recipe",
]

if TYPE_CHECKING:
    from pyro_minvae.config.load import load_recipe
    from pyro_minvae.errors import InputError
    from pyro_minvae.guides.speech import SpeechGuide
    from pyro_minvae.models.noisy import NoisyMixture
    from pyro_minvae.models.speech import SpeechModel
    from pyro_minvae.pipelines.enhancer import Enhancer
    from pyro_minvae.pipelines.separator import Separator
    from pyro_minvae.systems.system import System

_HOMES = {
    "Enhancer": "pyro_minvae.pipelines.enhancer",
    "InputError": "pyro_minvae.errors",
    "NoisyMixture": "pyro_minvae.models.noisy",
    "Separator": "pyro_minvae.pipelines.separator",
    "SpeechGuide": "pyro_minvae.guides.speech",
    "SpeechModel": "pyro_minvae.models.speech",
    "System": "pyro_minvae.systems.system",
    "load_recipe": "pyro_minvae.config.load",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pyro_minvae' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
