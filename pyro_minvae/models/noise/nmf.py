"""Non-negative matrix factorisation, plain and with bumps, and batches of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import pad

from pyro_minvae.inference.ops.minimisers import TINY, root_ratio
from pyro_minvae.inference.ops.workspace import Workspace
from pyro_minvae.models.noise.base import all_finite, flat

if TYPE_CHECKING:
    from pyro_minvae.inference.mcem.statistics import Statistics


class Nmf:
    """b_fn ~ N_c(0, (W H)_fn): non-negative matrix factorisation, W [..., F, K], H = A B [..., K, N].

    With `smooth` frames > 0 the activations are sums of overlapping bumps of that width, H = A B with B [M, N] fixed:
    noise changes more slowly than speech, so it cannot follow (and eat) the speech. B is the identity otherwise, and
    a single row of ones where `smooth` is infinite: the activations are constant.

    Prior: the columns of W are uniform on the simplex (they sum to one), A is flat. A prior on A (or another one on
    W) is a subclass that answers `_move_spectra`, `_move_activations`, `log_prior` and `sites`.
    """

    # Attributes besides W, A and B with one value for each recording, [...] or [..., K].
    per_recording: tuple[str, ...] = ("loudness",)
    # Which columns of A are the recording's own, [..., M]; None: all. The others pad a batch (see `stack`).
    live: Tensor | None = None
    # Of the multiplicative updates without a prior.
    exponent = 0.5
    # Whether `variance` answers with a new array after every update, or with one that the next update writes over.
    lasting = True
    _scratch: Workspace | None = None
    # W, A and the variance that belongs to them.
    _known: tuple[Tensor, Tensor, Tensor] | None = None

    def __init__(
        self,
        power: Tensor,
        *,
        rank: int,
        smooth: float = 0.0,
        generator: torch.Generator | None = None,
        spectra: Tensor | None = None,
    ) -> None:
        """Random factors, F times louder than the mixture's `power` [..., N, F].

        `spectra` [..., F, K], at any scale, is where W starts in place of random columns (see `low_energy`).

        Raises:
            ValueError: if the power is not finite, the rank is not positive, or the spectra have another shape.
        """
        if rank < 1:
            raise ValueError(f"expected a rank of at least 1, got {rank}")
        if not all_finite(power):
            raise ValueError("expected finite power, got NaN or infinity")
        *batch, frames, bins = power.shape
        # What activations are on average where the noise is as loud as the mixture [...].
        self.loudness = power.mean((-1, -2)).clamp_min(TINY) * bins / rank
        self.bumps = raised_cosine_basis(frames, smooth).to(power) if smooth > 1 else None
        columns = frames if self.bumps is None else self.bumps.shape[0]

        def draw(*shape: int) -> Tensor:
            return 0.5 + torch.rand(shape, generator=generator, dtype=power.dtype, device=power.device)

        self.W = draw(*batch, bins, rank) if spectra is None else _starting(spectra, (*batch, bins, rank))
        # Loud on purpose: the noise gives way to speech that earns its share, where a start at the mixture's own
        # level lets speech models explain noise (0.5 dB SI-SDR worse with an audio-only model at -5 dB).
        self.A = draw(*batch, rank, columns) * self.loudness[..., None, None]
        self._normalise()

    @property
    def H(self) -> Tensor:  # noqa: N802 - the papers' letter
        """Activations [..., K, N]."""
        return self._spread(self.A)

    def variance(self) -> Tensor:
        """(W H)' [..., N, F], and a part `TINY` that keeps it positive where all is silent."""
        # Asked for more often than W and A change.
        if self._known is None or self._known[0] is not self.W or self._known[1] is not self.A:
            self._known = self.W, self.A, self._product(None if self.lasting else "variance")
        return self._known[2]

    def _product(self, name: str | None) -> Tensor:
        """(W H)' + TINY in a new array, or in the one of that name."""
        W, H, room = self.W, self.H, None
        shape = *W.shape[:-2], H.shape[-1], W.shape[-2]
        if name:
            self._scratch = self._scratch or Workspace()
            room = self._scratch(name, W, shape)
        return torch.matmul(H.mT, W.mT, out=room).add_(TINY)

    def em_step(self, statistics: Statistics) -> None:
        """One step of W, then one of A; neither lowers -mean_r sum [log V + |x|^2 / V] + log p(W, A).

        At P = mean_r |x|^2 V^-2 and Q = mean_r V^-1, minus the likelihood is majorised by a sum over single factors,
        sum u W~^2 / W + d W with u = P H' and d = Q H' for W, and u = W' P B', d = W' Q B' for A (majorise-minimise;
        Fevotte & Idier 2011, with the other sources as a constant part of V as in Leglaive et al. 2018, eqs. 18-19).
        Without a prior the minimum is W <- W sqrt(u / d), A <- A sqrt(u / d). Columns of W then sum to one. An
        `exponent` of 1 in place of the root is the papers' step: longer, and not proven to go up.
        """
        self._move_spectra(*statistics.onto_spectra(self.variance(), self.H))
        up, down = statistics.onto_activations(self._product("between"), self.W)
        if self.bumps is not None:
            up, down = up @ self.bumps.mT, down @ self.bumps.mT
        self._move_activations(up, down)

    def log_prior(self) -> Tensor:
        """log p(W) = K log (F - 1)!, that of the uniform density on the simplex [...]."""
        *batch, bins, rank = self.W.shape
        return self.W.new_full(batch, rank * math.lgamma(bins))

    def sites(self, *, proper: bool = False) -> Tensor:
        """Sites "W" [..., K, F], Dirichlet(1), and the activations "H" [..., K, N], or "A" [..., K, M] where H = A B.

        These are flat, or Exponential with noise as loud as the mixture for a mean (derivations, eqs. 12.33, 12.35).
        """
        W = self._spectra_site()
        if proper:
            rate = (1 / self.loudness)[..., None, None].expand(self.A.shape)
            prior: TorchDistribution = dist.Exponential(rate).to_event(self.A.dim())
        else:
            prior = flat(self.A.shape, constraints.positive)
        return (W @ self._spread(pyro.sample(self._activations, prior))).mT + TINY

    def site_values(self) -> dict[str, Tensor]:
        """W' and the activations."""
        return {"W": self.W.mT, self._activations: self.A}

    @property
    def _activations(self) -> str:
        """The name of their site."""
        return "H" if self.bumps is None else "A"

    def _spectra_site(self) -> Tensor:
        *batch, bins, rank = self.W.shape
        uniform = dist.Dirichlet(self.W.new_ones(*batch, rank, bins)).to_event(len(batch) + 1)
        return pyro.sample("W", uniform).mT

    def _spread(self, A: Tensor) -> Tensor:
        return A if self.bumps is None else A @ self.bumps

    def _move_spectra(self, up: Tensor, down: Tensor) -> None:
        """Minimise sum up W~^2 / W + down W - log p(W), both [..., F, K], from W~."""
        self.W = self.W * self._factor(up, down)
        self._normalise()

    def _move_activations(self, up: Tensor, down: Tensor) -> None:
        """Minimise (or lower) sum up A~^2 / A + down A - log p(A), both [..., K, M], from A~."""
        self.A = (self.A * self._factor(up, down)).clamp_min(TINY)

    def _factor(self, up: Tensor, down: Tensor) -> Tensor:
        """(up / down)^exponent."""
        root = root_ratio(up, down)
        return root if self.exponent == 0.5 else root ** (2 * self.exponent)

    def _normalise(self) -> None:
        """Columns of W sum to one; A takes the scale, so that W H stays."""
        self.W = self.W.clamp_min(TINY)
        scale = self.W.sum(-2, keepdim=True)
        self.W = self.W / scale
        self.A = (self.A * scale.mT).clamp_min(TINY)


def published(power: Tensor, *, rank: int, generator: torch.Generator | None = None) -> Nmf:
    """NMF whose W and H start uniform on (0, 1), as the published programs have it for max|x| = 1."""
    noise = Nmf(power, rank=rank, generator=generator)
    noise.W, noise.A = (
        torch.rand(one.shape, generator=generator, dtype=power.dtype, device=power.device)
        for one in (noise.W, noise.A)
    )
    noise._normalise()
    return noise


Model = TypeVar("Model", bound=Nmf)


def stack(models: Sequence[Model], frames: int) -> Model:
    """One model of a batch [B, frames, F] from equal models of single recordings [N, F], N <= `frames`.

    Statistics must be zero in the frames beyond a recording's end (derivations, eq. 12.32): then every recording is
    updated as if alone. `stationary` noise stacks too.

    Raises:
        ValueError: if there is none, or their classes, ranks or numbers of bins differ.
    """
    if len({(type(model), model.W.shape, model.bumps is None) for model in models}) != 1:
        raise ValueError("expected models of one class, rank and number of bins")
    whole = copy.copy(models[0])
    whole._scratch = None
    lengths = [model.A.shape[-1] for model in models]
    columns = frames if whole.bumps is None else max(lengths)
    whole.W = torch.stack([model.W for model in models])
    whole.A = torch.stack([pad(model.A, (0, columns - model.A.shape[-1]), value=TINY) for model in models])
    place = torch.arange(columns, device=whole.A.device)
    whole.live = torch.stack([place < length for length in lengths])
    rows = [
        pad(B, (0, frames - B.shape[1], 0, columns - B.shape[0]))
        for m in models
        if (B := m.bumps) is not None
    ]
    whole.bumps = torch.stack(rows) if rows else None
    for name in whole.per_recording:
        setattr(whole, name, torch.stack([getattr(model, name) for model in models]))
    return whole


def raised_cosine_basis(frames: int, width: float) -> Tensor:
    """B [M, N]: raised cosines `width` frames long, half overlapping, that sum to one at every frame.

    A single row of ones for an infinite width.
    """
    if math.isinf(width):
        return torch.ones(1, frames, dtype=torch.float64)
    spacing = width / 2
    count = max(1, math.ceil((frames - 1) / spacing) + 1)
    centres = torch.arange(count, dtype=torch.float64) * ((frames - 1) / max(count - 1, 1))
    spacing = float(centres[1]) if count > 1 else 1.0
    distance = (torch.arange(frames, dtype=torch.float64) - centres[:, None]).abs() / spacing
    return torch.where(distance < 1, 0.5 + 0.5 * torch.cos(math.pi * distance), 0.0)


def _starting(spectra: Tensor, shape: tuple[int, ...]) -> Tensor:
    """W from spectra at any scale: columns that sum to F, as random ones do."""
    if spectra.shape != shape:
        raise ValueError(f"expected spectra of shape {list(shape)}, got {list(spectra.shape)}")
    W = spectra.clamp_min(TINY)
    return W / W.mean(-2, keepdim=True)
