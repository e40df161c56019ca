"""Every compiled pass on one thread and on two, from the same random state, however few numbers there are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pyro_minvae.inference import ops
from pyro_minvae.inference.ops import choice, threads


@pytest.fixture(params=[1, 2], autouse=True)
def in_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    monkeypatch.setattr(threads, "WORTHWHILE", 8)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def compiled() -> Iterator[None]:
    torch.manual_seed(0)
    if choice._loaded() is None:
        pytest.skip("Numba cannot be loaded")
    with ops.using("numba"):
        yield
