"""Distributions over latent vectors: what priors and guides answer with, frame by frame or over all frames at once.

A distribution over the vector z_n of one frame has event_dim 1 and a batch shape that broadcasts to [..., N]; one over
all frames z_1..z_N of a sequence has event_dim 2 and lists its chain-rule factors (`MarkovNormal.factors`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_minvae.inference import ops
from pyro_minvae.inference.ops.gaussians import Gaussians, Normal


def normal(mean: Tensor, scale: Tensor) -> dist.Independent:
    """N(z; mean, diag scale^2) over the last dimension L, which both arguments have.

    Arguments are not checked: this stands in inner loops, and training looks at every loss and gradient.
    """
    return dist.Normal(mean, scale, validate_args=False).to_event(1)


def gaussian_parameters(distribution: TorchDistribution) -> tuple[Tensor, Tensor] | None:
    """(mean, scale), each [..., L], of what `normal` made; None for other distributions."""
    base = getattr(distribution, "base_dist", None)
    if (
        isinstance(distribution, dist.Independent)
        and isinstance(base, dist.Normal)
        and distribution.event_dim == 1
    ):
        return base.loc, base.scale
    return None


def pick(alpha: Tensor, off: TorchDistribution, on: TorchDistribution) -> TorchDistribution:
    """`on` where alpha = 1 and `off` where alpha = 0, for alpha of any batch shape [..., N]."""
    chosen = alpha.bool()
    first, second = gaussian_parameters(off), gaussian_parameters(on)
    if first is not None and second is not None:
        audio = chosen[..., None]
        return normal(torch.where(audio, second[0], first[0]), torch.where(audio, second[1], first[1]))
    shape = torch.broadcast_shapes(chosen.shape, off.batch_shape, on.batch_shape)
    return dist.MaskedMixture(chosen.expand(shape), off.expand(shape), on.expand(shape))


class VectorMixture(dist.MixtureSameFamily):
    """A mixture over all of R^L: torch asks its components where a value may lie, for which Pyro knows no transform."""

    support = constraints.independent(constraints.real, 1)


def marginal(weight: Tensor, off: TorchDistribution, on: TorchDistribution) -> TorchDistribution:
    """sum_alpha p(alpha) p(z | alpha), where alpha = 1 has probability `weight` [..., N] and the Gaussian `on`.

    Raises:
        ValueError: if a component is no Gaussian.
    """
    first, second = gaussian_parameters(off), gaussian_parameters(on)
    if first is None or second is None:
        raise ValueError(f"expected two Gaussians, got {type(off).__name__} and {type(on).__name__}")
    shape = torch.broadcast_shapes(weight.shape, off.batch_shape, on.batch_shape)
    mean, scale = (
        torch.stack([part.expand(*shape, part.shape[-1]) for part in parts], -2)
        for parts in zip(first, second, strict=True)
    )
    weights = torch.stack([1 - weight, weight], -1).expand(*shape, 2)
    return VectorMixture(
        dist.Categorical(weights, validate_args=False), normal(mean, scale), validate_args=False
    )


def factors(distribution: TorchDistribution, z: Tensor) -> Tensor:
    """Terms that sum to log p(z_1..z_N): log p(z_n) or, where frames are coupled, log p(z_n | z_(n-1)): [..., N]."""
    if distribution.event_dim == 1:
        return distribution.log_prob(z)
    return distribution.factors(z)


def gradient_of(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """A function's values [..., N] and the gradient of their sum with respect to z [..., N, L], also in `no_grad`."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        values = function(leaf)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), gradient


class Gaussian:
    """log N(z; mean, diag scale^2) as a function of z [..., N, L]: what does not depend on z is computed once."""

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        constant = -(scale.log().sum(-1) + 0.5 * scale.shape[-1] * math.log(2 * math.pi))
        self.normal = Normal(mean, scale.reciprocal(), constant)
        self._alone = Gaussians([self.normal])

    def __call__(self, z: Tensor) -> Tensor:
        return ops.log_mixture(z, self._alone)

    def gradient(self, z: Tensor) -> Tensor:
        """-(z - mean) / scale^2 [..., N, L]."""
        return ops.mixture_gradient(z, self._alone)


def density(distribution: TorchDistribution) -> Callable[[Tensor], Tensor]:
    """`factors` of z alone; a `Gaussian` where it is one."""
    parameters = gaussian_parameters(distribution)
    return Gaussian(*parameters) if parameters is not None else lambda z: factors(distribution, z)


def as_event(distribution: TorchDistribution, shape: Sequence[int]) -> TorchDistribution:
    """The same distribution with all frames as one event [N, L]; `shape` is that of the frames [..., N]."""
    if distribution.event_dim == 2:
        return distribution.expand(shape[:-1])
    return distribution.expand(tuple(shape)).to_event(1)


class MarkovNormal(TorchDistribution):
    """z_1 ~ N(0, I), z_n = coefficient * z_(n-1) + innovation * eps_n with eps_n ~ N(0, I): event [N, L].

    (derivations, eqs. 3.9 to 3.12)

    `coefficient` and `innovation` are [L]. `frames` is the N of samples; densities take any number of frames.
    """

    arg_constraints = {"coefficient": constraints.real_vector, "innovation": constraints.positive}  # noqa: RUF012
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        coefficient: Tensor,
        innovation: Tensor,
        frames: int = 1,
        batch_shape: Sequence[int] = (),
        validate_args: bool | None = False,
    ) -> None:
        self.coefficient, self.innovation = coefficient, innovation
        event_shape = torch.Size((frames, coefficient.shape[-1]))
        super().__init__(torch.Size(batch_shape), event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> MarkovNormal:
        return MarkovNormal(self.coefficient, self.innovation, self.event_shape[0], batch_shape)

    def over(self, frames: int) -> MarkovNormal:
        """The same chain whose samples have that many frames."""
        return MarkovNormal(self.coefficient, self.innovation, frames, self.batch_shape)

    @property
    def mean(self) -> Tensor:
        """0 in every frame: [..., N, L]."""
        return self.coefficient.new_zeros(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        """Of each frame alone: v_1 = 1, v_n = coefficient^2 v_(n-1) + innovation^2: [..., N, L]."""
        terms = [torch.ones_like(self.coefficient)]
        for _ in range(1, self.event_shape[0]):
            terms.append(self.coefficient**2 * terms[-1] + self.innovation**2)
        return torch.stack(terms).expand(self._extended_shape())

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        epsilon = torch.randn(shape, dtype=self.coefficient.dtype, device=self.coefficient.device)
        z = [epsilon[..., 0, :]]
        for frame in range(1, shape[-2]):
            z.append(self.coefficient * z[-1] + self.innovation * epsilon[..., frame, :])
        return torch.stack(z, -2)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.factors(value).sum(-1)

    def factors(self, z: Tensor) -> Tensor:
        """log p(z_1) and log p(z_n | z_(n-1)): [..., N, L] to [..., N]."""
        first = z[..., :1, :] ** 2
        later = ((z[..., 1:, :] - self.coefficient * z[..., :-1, :]) / self.innovation) ** 2
        later = later + 2 * self.innovation.log()
        return -0.5 * (torch.cat([first, later], -2).sum(-1) + z.shape[-1] * math.log(2 * math.pi))
