"""The compiled passes: the same as torch to rounding, whatever the shapes, the numbers and the threads."""

from __future__ import annotations

import copy

import pytest
import torch
from arrays import LEADS, SIZES, close, positive, scene
from torch import Tensor

from pyro_minvae import fused
from pyro_minvae.fused import chains, noise, speech
from pyro_minvae.models.noise.base import TINY

pytestmark = pytest.mark.skipif(not fused.compiled, reason="the library was installed without a C compiler")


@pytest.mark.parametrize("size", SIZES)
def test_power_of_two(size: tuple[int, int]) -> None:
    x = 40 * torch.randn(size)
    wanted = x.double().clamp_max(30).exp2() + 1e-9
    assert speech.power_of_two_(x, limit=30.0, floor=1e-9)
    close(x, wanted, 3e-7)


def test_power_of_two_of_what_is_not_a_number() -> None:
    x = torch.tensor([[torch.nan, torch.inf, -torch.inf, -126.5, -1e30, 1e30, 0.0, 126.0]])
    wanted = x.double().clamp_max(126).exp2()
    assert speech.power_of_two_(x, limit=126.0, floor=0.0)
    # Below 2^-126 numbers lose their digits, and are 0 here.
    wanted[0, 3] = 0.0
    torch.testing.assert_close(x.double(), wanted, rtol=3e-7, atol=0, equal_nan=True)


def test_logistic() -> None:
    x = torch.cat(
        [100 * torch.randn(3, 50), torch.tensor([torch.inf, -torch.inf, torch.nan]).expand(3, 3)], 1
    )
    wanted = x.double().sigmoid()
    assert speech.logistic_(x)
    torch.testing.assert_close(x.double(), wanted, rtol=0, atol=1.5e-7, equal_nan=True)


def test_back_through_logistic() -> None:
    back, said = torch.randn(2, 40, 513), torch.rand(2, 40, 513)
    wanted = back.double() * said * (1 - said.double())
    assert speech.back_through_logistic_(back, said)
    close(back, wanted, 3e-7)
    assert not speech.back_through_logistic_(back, said[0])


@pytest.mark.parametrize("scaled", ["not", "by frame", "by bin"])
@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("size", SIZES)
def test_density_and_slope(size: tuple[int, int], lead: tuple[int, ...], scaled: str) -> None:
    """Also where sound, noise and gains are the same for all chains."""
    frames, bins = size
    sigma, power, others = positive(*lead, frames, bins), positive(*lead[1:], *size), positive(*size)
    scale = None if scaled == "not" else positive(*lead[1:], frames, 1 if scaled == "by frame" else bins)
    if scale is None:
        variance = sigma.double()
        given = {}
    else:
        variance = sigma.double() * scale.double() + others.double()
        given = {"scale": scale, "others": others}
    ratio = power.double() / variance
    close(speech.density(power, sigma, **given), -(variance.log() + ratio).sum(-1))
    slope = (ratio - 1) / variance * (1.0 if scale is None else scale.double())
    found = speech.slope(power, sigma, torch.empty_like(sigma), **given)
    assert found is not None
    # Where ratio - 1 cancels, to rounding of the ratio.
    bound = 1e-6 * (ratio + 1) / variance * (1.0 if scale is None else scale.double())
    assert bool(((found.double() - slope).abs() <= bound).all())


@pytest.mark.parametrize("number", [0.0, torch.inf, torch.nan, 1e-40, -1.0])
def test_density_of_what_is_not_a_variance(number: float) -> None:
    """Whatever torch says of it: infinite, not a number, or a number so small that few digits are left."""
    power, variance = torch.ones(4, 200), torch.ones(4, 200)
    variance[1, 77], variance[2, 199] = number, number
    power[1, 77], power[2, 199] = 1e-38, 1e-38
    wanted = -(variance.double().log() + power.double() / variance.double()).sum(-1)
    found = speech.density(power, variance)
    assert found is not None
    assert torch.equal(found.isfinite(), wanted.float().isfinite())
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=0, equal_nan=True)


@pytest.mark.parametrize("most", [torch.inf, 4.0])
@pytest.mark.parametrize("size", SIZES)
def test_through_and_sums(size: tuple[int, int], most: float) -> None:
    sigma, outer, z = positive(2, *size), torch.randn(2, *size), torch.randn(2, size[0], 5)
    wanted = torch.where(sigma - 0.25 < most, (sigma - 0.25) * outer, 0.0)
    found = speech.through(sigma, outer, torch.empty_like(outer), floor=0.25, most=most)
    close(found, wanted)
    close(speech.sums(z, sigma), z.double().square().sum(-1) + sigma.double().sum(-1))
    z[0, 1, 2], sigma[1, 2, 0] = torch.nan, torch.inf
    said = speech.sums(z, sigma)
    assert said is not None
    assert said.isfinite().logical_not().nonzero().tolist() == [[0, 1], [1, 2]]


def normals(lead: tuple[int, ...], frames: int, latent: int) -> tuple[list[chains.Normal], list[Tensor]]:
    """One Gaussian for each frame, and one for all; log p(alpha)."""
    own = (torch.randn(*lead[1:], frames, latent), positive(*lead[1:], frames, latent).sqrt())
    shared = (torch.randn(latent), positive(latent).sqrt())
    parts = [chains.Normal(mean, scale, torch.randn(mean.shape[:-1])) for mean, scale in (own, shared)]
    weight = torch.rand(frames)
    return parts, [torch.log1p(-weight), weight.log()]


def log_normal(part: chains.Normal, z: Tensor) -> Tensor:
    away = (z.double() - part.mean.double()) * part.precision.double()
    return part.constant.double() - 0.5 * away.square().sum(-1)


@pytest.mark.parametrize("lead", LEADS)
def test_gaussians(lead: tuple[int, ...]) -> None:
    frames, latent = 6, 11
    parts, logs = normals(lead, frames, latent)
    z, weight = torch.randn(*lead, frames, latent), torch.rand(*lead[1:], frames)
    lips, sound = (log_normal(part, z) for part in parts)
    slopes = [(part.mean - z) * part.precision.square() for part in parts]
    both = chains.Gaussians(parts, logs)
    close(both.log_density(z), torch.logaddexp(lips + logs[0], sound + logs[1]))
    close(both.log_density(z, weight), torch.lerp(lips, sound, weight.double()), 1e-5)
    said = (sound - lips + (logs[1] - logs[0])).sigmoid()
    for share, found in ((said.float(), both.gradient(z)), (weight, both.gradient(z, weight))):
        close(found, torch.lerp(*slopes, share[..., None]), 1e-4)
    unweighted = chains.Gaussians(parts)
    assert unweighted.log_density(z) is None
    assert unweighted.gradient(z) is None
    assert unweighted.responsibility(z[None], mean_ratio=True) is None
    for part, alone, slope in zip(parts, (lips, sound), slopes, strict=True):
        one = chains.Gaussians([part])
        close(one.log_density(z), alone)
        close(one.gradient(z), slope)


@pytest.mark.parametrize("draws", [1, 4])
@pytest.mark.parametrize("lead", LEADS[:2])
def test_responsibilities(lead: tuple[int, ...], draws: int) -> None:
    """Of the mean log ratio of the draws, and the mean of each draw's."""
    frames, latent = 60, 11
    parts, logs = normals((1, *lead), frames, latent)
    z = torch.randn(draws, *lead, frames, latent)
    lips, sound = (log_normal(part, z) for part in parts)
    ratio, logit = sound - lips, (logs[1] - logs[0]).double()
    both = chains.Gaussians(parts, logs)
    close(both.responsibility(z, mean_ratio=True), (ratio.mean(0) + logit).sigmoid(), 1e-5)
    close(both.responsibility(z, mean_ratio=False), (ratio + logit).sigmoid().mean(0), 1e-5)
    assert chains.Gaussians(parts[:1]).responsibility(z, mean_ratio=True) is None
    assert both.responsibility(z[..., :5], mean_ratio=True) is None


def test_copies_of_gaussians_look_at_tensors_of_their_own() -> None:
    parts, logs = normals((), 6, 11)
    z = torch.randn(6, 11)
    both = chains.Gaussians(parts, logs)
    before, twin = both.log_density(z), copy.deepcopy(both)
    for one in (*(tensor for part in parts for tensor in part), *logs):
        one.fill_(torch.nan)
    assert before is not None
    again = twin.log_density(z)
    assert again is not None
    assert torch.equal(again, before)


def test_langevin() -> None:
    z, gradient, xi = torch.randn(3, 2, 7, 5)
    close(chains.langevin(z, gradient, xi, 0.3), z + 0.3 * (0.15 * gradient + xi))


NOT_NUMBERS = [torch.nan, torch.inf, -torch.inf]


@pytest.mark.parametrize("corrected", [False, True])
def test_decisions(corrected: bool) -> None:
    """Every pair of finite and other densities: never to where it is not finite, always away from there."""
    values = torch.tensor([-1.0, 0.5, 2.0, *NOT_NUMBERS])
    proposed, current = (one.flatten() for one in torch.meshgrid(values, values, indexing="ij"))
    count = len(proposed)
    correction = 0.7 * torch.randn(count) if corrected else None
    there, here, slope, flat = torch.randn(4, count, 3)
    chance = torch.rand(count)
    found = chains.decide(
        chance, (there, proposed, slope), (here, current, flat), correction, probability=True
    )
    assert found is not None
    ratio = proposed - current + (0.0 if correction is None else correction)
    known = proposed.isfinite() & current.isfinite()
    wanted = torch.where(known, chance.log() < ratio, proposed.isfinite())
    assert torch.equal(found.accepted, wanted)
    assert 0 < int(wanted.sum()) < count
    pick = wanted[:, None]
    assert torch.equal(found.position, torch.where(pick, there, here))
    assert torch.equal(found.gradient, torch.where(pick, slope, flat))
    torch.testing.assert_close(
        found.log_density, torch.where(wanted, proposed, current), rtol=0, atol=0, equal_nan=True
    )
    probable = torch.where(known, ratio.clamp_max(0).exp(), proposed.isfinite().float())
    torch.testing.assert_close(found.probability, probable)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_exchange(share: float) -> None:
    there, here = torch.randn(2, 2, 30, 9)
    accepted = torch.rand(2, 30) < share
    wanted = torch.where(accepted[..., None], there, here)
    moved = chains.exchange(accepted, there, here)
    assert moved is not None
    assert torch.equal(there if moved else here, wanted)


@pytest.mark.parametrize(("sources", "draws"), [(1, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("size", SIZES)
def test_maximisation(size: tuple[int, int], lead: tuple[int, ...], sources: int, draws: int) -> None:
    sigma, gain, level, power = scene(sources, draws, lead, size)
    wide = [one.double() for one in (sigma, gain[:, None, ..., None], level, power)]
    total = (wide[0] * wide[1]).sum(0) + wide[2]  # [D, ..., N, F]
    for j in range(sources):
        up, down = noise.marginal_gain(sigma, gain, level, power, j) or (None, None)
        close(up, (wide[3] * wide[0][j] / total**2).sum((0, -1)), 1e-5)
        close(down, (wide[0][j] / total).sum((0, -1)), 1e-5)
    close(noise.harmonic_mean(sigma), 1 / (1 / wide[0]).mean(1), 1e-5)
    close(noise.shares(sigma, level, None), (wide[0] / (wide[0].sum(0) + wide[2])).mean(1), 1e-5)
    close(noise.shares(sigma, level, gain), (wide[0] * wide[1] / total).mean(1), 1e-5)


@pytest.mark.parametrize("sources", [1, 2])
@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("size", SIZES)
def test_mean_field_moments(size: tuple[int, int], lead: tuple[int, ...], sources: int) -> None:
    sigma, gain, level, power = scene(sources, 1, lead, size)
    harmonic = sigma[:, 0].contiguous()
    own = gain[..., None].double() * harmonic.double()
    total = own.sum(0) + level.double()

    def moment(part: Tensor) -> tuple[Tensor, Tensor]:
        """And how much of it rounding may take, as V - v cancels where the part is nearly all."""
        share = part / total
        return share**2 * power + share * (total - part), 1e-6 * share * (share * power + total)

    def near(found: Tensor, wanted: Tensor, bound: Tensor) -> bool:
        return bool(((found.double() - wanted).abs() <= bound).all())

    expected, sums = torch.empty_like(level), torch.empty_like(gain)
    assert noise.noise_moment(harmonic, gain, level, power, expected, sums)
    assert near(expected, *moment(level.double()))
    for j in range(sources):
        whole, bound = (one / harmonic[j] for one in moment(own[j]))
        assert near(sums[j], whole.sum(-1), bound.sum(-1))
        assert noise.speech_moment(harmonic, gain, level, power, j, expected)
        wanted, bound = (one / gain[j][..., None] for one in moment(own[j]))
        assert near(expected, wanted, bound)


@pytest.mark.parametrize("lead", [(), (3,)])
def test_factors_move_from_statistics_in_any_order(lead: tuple[int, ...]) -> None:
    """Statistics come out of products of matrices, transposed or not."""
    bins, rank, frames = 9, 3, 14
    W, A = positive(*lead, bins, rank), positive(*lead, rank, frames)
    up, down = positive(*lead, bins, rank), positive(*lead, bins, rank)
    moved = (W * (up / down).sqrt()).clamp_min(TINY)
    scale = moved.sum(-2, keepdim=True)
    for order in (lambda one: one, lambda one: one.mT.contiguous().mT):
        found = noise.move_spectra(W, order(up), order(down), A)
        assert found is not None
        close(found[0], moved / scale)
        close(found[1], A * scale.mT)


def test_others_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Double precision, other orders in memory, graphs, shapes that do not repeat, and no compiler."""
    power, sigma = positive(2, 6, 5)
    assert speech.density(power, sigma) is not None
    assert speech.density(power.double(), sigma.double()) is None
    assert speech.density(power.mT, sigma.mT) is None
    assert speech.density(power, sigma.clone().requires_grad_()) is None
    assert speech.density(power[:5], sigma) is None
    assert speech.density(power, sigma, scale=sigma) is None
    assert speech.density(power.to("meta"), sigma) is None
    assert not speech.logistic_(sigma.mT)
    assert chains.langevin(power, sigma, sigma.double(), 0.1) is None
    assert chains.exchange(torch.ones(6, dtype=torch.bool), power.double(), sigma.double()) is None
    assert noise.minimise(power, sigma[:1], 1.0) is None
    monkeypatch.setattr(fused, "_passes", None)
    assert speech.density(power, sigma) is None
    assert chains.langevin(power, sigma, sigma, 0.1) is None


def test_rows_do_not_depend_on_threads_or_on_what_else_there_is() -> None:
    """Bit by bit, so that a recording is the same alone and beside others."""
    power, sigma = positive(2, 300, 129)
    whole = speech.density(power, sigma)
    torch.set_num_threads(1)
    parts = [speech.density(power[rows], sigma[rows]) for rows in (slice(0, 7), slice(7, 300))]
    assert whole is not None
    assert torch.equal(whole, torch.cat([one for one in parts if one is not None]))
