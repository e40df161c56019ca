"""Draws of z that Pyro and the closed forms share, chosen so that sampled and closed divergences agree exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_minvae.checks.subject import Frames, Subject
from pyro_minvae.models.distributions import MarkovNormal, gaussian_parameters


class Given(Messenger):
    """Inside this context the guide's site "z" takes the value [C, ..., N, L] (index alpha; C = 1 without it).

    The value may depend on parameters: gradients flow through it as through a reparametrised draw.
    """

    def __init__(self, z: Sequence[Tensor]) -> None:
        super().__init__()
        self.z = torch.stack(tuple(z)) if len(z) > 1 else z[0]

    def _pyro_sample(self, msg: Any) -> None:
        # In the model the site is replayed, and done by then.
        if msg["name"] == "z" and not msg["done"]:
            msg["value"], msg["done"] = self.z, True


class Draws(NamedTuple):
    """How z is drawn: standard normal `noise` [C, M, N, L] for Gaussian guides, else afresh from `seed`.

    `matched`: averages of log q(z) - log p(z) over these M draws are the closed KL to rounding, or there is no closed
    KL and every column uses these very draws.
    """

    noise: Tensor | None
    seed: int
    size: int
    matched: bool

    def place(self, subject: Subject, frames: Frames) -> list[Tensor]:
        """z [M, N, L] of each component, differentiable in the guide's parameters."""
        posteriors = subject.guide.posteriors(*frames)
        shape = frames.power.shape[:-1]
        if self.noise is not None:
            return [q.mean + q.stddev * noise for q, noise in zip(posteriors, self.noise, strict=True)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            expanded = [q.expand(shape) for q in posteriors]
            return [q.rsample((self.size,)) if q.has_rsample else q.sample((self.size,)) for q in expanded]


@torch.no_grad()
def draws_for(subject: Subject, frames: Frames, count: int, seed: int) -> Draws:
    """M = `count` draws for every frame; moment-matched where the guide is Gaussian."""
    posteriors = subject.guide.posteriors(*frames)
    priors = subject.model.prior.conditionals(frames.visual)
    if not all(gaussian_parameters(q) for q in posteriors):
        return Draws(None, seed, count, matched=False)
    latent = posteriors[0].event_shape[-1]
    noise = moment_matched(len(posteriors), count, len(frames.power), latent, seed=seed)
    quadratic = [
        gaussian_parameters(p) is not None or isinstance(p, MarkovNormal) or not closed(q, p)
        for q, p in zip(posteriors, priors, strict=True)
    ]
    return Draws(noise, seed, count, matched=all(quadratic))


def closed(q: TorchDistribution, p: TorchDistribution) -> bool:
    """Whether KL(q || p) is known in closed form."""
    if gaussian_parameters(q) is not None and (
        gaussian_parameters(p) is not None or isinstance(p, MarkovNormal)
    ):
        return True
    try:
        kl_divergence(q, p)
    except NotImplementedError:
        return False
    return True


def moment_matched(components: int, count: int, frames: int, latent: int, *, seed: int) -> Tensor:
    """Normal draws eps [C, M, N, L] with mean_m eps = 0, mean_m eps^2 = 1 and mean_m eps_n eps_(n-1) = 0 exactly.

    log q - log p of diagonal Gaussians is a quadratic polynomial of eps without other products (with those of
    neighbouring frames under a Markov prior), so its average over the M draws is its expectation, the closed KL, for
    every value of the parameters: gradients agree too (where single draws agree on average only, derivations,
    eq. 2.20).
    """
    if count < 4:
        raise ValueError(f"expected at least 4 draws, got {count}")
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn(components, count, frames, latent, generator=generator, dtype=torch.float64)
    eps = eps - eps.mean(1, keepdim=True)
    columns: list[Tensor] = []
    for frame in range(frames):
        column = eps[:, :, frame]
        if columns:
            # The columns before have mean square 1, so this is their projection.
            column = column - columns[-1] * (column * columns[-1]).mean(1, keepdim=True)
        columns.append(column / column.square().mean(1, keepdim=True).sqrt())
    return torch.stack(columns, 2)
