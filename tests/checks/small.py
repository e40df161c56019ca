"""Settings under which the whole check of a recipe takes a second or two."""

from __future__ import annotations

from typing import Any

SMALL = (
    "stft.window=32",
    "stft.hop=16",
    "lips.components=3",
    "lips.context=1",
    "model.latent=2",
    "model.decoder.hidden=[8]",
)
# One stage that suits any parts: the check does not train.
ANY_STAGE = "training.stages=[{name='all', epochs=1, data='video'}]"


def imported(key: str, name: str, **options: Any) -> str:
    """The setting that takes a part from `outside_parts`."""
    inside = ", ".join(f"{option} = {value}" for option, value in options.items())
    return f"{key}={{kind = 'import', target = 'outside_parts:{name}', options = {{{inside}}}}}"


def arguments(recipe: str, *settings: str, small: tuple[str, ...] = SMALL) -> list[str]:
    """The command's arguments for few small frames of a recipe with some settings."""
    chosen = [word for setting in (*small, *settings) for word in ("--set", setting)]
    return ["elbo", recipe, "--frames", "5", "--draws", "200", *chosen]
