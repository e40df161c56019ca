"""Lip crops to vectors on the STFT clock: principal components, context in time, alignment by timestamp."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_minvae.config.schema import CropConfig, VisualFeatureConfig
from pyro_minvae.types import MouthCrops, Visual

# A frame of sound has lips if a video frame with a face lies this near (s): the frame time of 10 fps video.
REACH_S = 0.1

# Lips are new beyond this multiple of the newest training clip as it is. Of clips that are shifted and zoomed at random
# the newest would be three times as new, and as new as other faces are (`benchmarks/gate.py`).
MARGIN = 1.25

# Variance under every component's own, as a share of the largest.
FLOOR = 0.01

# Clips, and frames of them, enough to find the components of one corpus' lips.
CLIPS, FRAMES = 150, 5000


class LipProjection(nn.Module):
    """u_t = diag(scale)^-1 B' (c_t - mean of the clip): principal components of how a mouth moves.

    `c_t` are standardised crops. The clip's own mean is taken away, so that what remains is movement, not a face.
    `basis` [P, M] and `scale` [M] are fitted once on training clips and travel with the weights (P = size^2 pixels,
    M components), as does `limit`, the novelty above which lips are too unlike those of training to be of use.
    """

    basis: Tensor
    scale: Tensor
    limit: Tensor

    def __init__(self, crops: CropConfig, lips: VisualFeatureConfig) -> None:
        super().__init__()
        pixels = crops.size**2
        self.size = crops.size
        self.lips = lips
        self.register_buffer("basis", torch.zeros(pixels, lips.components))
        self.register_buffer("scale", torch.ones(lips.components))
        self.register_buffer("limit", torch.ones(()))

    @property
    def typical(self) -> float:
        """The mean square of one feature over the training frames: what is left of 1 by the floor under `scale`."""
        floor = FLOOR * self.scale[0] ** 2 / (1 + FLOOR)
        return float((1 - floor / self.scale**2).mean())

    def fit(self, clips: Sequence[MouthCrops]) -> None:
        """Fit the components on some `FRAMES` valid frames of some `CLIPS` clips spread over `clips`.

        Raises:
            ValueError: with fewer frames than components.
        """
        seen = [clip for clip in clips if clip.valid.any()]
        some = seen[:: max(1, len(seen) // CLIPS)]
        total = sum(int(clip.valid.sum()) for clip in some)
        if total <= self.lips.components:
            raise ValueError(f"expected more than {self.lips.components} lip crops with a face, got {total}")
        stride = max(1, total // FRAMES)
        pieces = [
            movement(torch.as_tensor(c.crops), torch.as_tensor(c.valid))[c.valid][::stride] for c in some
        ]
        flat = torch.cat(pieces)
        _, spread, basis = torch.pca_lowrank(flat, q=self.lips.components, center=False, niter=4)
        self.basis.copy_(basis)
        deviation = spread / flat.shape[0] ** 0.5
        # Full whitening would blow the faintest components (camera noise) up to the size of the lips.
        self.scale.copy_((deviation**2 + FLOOR * deviation[0] ** 2).sqrt())
        self.limit.fill_(min(MARGIN * max(self.novelty(clip) for clip in some), 1.0))

    def novelty(self, lips: MouthCrops) -> float:
        """The share of a clip's movement that the components miss: 0 for lips like those of training, up to 1."""
        device = self.basis.device
        valid = torch.as_tensor(lips.valid)
        flat = movement(torch.as_tensor(lips.crops).to(device), valid.to(device))[valid]
        return float(1 - (flat @ self.basis).square().sum() / flat.square().sum().clamp_min(1e-12))

    def forward(self, crops: Tensor, valid: Tensor) -> Tensor:
        """Crops [T, size, size], grey 0 to 255, of one clip to vectors [T, M]."""
        return movement(crops, valid) @ self.basis / self.scale

    def visual(self, lips: MouthCrops, times: Tensor, crops: Tensor | None = None) -> Visual:
        """The lips as the networks see them at `times` [N] (s); `crops` (augmented) stand in for the track's own."""
        device = self.basis.device
        if crops is None:
            crops = torch.as_tensor(lips.crops, device=device)
        valid = torch.as_tensor(lips.valid, device=device)
        stamps = torch.as_tensor(lips.times, dtype=torch.float64, device=device)
        return on_clock(self(crops, valid), stamps, valid, times.to(device), self.lips)

    def missing(self, frames: int) -> Visual:
        """The features of a recording without lips: all invalid."""
        device = self.basis.device
        features = torch.zeros(frames, self.lips.dimension, device=device)
        return Visual(features, torch.zeros(frames, dtype=torch.bool, device=device))


def movement(crops: Tensor, valid: Tensor) -> Tensor:
    """Standardised crops [T, P] less their mean over the valid frames of the clip."""
    flat = standardise(crops)
    return flat - flat[valid].mean(0) if bool(valid.any()) else flat


def standardise(crops: Tensor) -> Tensor:
    """Crops [T, h, w] to [T, h w] of zero mean and unit variance each, so that lighting drops out."""
    flat = crops.reshape(crops.shape[0], -1).float()
    flat = flat - flat.mean(-1, keepdim=True)
    return flat / flat.std(-1, keepdim=True).clamp_min(1.0)


def on_clock(
    track: Tensor,
    times: Tensor,
    valid: Tensor,
    clock: Tensor,
    lips: VisualFeatureConfig,
    *,
    everywhere: bool = False,
) -> Visual:
    """Sample a track [T, M] with timestamps `times` [T] s at the instants `clock` [N] s, with context.

    Values are interpolated linearly between the valid frames; a frame of sound whose nearest video frame is invalid
    or further than `REACH_S` away is marked invalid. Its features are zero, or with `everywhere` what was interpolated.
    """
    offsets = lips.spacing_s * torch.arange(-lips.context, lips.context + 1, device=clock.device)
    if not bool(valid.any()):
        shape = (clock.shape[0], track.shape[-1] * len(offsets))
        return Visual(track.new_zeros(shape), torch.zeros_like(clock, dtype=torch.bool))
    instants = (clock[:, None] + offsets).reshape(-1)  # [N (2 context + 1)]
    sampled = _interpolate(track[valid], times[valid], instants).reshape(clock.shape[0], -1)
    _, seen = seen_at(clock, times, valid)
    return Visual(sampled if everywhere else sampled * seen[:, None], seen)


def seen_at(clock: Tensor, times: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """For each instant [N] (s) the index of the nearest video frame, and whether it shows a face near enough.

    `times` [T] s and `valid` [T] are the video's; near enough is `REACH_S`.
    """
    nearest = nearest_instant(times, clock)
    return nearest, valid[nearest] & ((clock - times[nearest]).abs() <= REACH_S)


def _interpolate(track: Tensor, times: Tensor, at: Tensor) -> Tensor:
    """Linear interpolation of [T, M] at instants [Q], constant beyond the ends."""
    right = torch.searchsorted(times, at).clamp(1, max(len(times) - 1, 1))
    if len(times) == 1:
        return track.expand(len(at), -1)
    left = right - 1
    share = ((at - times[left]) / (times[right] - times[left])).clamp(0, 1).to(track.dtype)[:, None]
    return torch.lerp(track[left], track[right], share)


def nearest_instant(times: Tensor, clock: Tensor) -> Tensor:
    """The index [N] of the one among `times` [T], in order, nearest to each of `clock` [N]; the earlier of two.

    A table of all distances would fill the memory.
    """
    after = torch.searchsorted(times, clock).clamp(max=len(times) - 1)
    before = (after - 1).clamp_min(0)
    return torch.where(clock - times[before] <= times[after] - clock, before, after)


def augment(crops: Tensor, generator: torch.Generator, *, shift: float = 0.06, zoom: float = 0.08) -> Tensor:
    """Shift (share of the size), scale and brighten the crops [T, h, w] of one clip at random, alike for all frames."""
    draw = torch.rand(4, generator=generator) * 2 - 1
    ratio = float(1 + zoom * draw[0])
    affine = torch.tensor([[ratio, 0, 2 * shift * float(draw[1])], [0, ratio, 2 * shift * float(draw[2])]])
    images = crops[:, None].float()
    grid = functional.affine_grid(affine.expand(1, 2, 3), [1, *images.shape[1:]], align_corners=False)
    moved = functional.grid_sample(
        images.transpose(0, 1), grid.to(images.device), padding_mode="border", align_corners=False
    )
    # Brightness and contrast drop out in `standardise`; a gamma does not.
    gamma = float(2 ** (0.4 * draw[3]))
    return 255 * (moved[0] / 255).clamp(0, 1) ** gamma
