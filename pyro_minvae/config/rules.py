"""Which parts go together: one place for recipes (sections) and for objects (modules with the same traits)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro_minvae.config import components
from pyro_minvae.config.schema import Recipe, Stage

# Priors and guides that a stage may start with in place of the model's own.
SIMPLE_PRIORS: dict[str, components.PriorConfig] = {
    "standard": components.StandardPriorConfig(),
    "visual": components.VisualPriorConfig(),
}
SIMPLE_GUIDES: dict[str, components.GuideConfig] = {
    "audio": components.AudioGuideConfig(),
    "visual": components.VisualGuideConfig(),
}


def incompatibility(*, prior: Any, guide: Any = None, decoder: Any = None) -> str | None:
    """Why these parts cannot make a system, in one sentence; None if they can.

    Args:
        prior: anything with the traits `mixed` (has a switch alpha) and `coupled` (over all frames at once).
        guide: anything with `mixed`, and `reach` if it looks at frames on either side, or None.
        decoder: anything with `reach` (frames of context), or None.
    """
    if guide is not None and guide.mixed and not prior.mixed:
        return (
            f"expected a mixture prior and a mixture guide together, found {_name(prior)} and {_name(guide)}: "
            "the guide enumerates a switch alpha that the prior does not have"
        )
    if guide is not None and prior.mixed and not guide.mixed:
        return (
            f"expected a mixture prior and a mixture guide together, found {_name(prior)} and {_name(guide)}: "
            "the prior has a switch alpha that the guide does not infer"
        )
    if guide is not None and guide.mixed and getattr(guide, "reach", 0) > 0:
        return (
            f"expected a mixture guide that looks at single frames, found {_name(guide)}: "
            "alpha is enumerated frame by frame"
        )
    if decoder is not None and prior.mixed and (decoder.reach > 0 or prior.coupled):
        return (
            f"expected independent frames under a mixture prior, found {_name(prior)} and {_name(decoder)}: "
            "alpha is enumerated frame by frame, which a decoder with context over frames does not allow"
        )
    return None


def _name(part: Any) -> str:
    """What to call a part: its kind in a recipe, its class otherwise."""
    return str(getattr(part, "kind", type(part).__name__))


def recipe_error(recipe: Recipe) -> str | None:
    """The first pair of settings, each valid by itself, that cannot go together; None if all can."""
    stft, inference, model = recipe.stft, recipe.inference, recipe.model
    if stft.window % 2 or stft.hop > stft.window:
        return f"stft: expected an even window no shorter than the hop, found {stft.window} and {stft.hop}"
    if inference.keep > inference.steps:
        return f"inference.keep: expected at most inference.steps = {inference.steps}, found {inference.keep}"
    if stft.hops(inference.block_s) <= 2 * stft.hops(inference.overlap_s):
        return (
            f"inference.block_s: expected more than twice inference.overlap_s = {inference.overlap_s:g}, "
            f"found {inference.block_s:g}"
        )
    shape, rate = inference.gain_prior
    if inference.e_step != "marginal" and rate == 0 and shape >= stft.bins + 1:
        # Mean-field gains would have no maximum.
        return (
            f"inference.gain_prior: expected a shape below {stft.bins + 1} for a rate of 0, found {shape:g}"
        )
    if inference.mean_field == "published" and inference.e_step != "marginal" and recipe.noise.kind != "nmf":
        return (
            f"inference.mean_field: expected noise.kind nmf for published updates, found {recipe.noise.kind}"
        )
    noise = recipe.noise
    if noise.kind == "nmf" and noise.start == "published" and (noise.quiet > 0 or noise.smooth_s > 0):
        return "noise.start: expected loud with noise.quiet or noise.smooth_s, found published"
    low, high = recipe.training.level_db
    if low > high:
        return f"training.level_db: expected the lower level first, found {low:g} and {high:g}"
    if not recipe.training.stages:
        return "training.stages: expected at least one, found none"
    fault = section_error(model.prior, recipe.guide, model.decoder)
    if fault:
        return f"model: {fault}"
    for number, stage in enumerate(recipe.training.stages):
        fault = _stage_fault(recipe, stage)
        if fault:
            return f"training.stages.{number}.{fault}"
    return _unlearned_fault(recipe)


def section_error(
    prior: components.PriorConfig, guide: components.GuideConfig, decoder: components.DecoderConfig
) -> str | None:
    """`incompatibility` of sections; what is imported shows its traits only when the system is built."""
    if any(isinstance(section, components.ImportConfig) for section in (prior, guide, decoder)):
        return None
    return incompatibility(prior=prior, guide=guide, decoder=decoder)


def _stage_fault(recipe: Recipe, stage: Stage) -> str | None:
    """What a stage asks for that this recipe's system does not have."""
    prior, guide, decoder = recipe.model.prior, recipe.guide, recipe.model.decoder
    sees = any(isinstance(s, components.ImportConfig) or s.sees for s in (prior, guide, decoder))
    simple = [name for name in ("standard", "visual") if sees or name == "standard"]
    encoder_input = [name for name in ("audio", "visual") if sees or name == "audio"]
    for name, value, choices in (
        ("prior", stage.prior or prior.kind, [*simple, prior.kind]),
        ("guide", stage.guide or guide.kind, [*encoder_input, guide.kind]),
    ):
        if value not in choices:
            return f"{name}: expected one of {_listed(choices)} in this model, found {value}"
    available = parts_of(recipe)
    for part in learned(recipe, stage) or ("nothing",):
        if part not in available:
            return f"learn: expected one of {_listed(available)} in this model, found {part}"
    return (
        _pair_fault(recipe, stage)
        or _mixture_fault(recipe, stage)
        or _warm_start_fault(recipe, stage, available)
    )


def _listed(choices: Sequence[str]) -> str:
    """Each choice once."""
    return ", ".join(dict.fromkeys(choices))


def _pair(recipe: Recipe, stage: Stage) -> tuple[components.PriorConfig, components.GuideConfig]:
    """The prior and the guide of a stage: the model's own, or simple ones."""
    own_prior = stage.prior in (None, recipe.model.prior.kind)
    own_guide = stage.guide in (None, recipe.guide.kind)
    return (
        recipe.model.prior if own_prior else SIMPLE_PRIORS[str(stage.prior)],
        recipe.guide if own_guide else SIMPLE_GUIDES[str(stage.guide)],
    )


def _pair_fault(recipe: Recipe, stage: Stage) -> str | None:
    """Why a stage's prior and guide cannot meet, or not on its data."""
    prior, guide = _pair(recipe, stage)
    fault = section_error(prior, guide, recipe.model.decoder)
    if fault:
        return f"guide: {fault}"
    if isinstance(prior, components.VampPriorConfig) and guide != recipe.guide:
        return f"guide: expected the model's own, through which a vamp prior's pseudo-inputs go, found {stage.guide}"
    if isinstance(guide, components.VisualGuideConfig) and stage.data != "video":
        return "data: expected video, because a visual guide knows nothing of a frame without lips, found all"
    return None


def _mixture_fault(recipe: Recipe, stage: Stage) -> str | None:
    """Why a stage cannot let its guide hear mixed speech."""
    if stage.mix_speech is None:
        return None
    low, high = stage.mix_speech
    if low > high:
        return f"mix_speech: expected the lower level first, found {low:g} and {high:g}"
    if stage.corrupt_audio > 0:
        return f"mix_speech: expected corrupt_audio = 0 with it, found {stage.corrupt_audio:g}"
    _, guide = _pair(recipe, stage)
    if isinstance(guide, components.VisualGuideConfig):
        return f"mix_speech: expected a guide that hears sound, found {guide.kind}"
    return None


def parts_of(recipe: Recipe) -> list[str]:
    """The parts of a recipe's system that some stage, or the final model, is made of."""
    prior, guide, stages = recipe.model.prior, recipe.guide, recipe.training.stages
    named = ["decoder", *_likelihood_parts(recipe), *_guide_parts(guide), *_prior_parts(prior)]
    for stage in stages:
        named += _guide_parts(SIMPLE_GUIDES[stage.guide]) if stage.guide in SIMPLE_GUIDES else []
        named += _prior_parts(SIMPLE_PRIORS[stage.prior]) if stage.prior in SIMPLE_PRIORS else []
    return list(dict.fromkeys(named))


def learned(recipe: Recipe, stage: Stage) -> tuple[str, ...]:
    """The parts that a stage learns: those of its `learn`, or all that its prior and guide are made of."""
    prior, guide = _pair(recipe, stage)
    if stage.learn is not None:
        # The network of q(alpha) has no other stage to learn in than those of its guide.
        added = [name for name in _guide_parts(guide) if name == "responsibility" and name not in stage.learn]
        return (*stage.learn, *added)
    return ("decoder", *_likelihood_parts(recipe), *_guide_parts(guide), *_prior_parts(prior))


def _likelihood_parts(recipe: Recipe) -> list[str]:
    return ["likelihood"] if isinstance(recipe.model.likelihood, components.ImportConfig) else []


def _guide_parts(guide: components.GuideConfig) -> list[str]:
    """The networks of a guide."""
    if isinstance(guide, components.ImportConfig):
        return ["guide"]
    encoders = [name for name in ("audio", "visual", "joint") if hasattr(guide, name)]
    return encoders + (["responsibility"] if getattr(guide, "responsibility", "") == "amortised" else [])


def _prior_parts(prior: components.PriorConfig) -> list[str]:
    """The network of a prior, and whether it has numbers of its own."""
    network = isinstance(prior, components.VisualPriorConfig | components.VisualMixturePriorConfig)
    numbers = not isinstance(prior, components.StandardPriorConfig | components.VisualPriorConfig)
    return (["visual-prior"] if network else []) + (["prior"] if numbers else [])


def _unlearned_fault(recipe: Recipe) -> str | None:
    """A part of the final model that no stage learns or starts from another would stay as it was drawn."""
    stages = recipe.training.stages
    done = {part for stage in stages for part in (*learned(recipe, stage), *stage.warm_start)}
    for part in ("decoder", *_guide_parts(recipe.guide), *_prior_parts(recipe.model.prior)):
        if part not in done:
            return f"training.stages: expected one that learns the model's {part}, found none"
    return None


def _warm_start_fault(recipe: Recipe, stage: Stage, available: list[str]) -> str | None:
    """Weights can be copied only between the two visual networks, and only if they have the same layers."""
    pair = {"visual", "visual-prior"}
    for target, origin in stage.warm_start.items():
        if {target, origin} != pair:
            return f"warm_start: expected visual and visual-prior of this model, found {target} and {origin}"
        if missing := sorted(pair - set(available)):
            return f"warm_start: expected visual and visual-prior of this model, found no {' and no '.join(missing)}"
        prior, encoder = recipe.model.prior, getattr(recipe.guide, "visual", components.VisualEncoderConfig())
        if isinstance(prior, components.VisualPriorConfig | components.VisualMixturePriorConfig):
            layers = [(section.hidden, section.dropout > 0) for section in (encoder, prior)]
            if layers[0] != layers[1]:
                return "warm_start: expected guide.visual and model.prior of the same layers, found others"
    return None
