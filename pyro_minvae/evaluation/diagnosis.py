"""The diagnosis of one enhancement: how EM went, whether the sampler mixed, how sure the estimate is.

`inference.mcmc.mixing` says what is diagnosed: a run of the sampler of its own at EM's last parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from pyro_minvae.features.stft import analyse, frame_count
from pyro_minvae.features.stft import power as power_of
from pyro_minvae.inference.mcem.loop import EMState
from pyro_minvae.inference.mcmc.mixing import Mixing, first_frames, judge
from pyro_minvae.inference.switching.engine import SwitchState, switched_deviation
from pyro_minvae.media.audio import resample
from pyro_minvae.pipelines.blocks import spans
from pyro_minvae.pipelines.recording import Enhanced, reference
from pyro_minvae.types import MouthCrops, Switches, Visual

if TYPE_CHECKING:
    from pyro_minvae.pipelines.enhancer import Enhancer

# Seconds of a recording that are diagnosed: what one page shows well, and a bound on the memory of the draws.
LONGEST_S = 30.0

# R-hat from here on is called bad. The worst of many dimensions goes past the strict 1.01 by chance alone.
BAD_RHAT = 1.1


class Watched:
    """A `watch` callback that keeps what a diagnosis needs: the curves of EM and its last state.

    A long recording is enhanced in blocks: these are of the first ones, as many as go side by side. `also` is called
    with every state too.
    """

    def __init__(self, also: Callable[[EMState], None] | None = None) -> None:
        self.objective: list[float] = []
        self.acceptance: list[float] = []
        self.state: EMState | None = None
        self._also, self._over = also, False

    def __call__(self, state: EMState) -> None:
        self._over = self._over or (self.state is not None and state.iteration <= self.state.iteration)
        if not self._over:
            self.objective.append(state.objective)
            self.acceptance.append(state.acceptance)
            self.state = state
        if self._also is not None:
            self._also(state)


class Diagnosis(NamedTuple):
    """What a report shows of the first N frames, at `times` [N] s and `frequencies` [F] Hz.

    `mixture`, `estimate` and `noise` are powers [N, F] on the model's STFT of the mono mixture at max|x| = 1, and
    `deviation` [N, F] is the posterior standard deviation of the estimate in the same units (of |x|). `objective` and
    `acceptance` [I] are by EM iteration, the first in nats. `mixing` is None where nothing was sampled (silence, the
    kernel "map"). `found` [T] says in which frames of the video, at `video_times` [T] s, there was a face (None:
    no video was looked at); `without_video` is why lips were not used, empty if they were. `seconds` is how much of
    `duration` is covered. `switches` are the modes of a system that switches between several; it samples nothing, and
    `deviation` is then that of its own posterior.
    """

    times: np.ndarray
    frequencies: np.ndarray
    mixture: np.ndarray
    estimate: np.ndarray
    noise: np.ndarray
    deviation: np.ndarray
    objective: np.ndarray
    acceptance: np.ndarray
    mixing: Mixing | None
    responsibilities: np.ndarray | None
    video_times: np.ndarray | None
    found: np.ndarray | None
    without_video: str
    model: str
    kernel: str
    seconds: float
    duration: float
    switches: Switches | None = None


@torch.no_grad()
def diagnose(
    enhancer: Enhancer,
    waveform: np.ndarray,
    rate: int,
    video: str | Path | MouthCrops | None,
    result: Enhanced,
    watched: Watched,
    *,
    seed: int = 0,
) -> Diagnosis:
    """Judge an enhancement: `result = enhancer(waveform, rate, video, watch=watched)`.

    Runs the sampler again at EM's last parameters (`inference.mcmc.mixing`): R-hat, effective sample size and the
    deviation of the estimate (derivations, eqs. 11.19 to 11.21). A long recording's first block is looked at, and at
    most 30 s of it. Given as `MouthCrops` (`enhancer.lips(path)`), a video need not be searched for the face twice.
    The global random state stays as it is.
    """
    lips = enhancer.lips(video)
    stft, state = enhancer.recipe.stft, watched.state
    mixture, speech = (_mono(signal, waveform, rate, enhancer) for signal in (waveform, result.speech))
    peak = mixture.abs().max().clamp_min(1e-30)
    powers = [power_of(analyse(part / peak, stft)) for part in (mixture, speech, mixture - speech)]
    count = min(len(powers[0]), 1 + int(LONGEST_S * stft.rate / stft.hop))
    mixing, deviation = None, torch.zeros_like(powers[0])
    if state is not None:
        # A block's last frames reach past its end, where the loop saw zeros.
        count = min(count, first_block(mixture.shape[-1], enhancer))
        # The bins that hold sound.
        power, visual = powers[0][:count, : state.noise.shape[-1]], None
    if isinstance(state, SwitchState):
        deviation = switched_deviation(state, count, power)
    elif state is not None:
        if result.used_video and lips is not None:
            visual = Visual(*(part[:count] for part in enhancer.visual(lips, len(powers[0]))))
        source, config = enhancer.source(power, visual), enhancer.recipe.inference
        mixing, deviation = judge(source, first_frames(state, count), power, config, seed)
    deviation = pad(deviation, (0, stft.bins - deviation.shape[-1]))
    shown = None if lips is None else lips.times <= result.times[count - 1]
    maps = [part[:count].cpu().numpy() for part in (*powers, deviation)]
    return Diagnosis(
        times=result.times[:count],
        frequencies=np.arange(stft.bins) * stft.rate / stft.window,
        mixture=maps[0],
        estimate=maps[1],
        noise=maps[2],
        deviation=maps[3],
        objective=np.array(watched.objective),
        acceptance=np.array(watched.acceptance),
        mixing=mixing,
        responsibilities=None if result.responsibilities is None else result.responsibilities[:count],
        video_times=None if lips is None else lips.times[shown],
        found=None if lips is None else lips.valid[shown],
        without_video=result.without_video,
        model=enhancer.recipe.name,
        kernel="none (Gaussian posteriors)"
        if isinstance(state, SwitchState)
        else enhancer.recipe.inference.kernel,
        seconds=min(result.seconds, count * stft.hop / stft.rate),
        duration=result.seconds,
        switches=_modes(result, count),
    )


def _modes(result: Enhanced, count: int) -> Switches | None:
    """The modes of the first frames; those of lips and sound in one model are shown as responsibilities."""
    modes = result.switches
    if modes is None or result.responsibilities is not None:
        return None
    trust = None if modes.trust is None else modes.trust[:count]
    return Switches(modes.names, modes.times[:count], modes.probabilities[:count], modes.path[:count], trust)


def first_block(samples: int, enhancer: Enhancer) -> int:
    """How many frames of a recording see nothing but the first of its blocks."""
    stft, inference = enhancer.recipe.stft, enhancer.recipe.inference
    block, overlap = (stft.hops(s) * stft.hop for s in (inference.block_s, inference.overlap_s))
    end = spans(samples, block=block, overlap=overlap)[0].stop
    return frame_count(samples, stft) if end == samples else end // stft.hop


def _mono(signal: np.ndarray, mixture: np.ndarray, rate: int, enhancer: Enhancer) -> Tensor:
    """What the filter was estimated on, of any signal with the mixture's channels: [S'] at the model's rate."""
    mixed, channels = (
        torch.as_tensor(
            resample(np.atleast_2d(np.asarray(part, np.float64)), rate, enhancer.recipe.stft.rate)
        )
        for part in (mixture, signal)
    )
    if not torch.equal(reference(mixed), mixed.mean(0)):
        channels = channels[mixed.square().mean(-1).argmax()][None]
    return channels.mean(0).to(enhancer.device, torch.float32)


def numbers(diagnosis: Diagnosis) -> dict[str, float]:
    """The figures of a report by name; those that there are none of are left out.

    "expected error (dB)" is what the model itself thinks of its estimate: the power of the deviation over that of the
    estimate. Frames are bad if their R-hat is not below 1.1, which NaN is not.
    """
    found: dict[str, float] = {}
    if len(diagnosis.objective):
        found |= {
            "iterations": len(diagnosis.objective),
            "objective, first (nats)": diagnosis.objective[0],
            "objective, last (nats)": diagnosis.objective[-1],
            "acceptance, last EM iteration": diagnosis.acceptance[-1],
        }
    mixing = diagnosis.mixing
    if mixing is not None:
        found |= {
            "acceptance": mixing.acceptance.mean(),
            "R-hat, middle frame": np.median(mixing.rhat_median),
            "R-hat, worst": mixing.rhat.max(),
            "frames with bad R-hat (%)": 100 * float(np.mean(~(mixing.rhat < BAD_RHAT))),
            "effective draws, middle frame": np.median(mixing.ess_median),
            "effective draws, fewest": mixing.ess.min(),
            "draws": mixing.draws,
        }
    loudness = diagnosis.estimate.sum()
    if loudness > 0:
        found["expected error (dB)"] = 10 * np.log10(np.square(diagnosis.deviation).sum() / loudness)
    if diagnosis.responsibilities is not None:
        found["audio responsibility"] = diagnosis.responsibilities.mean()
    if diagnosis.switches is not None:
        shares = diagnosis.switches.probabilities.mean(0)
        found |= {f"mode {name}": share for name, share in zip(diagnosis.switches.names, shares, strict=True)}
        if diagnosis.switches.trust is not None:
            found["trust in the lips"] = diagnosis.switches.trust.mean()
    if diagnosis.found is not None and len(diagnosis.found):
        found["video frames with a face (%)"] = 100 * diagnosis.found.mean()
    return {name: float(value) for name, value in found.items()}
