"""Which lips of a recording look right, and which of them the sound contradicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_minvae.features.visual import LipProjection
from pyro_minvae.inference.switching.engine import Mode, SwitchState
from pyro_minvae.inference.switching.posterior import divergence
from pyro_minvae.inference.switching.video_reliability import (
    AGAIN,
    DOUBTED,
    cut_evidence,
    picture_evidence,
    right_pictures,
    sound_evidence,
    video_reliability,
    without,
)
from pyro_minvae.models.priors.component import UnpairedPrior
from pyro_minvae.types import Visual


class Pictures(NamedTuple):
    """What one speaker's lips, as they came, say by themselves: see `picture_evidence` [N], `cut_evidence` [N - 1].

    `seen` [N] are the frames that have any.
    """

    seen: Tensor
    evidence: Tensor
    cuts: Tensor


class Look(NamedTuple):
    """One speaker's lips less those that look wrong.

    `pictures` is what they said by themselves (None: nothing is said of any), `heard_evidence` [N] what the sound said
    for them in an earlier look (nats).
    """

    visual: Visual | None
    pictures: Pictures | None = None
    heard_evidence: Tensor | None = None


class ReliabilityPass:
    """Looks at one speaker's lips: before the loop, during it, and after it for the trust that is told.

    Args:
        lips: how the mode that lips lead reads them; None: no mode does, and nothing is said of any.
        stay: prior probability that the lips of a frame are right if those of the frame before are, and wrong if wrong.
    """

    def __init__(self, lips: LipProjection | None, stay: float) -> None:
        self._lips, self._stay = lips, stay

    def pictures(self, visual: Visual | None) -> Tensor | None:
        """What the pictures say of the lips by themselves [N]."""
        lips = self._lips
        return None if visual is None or lips is None else picture_evidence(visual, lips.lips, lips.typical)

    def first_look(self, visual: Visual | None) -> Look:
        """The lips less those that look wrong (derivations, eq. 9.28)."""
        lips = self._lips
        if visual is None or lips is None:
            return Look(visual)
        evidence, cuts = (said(visual, lips.lips, lips.typical) for said in (picture_evidence, cut_evidence))
        right = right_pictures(visual, evidence, context=lips.lips.context, stay=self._stay, cuts=cuts)
        return Look(right, Pictures(visual.valid, evidence, cuts))

    def second_look(self, state: SwitchState, modes: Sequence[Mode], look: Look) -> Look:
        """Less also those that the sound contradicts by now (derivations, eq. 9.34).

        Args:
            state: of the loop.
            modes: which it runs.
            look: what was taken of the lips so far.
        """
        right, pictures = look.visual, look.pictures
        if right is None or pictures is None or self._lips is None:
            return look
        heard_evidence = self._heard(state, modes, look)
        # Pictures that were left out say no more of their neighbours.
        trust = video_reliability(
            AGAIN * pictures.evidence + heard_evidence, right.valid, stay=self._stay, cuts=pictures.cuts
        )
        left = without(right, trust <= DOUBTED, context=self._lips.lips.context)
        return look._replace(visual=left, heard_evidence=heard_evidence)

    def trust(self, state: SwitchState, modes: Sequence[Mode], look: Look) -> Tensor:
        """P(lips are right) [N], 0 where there are none (derivations, eqs. 9.24 to 9.26).

        Arguments are those of `second_look`.
        """
        pictures = look.pictures
        if pictures is None:
            return torch.zeros_like(state.posterior[:, 0])
        said = pictures.evidence + self._heard(state, modes, look)
        return video_reliability(said, pictures.seen, stay=self._stay, cuts=pictures.cuts)

    def _heard(self, state: SwitchState, modes: Sequence[Mode], look: Look) -> Tensor:
        """What the sound says for the lips of each frame [N], in an earlier look of those left out since.

        Lips that were left out before were in no prior: the pictures alone speak of them.
        """
        before = (
            torch.zeros_like(state.posterior[:, 0]) if look.heard_evidence is None else look.heard_evidence
        )
        led = next((k for k, mode in enumerate(modes) if mode.needs_lips), None)
        rival = next(
            (k for k, mode in enumerate(modes) if isinstance(mode.source.model.prior, UnpairedPrior)), None
        )
        # The mode without lips sees those that were neither left out nor carried.
        own = None if rival is None else modes[rival].source.visual
        if led is None or rival is None or own is None:
            return before
        right, other = (modes[k].source.model.prior.components(own) for k in (led, rival))
        fit = state.means[rival], state.scales[rival], state.means[rival][None]
        return torch.where(
            own.valid, sound_evidence(divergence(other, *fit), divergence(right, *fit)), before
        )
