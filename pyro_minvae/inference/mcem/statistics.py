"""What an M-step of the noise needs to know of everything else: P and Q, and their products with W and H.

-mean_r sum [log V + |x|^2 / V] is majorised at the present noise variance by what is linear in

    P = mean_r |x|^2 V^-2   and   Q = mean_r V^-1,   [..., N, F] each

(derivations, eq. 6.18; Fevotte & Idier 2011). A step of the noise model may ask for them at any noise variance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pyro_minvae.fused import products as fused
from pyro_minvae.inference.ops.workspace import Workspace, cut, tiles

Pair = tuple[Tensor, Tensor]


class Statistics:
    """P and Q as a function `ask` has them, noise variance [..., N, F] to (P, Q) [..., N, F].

    They count for nothing in padded frames: `valid` [..., N] is 1 in the frames that exist and 0 in the others, None
    where all do.
    """

    def __init__(self, ask: Callable[[Tensor], Pair], valid: Tensor | None = None) -> None:
        self._ask, self.valid = ask, valid

    def __call__(self, noise: Tensor) -> Pair:
        """P and Q; they hold until the next question, which may be answered in the same arrays."""
        p, q = self._ask(noise)
        if self.valid is None:
            return p, q
        exists = self.valid[..., None]
        return p * exists, q * exists

    def onto_spectra(self, noise: Tensor, H: Tensor) -> Pair:
        """P H' and Q H' [..., F, K] of activations H [..., K, N], at that noise variance."""
        p, q = self(noise)
        found = fused.onto_spectra(H, p, q)
        return found if found is not None else ((H @ p).mT, (H @ q).mT)

    def onto_activations(self, noise: Tensor, W: Tensor) -> Pair:
        """W' P and W' Q [..., K, N] of spectra W [..., F, K], at that noise variance."""
        p, q = self(noise)
        found = fused.onto_activations(W, p, q)
        return found if found is not None else ((p @ W).mT, (q @ W).mT)


class MixtureStatistics(Statistics):
    """Those of the mixture's `power` [..., N, F] with V = sum_j g_j sigma_j + noise.

    `sigma` [J, D, ..., N, F] are the sources' draws, `gain` is [J, ..., N] (None: 1). Without sources V is the noise
    alone: then `power` may be the mean field's E|b|^2 (derivations, eq. 6.30). P and Q lie in `scratch`.
    """

    def __init__(
        self,
        power: Tensor,
        sigma: Tensor | None = None,
        gain: Tensor | None = None,
        *,
        valid: Tensor | None = None,
        workspace: Workspace | None = None,
    ) -> None:
        super().__init__(self._means, valid)
        self.power, self.sigma, self.gain = power, sigma, gain
        self._scratch = workspace or Workspace()

    def onto_spectra(self, noise: Tensor, H: Tensor) -> Pair:
        live = H if self.valid is None else H * self.valid[..., None, :]
        found = fused.onto_spectra(live, self.power, fused.Total(noise, self.sigma, self.gain))
        return super().onto_spectra(noise, H) if found is None else found

    def onto_activations(self, noise: Tensor, W: Tensor) -> Pair:
        found = fused.onto_activations(W, self.power, fused.Total(noise, self.sigma, self.gain))
        if found is None:
            return super().onto_activations(noise, W)
        if self.valid is None:
            return found
        up, down = (one * self.valid[..., None, :] for one in found)
        return up, down

    def _means(self, noise: Tensor) -> Pair:
        """P and Q by torch, a few frames at a time."""
        whole = self._scratch("P", noise), self._scratch("Q", noise)
        gain = self.gain
        if gain is None and self.sigma is not None:
            gain = noise.new_ones(len(self.sigma), *self.power.shape[:-1])
        for part in tiles(noise):
            p, q = (cut(one, part) for one in whole)
            self._means_in(cut(noise, part), gain, part, p, q)
        return whole

    def _means_in(self, noise: Tensor, gain: Tensor | None, part: slice | None, p: Tensor, q: Tensor) -> None:
        if self.sigma is None or gain is None:
            torch.square(torch.reciprocal(noise, out=q), out=p)
        else:
            level = cut(gain[..., None], part)
            first, *others = draws_of(self.sigma, part)
            torch.square(total_variance(noise, level, first, q).reciprocal_(), out=p)
            for one in others:
                inverse = total_variance(noise, level, one, self._scratch("inverse", noise)).reciprocal_()
                q += inverse
                p.addcmul_(inverse, inverse)
            if others:
                q /= 1 + len(others)
                p /= 1 + len(others)
        p.mul_(cut(self.power, part))


def total_variance(noise: Tensor, gain: Tensor, sigma: Sequence[Tensor], out: Tensor) -> Tensor:
    """sum_j g_j sigma_j + noise of gains [J, ..., N, 1] and one draw of each source, J of [..., N, F], in `out`."""
    total = torch.addcmul(noise, gain[0], sigma[0], out=out)
    for own, other in zip(gain[1:], sigma[1:], strict=True):
        total.addcmul_(own, other)
    return total


def draws_of(sigma: Tensor, part: slice | None) -> Iterator[tuple[Tensor, ...]]:
    """Draw by draw of [J, D, ..., N, F], that of every source in one part of the frames."""
    return zip(*(cut(draws, part).unbind() for draws in sigma), strict=True)
