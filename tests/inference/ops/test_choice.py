"""When the compiled passes are used: for enough work, and as the environment says."""

from __future__ import annotations

import pytest

from pyro_minvae.errors import InputError
from pyro_minvae.inference import ops
from pyro_minvae.inference.ops import choice


@pytest.fixture(autouse=True)
def unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_in_use", None)
    monkeypatch.setattr(choice, "_forced", None)
    monkeypatch.delenv(choice.VARIABLE, raising=False)


def test_each_loop_decides_for_itself() -> None:
    """Whatever came before, so that the same recording gets the same numbers."""
    least = choice.WORTHWHILE / (3 + choice.M_STEP) / 10
    for _ in range(3):
        ops.expect(least, moves=3, iterations=9)
        assert not ops.compiled()
        ops.expect(least, moves=3, iterations=10)
        assert ops.compiled()


def test_using_overrules_loops() -> None:
    with ops.using("torch"):
        ops.expect(10 * choice.WORTHWHILE, moves=1, iterations=1)
        assert not ops.compiled()
    with ops.using("numba"):
        ops.expect(1, moves=1, iterations=1)
        assert ops.compiled()
    ops.expect(1, moves=1, iterations=1)
    assert not ops.compiled()


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.VARIABLE, "torch")
    ops.expect(10 * choice.WORTHWHILE, moves=1, iterations=1)
    assert not ops.compiled()
    monkeypatch.setenv(choice.VARIABLE, "numba")
    ops.expect(1, moves=1, iterations=1)
    assert ops.compiled()
    monkeypatch.setenv(choice.VARIABLE, "fortran")
    with pytest.raises(InputError, match="PYRO_MINVAE_PASSES: expected auto, numba, torch, found fortran"):
        ops.expect(1, moves=1, iterations=1)


def test_without_numba_torch_does_it_or_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_loaded", lambda: None)
    ops.expect(10 * choice.WORTHWHILE, moves=1, iterations=1)
    assert not ops.compiled()
    monkeypatch.setenv(choice.VARIABLE, "numba")
    with pytest.raises(InputError, match="cannot be loaded"):
        ops.expect(1, moves=1, iterations=1)


def test_every_pass_of_the_table_is_compiled_under_its_name() -> None:
    passes = choice._loaded()
    assert passes is not None
    assert {one.__name__ for one in ops.TABLE} <= passes.keys()
    assert len({one.__name__ for one in ops.TABLE}) == len(ops.TABLE)
