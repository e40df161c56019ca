"""One typed tree for everything that can be set and that a checkpoint remembers; `recipe.py` reads and changes it.

A section whose parts can be swapped is a union tagged by `kind`. Unknown keys are refused with their path, and an
unknown kind with the valid ones.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pyro_minvae.config.components import AudioGuideConfig, GuideConfig, ModelConfig, Section
from pyro_minvae.config.noise import GammaChainConfig, NoiseConfig


class Stft(Section):
    """Short-time Fourier transform: `rate` Hz, `window` and `hop` in samples (sine window)."""

    rate: int = Field(16000, ge=1000)
    window: int = Field(1024, ge=2)
    hop: int = Field(256, ge=1)

    @property
    def bins(self) -> int:
        """F, the number of frequency bins."""
        return self.window // 2 + 1

    def hops(self, seconds: float) -> int:
        """The whole number of hops nearest to a stretch of time."""
        return round(seconds * self.rate / self.hop)


class CropConfig(Section):
    """Mouth crops: `size` x `size` grey pixels; `face` picks "largest", "left", "right" or the n-th from the left."""

    size: int = Field(67, ge=8)
    face: Literal["largest", "left", "right"] | Annotated[int, Field(ge=0)] = "largest"


class VisualFeatureConfig(Section):
    """Lip vectors: `components` principal components, taken at `context` instants `spacing_s` apart on either side."""

    components: int = Field(64, ge=1)
    context: int = Field(4, ge=0)
    spacing_s: float = Field(0.04, gt=0)

    @property
    def dimension(self) -> int:
        """D, the length of the stacked vector."""
        return self.components * (2 * self.context + 1)


class Stage(Section):
    """One stretch of SVI: which `prior` and `guide` meet the decoder, which parts learn, and when to stop.

    `name` is what the log calls it. `prior` and `guide` are the model's own where they are left out; a stage may
    start with simpler ones, `prior` "standard" or "visual" and `guide` "audio" or "visual".

    Parts that bear the same name are the same networks in every stage: `decoder`, `likelihood`, the encoders `audio`,
    `visual` and `joint`, `visual-prior` (the network of p(z | v)), `prior` (what else the prior learns: MIN-VAE's pi,
    means and variances, pseudo-inputs, the pace of a Markov prior), `responsibility` (the network of q(alpha)) and
    `guide` (of an imported guide).
    `learn` lists those that are trained, all that the stage's prior and guide are made of where it is left out; the
    others are frozen (but `responsibility`, which learns wherever its guide does). `warm_start` copies weights between
    two parts of one architecture before the stage begins: `{ visual = "visual-prior" }` starts the visual encoder as
    the network of p(z | v).

    `data` = "video" leaves out utterances without lips. Adam's `learning_rate` falls along a half cosine from its first
    value to zero over `epochs`; the stage ends `patience` epochs after the best validation bound. `corrupt_audio` is
    the share of frames whose input to the audio encoder is corrupted; `augment_lips` shifts, scales and brightens each
    clip at random. `mix_speech` = (low, high) lets the guide hear one or two other training utterances as well, each at
    a level between these (dB, relative to the target's), while the target stays clean; voices, levels and offsets are
    drawn anew in every epoch.
    """

    name: str
    prior: str | None = None
    guide: str | None = None
    learn: tuple[str, ...] | None = None
    warm_start: dict[str, str] = Field(default_factory=dict)
    data: Literal["all", "video"] = "all"
    epochs: int = Field(ge=1)
    patience: int = Field(10, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    corrupt_audio: float = Field(0.0, ge=0, le=1)
    augment_lips: bool = False
    mix_speech: tuple[float, float] | None = None


class Training(Section):
    """SVI: the `stages` in their order, and the settings that they share.

    `batch` is in frames; each utterance is played at a level drawn uniformly from `level_db` (dB below full scale) anew
    in every epoch; `clip_norm` bounds the gradient's norm (loss in nats per frame); `validation_share` of the training
    utterances is held out for early stopping; `prior_rate` is Adam's rate for the part `prior`, a few numbers that
    have far to go, in place of the stage's `learning_rate`; `weight_decay` is Adam's (L2). Where frames are coupled
    (`ar1` and `random-walk` priors, `context` decoders) or the guide looks around (`mixed-speech`) batches are
    stretches of `segment` frames in a row.
    """

    stages: tuple[Stage, ...]
    batch: int = Field(256, ge=1)
    level_db: tuple[float, float] = (-20.0, 0.0)
    clip_norm: float = Field(100.0, gt=0)
    validation_share: float = Field(0.05, gt=0, lt=1)
    prior_rate: float = Field(1e-2, gt=0)
    segment: int = Field(32, ge=2)
    weight_decay: float = Field(0.0, ge=0)


class Inference(Section):
    """Monte-Carlo EM: `iterations` of an E-step with `steps` kernel moves of which the last `keep` are averaged.

    What is not said is as in the preset "fast".

    `kernel` names the sampler: "metropolis" (random walk), "langevin" (unadjusted, LDEM), "mala", "hmc" (with
    `leapfrogs` steps), "map" (Adam, PEEM), "independence" (proposals from the guide) or "laplace". `step_size` is in
    units of z (about 1 wide a priori); without one it is the kernel's own. During the first `warmup` moves
    "metropolis", "mala" and "hmc" adapt it, frame by frame, towards their best acceptance, and again where the
    `last_marginal` iterations begin. `chains` chains run side by side in every frame, and all their draws count.
    `sweep` says how the chains of several speakers move: "alternate", one speaker after another, each by itself given
    where the others are, or "joint", all speakers of a frame at once with one decision (one speaker: the same, and in
    mean-field E-steps too, where the speakers are independent of each other).
    `gain` lets the level of the speech g_n vary from frame to frame; without it, g_n = 1. `gain_prior` is the shape and
    the rate of its gamma prior; (1, 0) is flat.
    `e_step` = "auto" is "mean-field" where the lips chose the start of the chains and "marginal" elsewhere: the first
    holds on to where the chain starts, which pays if lips chose the place and costs if the noisy sound did. The last
    `last_marginal` iterations of mean-field ones are marginal: once the noise is known, the sound may correct the lips,
    of which log p(z | v) then counts `last_prior` times.
    `mean_field` = "published" runs mean-field E-steps by the letter of the papers: q(alpha) starts at 1/2 and q(s) at
    the mixture, q(s) is not renewed between the M-step and the next E-step, g stays 1, and W and H move by the whole
    multiplicative factors, which no proof keeps from lowering the objective (noise kind "nmf" only).
    The estimate is the mean of the Wiener filters of the last `average` iterations. `start` is where the chains
    begin: the guide's own proposal ("guide": the lips for MIN-VAE), "audio", the audio encoder on the mixture, or
    "prior", the prior's mean (the lips for visual priors).
    `lips` = "auto" leaves out lips that move unlike any in training, and of one speaker those of blocks in which their
    own lag explains the sound no better than other lags do: guidance from a face that the networks cannot
    read is worse than none.
    `mix` is the share of the estimate in what is given out, the rest being the recording: 1 the estimate alone, 0 the
    recording; "auto" keeps the more of the recording the cleaner it is (`pipelines.remix`). With `attenuation_db` the
    noise is lowered by that much at most (dB). Both are for one speaker: separated voices are given out as they are.
    `tolerance` > 0 stops early, E-steps of either kind by themselves, once the objective gains less than that share of
    its total gain in five iterations.
    Recordings longer than `block_s` are cut into blocks that overlap by `overlap_s` (s). Up to `batch` blocks, of one
    recording or of several, go through the loop side by side, on a processor `batch_s` at most altogether (s, as long
    as the longest each), since they share its caches; one at a time where `tolerance` > 0 or the model couples frames.
    """

    iterations: int = Field(20, ge=1)
    e_step: Literal["auto", "marginal", "mean-field"] = "auto"
    mean_field: Literal["em", "published"] = "em"
    last_marginal: int = Field(0, ge=0)
    last_prior: float = Field(1.0, gt=0)
    kernel: Literal["metropolis", "langevin", "mala", "hmc", "map", "independence", "laplace"] = "langevin"
    step_size: float | None = Field(None, gt=0)
    warmup: int = Field(0, ge=0)
    leapfrogs: int = Field(5, ge=1)
    steps: int = Field(1, ge=1)
    keep: int = Field(1, ge=1)
    chains: int = Field(1, ge=1)
    sweep: Literal["alternate", "joint"] = "alternate"
    average: int = Field(5, ge=1)
    gain: bool = True
    gain_prior: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(ge=0)]] = (1.0, 0.0)
    start: Literal["guide", "audio", "prior"] = "guide"
    lips: Literal["auto", "always", "never"] = "auto"
    mix: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = "auto"
    attenuation_db: float | None = Field(None, ge=0)
    tolerance: float = Field(0.0, ge=0)
    block_s: float = Field(20.0, gt=0)
    overlap_s: float = Field(1.0, ge=0)
    batch: int = Field(32, ge=1)
    batch_s: float = Field(20.0, gt=0)


class Recipe(Section):
    """Everything that names a system: features, model, guide, training, noise and inference.

    `name` is what messages and checkpoints call it; `seed` decides every random draw of training. `stft`, `crops` and
    `lips` are the features, `model` and `guide` the networks, `training` how they are fitted; `noise` and `inference`
    serve the enhancement of a recording.
    """

    name: str
    seed: int = Field(0, ge=0, le=2**31 - 1)
    stft: Stft = Stft()
    crops: CropConfig = CropConfig()
    lips: VisualFeatureConfig = VisualFeatureConfig()
    model: ModelConfig = ModelConfig()
    guide: GuideConfig = AudioGuideConfig()
    training: Training
    noise: NoiseConfig = GammaChainConfig()
    inference: Inference = Inference()

    @model_validator(mode="before")
    @classmethod
    def _usual_noise_unless_said(cls, tree: Any) -> Any:
        """Noise without `kind` is the usual one, so that `noise.rank` can be set by itself."""
        if isinstance(tree, dict) and isinstance(noise := tree.get("noise"), dict):
            return {**tree, "noise": {"kind": GammaChainConfig().kind, **noise}}
        return tree
