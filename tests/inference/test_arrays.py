"""The engine's own arrays: used again, gone over in tiles, and never seen to be so from outside."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from laws import make_decoder
from scenes import FRAMES, LATENT, Scene, draw_scene, settings
from torch import Tensor

from pyro_minvae.config.schema import Inference
from pyro_minvae.inference.mcem import e_step
from pyro_minvae.inference.mcem.e_step import _Memory, chosen
from pyro_minvae.inference.mcem.loop import EMState, mcem
from pyro_minvae.inference.mcmc.base import Target
from pyro_minvae.inference.ops import workspace
from pyro_minvae.models.noise.nmf import Nmf

KERNELS = get_args(Inference.model_fields["kernel"].annotation)
SPEAKERS = [("visual-mixture",), ("ar1+context",), ("mixture", "visual+plain+student-t")]


def wide(scene: Scene) -> Scene:
    """With the spread that some kernels propose from."""
    return scene._replace(
        sources=[source._replace(spread=torch.full_like(source.start, 0.6)) for source in scene.sources]
    )


def run(scene: Scene, config: Inference, noise: Nmf | None = None, *, watched: bool = True) -> list[EMState]:
    generator, own = torch.Generator().manual_seed(0), scene.nmf() if noise is None else noise
    states = mcem(scene.sources, own, scene.power, config=config, generator=generator, watched=watched)
    # What is not watched is looked at before the loop goes on.
    return [state if watched else state._replace(sigma=state.sigma.clone()) for state in states]


@pytest.mark.parametrize("e_step", ["marginal", "mean-field"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kinds", SPEAKERS)
def test_a_few_frames_at_a_time_are_as_good_as_all(
    kinds: tuple[str, ...], kernel: str, e_step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for draws of several chains, and filters of them."""
    scene = wide(draw_scene(kinds))
    config = settings(kernel=kernel, e_step=e_step, step_size=0.1, chains=2, iterations=3)
    assert workspace.tiles(scene.power) == [None]
    whole = run(scene, config)
    monkeypatch.setattr(workspace, "TILE", 7)
    assert len(workspace.tiles(scene.power)) > 1
    for one, other in zip(whole, run(scene, config), strict=True):
        for name in ("draws", "variances", "noise", "gain"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name))
        assert one.objective == pytest.approx(other.objective)
        torch.testing.assert_close(one.filters(), other.filters())


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("e_step", ["marginal", "mean-field"])
@pytest.mark.parametrize("kinds", SPEAKERS)
def test_states_that_nobody_watches_are_the_same(kinds: tuple[str, ...], e_step: str, keep: int) -> None:
    scene, config = draw_scene(kinds), settings(e_step=e_step, keep=keep)
    for one, other in zip(run(scene, config), run(scene, config, watched=False), strict=True):
        for name in ("draws", "variances", "gain"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert other.objective != other.objective  # NaN


@pytest.mark.parametrize("kernel", KERNELS)
def test_watched_states_stay_as_they_are(kernel: str) -> None:
    """Whatever the loop writes over when it goes on."""
    scene, config = wide(draw_scene(("visual-mixture",))), settings(kernel=kernel, steps=3, keep=1)
    generator, noise = torch.Generator().manual_seed(0), scene.nmf()
    states, copies = [], []
    for state in mcem(scene.sources, noise, scene.power, config=config, generator=generator):
        states.append(state)
        copies.append([part.clone() for part in state if isinstance(part, Tensor)])
    for state, copy in zip(states, copies, strict=True):
        parts = [part for part in state if isinstance(part, Tensor)]
        assert all(torch.equal(one, other) for one, other in zip(parts, copy, strict=True))


@pytest.mark.parametrize("at_hand", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_accepted_frames_are_taken_bit_by_bit(
    share: float, at_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(e_step, "at_hand", lambda array: at_hand)
    new, old = torch.randn(2, 3, 10, 4, generator=torch.Generator().manual_seed(0)).unbind()
    new[0, 0, 0], old[1, 1, 1] = torch.nan, -0.0
    accepted = (torch.arange(30) % 10 < 10 * share).view(3, 10)
    expected = torch.where(accepted[..., None], new, old).view(torch.int32)
    found, free = chosen(accepted, new, old)
    assert torch.equal(found.view(torch.int32), expected)
    assert free is None or free.data_ptr() != found.data_ptr()
    assert (free is None) == (not at_hand)
    assert chosen(accepted, found, found) == (found, None)


@pytest.mark.parametrize("spread", ["new", "old"])
def test_arrays_that_do_not_lie_in_a_row_are_not_written_into(spread: str) -> None:
    """What a decoder of one's own answers may be somebody else's."""
    new, old = torch.randn(2, 3, 10, 4, generator=torch.Generator().manual_seed(0)).unbind()
    if spread == "new":
        new = new[:1, :1].expand(3, 10, 4)
    else:
        old = old[:1, :1].expand(3, 10, 4)
    before = new.clone(), old.clone()
    accepted = (torch.arange(30) % 3 == 0).view(3, 10)
    found, free = chosen(accepted, new, old)
    assert torch.equal(found, torch.where(accepted[..., None], new, old))
    assert free is None
    assert torch.equal(new, before[0])
    assert torch.equal(old, before[1])


def test_no_place_is_decoded_twice() -> None:
    """By value, gradient and finiteness of a target, where the chains are and where they were last to go."""
    decoder, asked = make_decoder("plain", latent=LATENT), []
    with torch.no_grad():
        variance = decoder.given(None)

        class Counted:
            def __call__(
                self, z: Tensor, known: Tensor | None = None, room: Tensor | None = None, /
            ) -> Tensor:
                asked.append(z)
                return variance(z, known, room)

            def back(self, z: Tensor, sigma: Tensor, outer: Tensor, /) -> Tensor:
                return variance.back(z, sigma, outer)

        z = torch.randn(1, FRAMES, LATENT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        memory = _Memory(z, [variance(z)])
        remembered = memory.remembering(Counted(), 0)
        sigma = lambda z: remembered(z).sum(-1)  # noqa: E731
        target = memory.watching(Target(sigma, (0, 0), lambda z: remembered(z)[..., :LATENT], sigma))
        assert target.gradient is not None
        assert target.finite is not None
        torch.testing.assert_close(target(z), variance(z).sum(-1))
        assert not asked
        there, further = z + 0.1, z + 0.2
        for place in (there, further):
            for of_place in (target, target.finite):
                torch.testing.assert_close(of_place(place), variance(place).sum(-1))
            torch.testing.assert_close(target.gradient(place), variance(place)[..., :LATENT])
            # Where the chains are is still known, and so is the last place to go.
            target(z)
        assert len(asked) == 2
        memory.settle(further, [variance(further)], [None])
        target(further)
        assert len(asked) == 2
        # A place that was moved away from is forgotten.
        torch.testing.assert_close(target(there), variance(there).sum(-1))
        assert len(asked) == 3
