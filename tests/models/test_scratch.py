"""Arrays that are used again, and passes over a few frames at a time."""

from __future__ import annotations

import pytest
import torch

from pyro_minvae.inference.ops import workspace as module
from pyro_minvae.inference.ops.workspace import Workspace, cut, tiles


def test_a_name_is_one_array_of_each_shape() -> None:
    workspace, like = Workspace(), torch.zeros(3, 4)
    first = workspace("a", like)
    assert first.shape == like.shape
    assert workspace("a", like) is first
    assert workspace("b", like) is not first
    small = workspace("a", like, (2, 4))
    assert small.shape == (2, 4)
    assert workspace("a", like) is first
    assert workspace("a", like.double()).dtype == torch.float64


@pytest.mark.parametrize("shape", [(1, 5), (7, 5), (8, 5), (2, 9, 5), (3, 2, 4, 5), (0, 5), (4, 0)])
def test_tiles_cover_every_frame_once(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE", 2)
    array = torch.zeros(shape)
    for part in tiles(array):
        cut(array, part).add_(1)
    assert torch.equal(array, torch.ones(shape))


def test_tiles_are_as_long_as_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE", 4)
    threads = torch.get_num_threads()
    many = torch.zeros(9 * threads, 5)
    sizes = [len(cut(many, part)) for part in tiles(many)]
    assert len(sizes) == 3
    assert max(sizes) <= 4 * threads
    assert tiles(torch.zeros(4 * threads, 5)) == [None]
    assert len(tiles(torch.zeros(2, 4 * threads, 5))) == 2
    assert tiles(torch.zeros(5)) == [None]
    assert tiles(torch.zeros(99 * threads, 5, device="meta")) == [None]
