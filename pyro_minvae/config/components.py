"""The parts of a speech model and its guide, as sections of a recipe: unions tagged by `kind`.

Class variables are traits: `sees` (looks at lips) and those by which `config.rules.incompatibility` judges what goes
together.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A frozen part of the tree that refuses keys it does not know and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# Widths of a network's hidden layers, from its input to its output.
Layers = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


class ImportConfig(Section):
    """A part from outside the package: the class `target` = "package.module:Class", called (shapes, **`options`)."""

    kind: Literal["import"] = "import"
    target: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    options: dict[str, Any] = {}


class BasePriorConfig(Section):
    """Traits of priors: see `models.priors.base.Prior`."""

    mixed: ClassVar[bool] = False
    sees: ClassVar[bool] = False
    coupled: ClassVar[bool] = False


class StandardPriorConfig(BasePriorConfig):
    """z ~ N(0, I)."""

    kind: Literal["standard"] = "standard"


class MixturePriorConfig(BasePriorConfig):
    """alpha ~ Bernoulli(pi), z | alpha ~ N(mu_alpha, s_alpha I), all learned (MIN-VAE)."""

    mixed: ClassVar[bool] = True
    kind: Literal["mixture"] = "mixture"


class VisualPriorConfig(BasePriorConfig):
    """z | v ~ N(mu(v), diag sigma^2(v)) from a network of the lips.

    `hidden` are the widths of its layers; `dropout` is the share of the features and of each layer that training
    leaves out.
    """

    sees: ClassVar[bool] = True
    kind: Literal["visual"] = "visual"
    hidden: Layers = (256, 128)
    dropout: Dropout = 0.3


class VisualMixturePriorConfig(BasePriorConfig):
    """MIN-VAE's mixture whose component alpha = 0 is the visual prior p(z | v): `hidden` and `dropout` as there."""

    mixed: ClassVar[bool] = True
    sees: ClassVar[bool] = True
    kind: Literal["visual-mixture"] = "visual-mixture"
    hidden: Layers = (256, 128)
    dropout: Dropout = 0.3


class VampPriorConfig(BasePriorConfig):
    """p(z) = 1/K sum_k q(z | u_k) with K = `count` learned pseudo-inputs u_k, through the model's own guide."""

    kind: Literal["vamp"] = "vamp"
    count: int = Field(64, ge=1)


class Ar1PriorConfig(BasePriorConfig):
    """z_n = rho z_(n-1) + sqrt(1 - rho^2) eps_n from frame to frame; rho is learned and starts at `coefficient`."""

    coupled: ClassVar[bool] = True
    kind: Literal["ar1"] = "ar1"
    coefficient: float = Field(0.8, gt=0, lt=1)


class RandomWalkPriorConfig(BasePriorConfig):
    """z_n = z_(n-1) + tau eps_n from frame to frame; tau is learned and starts at `step`."""

    coupled: ClassVar[bool] = True
    kind: Literal["random-walk"] = "random-walk"
    step: float = Field(0.5, gt=0)


PriorConfig = Annotated[
    StandardPriorConfig
    | MixturePriorConfig
    | VisualPriorConfig
    | VisualMixturePriorConfig
    | VampPriorConfig
    | Ar1PriorConfig
    | RandomWalkPriorConfig
    | ImportConfig,
    Field(discriminator="kind"),
]


class BaseDecoderConfig(Section):
    """Traits of decoders, and what all have: `hidden` widths of the tanh layers (more of them: a deeper decoder).

    `floor` is the least variance (linear power at full scale 1).
    """

    sees: ClassVar[bool] = False
    hidden: Layers = (128,)
    floor: float = Field(1e-4, gt=0)

    @property
    def reach(self) -> int:
        """Frames of context on either side."""
        return 0


class PlainDecoderConfig(BaseDecoderConfig):
    """sigma_f(z): `hidden` widths of the tanh layers; `floor` is the least variance (linear power at full scale 1)."""

    kind: Literal["plain"] = "plain"


class VisualDecoderConfig(BaseDecoderConfig):
    """sigma_f(z, v): beside z it sees the lips through layers of widths `embedding` (MIN-VAE-Dec, AV-CVAE).

    `dropout` is the share of the lip features and of these layers that training leaves out.
    """

    sees: ClassVar[bool] = True
    kind: Literal["lips"] = "lips"
    embedding: Layers = (128, 32)
    dropout: Dropout = 0.3


class ContextDecoderConfig(BaseDecoderConfig):
    """sigma_f(z_(n-c), ..., z_(n+c)) with c = `context` frames on either side."""

    kind: Literal["context"] = "context"
    context: int = Field(1, ge=1)

    @property
    def reach(self) -> int:
        return self.context


DecoderConfig = Annotated[
    PlainDecoderConfig | VisualDecoderConfig | ContextDecoderConfig | ImportConfig,
    Field(discriminator="kind"),
]


class ComplexGaussianConfig(Section):
    """s_f | z ~ N_c(0, sigma_f(z)): the power is exponential."""

    kind: Literal["complex-gaussian"] = "complex-gaussian"


class StudentTConfig(Section):
    """s_f | z, w_f ~ N_c(0, sigma_f(z) / w_f), w_f ~ Gamma(dof / 2, dof / 2): heavy tails for a low `dof`."""

    kind: Literal["student-t"] = "student-t"
    dof: float = Field(4.0, gt=0)


LikelihoodConfig = Annotated[
    ComplexGaussianConfig | StudentTConfig | ImportConfig, Field(discriminator="kind")
]


class ModelConfig(Section):
    """p(alpha) p(z | alpha, v) p(s | z): `latent` is L, the length of z; `prior`, `decoder`, `likelihood` its parts."""

    latent: int = Field(32, ge=1)
    prior: PriorConfig = StandardPriorConfig()
    decoder: DecoderConfig = PlainDecoderConfig()
    likelihood: LikelihoodConfig = ComplexGaussianConfig()

    @model_validator(mode="before")
    @classmethod
    def _plain_unless_said(cls, tree: Any) -> Any:
        """A decoder without `kind` is the plain one, so that `model.decoder.hidden` can be set by itself."""
        if isinstance(tree, dict) and isinstance(decoder := tree.get("decoder"), dict):
            return {**tree, "decoder": {"kind": "plain", **decoder}}
        return tree


class AudioEncoderConfig(Section):
    """q(z | s): `hidden` widths of the tanh layers; `input` is what they see of the power spectrum."""

    hidden: Layers = (128,)
    input: Literal["log-power", "power"] = "log-power"


class VisualEncoderConfig(Section):
    """q(z | v): `hidden` widths of the layers; `dropout` is the share left out of the features and of each layer."""

    hidden: Layers = (256, 128)
    dropout: Dropout = 0.3


class JointEncoderConfig(Section):
    """q(z | s, v): `hidden` widths of the tanh layers on log power and lips; `dropout` as in the visual encoder."""

    hidden: Layers = (128,)
    dropout: Dropout = 0.0


class ContextEncoderConfig(Section):
    """q(z_n | x, v) from sound and lips around frame n: residual layers of `width`, one for each of `dilations`.

    A layer with dilation d sees the frames n - 2 d, n - d, n, n + d and n + 2 d of the layer before. `dropout` is the
    share of the lip features, and of each layer, that training leaves out.
    """

    width: int = Field(160, ge=1)
    dilations: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 4, 8, 1, 2)
    dropout: Dropout = 0.2


class ResponsibilityNetworkConfig(Section):
    """q(alpha = 1 | s, v) from log power and lips: `hidden` widths of the tanh layers; `dropout` as there."""

    hidden: Layers = (32,)
    dropout: Dropout = 0.0


class BaseGuideConfig(Section):
    """Traits of guides: see `guides.base.Guide`."""

    mixed: ClassVar[bool] = False
    sees: ClassVar[bool] = False


class AudioGuideConfig(BaseGuideConfig):
    """q(z | s) from the encoder `audio`."""

    kind: Literal["audio"] = "audio"
    audio: AudioEncoderConfig = AudioEncoderConfig()


class VisualGuideConfig(BaseGuideConfig):
    """q(z | v) from the encoder `visual`: every frame needs lips."""

    sees: ClassVar[bool] = True
    kind: Literal["visual"] = "visual"
    visual: VisualEncoderConfig = VisualEncoderConfig()


class ConcatenationGuideConfig(BaseGuideConfig):
    """q(z | s, v) from one encoder `joint` of sound and lips side by side (AV-VAE)."""

    sees: ClassVar[bool] = True
    kind: Literal["concatenation"] = "concatenation"
    joint: JointEncoderConfig = JointEncoderConfig()


class MixedSpeechGuideConfig(BaseGuideConfig):
    """q(z_n | x, v) from one encoder `joint` of mixed speech and lips that looks at the frames around n (separation).

    A frame of a mixture hardly tells which voice is whose; how the sounds and the lips move does.
    """

    sees: ClassVar[bool] = True
    kind: Literal["mixed-speech"] = "mixed-speech"
    joint: ContextEncoderConfig = ContextEncoderConfig()


class ProductGuideConfig(BaseGuideConfig):
    """q(z | s, v) = N(0, I) q_a q_v / Z, a product of the experts `audio` and `visual`."""

    sees: ClassVar[bool] = True
    kind: Literal["product"] = "product"
    audio: AudioEncoderConfig = AudioEncoderConfig()
    visual: VisualEncoderConfig = VisualEncoderConfig()


class MixtureGuideConfig(BaseGuideConfig):
    """q(alpha) q(z | s)^alpha q(z | v)^(1 - alpha) from the encoders `audio` and `visual` (MIN-VAE).

    `responsibility` is q(alpha): "optimal" in closed form for each batch, or "amortised", from `network`.
    """

    mixed: ClassVar[bool] = True
    sees: ClassVar[bool] = True
    kind: Literal["mixture"] = "mixture"
    audio: AudioEncoderConfig = AudioEncoderConfig()
    visual: VisualEncoderConfig = VisualEncoderConfig()
    responsibility: Literal["optimal", "amortised"] = "optimal"
    network: ResponsibilityNetworkConfig = ResponsibilityNetworkConfig()


class MixtureOfProductsGuideConfig(MixtureGuideConfig):
    """As the mixture, but alpha = 1 picks the product of both experts (mixture of products of experts)."""

    kind: Literal["mixture-of-products"] = "mixture-of-products"  # type: ignore[assignment]


GuideConfig = Annotated[
    AudioGuideConfig
    | VisualGuideConfig
    | ConcatenationGuideConfig
    | MixedSpeechGuideConfig
    | ProductGuideConfig
    | MixtureGuideConfig
    | MixtureOfProductsGuideConfig
    | ImportConfig,
    Field(discriminator="kind"),
]
