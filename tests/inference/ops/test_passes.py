"""The compiled passes: torch's formula in double precision to rounding, whatever shapes, numbers and threads."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from arrays import LEADS, SIZES, close, near, no_formula, positive
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from pyro_minvae.inference import ops
from pyro_minvae.inference.ops.gaussians import Gaussians, Normal, Place


@pytest.fixture(autouse=True)
def all_compiled(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> object:
    """Nothing is left to torch, but where a test is about that."""
    if "left" in request.node.name:
        yield
        return
    with no_formula(monkeypatch) as left:
        yield
    assert left == set()


@pytest.mark.parametrize("size", SIZES)
def test_decode(size: tuple[int, int]) -> None:
    x, bias = 40 * torch.randn(size), torch.randn(size[1])
    wanted = (x.double() + bias.double()).clamp_max(30).exp2() + 1e-9
    # The sum of x and b is rounded before.
    bound = (3e-7 + 2**-24 * x.abs().double()) * wanted
    assert near(ops.decode_(x, bias, limit=30.0, floor=1e-9), wanted, bound)


def test_decode_what_is_not_a_number() -> None:
    x = torch.tensor([[torch.nan, torch.inf, -torch.inf, -126.5, -1e30, 1e30, 0.0, 126.0]])
    wanted = x.double().clamp(-126, 126).exp2()
    found = ops.decode_(x, torch.zeros(8), limit=126.0, floor=0.0)
    torch.testing.assert_close(found.double(), wanted, rtol=3e-7, atol=0, equal_nan=True)


@pytest.mark.parametrize("scaled", ["not", "by frame", "by bin"])
@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("size", SIZES)
def test_log_likelihood_and_slope(size: tuple[int, int], lead: tuple[int, ...], scaled: str) -> None:
    """Also where sound, noise and gains are the same for all chains."""
    frames, bins = size
    sigma, power, others = positive(*lead, frames, bins), positive(*lead[1:], *size), positive(*size)
    scale = None if scaled == "not" else positive(*lead[1:], frames, 1 if scaled == "by frame" else bins)
    factor = 1.0 if scale is None else scale.double()
    variance = sigma.double() * factor + (0.0 if scale is None else others.double())
    given = {} if scale is None else {"scale": scale, "others": others}
    ratio = power.double() / variance
    close(ops.log_likelihood(power, sigma, **given), -(variance.log() + ratio).sum(-1))
    found = ops.slope(power, sigma, out=torch.empty_like(sigma), **given)
    # Where ratio - 1 cancels, to rounding of the ratio.
    assert near(found, (ratio - 1) / variance * factor, 1e-6 * (ratio + 1) / variance * factor)


@pytest.mark.parametrize("number", [0.0, torch.inf, torch.nan, 1e-40, -1.0])
def test_log_likelihood_of_what_is_not_a_variance(number: float) -> None:
    """Whatever torch says of it: infinite, not a number, or a number so small that few digits are left."""
    power, variance = torch.ones(4, 200), torch.ones(4, 200)
    variance[1, 77], variance[2, 199] = number, number
    power[1, 77], power[2, 199] = 1e-38, 1e-38
    wanted = -(variance.double().log() + power.double() / variance.double()).sum(-1)
    found = ops.log_likelihood(power, variance)
    assert torch.equal(found.isfinite(), wanted.float().isfinite())
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=0, equal_nan=True)


ANY = st.floats(width=32) | st.floats(0, 1, width=32)


@given(arrays.arrays("float32", (2, 3, 9), elements=ANY))
def test_any_numbers_are_finite_where_they_are_in_double_precision(numbers: object) -> None:
    """NaN and infinity spread as they do with torch, and nothing else becomes one."""
    power, variance = torch.as_tensor(numbers).unbind()
    terms = variance.double().log() + (power / variance).double()
    wanted = -terms.sum(-1)
    found = ops.log_likelihood(power.contiguous(), variance.contiguous())
    assert torch.equal(found.isnan(), wanted.isnan())
    assert torch.equal(found.isfinite(), wanted.float().isfinite())


@pytest.mark.parametrize("most", [torch.inf, 4.0])
@pytest.mark.parametrize("size", SIZES)
def test_through(size: tuple[int, int], most: float) -> None:
    sigma, outer = positive(2, *size), torch.randn(2, *size)
    wanted = torch.where(sigma - 0.25 < most, (sigma - 0.25) * outer, 0.0)
    close(ops.through(sigma, outer, floor=0.25, most=most, out=torch.empty_like(outer)), wanted)


def normals(lead: tuple[int, ...], frames: int, latent: int) -> tuple[list[Normal], tuple[Tensor, Tensor]]:
    """One Gaussian for each frame, and one for all; log p(alpha)."""
    own = (torch.randn(*lead[1:], frames, latent), positive(*lead[1:], frames, latent).sqrt())
    same = (torch.randn(latent), positive(latent).sqrt())
    parts = [Normal(mean, scale, torch.randn(mean.shape[:-1])) for mean, scale in (own, same)]
    weight = torch.rand(frames)
    return parts, (torch.log1p(-weight), weight.log())


def log_normal(part: Normal, z: Tensor) -> Tensor:
    away = (z.double() - part.mean.double()) * part.precision.double()
    return part.constant.double() - 0.5 * away.square().sum(-1)


@pytest.mark.parametrize("lead", LEADS)
def test_mixtures_of_gaussians(lead: tuple[int, ...]) -> None:
    frames, latent = 6, 11
    parts, logs = normals(lead, frames, latent)
    z, weight = torch.randn(*lead, frames, latent), torch.rand(*lead[1:], frames)
    lips, sound = (log_normal(part, z) for part in parts)
    slopes = [(part.mean - z) * part.precision.square() for part in parts]
    both = Gaussians(parts, logs)
    close(ops.log_mixture(z, both), torch.logaddexp(lips + logs[0], sound + logs[1]))
    close(ops.log_mixture(z, both, weight), torch.lerp(lips, sound, weight.double()), 1e-5)
    said = (sound - lips + (logs[1] - logs[0])).sigmoid()
    for share, found in (
        (said.float(), ops.mixture_gradient(z, both)),
        (weight, ops.mixture_gradient(z, both, weight)),
    ):
        close(found, torch.lerp(*slopes, share[..., None]), 1e-4)
    for part, alone, slope in zip(parts, (lips, sound), slopes, strict=True):
        close(ops.log_mixture(z, Gaussians([part])), alone)
        close(ops.mixture_gradient(z, Gaussians([part])), slope)


@pytest.mark.parametrize("draws", [1, 4])
@pytest.mark.parametrize("lead", LEADS[:2])
def test_responsibilities(lead: tuple[int, ...], draws: int) -> None:
    """Of the mean log ratio of the draws, and the mean of each draw's."""
    frames, latent = 60, 11
    parts, logs = normals((1, *lead), frames, latent)
    z = torch.randn(draws, *lead, frames, latent)
    lips, sound = (log_normal(part, z) for part in parts)
    ratio, logit = sound - lips, (logs[1] - logs[0]).double()
    both = Gaussians(parts, logs)
    close(ops.responsibility(z, both, of_mean=True), (ratio.mean(0) + logit).sigmoid(), 1e-5)
    close(ops.responsibility(z, both, of_mean=False), (ratio + logit).sigmoid().mean(0), 1e-5)


def test_copies_of_gaussians_have_arrays_of_their_own() -> None:
    parts, logs = normals((), 6, 11)
    z, both = torch.randn(6, 11), Gaussians(parts, logs)
    before, twin = ops.log_mixture(z, both), copy.deepcopy(both)
    for one in (*(tensor for part in parts for tensor in part), *logs):
        one.fill_(torch.nan)
    assert torch.equal(ops.log_mixture(z, twin), before)
    # And what they look at is the tensors, not a copy.
    assert bool(ops.log_mixture(z, both).isnan().all())


NOT_NUMBERS = [torch.nan, torch.inf, -torch.inf]


@pytest.mark.parametrize("passes", ["numba", "torch"])
@pytest.mark.parametrize("corrected", [False, True])
def test_decisions(corrected: bool, passes: str) -> None:
    """Every pair of finite and other densities: never to where it is not finite, always away from there."""
    values = torch.tensor([-1.0, 0.5, 2.0, *NOT_NUMBERS])
    proposed, current = (one.flatten() for one in torch.meshgrid(values, values, indexing="ij"))
    count = len(proposed)
    correction = 0.7 * torch.randn(count) if corrected else None
    there, here, steep, flat = torch.randn(4, count, 3)
    uniform = torch.rand(count)
    new, old = Place(there, proposed, steep), Place(here, current, flat)
    if passes == "torch":
        with ops.using("torch"):
            found = ops.decide(uniform, new, old, correction, probability=True)
    else:
        found = ops.decide(uniform, new, old, correction, probability=True)
    ratio = proposed - current + (0.0 if correction is None else correction)
    known = proposed.isfinite() & current.isfinite()
    wanted = torch.where(known, uniform.log() < ratio, proposed.isfinite())
    assert torch.equal(found.accepted, wanted)
    assert 0 < int(wanted.sum()) < count
    assert torch.equal(found.place.position, torch.where(wanted[:, None], there, here))
    assert found.place.gradient is not None
    assert torch.equal(found.place.gradient, torch.where(wanted[:, None], steep, flat))
    torch.testing.assert_close(
        found.place.log_density, torch.where(wanted, proposed, current), rtol=0, atol=0, equal_nan=True
    )
    probable = torch.where(known, ratio.clamp_max(0).exp(), proposed.isfinite().float())
    torch.testing.assert_close(found.probability, probable)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_exchange(share: float) -> None:
    there, here = torch.randn(2, 2, 30, 9)
    accepted = torch.rand(2, 30) < share
    wanted = torch.where(accepted[..., None], there, here)
    moved = ops.exchange(accepted, there, here)
    assert torch.equal(there if moved else here, wanted)


def test_what_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Double precision, other orders in memory, graphs, shapes that broadcast otherwise; all with the right answer."""
    power, sigma = positive(2, 6, 5)
    others = [
        (power.double(), sigma.double()),
        (power.mT, sigma.mT),
        (power, sigma.clone().requires_grad_()),
        (power[:, :1].expand(6, 5), sigma),
        (power[:1], sigma),
    ]
    for x, variance in others:
        with no_formula(monkeypatch) as left:
            found = ops.log_likelihood(x, variance)
        assert left == {"log_likelihood"}
        torch.testing.assert_close(found, -(variance.log() + x / variance).sum(-1))
    with no_formula(monkeypatch) as left:
        assert ops.log_likelihood(power.to("meta"), sigma.to("meta")).shape == (6,)
        ops.through(power, sigma.mT.contiguous().mT, floor=0.0, most=math.inf, out=torch.empty(6, 5))
    assert left == {"log_likelihood", "through"}


def test_wrong_shapes_are_errors_not_left_to_chance() -> None:
    power, sigma = positive(2, 6, 5)
    for wrong in (power[:5], power[:, :4], power[None, :5]):
        with pytest.raises(RuntimeError):
            ops.log_likelihood(wrong, sigma)
        with pytest.raises(RuntimeError):
            ops.slope(wrong, sigma, out=torch.empty_like(sigma))


def test_rows_do_not_depend_on_threads_or_on_what_else_there_is() -> None:
    """Bit by bit, so that a recording is the same alone and beside others."""
    power, sigma = positive(2, 300, 129)
    bias = torch.randn(129)
    whole, decoded = ops.log_likelihood(power, sigma), ops.decode_(sigma.log(), bias, limit=30.0, floor=0.0)
    torch.set_num_threads(1)
    runs = [slice(0, 7), slice(7, 300)]
    assert torch.equal(whole, torch.cat([ops.log_likelihood(power[rows], sigma[rows]) for rows in runs]))
    parts = [ops.decode_(sigma[rows].log(), bias, limit=30.0, floor=0.0) for rows in runs]
    assert torch.equal(decoded, torch.cat(parts))
