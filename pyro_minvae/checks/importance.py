"""Importance-weighted bounds with their standard errors, in the order that they must keep."""

from __future__ import annotations

import torch

from pyro_minvae.checks.compare import Comparison, Estimate, estimate, within_error
from pyro_minvae.checks.subject import Frames, Subject
from pyro_minvae.inference.svi.importance import iwae

# Draws of a bound -> how many independent estimates of it. One set of draws for all K would be ordered by Jensen's
# inequality whatever the weights are.
REPEATS = {1: 200, 10: 50, 100: 16, 1000: 10}


@torch.no_grad()
def importance_bounds(subject: Subject, frames: Frames, *, per_frame: bool = True) -> dict[int, Estimate]:
    """K -> L_K in nats per frame (or summed), from torch's global generator."""
    count = len(frames.power) if per_frame else 1
    bounds = {}
    for k, repeats in REPEATS.items():
        values = torch.stack([iwae(subject.model, subject.guide, *frames, k) for _ in range(repeats)])
        bounds[k] = estimate(values, count)
    return bounds


def check_order(subject: Subject, bounds: dict[int, Estimate], elbo: Estimate) -> list[Comparison]:
    """L_1 is the ELBO where there is no alpha and at least that where alpha is summed out; L_K never falls with K.

    (derivations, eq. 10.2, 10.4 and 10.9).
    """
    first = min(bounds)
    found = [
        within_error(
            f"IWAE bound, K = {first}",
            ("Monte-Carlo ELBO", elbo),
            ("iwae", bounds[first]),
            ordered=subject.guide.mixed,
        )
    ]
    pairs = zip(list(bounds)[:-1], list(bounds)[1:], strict=True)
    return found + [
        within_error(
            f"IWAE bound, K = {more}",
            (f"K = {few}", bounds[few]),
            (f"K = {more}", bounds[more]),
            ordered=True,
        )
        for few, more in pairs
    ]
