"""Small recipes and systems of any combination of parts."""

from __future__ import annotations

from typing import Any

import torch
from tiny_training import RATE

from pyro_minvae.config.load import parse_recipe
from pyro_minvae.config.schema import Recipe
from pyro_minvae.systems.system import System

# The encoders of each guide, and what each prior has to learn.
ENCODERS = {"audio": ["audio"], "visual": ["visual"], "concatenation": ["joint"], "mixed-speech": ["joint"]}
# The settings of a small encoder.
SMALL: dict[str, dict[str, Any]] = {"mixed-speech": {"width": 6, "dilations": [1, 2]}}
LEARNED = {"standard": [], "visual": ["visual-prior"], "visual-mixture": ["prior", "visual-prior"]}


def learned_parts(prior: str, guide: str) -> set[str]:
    """The parts of such a system that training may learn."""
    kind, _, amortised = guide.partition("+")
    encoders = ENCODERS.get(kind, ["audio", "visual"])
    return {"decoder", *encoders, *LEARNED.get(prior, ["prior"]), *["responsibility"] * bool(amortised)}


def family_recipe(
    prior: str = "standard",
    guide: str = "audio",
    decoder: str = "plain",
    likelihood: str = "complex-gaussian",
    *overrides: str,
) -> Recipe:
    """A recipe that trains all of the parts together, in one stage of two epochs; guide "...+amortised" as in laws."""
    kind, _, amortised = guide.partition("+")
    hidden: dict[str, Any] = {"hidden": [6]}
    stage = {
        "name": "all",
        "learn": sorted(learned_parts(prior, guide)),
        "data": "video",
        "epochs": 2,
        "learning_rate": 1e-2,
    }
    tree: dict[str, Any] = {
        "name": "family",
        "stft": {"rate": RATE, "window": 32, "hop": 16},
        "crops": {"size": 8},
        "lips": {"components": 3, "context": 1},
        "model": {
            "latent": 2,
            "prior": {"kind": prior},
            "decoder": {"kind": decoder, "hidden": [8]},
            "likelihood": {"kind": likelihood},
        },
        "guide": {
            "kind": kind,
            **dict.fromkeys(ENCODERS.get(kind, ["audio", "visual"]), SMALL.get(kind, hidden)),
        },
        "training": {"stages": [stage], "batch": 32, "segment": 8},
        "noise": {"rank": 2},
        "inference": {"iterations": 2, "steps": 2, "keep": 1},
    }
    if prior in ("visual", "visual-mixture"):
        tree["model"]["prior"] |= hidden
    if prior == "vamp":
        tree["model"]["prior"] |= {"count": 5}
    if amortised:
        tree["guide"] |= {"responsibility": "amortised"}
    return parse_recipe(tree, list(overrides), source="tests/tiny_family.py")


def family_system(*kinds: str, seed: int = 0) -> System:
    """The untrained system of `family_recipe`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return System(family_recipe(*kinds))
