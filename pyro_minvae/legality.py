"""Which parts go together: one place for recipes (sections) and for objects (modules with the same traits)."""

from __future__ import annotations

from typing import Any

from pyro_minvae import parts
from pyro_minvae.config import Recipe, Stage

# Priors and guides that a stage may start with in place of the model's own.
SIMPLE_PRIORS: dict[str, parts.Prior] = {"standard": parts.StandardPrior(), "visual": parts.VisualPrior()}
SIMPLE_GUIDES: dict[str, parts.Guide] = {"audio": parts.AudioGuide(), "visual": parts.VisualGuide()}


def misfit(*, prior: Any, guide: Any = None, decoder: Any = None) -> str | None:
    """Why these parts cannot make a system, in one sentence; None if they can.

    Args:
        prior: anything with the traits `mixed` (has a switch alpha) and `coupled` (over all frames at once).
        guide: anything with `mixed`, or None.
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
    if decoder is not None and prior.mixed and (decoder.reach > 0 or prior.coupled):
        return (
            f"expected independent frames under a mixture prior, found {_name(prior)} and {_name(decoder)}: "
            "alpha is enumerated frame by frame, which a decoder with context over frames does not allow"
        )
    return None


def _name(part: Any) -> str:
    """What to call a part: its kind in a recipe, its class otherwise."""
    return str(getattr(part, "kind", type(part).__name__))


def recipe_fault(recipe: Recipe) -> str | None:
    """The first pair of settings, each valid by itself, that cannot go together; None if all can."""
    stft, inference, model = recipe.stft, recipe.inference, recipe.model
    if stft.window % 2 or stft.hop > stft.window:
        return f"stft: expected an even window no shorter than the hop, found {stft.window} and {stft.hop}"
    if inference.keep > inference.steps:
        return f"inference.keep: expected at most inference.steps = {inference.steps}, found {inference.keep}"
    low, high = recipe.training.level_db
    if low > high:
        return f"training.level_db: expected the lower level first, found {low:g} and {high:g}"
    if not recipe.training.stages:
        return "training.stages: expected at least one, found none"
    fault = section_fault(model.prior, recipe.guide, model.decoder)
    if fault:
        return f"model: {fault}"
    for number, stage in enumerate(recipe.training.stages):
        fault = _stage_fault(recipe, stage)
        if fault:
            return f"training.stages.{number}.{fault}"
    return None


def section_fault(prior: parts.Prior, guide: parts.Guide, decoder: parts.Decoder) -> str | None:
    """`misfit` of sections; what is imported shows its traits only when the system is built."""
    if any(isinstance(section, parts.Import) for section in (prior, guide, decoder)):
        return None
    return misfit(prior=prior, guide=guide, decoder=decoder)


def _stage_fault(recipe: Recipe, stage: Stage) -> str | None:
    """What a stage asks for that this recipe's system does not have."""
    prior, guide, decoder = recipe.model.prior, recipe.guide, recipe.model.decoder
    sees = any(isinstance(s, parts.Import) or s.sees for s in (prior, guide, decoder))
    simple = [name for name in ("standard", "visual") if sees or name == "standard"]
    heard = [name for name in ("audio", "visual") if sees or name == "audio"]
    available = parts_of(recipe)
    asked: list[tuple[str, str, list[str]]] = [
        ("prior", stage.prior or prior.kind, [*simple, prior.kind]),
        ("guide", stage.guide or guide.kind, [*heard, guide.kind]),
    ]
    asked += [("learn", part, available) for part in stage.learn or ("nothing",)]
    for name, value, choices in asked:
        if value not in choices:
            return f"{name}: expected one of {', '.join(dict.fromkeys(choices))} in this model, found {value}"
    return _pair_fault(recipe, stage) or _warm_start_fault(recipe, stage, available)


def _pair_fault(recipe: Recipe, stage: Stage) -> str | None:
    """Why a stage's prior and guide cannot meet, or not on its data."""
    own_prior = stage.prior in (None, recipe.model.prior.kind)
    own_guide = stage.guide in (None, recipe.guide.kind)
    prior = recipe.model.prior if own_prior else SIMPLE_PRIORS[str(stage.prior)]
    guide = recipe.guide if own_guide else SIMPLE_GUIDES[str(stage.guide)]
    fault = section_fault(prior, guide, recipe.model.decoder)
    if fault:
        return f"guide: {fault}"
    if isinstance(prior, parts.VampPrior) and not own_guide:
        return f"guide: expected the model's own, through which a vamp prior's pseudo-inputs go, found {stage.guide}"
    if isinstance(guide, parts.VisualGuide) and stage.data != "video":
        return "data: expected video, because a visual guide knows nothing of a frame without lips, found all"
    return None


def parts_of(recipe: Recipe) -> list[str]:
    """The parts of a recipe's system that a stage may learn."""
    prior, guide, stages = recipe.model.prior, recipe.guide, recipe.training.stages
    numbers = (
        parts.MixturePrior
        | parts.VisualMixturePrior
        | parts.VampPrior
        | parts.Ar1Prior
        | parts.RandomWalkPrior
    )
    has = {
        "decoder": True,
        "likelihood": isinstance(recipe.model.likelihood, parts.Import),
        "audio": hasattr(guide, "audio") or any(stage.guide == "audio" for stage in stages),
        "visual": hasattr(guide, "visual") or any(stage.guide == "visual" for stage in stages),
        "joint": hasattr(guide, "joint"),
        "responsibility": getattr(guide, "responsibility", "") == "amortised",
        "visual-prior": isinstance(prior, parts.VisualPrior | parts.VisualMixturePrior)
        or any(stage.prior == "visual" for stage in stages),
        "prior": isinstance(prior, numbers | parts.Import),
        "guide": isinstance(guide, parts.Import),
    }
    return [name for name, present in has.items() if present]


def _warm_start_fault(recipe: Recipe, stage: Stage, available: list[str]) -> str | None:
    """Weights can be copied only between the two visual networks, and only if they have the same layers."""
    pair = {"visual", "visual-prior"}
    for target, origin in stage.warm_start.items():
        if {target, origin} != pair or not pair <= set(available):
            return f"warm_start: expected visual and visual-prior of this model, found {target} and {origin}"
        prior, encoder = recipe.model.prior, getattr(recipe.guide, "visual", parts.VisualEncoder())
        if isinstance(prior, parts.VisualPrior | parts.VisualMixturePrior):
            layers = [(section.hidden, section.dropout > 0) for section in (encoder, prior)]
            if layers[0] != layers[1]:
                return "warm_start: expected guide.visual and model.prior of the same layers, found others"
    return None
