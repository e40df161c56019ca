"""From power spectrograms to Wiener filters: the EM loop on one piece of sound, or on several side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyro_minvae.assembly import noise_model
from pyro_minvae.checkpoint import Trained
from pyro_minvae.config import Recipe
from pyro_minvae.inference.kernels.draws import Streams
from pyro_minvae.inference.mcem import EMState, mcem
from pyro_minvae.inference.wiener import masks
from pyro_minvae.models.mixture import Source
from pyro_minvae.models.noise import Nmf, stack
from pyro_minvae.types import Visual

# Early stopping compares the objective with the one this many iterations ago.
LOOK_BACK = 5

Watch = Callable[[EMState], None]


class Piece(NamedTuple):
    """A stretch of a mixture: `power` [N, F] at max|x| = 1 of its recording, lips or None, and its own seed."""

    power: Tensor
    visual: Visual | None
    seed: int


class Filtered(NamedTuple):
    """The speech's Wiener filter `mask` [N, F], p(audio component) [N] or None, and how the loop went."""

    mask: Tensor
    responsibility: Tensor | None
    iterations: int
    acceptance: float


class Denoiser:
    """The loop with a trained system and the settings of a recipe."""

    def __init__(self, trained: Trained, recipe: Recipe, device: torch.device) -> None:
        self.trained, self.recipe, self.device = trained, recipe, device
        # Frames that depend on each other would see the padding; early stopping would stop all at once.
        self.batches = not trained.model.coupled and recipe.inference.tolerance == 0

    @torch.no_grad()
    def __call__(self, pieces: Sequence[Piece], watch: Watch | None = None) -> list[Filtered]:
        """The filters of pieces that all have lips or all have none; `watch` sees every state of the loop."""
        config = self.recipe.inference
        recent: deque[Tensor] = deque(maxlen=config.average)
        state = None
        for state in self.states(pieces):
            # The filters and not the variances, of which there is one for each draw; only those that may be the last.
            if config.tolerance > 0 or state.iteration > config.iterations - config.average:
                recent.append(masks(state.variances, state.noise)[0])
            if watch is not None:
                watch(state)
        assert state is not None
        mean = sum(list(recent)[1:], start=recent[0]) / len(recent)
        shared = state.responsibility
        if len(pieces) == 1:
            weights = None if shared is None else shared[0]
            return [Filtered(mean, weights, state.iteration, state.acceptance)]
        return [
            Filtered(
                mean[b, : len(piece.power)],
                None if shared is None else shared[0, b, : len(piece.power)],
                state.iteration,
                state.acceptance,
            )
            for b, piece in enumerate(pieces)
        ]

    def states(self, pieces: Sequence[Piece]) -> Iterator[EMState]:
        """The EM loop on the pieces: unbatched for one, padded to the longest for several."""
        generators = [torch.Generator(self.device).manual_seed(piece.seed) for piece in pieces]
        sources = [self.source(piece) for piece in pieces]
        noises = [
            self._noise(piece, source, generator)
            for piece, source, generator in zip(pieces, sources, generators, strict=True)
        ]
        config = self.recipe.inference
        if len(pieces) == 1:
            loop = mcem(sources, noises[0], pieces[0].power, config=config, generator=generators[0])
            return until_settled(loop, config.tolerance)
        lengths = [len(piece.power) for piece in pieces]
        longest = max(lengths)
        power = torch.stack([_padded(piece.power, longest) for piece in pieces])
        place = torch.arange(longest, device=self.device)
        valid = torch.stack([place < length for length in lengths])
        streams = Streams(generators, lengths)
        whole, noise = _together(sources, longest), stack(noises, longest)
        return mcem([whole], noise, power, config=config, generator=streams, valid=valid)

    def source(self, piece: Piece) -> Source:
        """Where the chains begin, and how sure the guide is of it."""
        model, guide, choice = self.trained.model, self.trained.guide, self.recipe.inference.start
        power, visual = piece.power, piece.visual
        with torch.no_grad():
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
            shape = len(power), self.recipe.model.latent
            mean, spread = proposal.mean.expand(shape), proposal.stddev.expand(shape)
        led = {"guide": guide.led, "audio": False, "prior": model.prior.visual}[choice]
        return Source(model, visual, mean, spread, led)

    def _noise(self, piece: Piece, source: Source, generator: torch.Generator) -> Nmf:
        stft = self.recipe.stft
        return noise_model(
            self.recipe.noise,
            piece.power,
            rate=stft.rate / stft.hop,
            speech=source.model.variance(source.start, source.visual),
            generator=generator,
        )


def until_settled(states: Iterator[EMState], tolerance: float) -> Iterator[EMState]:
    """Pass states on until the objective gains less than `tolerance` of its whole gain in `LOOK_BACK` iterations."""
    history: list[float] = []
    for state in states:
        yield state
        history.append(state.objective)
        if tolerance > 0 and len(history) > LOOK_BACK:
            gain = history[-1] - history[-1 - LOOK_BACK]
            if gain < tolerance * max(history[-1] - history[0], 0.0):
                return


def _padded(values: Tensor, frames: int) -> Tensor:
    """[N, ...] with zeros up to that many frames."""
    return pad(values, (0, 0, 0, frames - len(values)))


def _together(sources: Sequence[Source], frames: int) -> Source:
    """One source of a batch [B, N, ...]; the padding has no lips."""
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
