"""The EM loop with the compiled passes is the loop without them, to rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from laws import MODELS
from scenes import Scene, draw_scene, settings
from torch import Tensor

from pyro_minvae.config.schema import Inference
from pyro_minvae.inference import ops
from pyro_minvae.inference.mcem.loop import EMState, mcem
from pyro_minvae.inference.ops import choice
from pyro_minvae.models.noise.gamma_chain import ChainNmf
from pyro_minvae.models.noise.nmf import Nmf

pytestmark = pytest.mark.skipif(choice._loaded() is None, reason="Numba cannot be loaded")

KERNELS = get_args(Inference.model_fields["kernel"].annotation)
KINDS = [("+".join(model),) for model in MODELS] + [("mixture", "visual+plain+student-t")]


def single(scene: Scene) -> Scene:
    """In single precision, with the spread that some kernels propose from."""
    sources = []
    for source in scene.sources:
        visual = source.visual
        assert visual is not None
        start = source.start.float()
        sources.append(
            source._replace(
                model=source.model.float(),
                visual=visual._replace(features=visual.features.float()),
                start=start,
                spread=torch.full_like(start, 0.6),
            )
        )
    return Scene(scene.speech.to(torch.complex64), scene.noise.to(torch.complex64), sources)


def chain(power: Tensor, smooth: float) -> ChainNmf:
    return ChainNmf(power, rank=2, strength=5.0, smooth=smooth, generator=torch.Generator().manual_seed(0))


def run(scene: Scene, config: Inference, noise: Nmf) -> list[EMState]:
    generator = torch.Generator().manual_seed(0)
    return list(mcem(scene.sources, noise, scene.power, config=config, generator=generator))


def compare(scene: Scene, config: Inference, smooth: float) -> None:
    with ops.using("numba"):
        found = run(scene, config, chain(scene.power, smooth))
    with ops.using("torch"):
        wanted = run(scene, config, chain(scene.power, smooth))
    for one, other in zip(found, wanted, strict=True):
        assert one.acceptance == other.acceptance
        for name in ("draws", "variances", "noise", "gain"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=2e-3, atol=2e-4)
        torch.testing.assert_close(one.filters(), other.filters(), rtol=0, atol=5e-5)
        assert one.objective == pytest.approx(other.objective, rel=1e-4, abs=0.05)


@pytest.mark.parametrize("e_step", ["marginal", "mean-field"])
@pytest.mark.parametrize("kinds", KINDS, ids=" ".join)
def test_every_model(kinds: tuple[str, ...], e_step: str) -> None:
    # Longer steps leap to where speech is loud beyond measure, and rounding grows from there.
    config = settings(e_step=e_step, kernel="langevin", step_size=0.001, chains=2, iterations=3, gain=True)
    compare(single(draw_scene(kinds)), config, 0.0)


@pytest.mark.parametrize("smooth", [0.0, 8.0])
@pytest.mark.parametrize("e_step", ["marginal", "mean-field"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel(kernel: str, e_step: str, smooth: float) -> None:
    config = settings(e_step=e_step, kernel=kernel, step_size=0.05, chains=2, iterations=3)
    compare(single(draw_scene(("visual-mixture",))), config, smooth)


def test_the_passes_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """In single precision every one of them, by one preset or another, and nothing is left to torch."""
    asked: set[str] = set()
    passes = choice._loaded()
    assert passes is not None

    def listening(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            asked.add(name)
            try:
                return run(*arguments, **named)
            except choice.UnfitError:
                raise AssertionError(f"{name} is left to torch") from None

        return called

    names = {one.__name__ for one in ops.TABLE}
    heard = {name: listening(name, passes[name]) for name in names}
    monkeypatch.setattr(choice, "_loaded", lambda: heard)
    scene = single(draw_scene(("visual-mixture",)))
    for e_step in ("marginal", "mean-field"):
        for kernel in ("langevin", "metropolis", "mala"):
            config = settings(e_step=e_step, kernel=kernel, iterations=2, keep=2 if kernel == "mala" else 1)
            with ops.using("numba"):
                for state in run(scene, config, chain(scene.power, 0.0)):
                    state.filters()
    assert asked == names
