"""A prior that the package does not know."""

import math

import torch
from pyro.distributions import Laplace
from torch import nn

from pyro_minvae.models.priors import Prior


class LaplacePrior(Prior):
    """z_l ~ Laplace(0, b_l): a sharper peak and heavier tails than the normal; b is learned and starts at `scale`."""

    def __init__(self, shapes, scale=1.0):
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((shapes.latent,), math.log(scale)))

    def conditionals(self, visual):
        b = self.log_scale.exp()
        return (Laplace(torch.zeros_like(b), b).to_event(1),)
