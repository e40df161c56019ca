"""What Pyro costs in training: its SVI step against the same loss written by hand in torch.

    python benchmarks/svi_overhead.py --recipe min-vae --batch 1024 --json overhead.json

Both take a step of Adam on single draws of z with alpha summed out, q(alpha) at its optimum for other draws, gradients
clipped by their joint norm: the first as training does, `pyro.infer.SVI(model, guide, GroupedAdam, ...).step`. Before
the clock runs values and gradients of the losses at one q(alpha) are checked to be equal. Steps alternate; the medians
are printed. With one thread its processor time counts, in which waiting for other processes has no part.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_minvae.config.load import load_recipe
from pyro_minvae.guides.responsibility import CLIP
from pyro_minvae.inference.svi.elbo import svi_loss
from pyro_minvae.inference.svi.optimiser import GroupedAdam
from pyro_minvae.inference.svi.trainer import svi_of
from pyro_minvae.media.files import atomic
from pyro_minvae.models.priors import CERTAIN
from pyro_minvae.systems.system import System
from pyro_minvae.types import Visual

Loss = Callable[[], Tensor]

# The guides that are written by hand here; those that look around in time are not.
GUIDES = ("audio", "visual", "concatenation", "product", "mixture", "mixture-of-products")


def hand_written(
    system: System, prior: str, guide: str, data: tuple[Tensor, Visual], weight: Tensor | None
) -> Tensor:
    """-sum_n sum_alpha q(alpha) [log p(alpha, z, s) - log q(alpha, z)] as one would write it without Pyro.

    `weight` is q(alpha = 1) [N]; without one it is the optimum.
    """
    power, visual = data
    mean, scale = (torch.stack(x) for x in zip(*posteriors(system, guide, power, visual), strict=True))
    if len(mean) == 1:
        return -drawn(system, prior, mean, scale, data).sum()
    own: Any = system.own_prior
    pi = torch.where(visual.valid, own.logit.sigmoid(), 1 - CERTAIN)
    if weight is None:
        with torch.no_grad():
            off, on = drawn(system, prior, mean, scale, data)
            weight = (torch.logit(pi) + on - off).clamp(-CLIP, CLIP).sigmoid().clamp(CERTAIN, 1 - CERTAIN)
    q = torch.where(visual.valid, weight, 1 - CERTAIN)
    q, pi = torch.stack([1 - q, q]), torch.stack([1 - pi, pi])
    return -(q * (drawn(system, prior, mean, scale, data) + pi.log() - q.log())).sum()


def drawn(system: System, prior: str, mean: Tensor, scale: Tensor, data: tuple[Tensor, Visual]) -> Tensor:
    """log p(s, z | alpha) - log q(z | alpha) [C, N] at a draw of z."""
    power, visual = data
    noise = torch.randn_like(mean)
    z = mean + scale * noise
    log_variance = system.decoder.log_variance(z, visual)
    log_s = -(log_variance + power * (-log_variance).exp()).sum(-1)
    ratio = noise.square() + 2 * scale.log() - distances(system, prior, z, visual)
    return log_s + 0.5 * ratio.sum(-1)


def at_lips(network: nn.Module, visual: Visual) -> tuple[Tensor, Tensor]:
    """The Gaussian of a visual network, N(0, I) on frames without lips."""
    seen = visual.valid[:, None]
    mean, scale = network(torch.where(seen, visual.features, 0.0))
    return torch.where(seen, mean, 0.0), torch.where(seen, scale, 1.0)


def posteriors(system: System, guide: str, power: Tensor, visual: Visual) -> list[tuple[Tensor, Tensor]]:
    """(mean, scale) [N, L] of q(z | alpha, s, v) at index alpha."""
    if guide == "concatenation":
        return [system.part("joint")(power, visual)]
    if guide == "audio":
        return [system.part("audio")(power)]
    lips = at_lips(system.part("visual"), visual)
    if guide == "visual":
        return [lips]
    audio = system.part("audio")(power)
    if guide == "mixture":
        return [lips, audio]
    # Products of experts, N(0, I) among them.
    sure, seen = audio[1] ** -2, visual.valid[:, None] * lips[1] ** -2
    precision = 1 + sure + seen
    product = (audio[0] * sure + lips[0] * seen) / precision, precision.rsqrt()
    return [product] if guide == "product" else [lips, product]


def distances(system: System, prior: str, z: Tensor, visual: Visual) -> Tensor:
    """((z - mu_alpha) / s_alpha)^2 + 2 log s_alpha of the prior's components, z [C, N, L]."""
    if prior == "standard":
        return z.square()
    own: Any = system.own_prior
    if prior == "mixture":
        s = (0.5 * own.log_variances).exp()[:, None, None]
        return ((z - own.means[:, None]) / s).square() + own.log_variances[:, None, None]
    mean, scale = at_lips(system.part("visual-prior"), visual)
    lips = ((z[0] - mean) / scale).square() + 2 * scale.log()
    if prior == "visual":
        return lips[None]
    s = (0.5 * own.log_variances[1]).exp()
    return torch.stack([lips, ((z[1] - own.means[1]) / s).square() + own.log_variances[1]])


def check_equal(by_pyro: Loss, by_hand: Loss, system: System, twin: System) -> None:
    """Exit with a message unless both losses and all gradients agree to float precision."""
    values = []
    for loss, owner in ((by_pyro, system), (by_hand, twin)):
        torch.manual_seed(1)
        owner.zero_grad()
        value = loss()
        value.backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in owner.parameters()]
        values.append([value.detach(), *gradients])
    for a, b in zip(*values, strict=True):
        if not torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()) + 1e-6):
            sys.exit(
                f"error: expected equal losses and gradients, found a difference of {(a - b).abs().max():.2e}"
            )


def timed(step: Callable[[], object]) -> float:
    """Seconds of one step."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    step()
    return clock() - start


def groups(system: System) -> list[dict[str, Any]]:
    """What Adam learns, as training gives it."""
    return [{"params": [p for p in system.parameters() if p.requires_grad], "lr": 1e-4, "peak": 1e-4}]


def step_by_hand(loss: Loss, system: System, clip_norm: float) -> Callable[[], object]:
    """One step without Pyro."""
    optimiser = torch.optim.Adam(groups(system))
    parameters = optimiser.param_groups[0]["params"]

    def step() -> float:
        optimiser.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        if not bool(torch.nn.utils.clip_grad_norm_(parameters, clip_norm).isfinite()):
            sys.exit("error: expected finite gradients")
        optimiser.step()
        return float(value.detach())

    return step


def measure(recipe: str, stage: int, batch: int, repeats: int, seed: int) -> dict[str, object]:
    """Median milliseconds of both steps in one stage of the recipe."""
    chosen = load_recipe(recipe)
    what = chosen.training.stages[stage]
    torch.manual_seed(seed)
    system = System(chosen).eval()
    twin = copy.deepcopy(system)
    power = torch.empty(batch, chosen.stft.bins).exponential_()
    visual = Visual(torch.randn(batch, chosen.lips.dimension), torch.rand(batch) < 0.95)
    prior, guide = what.prior or chosen.model.prior.kind, what.guide or chosen.guide.kind
    if guide not in GUIDES:
        sys.exit(f"error: {recipe}: expected a guide among {', '.join(GUIDES)}, found {guide}")
    model, program = system.model(prior), system.guide(guide, prior)
    weight = torch.rand(batch).clamp(0.01, 0.99) if program.mixed else None

    def by_hand(weight: Tensor | None = None) -> Tensor:
        return hand_written(twin, prior, guide, (power, visual), weight) / batch

    bound = svi_loss(model, program)
    check_equal(
        lambda: bound(power, visual, responsibility=weight) / batch, lambda: by_hand(weight), system, twin
    )
    system.zero_grad()
    clip = chosen.training.clip_norm
    optimiser = GroupedAdam(groups(system), clip_norm=clip, weight_decay=0.0)
    svi = svi_of(model, program, optimiser)
    steps: list[Callable[[], object]] = [lambda: svi.step(power, visual), step_by_hand(by_hand, twin, clip)]
    for _ in range(3):
        steps[0](), steps[1]()
    times = [[timed(step) for step in steps] for _ in range(repeats)]
    pyro_ms, hand_ms = (1000 * statistics.median(column) for column in zip(*times, strict=True))
    return {
        "recipe": recipe,
        "stage": what.name,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "pyro_ms": round(pyro_ms, 3),
        "hand_ms": round(hand_ms, 3),
        "ratio": round(pyro_ms / hand_ms, 3),
    }


def main() -> None:
    """Print a row for each stage of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="min-vae")
    parser.add_argument("--batch", type=int, default=1024, help="frames")
    parser.add_argument("--repeats", type=int, default=40, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the rows there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    print(
        f"{'stage':10} {'Pyro':>9} {'by hand':>9} {'ratio':>7}   (median ms a step of {options.batch} frames)"
    )
    for stage in range(len(load_recipe(options.recipe).training.stages)):
        row = measure(options.recipe, stage, options.batch, options.repeats, options.seed)
        print(f"{row['stage']:10} {row['pyro_ms']:9.2f} {row['hand_ms']:9.2f} {row['ratio']:7.2f}")
        rows.append(row)
    if options.json:
        with atomic(options.json) as path:
            path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
