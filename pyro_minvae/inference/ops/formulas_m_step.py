"""The formulas of the M-step's passes and of the filters, each once, by torch; see `formulas_e_step.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyro_minvae.inference.ops.minimisers import TINY, minimiser, slopes
from pyro_minvae.inference.ops.workspace import Workspace, cut, tiles


def move_chain(A: Tensor, up: Tensor, down: Tensor, links: Tensor, sweeps: int) -> Tensor:
    """Minimise sum up a~^2 / a + down a + s sum D_IS(a_(m-1) | a_m) [..., K, M] over odd columns, then over even ones.

    `links` [M + 1] or [..., M + 1] are s between neighbours and 0 at the ends. Given its neighbours a column has a
    closed minimum (derivations, eq. 12.10; Fevotte 2011, table 1); all columns at once would not be monotone.
    """
    # Columns of A as rows [..., M, K], so that every other one can be taken without a copy. On either side there is one
    # more, which nothing links to.
    padded = pad(A.mT, (0, 0, 1, 1), value=1.0)
    down, pull = down.mT, padded[..., 1:-1, :].square().mul_(up.mT)
    for k in [0, 1][: A.shape[-1]] * sweeps:
        before, after = links[..., k:-1:2, None], links[..., k + 1 :: 2, None]
        a = (after / padded[..., k + 2 :: 2, :]).add_(down[..., k::2, :])
        b = (before * padded[..., k:-2:2, :]).add_(pull[..., k::2, :])
        padded[..., k + 1 : -1 : 2, :] = minimiser(a, b, slopes(before - after)).clamp_min_(TINY)
    return padded[..., 1:-1, :].mT.contiguous()


def harmonic_mean(sigma: Tensor) -> Tensor:
    """1 / mean_r[1 / sigma] of draws [J, D, ..., N, F]: [J, ..., N, F]."""
    first, *others = sigma.unbind(1)
    mean = first.reciprocal()
    inverse = torch.empty_like(mean)
    for one in others:  # draw by draw, which stays in the processor's cache
        mean += torch.reciprocal(one, out=inverse)
    return mean.div_(sigma.shape[1]).reciprocal_()


def statistics(
    power: Tensor,
    noise: Tensor,
    sigma: Tensor | None,
    gain: Tensor | None,
    *,
    out: tuple[Tensor, Tensor],
    workspace: Workspace,
) -> tuple[Tensor, Tensor]:
    """P = mean_r |x|^2 V^-2 and Q = mean_r V^-1 in `out` [..., N, F], V = sum_j g_j sigma_j + noise.

    (derivations, eq. 6.18)

    `sigma` are draws [J, D, ..., N, F] (None: the noise alone), `gain` is [J, ..., N] (None: 1).
    """
    for part in tiles(noise):
        own, (p, q) = cut(noise, part), (cut(one, part) for one in out)
        if sigma is None:
            torch.square(torch.reciprocal(own, out=q), out=p)
        else:
            first, *others = draws_of(sigma, part)
            level = None if gain is None else cut(gain[..., None], part)
            torch.square(total_variance(own, level, first, q).reciprocal_(), out=p)
            for one in others:
                inverse = total_variance(own, level, one, workspace("inverse", own)).reciprocal_()
                q += inverse
                p.addcmul_(inverse, inverse)
            if others:
                q /= 1 + len(others)
                p /= 1 + len(others)
        p.mul_(cut(power, part))
    return out


def gain_statistics(
    sigma: Tensor, gain: Tensor, noise: Tensor, power: Tensor, source: int, workspace: Workspace
) -> tuple[Tensor, Tensor]:
    """sum_r sum_f |x|^2 sigma_j V^-2 and sum_r sum_f sigma_j V^-1 [..., N] of one source j; arguments as above."""
    up, down = torch.zeros_like(gain[source]), torch.zeros_like(gain[source])
    for part in tiles(noise):
        rest, level = cut(noise, part), cut(gain[..., None], part)
        for draw in draws_of(sigma, part):
            q = total_variance(rest, level, draw, workspace("q", rest)).reciprocal_()
            p = torch.square(q, out=workspace("p", rest)).mul_(cut(power, part))
            for whole, one in ((up, p), (down, q)):
                cut(whole[..., None], part)[..., 0] += one.mul_(draw[source]).sum(-1)
    return up, down


def noise_moment(
    harmonic: Tensor,
    gain: Tensor,
    noise: Tensor,
    power: Tensor,
    *,
    out: Tensor,
    ratio: Tensor | None,
    workspace: Workspace,
) -> None:
    """E|b|^2 in `out` [..., N, F], and sum_f E|sqrt(g) s_j|^2 / sigma_j in `ratio` [J, ..., N] unless it is None.

    (derivations, eqs. 6.5 and 6.31)

    `harmonic` [J, ..., N, F] takes the place of sigma.
    """
    for part in tiles(noise):
        x, (speech, total) = cut(power, part), mean_field_variances(gain, harmonic, noise, part, workspace)
        second_moment(cut(noise, part), total, x, workspace=workspace, out=cut(out, part))
        if ratio is not None:
            moment = second_moment(speech, total, x, workspace=workspace, out=workspace("moment", speech))
            cut(ratio[..., None], part)[..., 0] = moment.div_(cut(harmonic, part)).sum(-1)


def speech_moment(
    harmonic: Tensor,
    gain: Tensor,
    noise: Tensor,
    power: Tensor,
    source: int,
    *,
    out: Tensor,
    workspace: Workspace,
) -> Tensor:
    """E|s_j|^2 of one source in `out` [..., N, F]; `harmonic` as above."""
    for part in tiles(noise):
        speech, total = mean_field_variances(gain, harmonic, noise, part, workspace)
        second_moment(speech[source], total, cut(power, part), workspace=workspace, out=cut(out, part))
    return out.div_(gain[source][..., None])


def filters(sigma: Tensor, noise: Tensor, gain: Tensor | None) -> Tensor:
    """mean_r[ g_j sigma_j / (sum_i g_i sigma_i + noise) ] [J, ..., N, F]; arguments as for `statistics`."""
    variances = sigma if gain is None else gain[:, None, ..., None] * sigma
    mean, workspace = torch.empty_like(variances[:, 0]), Workspace()
    for part in tiles(noise):
        rest, share = cut(noise, part), cut(mean, part)
        for number, draw in enumerate(cut(variances, part).unbind(1)):
            # Reductions over a dimension of one are slow.
            speech = draw[0] if len(draw) == 1 else draw.sum(0)
            total = torch.add(speech, rest, out=workspace("total", rest))
            if number == 0:
                torch.div(draw, total, out=share)
            else:
                share += torch.div(draw, total, out=workspace("share", draw))
    return mean.div_(variances.shape[1])


def total_variance(noise: Tensor, gain: Tensor | None, sigma: Sequence[Tensor], out: Tensor) -> Tensor:
    """sum_j g_j sigma_j + noise of gains [J, ..., N, 1] (None: 1), one draw of each source [..., N, F], in `out`."""
    if gain is None:
        return torch.add(noise, torch.stack(list(sigma)).sum(0), out=out)
    total = torch.addcmul(noise, gain[0], sigma[0], out=out)
    for own, other in zip(gain[1:], sigma[1:], strict=True):
        total.addcmul_(own, other)
    return total


def draws_of(sigma: Tensor, part: slice | None) -> Iterator[tuple[Tensor, ...]]:
    """Draw by draw of [J, D, ..., N, F], that of every source in one part of the frames."""
    return zip(*(cut(draws, part).unbind() for draws in sigma), strict=True)


def mean_field_variances(
    gain: Tensor, harmonic: Tensor, noise: Tensor, part: slice | None, workspace: Workspace
) -> tuple[Tensor, Tensor]:
    """gamma_j [J, ..., N, F], the variances of q(s)'s prior factors, and V = sum_j gamma_j + noise.

    (derivations, eq. 6.25)

    Of one part of the frames; both lie in `workspace`.
    """
    own, rest = cut(harmonic, part), cut(noise, part)
    speech = torch.mul(cut(gain[..., None], part), own, out=workspace("speech", own))
    together = speech.sum(0) if len(speech) > 1 else speech[0]
    return speech, torch.add(together, rest, out=workspace("total", rest))


def second_moment(
    component: Tensor,
    total: Tensor,
    power: Tensor,
    *,
    workspace: Workspace | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """E[|c|^2 | x] = (v / V)^2 |x|^2 + v (1 - v / V) for a component of variance v in a sum of variance V.

    (derivations, eq. 6.5)

    It goes into `out`, by way of an array in `workspace`.
    """
    share = torch.div(component, total, out=workspace("share", component) if workspace else None)
    return torch.addcmul(total, share, power, out=out).sub_(component).mul_(share)
