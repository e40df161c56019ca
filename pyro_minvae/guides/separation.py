"""The guide of separation: one speaker's z from the mixture of all voices and that speaker's lips."""

from __future__ import annotations

from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_minvae.guides.base import Guide
from pyro_minvae.models.distributions import normal
from pyro_minvae.models.networks import ContextNetwork
from pyro_minvae.types import Visual


class MixedSpeechGuide(Guide):
    """q(z_n | x, v) = N(m_n(x, v), diag s_n(x, v)) from the sounds and the lips of the frames around n.

    Trained on mixed speech, `encoder_input` = |s_1 + s_2 + ...|^2, its target is one voice of it, that of the lips
    (Nguyen et al. 2020; derivations, eq. 7.9). The posterior is independent over frames, given all that is heard.
    """

    visual = True
    led = True

    def __init__(self, joint: ContextNetwork) -> None:
        super().__init__()
        self.joint = joint
        self.reach = joint.reach

    def posteriors(
        self, power: Tensor, visual: Visual | None, encoder_input: Tensor | None = None
    ) -> tuple[TorchDistribution, ...]:
        return (normal(*self.joint(power if encoder_input is None else encoder_input, visual)),)
