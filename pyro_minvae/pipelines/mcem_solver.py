"""From power spectrograms to Wiener filters: the EM loop on one piece of sound, or on several side by side.

A piece may hold one speaker (enhancement) or several (separation; derivations, eqs. 7.1 to 7.8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from pyro_minvae.config.schema import Recipe, Stft
from pyro_minvae.inference.mcem.loop import EMState, mcem
from pyro_minvae.inference.mcem.schedule import exponent_of
from pyro_minvae.inference.mcmc.draws import Streams
from pyro_minvae.models.noise.nmf import Nmf, stack
from pyro_minvae.models.noisy import Source
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.systems.build import noise_model
from pyro_minvae.systems.checkpoint import Trained
from pyro_minvae.types import Switches, Visual

# How far speakers that are alike start apart, in standard deviations of the guide.
APART = 1.0

# How often the guide is asked again about a speaker without lips, each time about what the seen speakers seem to leave.
# Twice was best over 12 mixtures of a GRID clip and a LibriSpeech voice: by 0.6 dB SI-SDR, by 0.9 dB in cafe noise.
ROUNDS = 2

# How often the guide is asked what the empty bins of a band-limited recording would hold.
FILLS = 3

Watch = Callable[[EMState], None]


class Block(NamedTuple):
    """A stretch of a mixture: `power` [N, F] at max|x| = 1 of its recording, and its own seed.

    F are the bins that hold sound, fewer than the model's in band-limited recordings (`features.bandwidth`).

    `visuals` are the lips of each of its J speakers, or None.
    """

    power: Tensor
    visuals: tuple[Visual | None, ...]
    seed: int


class Filtered(NamedTuple):
    """The speakers' Wiener filters `masks` [J, N, F], p(audio component) [J, N] or None, and how the loop went.

    `switch` [J, N, M] are the probabilities of the modes of a system that switches between several, else None.
    """

    masks: Tensor
    responsibility: Tensor | None
    iterations: int
    acceptance: float
    switch: Tensor | None = None


class Loop(Protocol):
    """What filters the pieces of recordings: `Denoiser`, or anything that answers these."""

    @property
    def batches(self) -> bool:
        """Whether several pieces may go through side by side, of which the same speakers have lips."""

    def __call__(self, pieces: Sequence[Block], watch: Watch | None = None) -> list[Filtered]:
        """The filters of the pieces."""

    def switches(self, times: np.ndarray, probabilities: np.ndarray) -> Switches:
        """What the probabilities [N, M] of its modes for one speaker at `times` [N] (s) mean.

        They are of `Filtered.switch`, or where that is None p(lips) and p(sound) of mixture priors.
        """


class Denoiser:
    """The loop with the trained systems of the speakers, one for all or one for each, and the settings of a recipe."""

    def __init__(self, trained: Sequence[Trained], recipe: Recipe, device: torch.device) -> None:
        self.systems, self.recipe, self.device = list(trained), recipe, device
        # Frames that depend on each other would see the padding; early stopping would stop all at once.
        coupled = any(one.model.coupled for one in self.systems)
        self.batches = not coupled and recipe.inference.tolerance == 0

    @torch.no_grad()
    def __call__(self, pieces: Sequence[Block], watch: Watch | None = None) -> list[Filtered]:
        """The filters of pieces with equally many speakers, of which in all the same ones have lips.

        `watch` sees every state of the loop.
        """
        config = self.recipe.inference
        recent: deque[Tensor] = deque(maxlen=config.average)
        state = None
        for state in self.states(pieces, watched=watch is not None or config.tolerance > 0):
            # The filters and not the variances, of which there is one for each draw; only those that may be the last.
            if config.tolerance > 0 or state.iteration > config.iterations - config.average:
                recent.append(state.filters())
            if watch is not None:
                watch(state)
        assert state is not None
        mean, count = recent.popleft(), len(recent) + 1
        for other in recent:
            mean += other
        mean /= count
        shared = state.responsibility
        if len(pieces) == 1:
            return [Filtered(mean, shared, state.iteration, state.acceptance)]
        return [
            Filtered(
                mean[:, b, : len(piece.power)],
                None if shared is None else shared[:, b, : len(piece.power)],
                state.iteration,
                state.acceptance,
            )
            for b, piece in enumerate(pieces)
        ]

    def states(self, pieces: Sequence[Block], *, watched: bool = True) -> Iterator[EMState]:
        """The EM loop on the pieces: unbatched for one, padded to the longest for several; see `mcem`."""
        generators = [torch.Generator(self.device).manual_seed(piece.seed) for piece in pieces]
        speakers = [self.sources(piece) for piece in pieces]
        noises = [
            self._noise(piece, sources, generator)
            for piece, sources, generator in zip(pieces, speakers, generators, strict=True)
        ]
        config = self.recipe.inference
        if len(pieces) == 1:
            return mcem(
                speakers[0],
                noises[0],
                pieces[0].power,
                config=config,
                generator=generators[0],
                watched=watched,
            )
        lengths = [len(piece.power) for piece in pieces]
        longest = max(lengths)
        power = torch.stack([_padded(piece.power, longest) for piece in pieces])
        place = torch.arange(longest, device=self.device)
        valid = torch.stack([place < length for length in lengths])
        streams = Streams(generators, lengths)
        whole = [_together(sources, longest) for sources in zip(*speakers, strict=True)]
        noise = stack(noises, longest)
        return mcem(whole, noise, power, config=config, generator=streams, valid=valid, watched=watched)

    def switches(self, times: np.ndarray, probabilities: np.ndarray) -> Switches:
        """Mixture priors: a frame follows the lips (component 0) or the sound (component 1)."""
        return Switches(
            ("lips", "sound"), times, probabilities, probabilities.argmax(-1), probabilities[:, 0]
        )

    def sources(self, piece: Block, system: int | None = None) -> list[Source]:
        """The speakers as the EM loop sees them, each with its own system or all with number `system`.

        Beside seen speakers one without lips would start as if the whole mixture were one voice, since that is what
        the guide hears. So it hears what they leave: (sigma_j / (sigma_j + sum_i sigma_i))^2 |x|^2 with i over the seen
        speakers, the first term of E|c_j|^2 (derivations, eq. 7.7), `ROUNDS` times.

        Speakers without lips are alike to the guide, and so are speakers with the same lips. Their chains would begin
        together and the M-step would share the sound out evenly for ever, so all but the first start `APART` standard
        deviations of the guide away, each in a random direction that is the same in all frames and blocks.
        """
        systems = [j if system is None else system for j in range(len(piece.visuals))]
        found = [
            self.source(piece.power, visual, j) for visual, j in zip(piece.visuals, systems, strict=True)
        ]
        blind = [j for j, source in enumerate(found) if source.visual is None]
        if blind and len(blind) < len(found):
            first, *others = (_loudness(source) for source in found if source.visual is not None)
            seen = sum(others, start=first)
            for j in blind:
                found[j] = self._beside(found[j], seen, piece.power, systems[j])
        return set_apart(found)

    def _beside(self, source: Source, seen: Tensor, power: Tensor, j: int) -> Source:
        """Speaker j, who has no lips, beside speakers of the variance `seen` [N, F]."""
        for _ in range(ROUNDS):
            own = _loudness(source)
            source = self.source((own / (own + seen)) ** 2 * power, None, j)
        return source

    def system(self, j: int) -> Trained:
        """That of speaker j."""
        return self.systems[j if len(self.systems) > 1 else 0]

    def source(self, power: Tensor, visual: Visual | None, j: int = 0) -> Source:
        """Where the chains of speaker j begin, and how sure the guide is of it."""
        trained = self.system(j)
        guide, choice = trained.guide, self.recipe.inference.start
        model = banded(trained.model, power.shape[-1], self.recipe.stft)
        with torch.no_grad():
            power = self._whole(power, visual, trained)
            if choice == "prior":
                alpha = None
                if model.prior.mixed:
                    # The component of the lips where there are any: without them its probability is zero.
                    alpha = power.new_ones(len(power)) if visual is None else ~visual.valid
                proposal = model.prior.given(alpha, visual, len(power))
            elif choice == "audio":
                proposal = guide.posteriors(power, visual)[-1]
            else:
                proposal = guide.propose(power, visual)
            shape = len(power), trained.recipe.model.latent
            mean, spread = proposal.mean.expand(shape), proposal.stddev.expand(shape)
        led = {"guide": guide.led, "audio": False, "prior": model.prior.visual}[choice]
        return Source(model, visual, mean, spread, led)

    def _whole(self, power: Tensor, visual: Visual | None, trained: Trained) -> Tensor:
        """The power [N, F'] of a band-limited recording as the guide expects it, [N, F].

        In the bins without sound it is what the speech model expects there given the others: sigma(z) at the guide's
        own z, found by going back and forth `FILLS` times (derivations, eq. 6.48).
        """
        missing = self.recipe.stft.bins - power.shape[-1]
        if missing == 0:
            return power
        model, guide = trained.model, trained.guide
        empty = model.variance(power.new_zeros(1, trained.recipe.model.latent).expand(len(power), -1), visual)
        for _ in range(FILLS):
            whole = torch.cat([power, empty[:, -missing:]], -1)
            empty = model.variance(guide.posteriors(whole, visual)[-1].mean, visual)
        return torch.cat([power, empty[:, -missing:]], -1)

    def _noise(self, piece: Block, sources: Sequence[Source], generator: torch.Generator) -> Nmf:
        stft = self.recipe.stft
        return noise_model(
            self.recipe.noise,
            piece.power,
            rate=stft.rate / stft.hop,
            speech=lambda: torch.stack([_loudness(source) for source in sources]).sum(0),
            generator=generator,
            exponent=exponent_of(self.recipe.inference, sources),
        )


def banded(model: SpeechModel, bins: int, stft: Stft) -> SpeechModel:
    """The model of the first `bins` bins alone: the model itself if these are all."""
    if bins == stft.bins:
        return model
    return SpeechModel(model.prior, model.decoder.banded(bins), model.likelihood)


def set_apart(sources: Sequence[Source]) -> list[Source]:
    """The speakers with all but the first of those that start in the same place moved away from it."""
    found = list(sources)
    for j, source in enumerate(found):
        if any(torch.equal(source.start, other.start) for other in found[:j]) and source.spread is not None:
            generator = torch.Generator(source.start.device).manual_seed(j)
            way = torch.randn(source.start.shape[-1:], generator=generator, device=source.start.device)
            found[j] = source._replace(start=source.start + APART * source.spread * way)
    return found


def _loudness(source: Source) -> Tensor:
    """sigma(z) [N, F] where the chains of a source begin."""
    return source.model.variance(source.start, source.visual)


def _padded(values: Tensor, frames: int) -> Tensor:
    """[N, ...] with zeros up to that many frames."""
    return pad(values, (0, 0, 0, frames - len(values)))


def _together(sources: Sequence[Source], frames: int) -> Source:
    """One speaker of a batch [B, N, ...]; the padding has no lips."""
    visual = None
    if sources[0].visual is not None:
        lips = [source.visual for source in sources if source.visual is not None]
        visual = Visual(
            torch.stack([_padded(one.features, frames) for one in lips]),
            torch.stack([pad(one.valid, (0, frames - len(one.valid))) for one in lips]),
        )
    spreads = [
        pad(s.spread, (0, 0, 0, frames - len(s.start)), value=1.0) for s in sources if s.spread is not None
    ]
    start = torch.stack([_padded(source.start, frames) for source in sources])
    return Source(sources[0].model, visual, start, torch.stack(spreads), sources[0].led)
