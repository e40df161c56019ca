"""What an M-step of the noise needs to know of everything else: P and Q, and their products with W and H.

-mean_r sum [log V + |x|^2 / V] is majorised at the present noise variance by what is linear in

    P = mean_r |x|^2 V^-2   and   Q = mean_r V^-1,   [..., N, F] each

(derivations, eq. 6.18; Fevotte & Idier 2011). A step of the noise model may ask for them at any noise variance.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pyro_minvae.inference import ops
from pyro_minvae.inference.ops.workspace import Workspace

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
        live = H if self.valid is None else H * self.valid[..., None, :]
        p, q = self._ask(noise)
        return (live @ p).mT, (live @ q).mT

    def onto_activations(self, noise: Tensor, W: Tensor) -> Pair:
        """W' P and W' Q [..., K, N] of spectra W [..., F, K], at that noise variance."""
        up, down = ((one @ W).mT for one in self._ask(noise))
        if self.valid is None:
            return up, down
        exists = self.valid[..., None, :]
        return up * exists, down * exists


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

    def _means(self, noise: Tensor) -> Pair:
        out = self._scratch("P", noise), self._scratch("Q", noise)
        return ops.statistics(self.power, noise, self.sigma, self.gain, out=out, workspace=self._scratch)
