"""The lips of a noisy set, spoilt on purpose: written beside its mixtures together with the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pyro_minvae.config.schema import CropConfig
from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.manifest import NoisyItem
from pyro_minvae.evaluation.mixing import stable_seed
from pyro_minvae.media.corruption import Corruption, corrupt
from pyro_minvae.media.crop_files import read_wrong, save_lips
from pyro_minvae.media.faces import Face
from pyro_minvae.media.mouths import read_lips
from pyro_minvae.types import MouthCrops


class Corrupter(NamedTuple):
    """Spoils the lips of mixtures as `what` says; the random numbers of each depend on `seed` and its own name alone.

    `donors` are the videos of a corpus by the ids of their clips: of the others one is drawn wherever lips are
    swapped. `crops` says how large they are and which face counts.
    """

    what: Corruption
    donors: Mapping[str, Path]
    seed: int = 0
    crops: CropConfig = CropConfig()

    def __call__(self, item: NoisyItem, target: Path) -> NoisyItem:
        """Write the spoilt lips of `item` to `target` (.npz), with the truth as `wrong`, and name them in its place.

        An item without a video stays as it is.

        Raises:
            InputError: for a video that cannot be read, another clip's lips where there is none, or a place that
                cannot be written.
        """
        if item.video is None:
            return item
        own = self._read(item.video)
        stream = stable_seed("lips", self.seed, item.id, item.noise, f"{item.snr_db:g}", self.what)
        donor = self._donor(item, stream) if self.what.needs_donor else None
        lips, wrong = corrupt(own, self.what, generator=np.random.default_rng(stream), donor=donor)
        before = read_wrong(item.video)
        save_lips(target, lips, wrong if before is None else wrong | before)
        done = str(self.what) if not item.corrupt else f"{item.corrupt}, {self.what}"
        return item.model_copy(update={"video": target, "corrupt": done})

    def all(
        self, items: Sequence[NoisyItem], folder: Path, advance: Callable[[str], None] | None = None
    ) -> list[NoisyItem]:
        """All of `items`, with their lips in `folder`; `advance` hears of each.

        One whose own video cannot be read stays as it is: whoever uses it gets to know, and the others go on.
        """
        self.check()
        made = []
        for number, item in enumerate(items):
            if advance:
                advance(item.id)
            made.append(self(item, folder / f"{number}.npz") if self._can_read(item.video) else item)
        return made

    def check(self) -> None:
        """Raise `InputError` where there is nothing to spoil, or no other clip to swap lips with."""
        least = 2 if self.what.needs_donor else 1
        if len(self.donors) < least:
            raise InputError(
                f"--corrupt {self.what}: expected at least {least} clips with lips, found {len(self.donors)}"
            )

    def _donor(self, item: NoisyItem, stream: int) -> MouthCrops:
        """The first clip with a face in an order of the other clips that is drawn for this item."""
        others = sorted(
            (name for name in self.donors if name != item.id), key=lambda n: stable_seed(stream, n)
        )
        for name in others:
            if self._can_read(self.donors[name]) and (lips := self._read(self.donors[name])).valid.any():
                return lips
        raise InputError(
            f"--corrupt {self.what}: expected another clip with a face, found none for {item.id}"
        )

    def _read(self, video: Path) -> MouthCrops:
        return _read(video, self.crops.size, self.crops.face)

    def _can_read(self, video: Path | None) -> bool:
        try:
            return video is not None and bool(self._read(video))
        except InputError:
            return False


# Each clip is wanted once for every noise and SNR.
@lru_cache(maxsize=64)
def _read(video: Path, size: int, face: Face) -> MouthCrops:
    return read_lips(video, size=size, face=face)
