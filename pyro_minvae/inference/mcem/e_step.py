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

import torch
from torch import Tensor

from pyro_minvae.inference import ops
from pyro_minvae.inference.mcem.source import SourceState
from pyro_minvae.inference.mcmc.base import ChainState, Kernel, LogDensity, Target, at_hand, refresh
from pyro_minvae.inference.mcmc.draws import Randomness
from pyro_minvae.inference.ops.workspace import Workspace, joined, same_place
from pyro_minvae.models.decoders import Variance
from pyro_minvae.models.speech import Conditioned


class _Memory:
    """Where chains are, `z` [R, ..., N, J L], and sigma of each voice `raw` [R, ..., N, F] there.

    And where a target was last asked, with sigma there: `asked` and `last`. `rooms` are written into next.
    It knows nothing of who asks: closures that held `Chains` itself would keep its arrays until the garbage collector
    comes round, 100 MB in long recordings.
    """

    def __init__(self, z: Tensor, raw: Sequence[Tensor]) -> None:
        self.z, self.raw = z, list(raw)
        self.asked, self.last = z, list(raw)
        self.known: list[Tensor] | None = None
        self.rooms: list[Tensor | None] = [None for _ in raw]

    def remembering(self, variance: Variance, j: int) -> Variance:
        """The decoder of voice j, which is not asked twice about a place."""
        return _Remembered(self, variance, j)

    def watching(self, target: Target) -> Target:
        """The target, which looks up what is known of the place that it is asked about."""

        def looked_up(function: LogDensity | None) -> LogDensity | None:
            def answer(z: Tensor) -> Tensor:
                assert function is not None
                self._look_up(z)
                return function(z)

            return None if function is None else answer

        factors = looked_up(target.factors)
        assert factors is not None
        return Target(factors, target.reach, looked_up(target.gradient), looked_up(target.finite))

    def settle(self, z: Tensor, raw: Sequence[Tensor], free: Sequence[Tensor | None]) -> None:
        """Where the chains are now; `free` arrays may be written into."""
        self.z, self.raw, self.rooms = z, list(raw), list(free)
        self.asked, self.last = self.z, list(self.raw)

    def _look_up(self, z: Tensor) -> None:
        # Both are held, so that nothing else comes to lie where they are; z may be a view of one for gradients.
        if same_place(z, self.z):
            self.known = self.raw
        elif same_place(z, self.asked):
            self.known = self.last
        else:
            self.known, self.asked = None, z.detach()


class _Remembered:
    """A `Variance` that keeps what it says in a `_Memory`."""

    def __init__(self, memory: _Memory, variance: Variance, j: int) -> None:
        self.memory, self.variance, self.j = memory, variance, j

    def __call__(self, z: Tensor, known: Tensor | None = None, room: Tensor | None = None, /) -> Tensor:
        memory, j = self.memory, self.j
        known = memory.known[j] if memory.known is not None else known
        if known is None or z.requires_grad:
            known = self.variance(z, known, memory.rooms[j] if room is None else room)
        if memory.known is None:
            memory.last[j] = known.detach()
        return known

    def back(self, z: Tensor, sigma: Tensor, outer: Tensor, /) -> Tensor:
        return self.variance.back(z, sigma, outer)


class Chains:
    """Chains that are decided upon together: those of one voice, or of several with their z_j side by side.

    `speeches` are the voices' models as targets should see them: where the chains are, and at the last proposal, what
    the decoders say is remembered. `scratch` is for these targets, of which a mean-field one keeps an array there for a
    whole E-step.
    """

    def __init__(self, voices: Sequence[SourceState], kernel: Kernel, workspace: Workspace) -> None:
        self.voices, self.kernel, self.workspace = list(voices), kernel, workspace
        self.state: ChainState | None = None
        raw = [voice.raw for voice in voices]
        memory = self._memory = _Memory(joined([voice.z for voice in voices], -1), raw)
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
        memory, z = self._memory, self.state.position
        parts = self._parts(z)
        if self.target.reach != (0, 0):
            # A move is several proposals, and a frame's sigma may depend on neighbours that moved later.
            raw = [voice.speech.variance(part) for voice, part in zip(self.voices, parts, strict=True)]
            memory.settle(z, raw, memory.rooms)
        else:
            # Kernels ask for their proposal last, so that sigma is known there by now.
            pairs = zip(memory.last, memory.raw, strict=True)
            found = [chosen(info.accepted, last, here) for last, here in pairs]
            memory.settle(z, [here for here, _ in found], [free for _, free in found])
        for voice, part, here in zip(self.voices, parts, memory.raw, strict=True):
            voice.settle(part, here)
        return info.accepted

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
    """An E-step's `steps` moves, of which the last `keep` are kept; which proposals were accepted [S, R, ..., N].

    `target(k)` is what group k samples, given where the others are; it depends on them if `coupled`.
    """
    voices = [voice for group in groups for voice in group.voices]
    accepted = []
    for step in range(steps):
        for k, group in enumerate(groups):
            if step == 0 or (coupled and len(groups) > 1):
                group.aim(target(k))
            accepted.append(group.step(generator))
        if step >= steps - keep:
            for voice in voices:
                voice.keep(step - (steps - keep), keep)
    return accepted[0][None] if len(accepted) == 1 else torch.stack(accepted)


def chosen(accepted: Tensor, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor | None]:
    """`new` [R, ..., N, F] in the accepted frames [R, ..., N], `old` elsewhere; and an array that nobody needs now.

    Where their number is `at_hand` the fewer frames are copied into the other's array, whose old contents are lost.
    """
    if new is old:
        return old, None
    lie = new.shape == old.shape and new.is_contiguous() and old.is_contiguous()
    if not (lie and at_hand(new)):
        return torch.where(accepted[..., None], new, old), None
    return (new, old) if ops.exchange(accepted, new, old) else (old, new)
