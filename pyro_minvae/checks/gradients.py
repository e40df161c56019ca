"""Gradients of the bound in every parameter: Pyro's surrogate, autograd of the closed form, finite differences.

The step of central differences is that of derivations, eq. 10.17.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.checks.compare import Comparison
from pyro_minvae.checks.draws import Draws
from pyro_minvae.checks.subject import Frames, Subject
from pyro_minvae.checks.terms import closed_terms, pyro_loss
from pyro_minvae.models.distributions import as_event
from pyro_minvae.models.divergences import bernoulli_kl
from pyro_minvae.models.priors import at_valid

# Relative to the largest entry of a tensor's gradient.
AUTOGRAD = 1e-7
# Central differences in double precision, relative to the norm of a tensor's gradient, and the rounding error of the
# bound that they divide by the step.
DIFFERENCES, NOISE = 1e-5, 1e-14
# Gradients of tensors below this share of the largest are rounding error of the others.
FLOOR = 1e-6
# A ReLU may switch between the two ends of a difference; then shorter ones decide, each a little way off.
STEPS, AWAY = (1e-5, 1e-6, 1e-6, 1e-7), 1e-3

Gradients = dict[str, Tensor]


class GradientFigures(NamedTuple):
    """How many tensors, and the worst relative differences over them."""

    tensors: int
    pyro_closed: float
    closed_differences: float


def parameters(subject: Subject) -> dict[str, torch.nn.Parameter]:
    """Every parameter of model and guide once, by the name of its owner."""
    named: dict[int, tuple[str, torch.nn.Parameter]] = {}
    for owner, module in (("model", subject.model), ("guide", subject.guide)):
        for name, parameter in module.named_parameters():
            named.setdefault(id(parameter), (f"{owner}.{name}", parameter))
    return dict(named.values())


def check_gradients(
    subject: Subject, frames: Frames, draws: Draws, seed: int
) -> tuple[GradientFigures, list[Comparison]]:
    """Gradients in nats per frame at the same draws and the same q(alpha).

    q(alpha) is the guide's own where it is learned, so that its network has a gradient; else a random one, because the
    optimal one is often so certain that nothing is left of the other component.
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(frames.power)
    weight = None
    if subject.guide.mixed and subject.guide.audio_weight(*frames) is None:
        weight = 0.2 + 0.6 * torch.rand(count, generator=generator, dtype=torch.float64)

    def closed() -> Tensor:
        return -bound(subject, frames, draws, weight) / count

    named = parameters(subject)
    first = _gradients(named, pyro_loss(subject, frames, draws.place(subject, frames), weight) / count)
    second = _gradients(named, closed())
    largest = max(float(g.abs().max()) for g in second.values())
    worst, found = [], []
    for name, parameter in named.items():
        scale = max(float(second[name].abs().max()), FLOOR * largest)
        difference = float((first[name] - second[name]).abs().max()) / scale
        norms = (float(first[name].norm()), float(second[name].norm()))
        found.append(
            Comparison(f"gradient of {name}", "norm by Pyro", "by autograd", norms, difference, AUTOGRAD)
        )
        numeric = _difference(closed, parameter, second[name], largest, generator)
        found.append(numeric._replace(term=f"gradient of {name}"))
        worst.append((difference, numeric.difference))
    return GradientFigures(len(named), *torch.tensor(worst).max(0).values.tolist()), found


def bound(subject: Subject, frames: Frames, draws: Draws, weight: Tensor | None) -> Tensor:
    """The bound, averaged over the draws: with closed divergences where the draws match them, else all sampled."""
    if draws.matched:
        return closed_terms(subject, frames, draws, weight).total.mean(0).sum()
    return _sampled(subject, frames, draws, weight)


def _sampled(subject: Subject, frames: Frames, draws: Draws, weight: Tensor | None) -> Tensor:
    """The bound from log densities at the draws, by its definition."""
    model, shape = subject.model, frames.power.shape[:-1]
    priors = model.prior.conditionals(frames.visual)
    values = []
    for q, p, z in zip(subject.guide.posteriors(*frames), priors, draws.place(subject, frames), strict=True):
        if model.coupled:
            q, p = as_event(q, shape), as_event(p, shape)
        likelihood = subject.per_unit(model.log_likelihood(frames.power, z, frames.visual))
        values.append((likelihood - q.log_prob(z) + p.log_prob(z)).mean(0))
    if len(values) == 1:
        return values[0].sum()
    weight = subject.guide.audio_weight(*frames) if weight is None else weight
    assert weight is not None
    share = at_valid(weight, frames.visual)
    switch = bernoulli_kl(share, model.prior.audio_weight(frames.visual))
    return (share * values[1] + (1 - share) * values[0] - switch).sum()


def _gradients(named: dict[str, torch.nn.Parameter], loss: Tensor) -> Gradients:
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(named.items(), found, strict=True)
    }


def _difference(
    loss: Callable[[], Tensor],
    parameter: torch.nn.Parameter,
    gradient: Tensor,
    largest: float,
    generator: torch.Generator,
) -> Comparison:
    """The derivative along a direction by central differences, against the gradient's.

    The direction is the gradient's own plus a random one, so that every entry of the tensor takes part.
    """
    kept = parameter.detach().clone()
    best: Comparison | None = None
    for step in STEPS:
        if best is not None:
            random = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.data.copy_(kept + AWAY * random / random.norm())
            gradient = _gradients({"": parameter}, loss())[""]
        found = _along(
            loss, parameter, gradient, max(float(gradient.norm()), FLOOR * largest), step, generator
        )
        if best is None or found.difference < best.difference:
            best = found
        if best.agrees:
            break
    parameter.data.copy_(kept)
    assert best is not None
    return best


@torch.no_grad()
def _along(
    loss: Callable[[], Tensor],
    parameter: torch.nn.Parameter,
    gradient: Tensor,
    scale: float,
    step: float,
    generator: torch.Generator,
) -> Comparison:
    """One central difference; `scale` is what the difference is relative to."""
    direction = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    # Half as long as the gradient's own, so that they cannot cancel.
    direction = 0.5 * direction / direction.norm() + gradient / scale
    direction = direction / direction.norm()
    expected = float((gradient * direction).sum())
    here, ends = parameter.clone(), []
    for end in (step, -step):
        parameter.copy_(here + end * direction)
        ends.append(float(loss()))
    parameter.copy_(here)
    numeric = (ends[0] - ends[1]) / (2 * step)
    return Comparison(
        "",
        "derivative by autograd",
        "by finite differences",
        (expected, numeric),
        abs(numeric - expected) / scale,
        DIFFERENCES + NOISE * abs(ends[0]) / (STEPS[0] * scale),
    )
