"""The contract of guides: the inference networks q of a `SpeechModel`, with its signature and its sites."""

from __future__ import annotations

from pyro.distributions import Normal
from torch import Tensor, nn

from pyro_minvae.models.priors import Gaussian
from pyro_minvae.types import Visual


class Guide(nn.Module):
    """q(alpha, z | s, v).

    To write a new one, subclass this and answer `posteriors`, `forward` and `propose`. `mixed` guides have the site
    "alpha"; `visual` guides look at lips.
    """

    mixed = False
    visual = False

    def posteriors(
        self, power: Tensor, visual: Visual | None, heard: Tensor | None = None
    ) -> tuple[Gaussian, ...]:
        """The Gaussians q(z | alpha, s, v), at index alpha; a single one where there is no alpha."""
        raise NotImplementedError(f"{type(self).__name__} lacks posteriors()")

    def forward(
        self,
        power: Tensor,
        visual: Visual | None = None,
        *,
        heard: Tensor | None = None,
        responsibility: Tensor | None = None,
    ) -> Tensor:
        """The Pyro guide.

        Args:
            power: |s|^2 [N, F], linear power at full scale 1.
            visual: lips of the same frames, or None.
            heard: what the audio encoder gets in place of `power` (training corrupts the input, not the target).
            responsibility: q(alpha_n = 1) [N] where there is an alpha.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks forward()")

    def propose(self, power: Tensor, visual: Visual | None = None) -> Normal:
        """Where the chains of a noisy recording start: `power` is the mixture's [..., N, F]."""
        raise NotImplementedError(f"{type(self).__name__} lacks propose()")
