"""The density that the EM loop uses is that of the Pyro model of a noisy recording, alpha summed out."""

from __future__ import annotations

import itertools

import pyro.poutine as poutine
import pytest
import torch
from laws import BINS, COUPLED, DOF, MODELS, make_frames, make_model, make_sequences, normal_draws
from pyro.distributions import Gamma
from torch import Tensor

from pyro_minvae.inference.mcem.targets import marginal_target
from pyro_minvae.inference.mcmc.base import Target
from pyro_minvae.models.noisy import NoisyMixture, Source

COUNT, LATENT = 3, 3
Kinds = tuple[str, str, str]
"""Prior, decoder and likelihood of one speaker."""
PLAIN = ("plain", "complex-gaussian")
SPEAKERS: list[tuple[Kinds, ...]] = [
    *((kinds,) for kinds in MODELS),
    (("visual-mixture", *PLAIN), ("mixture", "lips", "student-t")),
    (("visual", *PLAIN), ("standard", *PLAIN)),
    # A switch next to frames that another speaker couples.
    (("mixture", *PLAIN), ("ar1", "plain", "student-t")),
    (("random-walk", *PLAIN), ("standard", "context", "complex-gaussian")),
]


def name_of(speakers: tuple[Kinds, ...]) -> str:
    return "+".join("-".join(kinds) for kinds in speakers)


class Scene:
    """Random speakers, noise and gains; a point z for each speaker and w for those with heavy tails."""

    def __init__(self, speakers: tuple[Kinds, ...], *, lips: bool = True) -> None:
        self.sources = [
            Source(
                make_model(*kinds, seed=j),
                make_frames(COUNT, seed=j).visual if lips else None,
                torch.zeros(()),
            )
            for j, kinds in enumerate(speakers)
        ]
        count = len(speakers)
        self.power = 3 * make_frames(COUNT, seed=40).power
        self.noise = normal_draws(COUNT, BINS, seed=41).exp()
        self.gain = normal_draws(count, COUNT, seed=42).exp()
        self.z = normal_draws(count, COUNT, LATENT, seed=43)
        w = normal_draws(count, COUNT, BINS, seed=44).exp()
        weighted = torch.tensor([source.model.likelihood.weighted for source in self.sources])
        self.w = torch.where(weighted[:, None, None], w, 1.0)
        self.weighted = [j for j, source in enumerate(self.sources) if source.model.likelihood.weighted]

    def scale(self, j: int) -> Tensor:
        """g / w [N, F]."""
        return self.gain[j][:, None] / self.w[j]

    def target(self, j: int, variances: list[Tensor]) -> Target:
        """What the chains of speaker j sample."""
        source = self.sources[j]
        others = sum((v for i, v in enumerate(variances) if i != j), start=self.noise)
        return marginal_target(
            source.model.given(source.visual), scale=self.scale(j), others=others, power=self.power
        )

    def variances(self) -> list[Tensor]:
        """g sigma(z) / w of each speaker."""
        return [
            self.scale(j) * source.model.variance(self.z[j], source.visual)
            for j, source in enumerate(self.sources)
        ]

    def log_weights(self) -> Tensor:
        """log p(w)."""
        prior = Gamma(torch.tensor(DOF / 2).double(), torch.tensor(DOF / 2).double())
        return sum((prior.log_prob(self.w[j]).sum() for j in self.weighted), start=torch.zeros(()))

    def log_joint(self) -> Tensor:
        """log p(z, w, x) of the whole recording by Pyro: a sum over the values of every alpha in every frame."""
        mixed = [j for j, source in enumerate(self.sources) if source.model.prior.mixed]
        values = [
            self.log_joint_given(
                dict(zip(mixed, torch.tensor(bits).double().reshape(len(mixed), COUNT), strict=True))
            )
            for bits in itertools.product((0.0, 1.0), repeat=COUNT * len(mixed))
        ]
        return torch.stack(values).logsumexp(0)

    def log_joint_given(self, alphas: dict[int, Tensor]) -> Tensor:
        """log p(alpha, z, w, x)."""
        sites = {f"z_{j}": self.z[j] for j in range(len(self.sources))}
        sites |= {f"alpha_{j}": alpha for j, alpha in alphas.items()}
        sites |= {f"w_{j}": self.w[j] for j in self.weighted}
        model = poutine.condition(NoisyMixture(self.sources, self.noise), {**sites, "gain": self.gain})
        trace = poutine.trace(model).get_trace(self.power)
        assert torch.equal(trace.nodes["noise"]["value"], self.noise)
        return trace.log_prob_sum()


@pytest.mark.parametrize("lips", [True, False])
@pytest.mark.parametrize("speakers", SPEAKERS, ids=name_of)
@torch.no_grad()
def test_target_of_the_loop_is_the_traced_density(speakers: tuple[Kinds, ...], lips: bool) -> None:
    """(derivations, eq. 6.7, 7.4); of coupled frames the target's factors sum to it."""
    scene = Scene(speakers, lips=lips)
    variances, joint = scene.variances(), scene.log_joint()
    for j in range(len(speakers)):
        factors = scene.target(j, variances)(scene.z[j])
        assert factors.shape == (COUNT,)
        total = factors.sum() + scene.log_weights()
        # The target of one speaker leaves out what does not depend on its z: the priors of the others.
        for i, other in enumerate(scene.sources):
            if i != j:
                total = total + other.model.log_prior(scene.z[i], other.visual).sum()
        torch.testing.assert_close(total, joint, rtol=1e-11, atol=0)


@pytest.mark.parametrize("speakers", [s for s in SPEAKERS if len(s) == 1 or s[0][0] in COUPLED], ids=name_of)
def test_its_gradient_too(speakers: tuple[Kinds, ...]) -> None:
    scene = Scene(speakers)
    scene.z.requires_grad_()
    (wanted,) = torch.autograd.grad(scene.log_joint(), scene.z)
    variances = [v.detach() for v in scene.variances()]
    for j in range(len(speakers)):
        z = scene.z[j].detach().requires_grad_()
        (got,) = torch.autograd.grad(scene.target(j, variances)(z).sum(), z)
        torch.testing.assert_close(got, wanted[j], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("lips", [True, False])
@pytest.mark.parametrize("speakers", SPEAKERS, ids=name_of)
def test_sites_of_the_recording(speakers: tuple[Kinds, ...], lips: bool) -> None:
    """Their names, and one value for every frame."""
    scene = Scene(speakers, lips=lips)
    mixture = poutine.condition(NoisyMixture(scene.sources, scene.noise), {"gain": scene.gain})
    trace = poutine.trace(mixture).get_trace(scene.power)
    shapes = {name: trace.nodes[name]["value"].shape for name in trace.nodes if name[0] in "azwx"}
    expected = {"x": (COUNT, BINS)}
    for j, source in enumerate(scene.sources):
        expected[f"z_{j}"] = (COUNT, LATENT)
        if source.model.prior.mixed:
            expected[f"alpha_{j}"] = (COUNT,)
        if source.model.likelihood.weighted:
            expected[f"w_{j}"] = (COUNT, BINS)
    assert shapes == expected
    assert trace.nodes["x"]["is_observed"]
    coupled = any(source.model.coupled for source in scene.sources)
    assert ("frames" in trace.nodes) != coupled


@pytest.mark.parametrize(("prior", "decoder", "likelihood"), MODELS)
@torch.no_grad()
def test_chains_and_recordings_are_axes_of_the_target(prior: str, decoder: str, likelihood: str) -> None:
    """z [R, B, N, L] with lips [B, N, D] gives [R, B, N], each entry as if it stood alone."""
    model, (power, lips) = make_model(prior, decoder, likelihood), make_sequences(2, COUNT)
    z, scale = normal_draws(3, 2, COUNT, LATENT, seed=44), normal_draws(2, COUNT, BINS, seed=45).exp()
    others = normal_draws(2, COUNT, BINS, seed=46).exp()
    whole = marginal_target(model.given(lips), scale=scale, others=others, power=power)(z)
    assert whole.shape == (3, 2, COUNT)
    for b in range(2):
        one = lips._replace(features=lips.features[b], valid=lips.valid[b])
        alone = marginal_target(model.given(one), scale=scale[b], others=others[b], power=power[b])
        for r in range(3):
            torch.testing.assert_close(alone(z[r, b]), whole[r, b])
