"""Recipes and utterances so small that a whole training run takes a second."""

from __future__ import annotations

from typing import Any

import numpy as np
from signals import speechlike

from pyro_minvae.config.load import parse_recipe
from pyro_minvae.config.schema import Recipe
from pyro_minvae.types import MouthCrops, Prepared

RATE, FPS = 1000, 25
AUDIO = {"name": "audio", "prior": "standard", "guide": "audio", "learn": ["decoder", "audio"], "epochs": 3}
LIPS = {
    "name": "lips",
    "prior": "visual",
    "guide": "audio",
    "learn": ["decoder", "audio", "visual-prior"],
    "data": "video",
    "epochs": 2,
    "augment_lips": True,
}
MIXTURE = {
    "name": "mixture",
    "prior": "mixture",
    "guide": "mixture",
    "learn": ["decoder", "audio", "prior"],
    "warm_start": {"visual": "visual-prior"},
    "data": "video",
    "epochs": 3,
    "corrupt_audio": 0.5,
}


def tiny_recipe(kind: str, *overrides: str) -> Recipe:
    """An "a-vae", a "min-vae" or a "min-vae-visual-prior" with the stages of the real recipes."""
    tree: dict[str, Any] = {
        "name": kind,
        "stft": {"rate": RATE, "window": 32, "hop": 16},
        "crops": {"size": 8},
        "lips": {"components": 3, "context": 1},
        "model": {"latent": 2, "decoder": {"hidden": [8]}},
        "guide": {"kind": "audio", "audio": {"hidden": [8]}},
        "training": {"stages": [AUDIO], "batch": 32},
    }
    if kind != "a-vae":
        prior = "mixture" if kind == "min-vae" else "visual-mixture"
        tree["model"]["prior"] = {"kind": prior} if prior == "mixture" else {"kind": prior, "hidden": [6]}
        tree["guide"] = {"kind": "mixture", "audio": {"hidden": [8]}, "visual": {"hidden": [6]}}
        tree["training"]["stages"] = [AUDIO, LIPS, {**MIXTURE, "prior": prior}]
    return parse_recipe(tree, list(overrides), source="tests/tiny_training.py")


def utterances(count: int, *, video: bool = True, seed: int = 0) -> list[Prepared]:
    """Half a second of a voice each, and a mouth that opens with its loudness; the last has some faceless frames."""
    prepared = []
    for index in range(count):
        sound = speechlike(RATE, 0.5, seed=seed + index).astype(np.float32)
        prepared.append(
            Prepared(f"u{index}", "s1", "train", sound, _lips(sound, seed + index) if video else None)
        )
    if video:
        last = prepared[-1].lips
        assert last is not None
        last.valid[-3:] = False
    return prepared


def _lips(sound: np.ndarray, seed: int) -> MouthCrops:
    step = RATE // FPS
    loud = np.abs(sound[: len(sound) // step * step]).reshape(-1, step).mean(1)
    opening = loud / max(loud.max(), 1e-9)
    rows = np.abs(np.arange(8) - 3.5)
    mouth = 200 - 150 * (rows[:, None] < 4 * opening[:, None, None]) * np.ones(8)
    grain = np.random.default_rng(seed).normal(0, 5, mouth.shape)
    crops = np.clip(mouth + grain, 0, 255).astype(np.uint8)
    times = (np.arange(len(crops)) + 0.5) / FPS
    return MouthCrops(crops, times, np.ones(len(crops), bool))
