"""A guide that the package does not know."""

import torch
from torch import nn

from pyro_minvae.guides.base import Guide
from pyro_minvae.models.distributions import normal


class NudgedGuide(Guide):
    """q(z | s, v) = N(m(s) + B v, diag exp(r(s))^2): the lips v nudge the mean that the sound s gives."""

    visual = True

    def __init__(self, shapes, hidden=64):
        super().__init__()
        self.sound = nn.Sequential(
            nn.Linear(shapes.bins, hidden), nn.Tanh(), nn.Linear(hidden, 2 * shapes.latent)
        )
        self.lips = nn.Linear(shapes.lips, shapes.latent, bias=False)

    def posteriors(self, power, visual, encoder_input=None):
        power = power if encoder_input is None else encoder_input
        mean, log_scale = self.sound((power + 1e-4).log() / 5).chunk(2, -1)
        if visual is not None:  # features of frames without a face may be anything
            mean = mean + self.lips(torch.where(visual.valid[..., None], visual.features, 0.0))
        return (normal(mean, log_scale.clamp(-7, 4).exp()),)
