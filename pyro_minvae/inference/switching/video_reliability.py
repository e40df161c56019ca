"""Whether the lips of a frame are right: what the pictures say by themselves, and what the sound says of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, max_pool1d

from pyro_minvae.config.schema import VisualFeatureConfig
from pyro_minvae.inference.switching.hmm import forward_backward
from pyro_minvae.types import Visual

# How much wider features of wrong pictures spread than those of right ones (variance).
WIDER = 3.0

# Changes from instant to instant (mean squares) below this are no mouth's and no camera's: the picture stands.
STILL, STILL_NATS = 1e-4, 4.0

# Pictures whose evidence is below `PLAIN` nats look wrong: in 80 training clips 1 in 100 right frames does, and 93 in
# 100 blurred or covered ones do. Such a frame counts for `PICTURE_AGAINST`, every other one for `PICTURE_FOR`: a head
# that has moved makes a whole clip a little unlikely, and that must not add up. Pictures are left out in stretches that
# look more wrong than right and at some frame are this likely to be right.
PLAIN, PICTURE_AGAINST, PICTURE_FOR, SURE = -2.0, -3.0, 0.5, 1e-2

# Frames that are left out on either side too: between a right picture and a wrong one features are some of both, and
# lips that are carried over the gap begin there.
EDGE = 2

# Nats for each nat that the sound speaks for the lips of this frame rather than of another time, and the most that it
# says against them and for them: it is a noisy witness, and often mute.
SOUND, AGAINST, FOR = 0.05, -10.0, 5.0

# The second look: weight of the pictures beside the sound, since those that are wrong by themselves have gone by then,
# and the trust up to which lips are left out. In loud noise the sound is wrong as well: at 0.5 it takes from right lips
# at -5 dB what it gains by wrong ones at 5 dB.
AGAIN, DOUBTED = 0.1, 0.1

# A cut: nats by the log ratio of how far the lips are from where they were going to how much they move, with a floor
# under the movement (share of the features' mean square), and the most that is said. A straight line through 800
# training clips, each cut to itself 0.2 s before and after and to another one.
CUT_SLOPE, CUT_AT, CUT_FLOOR, CUT_MOST = 3.5, 0.15, 0.07, 4.0


def picture_evidence(visual: Visual, lips: VisualFeatureConfig, typical: float) -> Tensor:
    """log p(v_n | right) - log p(v_n | wrong) from the pictures alone, in nats [..., N]; 0 on frames without lips.

    (derivations, eq. 9.24)

    u_n, the components at the frame's own instant less their median over the recording, is N(0, a I) for right
    pictures (a = `typical`, its mean square in training) and N(0, `WIDER` a I) for wrong ones. The M components of a
    mouth move together: the ratio counts as that of two. A picture that is the one before and the one after it speaks
    against itself.

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
        change = track.diff(dim=1).square().mean(-1)[:, lips.context - 1 : lips.context + 1].amax(-1)
        evidence = evidence - STILL_NATS * (change < STILL)
    return torch.where(seen, evidence, 0.0)


def cut_evidence(visual: Visual, lips: VisualFeatureConfig, typical: float) -> Tensor:
    """log p(v | a cut between frames n and n + 1) - log p(v | none), in nats [N - 1]; 0 beside frames without lips.

    (derivations, eq. 9.32)

    Wrong lips begin and end with a cut, where the mouth is not where it was going: with y_1, y_2 the components at the
    last two instants before it and y_3, y_4 at the next two after it, each side is drawn on by half a step, and the gap
    between both is compared with the steps themselves. Where pictures stand still it is 0, and without two instants of
    context on either side.

    Args:
        visual: one recording's lips, [N, D].
        lips: how its features are made.
        typical: as for `picture_evidence`.
    """
    count, middle = len(visual.valid), lips.context
    said = visual.features.new_zeros(max(count - 1, 0))
    if middle < 2 or count < 3:
        return said
    track = visual.features.unflatten(-1, (2 * lips.context + 1, lips.components))
    steps = track.diff(dim=1)
    before, across, after = steps[:, middle - 1], steps[:, middle], steps[:, middle + 1]
    gap = (across - (before + after) / 2).square().mean(-1)
    moved = before.square().mean(-1) + after.square().mean(-1)
    ratio = torch.log(gap / (moved + CUT_FLOOR * typical) + 1e-6)
    # One cut shows in some frames on end, and lies where it shows most.
    peak = ratio == _highest(ratio, 2)
    found = torch.where(peak, CUT_SLOPE * (ratio - CUT_AT), -CUT_MOST).clamp(-CUT_MOST, CUT_MOST)
    still = steps[:, middle - 1 : middle + 3].square().mean(-1).amin(-1) < STILL
    beside = _highest((~visual.valid).to(ratio), 3) > 0
    # Between an instant and the next one, that of frame n lies nearest to the step from n + 1 to n + 2.
    said[1:] = torch.where(still | beside, 0.0, found)[:-2]
    return said


def _highest(values: Tensor, reach: int) -> Tensor:
    """The highest of [N] within `reach` frames of each."""
    return max_pool1d(values[None, None], 2 * reach + 1, 1, reach)[0, 0]


def sound_evidence(other: Tensor, right: Tensor) -> Tensor:
    """What the sound says for the lips of each frame in nats [N]: how much better they explain it than other times' do.

    (derivations, eq. 9.26)

    Args:
        other: KL(r(z) || p_other) [N].
        right: KL(r(z) || p(z | v_n)) [N].
    """
    return SOUND * (other - right).clamp(AGAINST, FOR)


def video_reliability(evidence: Tensor, seen: Tensor, *, stay: float, cuts: Tensor | None = None) -> Tensor:
    """P(the lips of frame n are right) [N], by a chain of two states that stays in each with probability `stay`.

    (derivations, eqs. 9.26 and 9.33)

    Args:
        evidence: log ratio of right to wrong in nats [N]; frames without lips do not count, and their trust is 0.
        seen: frames with lips [N].
        cuts: what speaks for a change between n and n + 1 [N - 1], in nats; None: nothing.
    """
    ratio = torch.where(seen, evidence, 0.0).double()
    odds = ratio.new_full((len(ratio) - 1,), math.log((1 - stay) / stay))
    if cuts is not None:
        odds = odds + cuts
    change, same = logsigmoid(odds), logsigmoid(-odds)
    transition = torch.stack([torch.stack([same, change], -1), torch.stack([change, same], -1)], -2)
    initial = ratio.new_full((2,), 0.5)
    emissions = torch.stack([ratio, torch.zeros_like(ratio)], -1)
    found = forward_backward(emissions, transition, initial.log(), stepwise=True)
    return torch.where(seen, found.posterior[:, 0], 0.0)


def right_pictures(
    visual: Visual, evidence: Tensor, *, context: int, stay: float, cuts: Tensor | None = None
) -> Visual:
    """The lips without the stretches of pictures that surely are wrong: those frames become frames without lips.

    (derivations, eq. 9.28)

    Args:
        visual: one recording's lips, [N, D].
        evidence: what the pictures say, `picture_evidence` [N].
        context: of the features, instants on either side of a frame's own.
        stay: as for `lip_trust`.
        cuts: as for `lip_trust`.
    """
    said = torch.where(evidence < PLAIN, PICTURE_AGAINST, PICTURE_FOR)
    trust = video_reliability(said, visual.valid, stay=stay, cuts=cuts)
    doubtful = visual.valid & (trust <= 0.5)
    stretch = doubtful.diff(prepend=doubtful[:1]).cumsum(0)
    least = torch.ones_like(trust).scatter_reduce(0, stretch, torch.where(doubtful, trust, 1.0), "amin")
    return without(visual, doubtful & (least[stretch] < SURE), context=context)


def without(visual: Visual, wrong: Tensor, *, context: int) -> Visual:
    """The lips without those of the frames `wrong` [N] and `EDGE` beside them, which become frames without lips.

    Features are movement, pictures less their mean over the clip; the wrong ones were in that mean, and leave it.
    Where all pictures stay, or none would, nothing changes.
    """
    right = visual.valid & ~(_highest((visual.valid & wrong).to(visual.features), EDGE) > 0)
    if not bool(right.any()) or torch.equal(right, visual.valid):
        return visual
    track = visual.features.unflatten(-1, (2 * context + 1, -1))  # [N, 2 context + 1, M]
    moved = track - track[right, context].mean(0)
    return Visual(moved.flatten(1) * right[:, None], right)
