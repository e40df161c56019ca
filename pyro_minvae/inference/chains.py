"""The E-step: the chains of all sources moved side by side, each by itself or all speakers of a frame at once.

Three ways, of which one source needs none (they are the same for it, number by number):

- *alternate*: move after move each speaker is moved once, by (7.4), with the others where they are now;
- *joint*: one proposal for the z_j of all speakers of a frame and one decision on it, by (7.3);
- mean-field E-steps factorise over the speakers (section 7): their targets are independent and do not change within an
  E-step, so that each speaker is decided upon by itself whatever was asked for.

Chain r of one speaker goes with chain r of the others, and the r-th kept draws of all are one draw of (7.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_minvae.inference.kernels.base import ChainInfo, ChainState, Kernel, Target, refresh
from pyro_minvae.inference.kernels.draws import Randomness
from pyro_minvae.inference.voice import Voice
from pyro_minvae.models.decoders import Variance
from pyro_minvae.models.speech import Conditioned

# Whole numbers as wide as floating-point ones, by bytes.
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass
class _Memory:
    """Where chains are, `z` [R, ..., N, J L], and sigma of each voice [R, ..., N, F]: there, and where last asked for.

    It knows nothing of who asks: closures that held `Chains` itself would keep its arrays until the garbage collector
    comes round, 100 MB in long recordings.
    """

    z: Tensor
    raw: list[Tensor]
    last: list[Tensor]
    here: bool = False

    def remembering(self, variance: Variance, j: int) -> Variance:
        """The decoder of voice j, which is not asked about where the chains are."""

        def remembered(z: Tensor, known: Tensor | None = None) -> Tensor:
            known = self.raw[j] if self.here else known
            if known is None or z.requires_grad:
                known = variance(z, known)
            self.last[j] = known
            return known

        return remembered

    def watching(self, target: Target) -> Target:
        """The target, which tells whether it is asked about where the chains are."""

        def factors(z: Tensor) -> Tensor:
            # Also for a view of it that gradients are taken with respect to.
            self.here = z.data_ptr() == self.z.data_ptr() and z.shape == self.z.shape
            return target(z)

        return Target(factors, target.reach)


class Chains:
    """Chains that are decided upon together: those of one voice, or of several with their z_j side by side.

    `speeches` are the voices' models as targets should see them: where the chains are, and at the last proposal, what
    the decoders say is remembered.
    """

    def __init__(self, voices: Sequence[Voice], kernel: Kernel) -> None:
        self.voices, self.kernel = list(voices), kernel
        self.state: ChainState | None = None
        raw = [voice.raw for voice in voices]
        memory = self._memory = _Memory(_side_by_side([voice.z for voice in voices]), raw, list(raw))
        self.speeches: list[Conditioned] = [
            voice.speech._replace(variance=memory.remembering(voice.speech.variance, j))
            for j, voice in enumerate(voices)
        ]

    def aim(self, target: Target) -> None:
        """Go on under another target."""
        self.target = self._memory.watching(target)
        self._memory.raw = [voice.raw for voice in self.voices]
        old = self.state
        self.state = (
            self.kernel.init(self.target, self._memory.z)
            if old is None
            else refresh(self.kernel, self.target, old)
        )

    def step(self, generator: Randomness) -> Tensor:
        """One move; which chains [R, ..., N] went."""
        assert self.state is not None
        self.state, info = self.kernel.step(self.target, self.state, generator)
        self._memory.raw, self._memory.z = self._after(info), self.state.position
        for voice, z, raw in zip(self.voices, self._parts(self._memory.z), self._memory.raw, strict=True):
            voice.settle(z, raw)
        return info.accepted

    def _after(self, info: ChainInfo) -> list[Tensor]:
        """sigma(z) after a move. Kernels ask for the density of their proposal last, so it is known by then."""
        assert self.state is not None
        if self.target.reach != (0, 0):
            # A move is several proposals, and a frame's sigma may depend on neighbours that moved later.
            parts = self._parts(self.state.position)
            return [voice.speech.variance(z) for voice, z in zip(self.voices, parts, strict=True)]
        pairs = zip(self._memory.last, self._memory.raw, strict=True)
        return [chosen(info.accepted, last.detach(), raw) for last, raw in pairs]

    def _parts(self, z: Tensor) -> Sequence[Tensor]:
        return [z] if len(self.voices) == 1 else z.chunk(len(self.voices), -1)


def move(
    groups: Sequence[Chains],
    target: Callable[[int], Target],
    generator: Randomness,
    *,
    steps: int,
    keep: int,
    coupled: bool,
) -> Tensor:
    """An E-step's `steps` moves, of which the last `keep` are kept; the share of accepted proposals [..., N].

    `target(k)` is what group k samples, given where the others are; it depends on them if `coupled`.
    """
    voices = [voice for group in groups for voice in group.voices]
    draws: list[list[Tensor]] = [[] for _ in voices]
    kept: list[list[Tensor]] = [[] for _ in voices]
    accepted = []
    for step in range(steps):
        for k, group in enumerate(groups):
            if step == 0 or (coupled and len(groups) > 1):
                group.aim(target(k))
            accepted.append(group.step(generator).float().mean(0))
        if step >= steps - keep:
            for j, voice in enumerate(voices):
                draws[j].append(voice.z)
                kept[j].append(voice.raw)
    for voice, places, variances in zip(voices, draws, kept, strict=True):
        voice.keep(places, variances)
    return torch.stack(accepted).mean(0)


def chosen(accepted: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` [R, ..., N, F] in the accepted frames [R, ..., N], `old` elsewhere, bit by bit.

    On a processor `torch.where` takes twice as long as these three passes over the bits, which it does vectorise.
    """
    if new.device.type != "cpu" or new.shape != old.shape:
        return torch.where(accepted[..., None], new, old)
    kind = BITS[new.element_size()]
    mask = accepted[..., None].to(kind).neg_()  # all bits, or none
    bits = new.view(kind) & mask
    bits |= old.view(kind) & ~mask
    return bits.view(new.dtype)


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """[..., N, L] of each to [..., N, J L]."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)
