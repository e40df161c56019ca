"""Every legal prior x guide x decoder x likelihood builds, trains two steps and enhances; the others are refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from signals import speechlike
from tiny_family import family_recipe
from tiny_training import FPS, RATE, utterances

from pyro_minvae.config.load import KINDS
from pyro_minvae.config.schema import Recipe
from pyro_minvae.errors import InputError
from pyro_minvae.inference.svi.trainer import EpochEvent, StepEvent, train
from pyro_minvae.pipelines.enhancer import Enhancer
from pyro_minvae.systems.checkpoint import load_model, save_model
from pyro_minvae.systems.system import System
from pyro_minvae.types import MouthCrops

MIXED_PRIORS = ("mixture", "visual-mixture")
MIXED_GUIDES = ("mixture", "mixture-of-products", "mixture+amortised", "mixture-of-products+amortised")
PRIORS = tuple(kind for kind in KINDS["model", "prior"] if kind != "import")
GUIDES = (*(kind for kind in KINDS["guide",] if kind not in ("import", *MIXED_GUIDES)), *MIXED_GUIDES)
DECODERS = tuple(kind for kind in KINDS["model", "decoder"] if kind != "import")
LIKELIHOODS = tuple(kind for kind in KINDS["model", "likelihood"] if kind != "import")
ALL = list(itertools.product(PRIORS, GUIDES, DECODERS, LIKELIHOODS))


def legal(prior: str, guide: str, decoder: str) -> bool:
    """Whether alpha is on both sides or on none, and enumerated over independent frames only."""
    mixed = prior in MIXED_PRIORS
    return mixed == (guide in MIXED_GUIDES) and not (mixed and decoder == "context")


def recipe_of(*kinds: str) -> Recipe:
    """One stage of two steps."""
    return family_recipe(*kinds, "training.stages.0.epochs=1", "training.batch=64")


@pytest.mark.parametrize("kinds", [k for k in ALL if legal(*k[:3])], ids="-".join)
def test_a_legal_combination_trains_and_enhances(kinds: tuple[str, str, str, str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    system = System(recipe_of(*kinds))
    before = {name: tensor.clone() for name, tensor in system.state_dict().items()}
    speech = utterances(5)
    events = list(train(system, speech[:4], speech[4:]))
    losses = [event.loss for event in events if isinstance(event, StepEvent)]
    assert len(losses) >= 2
    assert np.isfinite(losses).all()
    assert np.isfinite(list(events[-1].terms.values())).all() if isinstance(events[-1], EpochEvent) else False
    # Every part that learns has moved.
    for part in system.recipe.training.stages[0].learn:
        moved = {id(p) for p in system.parameters_of(part)}
        names = [name for name, p in system.named_parameters() if id(p) in moved]
        assert any(not torch.equal(before[name], system.state_dict()[name]) for name in names), part
    save_model(tmp_path, system, {})
    enhancer = Enhancer(load_model(tmp_path))
    noisy = speechlike(RATE, 1.0, seed=7) + 0.1 * np.random.default_rng(0).standard_normal(RATE)
    crops = np.random.default_rng(1).integers(0, 256, (FPS, 8, 8), dtype=np.uint8)
    lips = MouthCrops(crops, (np.arange(FPS) + 0.5) / FPS, np.ones(FPS, bool))
    for video in (lips, None):
        result = enhancer(noisy, RATE, video)
        assert result.speech.shape == noisy.shape
        assert np.isfinite(result.speech).all()
        assert float(np.abs(result.speech).max()) > 0
        np.testing.assert_allclose(result.speech + result.noise, noisy, atol=1e-12)


@pytest.mark.parametrize(
    "kinds", [k for k in ALL if not legal(*k[:3]) and k[3] == LIKELIHOODS[0]], ids="-".join
)
def test_an_illegal_combination_is_refused_with_the_reason(kinds: tuple[str, str, str, str]) -> None:
    with pytest.raises(InputError, match="alpha") as error:
        recipe_of(*kinds)
    assert "\n" not in str(error.value)
