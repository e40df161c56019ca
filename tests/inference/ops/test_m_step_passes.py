"""The compiled passes of the M-step and of the filters: torch's formulas in double precision, to rounding."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from arrays import SIZES, close, near, no_formula, positive, scene
from torch import Tensor

from pyro_minvae.inference import ops
from pyro_minvae.inference.ops.workspace import Workspace


@pytest.fixture(autouse=True)
def all_compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with no_formula(monkeypatch) as left:
        yield
    assert left == set()


@pytest.mark.parametrize(("sources", "draws"), [(1, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("size", SIZES)
def test_maximisation(size: tuple[int, int], lead: tuple[int, ...], sources: int, draws: int) -> None:
    sigma, gain, noise, power = scene(sources, draws, lead, size)
    wide = [one.double() for one in (sigma, gain[:, None, ..., None], noise, power)]
    total = (wide[0] * wide[1]).sum(0) + wide[2]  # [D, ..., N, F]
    for j in range(sources):
        up, down = ops.gain_statistics(sigma, gain, noise, power, j, Workspace())
        close(up, (wide[3] * wide[0][j] / total**2).sum((0, -1)), 1e-5)
        close(down, (wide[0][j] / total).sum((0, -1)), 1e-5)
    close(ops.harmonic_mean(sigma), 1 / (1 / wide[0]).mean(1), 1e-5)
    close(ops.filters(sigma, noise, None), (wide[0] / (wide[0].sum(0) + wide[2])).mean(1), 1e-5)
    close(ops.filters(sigma, noise, gain), (wide[0] * wide[1] / total).mean(1), 1e-5)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(("sources", "draws"), [(1, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("size", SIZES)
def test_statistics(
    size: tuple[int, int], lead: tuple[int, ...], sources: int, draws: int, alone: bool
) -> None:
    """P and Q, relative to each number."""
    sigma, gain, noise, power = scene(sources, draws, lead, size)
    speech = (sigma.double() * gain.double()[:, None, ..., None]).sum(0)
    total = noise.double()[None] if alone else speech + noise.double()
    out = torch.empty_like(noise), torch.empty_like(noise)
    given = (None, None) if alone else (sigma, gain)
    p, q = ops.statistics(power, noise, *given, out=out, workspace=Workspace())
    for found, wanted in ((p, (power.double() / total**2).mean(0)), (q, (1 / total).mean(0))):
        assert near(found, wanted, 2e-6 * wanted)


@pytest.mark.parametrize("sources", [1, 2])
@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("size", SIZES)
def test_mean_field_moments(size: tuple[int, int], lead: tuple[int, ...], sources: int) -> None:
    sigma, gain, noise, power = scene(sources, 1, lead, size)
    harmonic = sigma[:, 0].contiguous()
    own = gain[..., None].double() * harmonic.double()
    total = own.sum(0) + noise.double()

    def moment(part: Tensor) -> tuple[Tensor, Tensor]:
        """And how much of it rounding may take, as V - v cancels where the part is nearly all."""
        share = part / total
        return share**2 * power + share * (total - part), 2e-6 * share * (share * power + total)

    out, ratio, workspace = torch.empty_like(noise), torch.empty_like(gain), Workspace()
    ops.noise_moment(harmonic, gain, noise, power, out=out, ratio=ratio, workspace=workspace)
    assert near(out, *moment(noise.double()))
    alone = torch.empty_like(noise)
    ops.noise_moment(harmonic, gain, noise, power, out=alone, ratio=None, workspace=workspace)
    assert torch.equal(alone, out)
    for j in range(sources):
        whole, bound = (one / harmonic[j] for one in moment(own[j]))
        assert near(ratio[j], whole.sum(-1), bound.sum(-1))
        ops.speech_moment(harmonic, gain, noise, power, j, out=out, workspace=workspace)
        wanted, bound = (one / gain[j][..., None] for one in moment(own[j]))
        assert near(out, wanted, bound)


@pytest.mark.parametrize("sweeps", [1, 3])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("frames", [1, 2, 15])
def test_chains_move_as_in_double_precision(
    frames: int, lead: tuple[int, ...], batched: bool, sweeps: int
) -> None:
    """From statistics in any order in memory, as products of matrices have them."""
    rank = 3
    A, up, down = positive(3, *lead, rank, frames)
    links = torch.nn.functional.pad(positive(*(lead if batched else ()), frames - 1), (1, 1))
    with ops.using("torch"):
        wanted = ops.move_chain(*(one.double() for one in (A, up, down, links)), sweeps)
    for order in (lambda one: one, lambda one: one.mT.contiguous().mT):
        found = ops.move_chain(A, order(up), order(down), links, sweeps)
        assert near(found, wanted, 1e-5 * wanted)


def test_rows_do_not_depend_on_threads() -> None:
    """Bit by bit, each pass."""
    sigma, gain, noise, power = scene(2, 3, (), (301, 129))

    def all_of_them() -> list[Tensor]:
        out, ratio = torch.empty_like(noise), torch.empty_like(gain)
        pair = torch.empty_like(noise), torch.empty_like(noise)
        harmonic = ops.harmonic_mean(sigma)
        ops.noise_moment(harmonic, gain, noise, power, out=out, ratio=ratio, workspace=Workspace())
        return [
            *ops.statistics(power, noise, sigma, gain, out=pair, workspace=Workspace()),
            *ops.gain_statistics(sigma, gain, noise, power, 1, Workspace()),
            *(harmonic, out, ratio, ops.filters(sigma, noise, gain)),
        ]

    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(all_of_them())
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))
