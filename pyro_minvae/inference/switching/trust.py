"""Whether the lips of a frame are right: what the pictures say by themselves, and what the sound says of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_minvae.config import LipFeatures
from pyro_minvae.inference.switching.chain import forward_backward
from pyro_minvae.types import Visual

# How much wider features of wrong pictures spread than those of right ones (variance).
WIDER = 3.0

# Changes from instant to instant (mean squares) below this are no mouth's and no camera's: the picture stands.
STILL, STILL_NATS = 1e-4, 2.0

# Pictures are left out in stretches that look more wrong than right and at some frame are this likely to be right: a
# wide mouth or a long pause of a clean clip comes down to 1 in 500.
SURE = 1e-3

# Nats for each nat that the sound speaks for the lips of this frame rather than of another time: it is a noisy witness.
SOUND = 0.05


def picture_evidence(visual: Visual, lips: LipFeatures, typical: float) -> Tensor:
    """log p(v_n | right) - log p(v_n | wrong) from the pictures alone, in nats [..., N]; 0 on frames without lips.

    (derivations, eq. 9.24)

    u_n, the components at the frame's own instant less their median over the recording, is N(0, a I) for right
    pictures (a = `typical`, its mean square in training) and N(0, `WIDER` a I) for wrong ones. The M components of a
    mouth move together: the ratio counts as that of two. A picture that stands still speaks against itself.

    Args:
        visual: one recording's lips, [N, D].
        lips: how its features are made.
        typical: a.
    """
    track = visual.features.unflatten(-1, (2 * lips.context + 1, lips.components))
    seen, here = visual.valid, track[:, lips.context]
    if not bool(seen.any()):
        return torch.zeros_like(here[:, 0])
    square = (here - here[seen].median(0).values).square().mean(-1)
    evidence = math.log(WIDER) - (1 - 1 / WIDER) * square / typical
    if lips.context > 0:
        change = track.diff(dim=1).square().mean(-1)[:, lips.context - 1 : lips.context + 1].amin(-1)
        evidence = evidence - STILL_NATS * (change < STILL)
    return torch.where(seen, evidence, 0.0)


def lip_trust(evidence: Tensor, seen: Tensor, *, stay: float) -> Tensor:
    """P(the lips of frame n are right) [N], by a chain of two states that stays in each with probability `stay`.

    (derivations, eq. 9.26)

    Args:
        evidence: log ratio of right to wrong in nats [N]; frames without lips do not count, and their trust is 0.
        seen: frames with lips [N].
    """
    ratio = torch.where(seen, evidence, 0.0).double()
    transition = torch.full((2, 2), 1 - stay, dtype=ratio.dtype, device=ratio.device).fill_diagonal_(stay)
    initial = torch.full_like(transition[0], 0.5)
    found = forward_backward(
        torch.stack([ratio, torch.zeros_like(ratio)], -1), transition.log(), initial.log()
    )
    return torch.where(seen, found.posterior[:, 0], 0.0)


def right_pictures(visual: Visual, evidence: Tensor, *, context: int, stay: float) -> Visual:
    """The lips without the stretches of pictures that surely are wrong: those frames become frames without lips.

    (derivations, eq. 9.28)

    Features are movement, pictures less their mean over the clip; the wrong ones were in that mean, and leave it.
    Where all pictures stay, or none would, nothing changes.

    Args:
        visual: one recording's lips, [N, D].
        evidence: what the pictures say, `picture_evidence` [N].
        context: of the features, instants on either side of a frame's own.
        stay: as for `lip_trust`.
    """
    trust = lip_trust(evidence, visual.valid, stay=stay)
    doubtful = visual.valid & (trust <= 0.5)
    stretch = doubtful.diff(prepend=doubtful[:1]).cumsum(0)
    least = torch.ones_like(trust).scatter_reduce(0, stretch, torch.where(doubtful, trust, 1.0), "amin")
    right = visual.valid & ~(doubtful & (least[stretch] < SURE))
    if not bool(right.any()) or torch.equal(right, visual.valid):
        return visual
    track = visual.features.unflatten(-1, (2 * context + 1, -1))  # [N, 2 context + 1, M]
    moved = track - track[right, context].mean(0)
    return Visual(moved.flatten(1) * right[:, None], right)
