"""A system with small untrained networks, for tests of everything around the networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyro_minvae.types import MouthCrops


def save_tiny_model(folder: Path, *, video: bool = True) -> Path:
    """Write a model folder that `--model` takes: MIN-VAE with visual prior, or an A-VAE without `video`."""
    import numpy as np
    import torch

    from pyro_minvae.config.load import parse_recipe
    from pyro_minvae.systems.checkpoint import save_model
    from pyro_minvae.systems.system import System
    from pyro_minvae.types import MouthCrops

    stage = {
        "name": "audio",
        "prior": "standard",
        "guide": "audio",
        "learn": ["decoder", "audio"],
        "epochs": 1,
    }
    tree = {
        "name": "tiny",
        "crops": {"size": 16},
        "lips": {"components": 4, "context": 1},
        "model": {"latent": 4, "decoder": {"hidden": [8]}},
        "training": {"stages": [stage]},
        "noise": {"rank": 2},
        "inference": {"iterations": 2, "steps": 2, "keep": 1},
    }
    if video:
        tree["model"]["prior"] = {"kind": "visual-mixture", "hidden": [8]}
        tree["guide"] = {"kind": "mixture", "visual": {"hidden": [8]}}
        tree["training"]["stages"].append({"name": "both", "epochs": 1})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        system = System(parse_recipe(tree, source="tests/tiny.py"))
        if system.lips is not None:
            crops = torch.randint(0, 256, (40, 16, 16), dtype=torch.uint8).numpy()
            system.lips.fit([MouthCrops(crops, np.arange(40) / 25, np.ones(40, bool))])
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, system, {})
    return folder


def lips(seconds: float, seed: int) -> MouthCrops:
    """Crops of noise at 25 frames per second, as wide as the model's."""
    import numpy as np

    from pyro_minvae.types import MouthCrops

    count = max(2, int(25 * seconds))
    crops = np.random.default_rng(seed).integers(0, 256, (count, 16, 16), dtype=np.uint8)
    return MouthCrops(crops, np.arange(count) / 25, np.ones(count, bool))
