"""The loop of a switching system, in place of `Denoiser`: pieces of recordings in, filters and modes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_minvae.config.noise import NoiseConfig
from pyro_minvae.config.switching import ModeConfig, SwitchingRecipe
from pyro_minvae.features.gaps import carried, nearest
from pyro_minvae.inference.switching.engine import Mode, SwitchState
from pyro_minvae.inference.switching.hmm import viterbi
from pyro_minvae.inference.switching.reliability_pass import Look, ReliabilityPass
from pyro_minvae.inference.switching.speakers import switching_em
from pyro_minvae.models.distributions import gaussian_parameters
from pyro_minvae.models.noisy import Source
from pyro_minvae.models.priors.component import CarriedPrior
from pyro_minvae.models.speech import SpeechModel
from pyro_minvae.pipelines.mcem_solver import Block, Denoiser, Filtered, Watch, set_apart
from pyro_minvae.systems.build import noise_model
from pyro_minvae.systems.checkpoint import Trained
from pyro_minvae.types import Switches, Visual


class Part(NamedTuple):
    """A mode with its trained model, of which `model` is the side that it takes."""

    section: ModeConfig
    trained: Trained
    model: SpeechModel

    @property
    def sees(self) -> bool:
        """Whether lips lead the mode."""
        return self.model.visual and self.section.component in ("whole", "lips")


class Take(NamedTuple):
    """An iteration on a piece: of each speaker its state, modes and lips, and how many iterations are `left`."""

    states: tuple[SwitchState, ...]
    speakers: list[list[Mode]]
    looks: list[Look]
    left: int


class Switcher:
    """The loop of a switching system, in place of `Denoiser`; `leading` is the system that reads the lips."""

    def __init__(
        self, parts: Sequence[Part], recipe: SwitchingRecipe, leading: Trained, device: torch.device
    ) -> None:
        self.parts, self.recipe, self.device = list(parts), recipe, device
        self._leading = leading
        self._guides = Denoiser([part.trained for part in parts], leading.recipe, device)
        # How the mode that lips lead reads them; those that do are of one model.
        self._lips = next((part.trained.lips for part in self.parts if part.sees), None)
        self._judge = ReliabilityPass(self._lips, recipe.switch.stay)
        # Pieces go through one by one: most of the time goes into arrays that are large enough by themselves.
        self.batches = False

    def with_noise(self, noise: NoiseConfig) -> Switcher:
        """The same with another noise model."""
        if noise == self.recipe.noise:
            return self
        recipe = self.recipe.model_copy(update={"noise": noise})
        return Switcher(self.parts, recipe, self._leading, self.device)

    @torch.no_grad()
    def __call__(self, pieces: Sequence[Block], watch: Watch | None = None) -> list[Filtered]:
        """The filters of pieces (derivations, eq. 9.17); `watch` sees the first speaker's states."""
        found = []
        for piece in pieces:
            recent: list[Tensor] = []
            for take in self._takes(piece):
                if take.left == self.recipe.inference.iterations - 1:
                    # The loop begins, perhaps anew.
                    recent = []
                if take.left < self.recipe.inference.average:
                    recent.append(torch.stack([switched_mask(state) for state in take.states]))
                if watch is not None:
                    watch(take.states[0])  # type: ignore[arg-type]
            mean = sum(recent[1:], start=recent[0]) / len(recent)
            rows = [self._rows(*parts) for parts in zip(take.states, take.speakers, take.looks, strict=True)]
            acceptance = sum(state.acceptance for state in take.states) / len(take.states)
            found.append(Filtered(mean, None, take.states[0].iteration, acceptance, torch.stack(rows)))
        return found

    def _takes(self, piece: Block) -> Iterator[Take]:
        """The loop on a piece. After the iterations that follow the lips the sound says which of these are wrong.

        (derivations, eq. 9.34)

        If some are, they are left out and the loop begins anew: noise and speech have been fitted to them. States go
        on being counted, so that those who watch see one run.
        """
        config = self.recipe.inference
        trial, begun = self.recipe.switch.led(config.iterations), 0
        looks = again = self.first_look(piece)
        while True:
            speakers = self.modes(piece, looks)
            for states in self.states(piece, speakers):
                iteration = states[0].iteration
                counted = tuple(state._replace(iteration=begun + iteration) for state in states)
                yield Take(counted, speakers, looks, config.iterations - iteration)
                if iteration == trial and not begun:
                    again = self.second_look(states, speakers, looks)
                    if any(new.visual is not old.visual for new, old in zip(again, looks, strict=True)):
                        break
            else:
                return
            looks, begun = again, trial

    def first_look(self, piece: Block) -> list[Look]:
        """The lips of each speaker less those that look wrong by themselves."""
        return [self._judge.first_look(visual) for visual in piece.visuals]

    def second_look(
        self, states: Sequence[SwitchState], speakers: Sequence[Sequence[Mode]], looks: Sequence[Look]
    ) -> list[Look]:
        """Less also those of which the sound says by now that they are wrong (derivations, eq. 9.34)."""
        return [self._judge.second_look(*one) for one in zip(states, speakers, looks, strict=True)]

    def modes(self, piece: Block, looks: Sequence[Look]) -> list[list[Mode]]:
        """The modes of each speaker of a piece, at those of its lips that look right."""
        right = [look.visual for look in looks]
        around = [self._carried(visual) for visual in right]
        # Pictures that were left out are in the context of their neighbours.
        shown = [
            None if own is None or wide is None else Visual(wide.features, own.valid)
            for own, wide in zip(right, around, strict=True)
        ]
        seen = piece._replace(visuals=tuple(shown))
        sources = [self._sources(k, seen, around) for k in range(len(self.parts))]
        return [
            [self._mode(k, sources[k][j], visual, around[j]) for k in self._able(visual)]
            for j, visual in enumerate(shown)
        ]

    def states(self, piece: Block, speakers: Sequence[Sequence[Mode]]) -> Iterator[tuple[SwitchState, ...]]:
        """The EM loop on a piece."""
        generator = torch.Generator(self.device).manual_seed(piece.seed)
        recipe, stft = self.recipe, self._leading.recipe.stft
        first = [modes[0].source for modes in speakers]
        noise = noise_model(
            recipe.noise,
            piece.power,
            rate=stft.rate / stft.hop,
            speech=lambda: torch.stack([one.model.variance(one.start, one.visual) for one in first]).sum(0),
            generator=generator,
        )
        return switching_em(
            speakers, noise, piece.power, config=recipe.inference, switch=recipe.switch, generator=generator
        )

    def _able(self, visual: Visual | None) -> list[int]:
        """The modes that are run: without any lips those that are led by them are left out."""
        able = [k for k, part in enumerate(self.parts) if visual is not None or not part.sees]
        return able or list(range(len(self.parts)))

    def _sources(self, k: int, piece: Block, around: Sequence[Visual | None]) -> list[Source]:
        """The speakers as mode k sees them, where it reads lips at these.

        It starts where they say, and a mode that goes without lips where those of the nearest frame do, `around` being
        the lips carried over gaps: from the noisy sound it would take noise for speech.
        """
        part = self.parts[k]
        if part.trained.lips is None or not part.trained.model.visual:
            piece = piece._replace(visuals=(None,) * len(piece.visuals))
        found = []
        for source, wide in zip(self._guides.sources(piece, system=k), around, strict=True):
            visual = source.visual
            lips = None if visual is None or wide is None else self._led(part, wide)
            if (
                visual is not None
                and wide is not None
                and lips is not None
                and source.spread is not None
                and bool(visual.valid.any())
            ):
                chosen = visual.valid[..., None] if part.sees else torch.ones_like(visual.valid)[..., None]
                place = nearest(wide.valid)
                source = source._replace(
                    start=torch.where(chosen, lips[0][place], source.start),
                    spread=torch.where(chosen, lips[1][place], source.spread),
                )
            found.append(source)
        return set_apart(found)

    def _mode(self, k: int, source: Source, visual: Visual | None, around: Visual | None) -> Mode:
        """Mode k of one speaker; one that lips lead goes by lips carried over their gaps (derivations, eq. 9.31)."""
        part = self.parts[k]
        # The source's decoder has the bins that hold sound.
        model = SpeechModel(part.model.prior, source.model.decoder, part.model.likelihood)
        seen, gaps = source.visual if model.visual else None, None
        if (
            seen is not None
            and around is not None
            and part.sees
            and not model.prior.mixed
            and self._led(part, seen) is not None
        ):
            gaps = around.valid & ~seen.valid
            model = SpeechModel(CarriedPrior(model.prior, gaps), model.decoder, model.likelihood)
            seen = around
        evidence = self._judge.pictures(visual) if part.sees else None
        return Mode(source._replace(model=model, visual=seen), part.sees, evidence, gaps)

    def _carried(self, visual: Visual | None) -> Visual | None:
        """The lips, carried over their gaps."""
        stft, lips = self._leading.recipe.stft, self._lips
        return visual if visual is None or lips is None else carried(visual, lips.lips, stft.hop / stft.rate)

    def _led(self, part: Part, visual: Visual) -> tuple[Tensor, Tensor] | None:
        """The Gaussian of p(z | lips), if the prior has one."""
        prior = part.trained.model.prior
        return gaussian_parameters(prior.conditionals(visual)[0]) if prior.visual else None

    def _rows(self, state: SwitchState, modes: Sequence[Mode], look: Look) -> Tensor:
        """r_nk, the most probable path, one-hot, and the trust side by side [N, 2 M + 1]: what `switches` reads."""
        able = self._able(look.visual)
        path = viterbi(
            self.recipe.switch.temper * state.log_emissions, state.log_transition, state.log_initial
        )
        shares, steps = state.posterior.new_zeros(2, len(path), len(self.parts))
        shares[:, able] = state.posterior
        steps[:, able] = one_hot(path, len(able)).to(steps)
        trust = self._judge.trust(state, modes, look)
        return torch.cat([shares, steps, trust[:, None]], -1)

    def switches(self, times: np.ndarray, probabilities: np.ndarray) -> Switches:
        """The modes' probabilities, the most probable path and the trust, from the rows that the filters came with."""
        names = tuple(part.section.name for part in self.parts)
        shares, path, trust = np.split(probabilities, [len(names), 2 * len(names)], axis=-1)
        sees = any(part.sees for part in self.parts)
        return Switches(names, times, shares, path.argmax(-1), trust[:, 0] if sees else None)


def switched_mask(state: SwitchState) -> Tensor:
    """sum_k r_nk mean_r [v_k / (v_k + WH)] [..., N, F], v_k = g_nk sigma^k(z^r) (derivations, eq. 9.17)."""
    masks = torch.stack([(v / (v + state.noise)).mean(0) for v in state.variances])
    return (state.posterior.movedim(-1, 0)[..., None] * masks).sum(0)
