"""The density that the EM loop uses is that of the Pyro model of a noisy recording, alpha summed out."""

from __future__ import annotations

import itertools

import pyro.poutine as poutine
import pytest
import torch
from laws import BINS, PRIORS, make_frames, make_model, normal_draws
from torch import Tensor

from pyro_minvae.inference.targets import marginal_target
from pyro_minvae.models.mixture import Source, noisy_speech
from pyro_minvae.types import Visual

COUNT, LATENT = 4, 3
SPEAKERS = [(kind,) for kind in PRIORS] + [("visual-mixture", "mixture"), ("visual", "standard")]


class Scene:
    """Random speakers, noise and gains, and a point z for each speaker."""

    def __init__(self, kinds: tuple[str, ...], *, lips: bool = True) -> None:
        self.sources = [
            Source(
                make_model(kind, seed=j), make_frames(COUNT, seed=j).visual if lips else None, torch.zeros(())
            )
            for j, kind in enumerate(kinds)
        ]
        self.power = 3 * make_frames(COUNT, seed=40).power
        self.noise = normal_draws(COUNT, BINS, seed=41).exp()
        self.gain = normal_draws(len(kinds), COUNT, seed=42).exp()
        self.z = normal_draws(len(kinds), COUNT, LATENT, seed=43)

    def variances(self) -> list[Tensor]:
        """g sigma(z) of each speaker."""
        return [
            self.gain[j][:, None] * source.model.variance(self.z[j], source.visual)
            for j, source in enumerate(self.sources)
        ]

    def log_joint(self) -> Tensor:
        """log p(z_1..z_J, x) of the whole recording by Pyro: a sum over all values of all alpha, frame by frame."""
        choices = [(0.0, 1.0) if source.model.prior.mixed else (None,) for source in self.sources]
        values = [self.log_joint_given(alphas) for alphas in itertools.product(*choices)]
        return torch.stack(values).logsumexp(0).sum()

    def log_joint_given(self, alphas: tuple[float | None, ...]) -> Tensor:
        """log p(alpha, z, x) [N] for the same alphas in all frames, which are independent."""
        sites = {f"z_{j}": self.z[j] for j in range(len(self.sources))}
        for j, alpha in enumerate(alphas):
            if alpha is not None:
                sites[f"alpha_{j}"] = torch.full((COUNT,), alpha, dtype=torch.float64)
        model = poutine.condition(noisy_speech, sites)
        trace = poutine.trace(model).get_trace(self.sources, self.noise, self.gain, self.power)
        trace.compute_log_prob()
        assert torch.equal(trace.nodes["noise"]["value"], self.noise)
        return sum(trace.nodes[name]["log_prob"] for name in [*sites, "x"])


@pytest.mark.parametrize("lips", [True, False])
@pytest.mark.parametrize("kinds", SPEAKERS)
@torch.no_grad()
def test_target_of_the_loop_is_the_traced_density(kinds: tuple[str, ...], lips: bool) -> None:
    scene = Scene(kinds, lips=lips)
    variances = scene.variances()
    for j, source in enumerate(scene.sources):
        others = sum((v for i, v in enumerate(variances) if i != j), start=scene.noise)
        target = marginal_target(
            source.model.given(source.visual), scale=scene.gain[j][:, None], others=others, power=scene.power
        )
        total = target(scene.z[j]).sum()
        # The target of one speaker leaves out what does not depend on its z: the priors of the others.
        for i, other in enumerate(scene.sources):
            if i != j:
                total = total + other.model.log_prior(scene.z[i], other.visual).sum()
        torch.testing.assert_close(total, scene.log_joint(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kinds", SPEAKERS)
def test_its_gradient_too(kinds: tuple[str, ...]) -> None:
    scene = Scene(kinds)
    scene.z.requires_grad_()
    (wanted,) = torch.autograd.grad(scene.log_joint(), scene.z)
    variances = [v.detach() for v in scene.variances()]
    for j, source in enumerate(scene.sources):
        others = sum((v for i, v in enumerate(variances) if i != j), start=scene.noise)
        target = marginal_target(
            source.model.given(source.visual), scale=scene.gain[j][:, None], others=others, power=scene.power
        )
        z = scene.z[j].detach().requires_grad_()
        (got,) = torch.autograd.grad(target(z).sum(), z)
        torch.testing.assert_close(got, wanted[j], rtol=1e-9, atol=1e-12)


def test_sites_of_the_recording() -> None:
    scene = Scene(("mixture", "standard"))
    trace = poutine.trace(noisy_speech).get_trace(scene.sources, scene.noise, scene.gain, scene.power)
    assert {"alpha_0", "z_0", "z_1", "noise", "x"} <= set(trace.nodes)
    assert "alpha_1" not in trace.nodes
    assert trace.nodes["x"]["is_observed"]


@torch.no_grad()
def test_chains_and_recordings_are_axes_of_the_target() -> None:
    """z [R, B, N, L] with lips [B, N, D] gives [R, B, N], each entry as if it stood alone."""
    model, frames = make_model("visual-mixture"), make_frames(2 * COUNT)
    lips = Visual(frames.visual.features.reshape(2, COUNT, -1), frames.visual.valid.reshape(2, COUNT))
    power, z = frames.power.reshape(2, COUNT, BINS), normal_draws(3, 2, COUNT, LATENT, seed=44)
    gain, others = normal_draws(2, COUNT, seed=45).exp(), normal_draws(2, COUNT, BINS, seed=46).exp()
    whole = marginal_target(model.given(lips), scale=gain[..., None], others=others, power=power)(z)
    assert whole.shape == (3, 2, COUNT)
    for b in range(2):
        source = Source(model, Visual(lips.features[b], lips.valid[b]), z)
        alone = marginal_target(
            source.model.given(source.visual), scale=gain[b][:, None], others=others[b], power=power[b]
        )
        for r in range(3):
            torch.testing.assert_close(alone(z[r, b]), whole[r, b])
