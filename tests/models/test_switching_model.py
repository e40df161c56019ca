"""Pyro's bound on switching speech, modes enumerated, is log Z of our chain (derivations, eq. 9.5)."""

from __future__ import annotations

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from laws import BINS, make_frames, make_model, normal_draws
from pyro import poutine
from pyro.infer import SVI, Predictive, TraceEnum_ELBO, config_enumerate, infer_discrete
from torch import Tensor

from pyro_minvae.inference.switching.hmm import forward_backward
from pyro_minvae.inference.switching.posterior import ModePosterior
from pyro_minvae.models.gain import GainPrior
from pyro_minvae.models.noisy import Source
from pyro_minvae.models.switching import SwitchingGuide, SwitchingMixture

COUNT, LATENT = 4, 3


class Scene:
    """Three modes at a noisy recording; r(z | m) at one draw each, with their bounds `emissions` [N, M]."""

    def __init__(self, *priors: str) -> None:
        self.power = 3 * make_frames(COUNT, seed=40).power
        self.noise = normal_draws(COUNT, BINS, seed=41).exp()
        self.transition = normal_draws(len(priors), len(priors), seed=42).softmax(-1)
        self.initial = normal_draws(len(priors), seed=43).softmax(-1)
        self.modes = [
            Source(
                make_model(prior, "plain", "complex-gaussian", seed=k),
                make_frames(COUNT, seed=k).visual,
                normal_draws(COUNT, LATENT, seed=50 + k),
                normal_draws(COUNT, LATENT, seed=60 + k).exp(),
            )
            for k, prior in enumerate(priors)
        ]
        self.fits = []
        for k, mode in enumerate(self.modes):
            fit = ModePosterior(mode, self.power, draws=1, gain_prior=GainPrior(1.0, 0.0))
            fit.renew(torch.Generator().manual_seed(k))
            fit.gain = normal_draws(COUNT, seed=70 + k).exp()
            self.fits.append(fit)
        with torch.no_grad():
            self.emissions = torch.stack([fit.bound(self.noise) for fit in self.fits], -1)

    def draw(self, n: int, m: Tensor) -> dist.TorchDistribution:
        """The draws as a distribution whose log density makes log p - log r minus the closed divergence."""
        draws, densities = [], []
        for fit in self.fits:
            z = (fit.mean + fit.log_scale.exp() * fit.epsilon[0])[n]
            prior = fit.speech.prior.conditionals[0]
            kl = torch.distributions.kl_divergence(
                dist.Normal(fit.mean, fit.log_scale.exp()).to_event(1), prior.expand((COUNT,))
            )
            draws.append(z)
            densities.append(prior.expand((COUNT,)).log_prob(z.expand(COUNT, -1))[n] + kl[n])
        return dist.Delta(torch.stack(draws)[m], log_density=torch.stack(densities)[m], event_dim=1)

    def model(self) -> SwitchingMixture:
        gain = torch.stack([fit.gain for fit in self.fits])
        return SwitchingMixture(
            self.modes, self.noise, gain, transition=self.transition, initial=self.initial
        )

    @torch.no_grad()
    def elbo(self, pairwise: Tensor, first: Tensor) -> float:
        guide = SwitchingGuide(self.draw, pairwise=pairwise, first=first)
        return -float(TraceEnum_ELBO(max_plate_nesting=0).loss(self.model(), guide, self.power))

    @torch.no_grad()
    def known(self, power: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """A draw of z as sites, and log p(z_n | m) + log p(x_n | z_n, m) [N, M] there, from formulas."""
        z, logs = normal_draws(COUNT, LATENT, seed=80), []
        for mode, fit in zip(self.modes, self.fits, strict=True):
            variance = fit.gain[:, None] * mode.model.variance(z, mode.visual) + self.noise
            logs.append(mode.model.log_prior(z, mode.visual) - (variance.log() + power / variance).sum(-1))
        return {f"z_{n}": z[n] for n in range(COUNT)}, torch.stack(logs, -1)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene("standard", "visual", "visual")


def test_the_enumerated_bound_is_the_evidence_of_the_chain(scene: Scene) -> None:
    found = forward_backward(scene.emissions, scene.transition.log(), scene.initial.log())
    assert scene.elbo(found.pairwise, found.posterior[0]) == pytest.approx(
        float(found.log_evidence), rel=1e-9
    )


def test_any_other_chain_has_a_lower_bound_by_its_divergence(scene: Scene) -> None:
    best = forward_backward(scene.emissions, scene.transition.log(), scene.initial.log())
    other = forward_backward(0 * scene.emissions, scene.transition.log(), scene.initial.log())
    bound = scene.elbo(other.pairwise, other.posterior[0])
    # The prior as r(m): E_p[sum log b], no divergence.
    expected = float((other.posterior * scene.emissions).sum())
    assert bound == pytest.approx(expected, rel=1e-9)
    assert bound < float(best.log_evidence) - 1e-3


def test_modes_are_summed_out_and_inferred_by_stock_pyro(scene: Scene) -> None:
    """At given z the chain is discrete: Pyro's evidence, marginals and best path are those of our recursions."""
    sites, logs = scene.known(scene.power)
    found = forward_backward(logs, scene.transition.log(), scene.initial.log())
    program = config_enumerate(poutine.condition(scene.model(), sites), default="parallel")
    elbo = TraceEnum_ELBO(max_plate_nesting=0, strict_enumeration_warning=False)
    assert -elbo.loss(program, lambda power: None, scene.power) == pytest.approx(
        float(found.log_evidence), rel=1e-9
    )
    marginals = elbo.compute_marginals(program, lambda power: None, scene.power)
    for n in range(COUNT):
        torch.testing.assert_close(marginals[f"m_{n}"].probs.flatten(), found.posterior[n])
    best = infer_discrete(program, first_available_dim=-1, temperature=0)
    trace = poutine.trace(best).get_trace(scene.power)
    path = [int(trace.nodes[f"m_{n}"]["value"]) for n in range(COUNT)]
    scores = {
        modes: float(
            scene.initial[modes[0]].log()
            + sum(scene.transition[a, b].log() for a, b in itertools.pairwise(modes))
            + sum(logs[n, m] for n, m in enumerate(modes))
        )
        for modes in itertools.product(range(3), repeat=COUNT)
    }
    assert tuple(path) == max(scores, key=lambda modes: scores[modes])


def test_the_joint_density_is_the_product_of_its_factors(scene: Scene) -> None:
    sites, logs = scene.known(scene.power)
    modes = (2, 0, 1, 1)
    sites |= {f"m_{n}": torch.tensor(m) for n, m in enumerate(modes)}
    trace = poutine.trace(poutine.condition(scene.model(), sites)).get_trace(scene.power)
    wanted = scene.initial[2].log() + sum(logs[n, m] for n, m in enumerate(modes))
    wanted = wanted + sum(scene.transition[a, b].log() for a, b in itertools.pairwise(modes))
    torch.testing.assert_close(trace.log_prob_sum(), wanted)


def test_it_can_be_sampled(scene: Scene) -> None:
    """Without power x is drawn: E x = g sigma(z) + noise in the mode and at the z of the draw."""
    pyro.set_rng_seed(0)
    sites, _ = scene.known(scene.power)
    fixed = poutine.condition(scene.model(), sites | {f"m_{n}": torch.tensor(1) for n in range(COUNT)})
    draws = Predictive(fixed, num_samples=800, return_sites=("_RETURN",))()["_RETURN"]
    assert draws.shape == (800, COUNT, BINS)
    z = torch.stack([sites[f"z_{n}"] for n in range(COUNT)])
    mode = scene.modes[1]
    with torch.no_grad():
        wanted = scene.fits[1].gain[:, None] * mode.model.variance(z, mode.visual) + scene.noise
    # An exponential's standard deviation is its mean; 20 bins of 800 draws.
    assert float(((draws.mean(0) / wanted - 1).abs() * 800**0.5).max()) < 4
    free = Predictive(scene.model(), num_samples=400)()
    first = torch.nn.functional.one_hot(free["m_0"].long(), 3).double().mean(0).squeeze()
    torch.testing.assert_close(first, scene.initial, atol=4 * 0.5 / 20, rtol=0)
    assert free["x_3"].shape[-1] == BINS


def test_the_networks_of_the_modes_learn_by_stock_svi() -> None:
    scene = Scene("standard", "visual")
    best = forward_backward(scene.emissions, scene.transition.log(), scene.initial.log())
    pyro.clear_param_store()

    def conditional(n: int, m: Tensor) -> dist.TorchDistribution:
        mean = torch.stack([fit.mean[n] for fit in scene.fits])
        scale = torch.stack([fit.log_scale[n].exp() for fit in scene.fits])
        return dist.Normal(mean[m], scale[m]).to_event(1)

    guide = SwitchingGuide(conditional, pairwise=best.pairwise, first=best.posterior[0])
    before = [mode.model.decoder.output.bias.detach().clone() for mode in scene.modes]
    svi = SVI(scene.model(), guide, pyro.optim.Adam({"lr": 0.01}), TraceEnum_ELBO(max_plate_nesting=0))
    svi.step(scene.power)
    for mode, bias in zip(scene.modes, before, strict=True):
        assert not torch.equal(mode.model.decoder.output.bias, bias)


def test_shapes_that_do_not_go_together_are_refused(scene: Scene) -> None:
    with pytest.raises(
        ValueError, match=r"expected gain \[3, 4\], transition \[3, 3\] and initial \[3\], got"
    ):
        SwitchingMixture(
            scene.modes, scene.noise, torch.ones(4, 3), transition=scene.transition, initial=scene.initial
        )


def test_a_mixture_prior_is_refused() -> None:
    made = Scene("standard", "mixture")
    with pytest.raises(ValueError, match="one Gaussian"):
        made.elbo(torch.full((COUNT - 1, 2, 2), 0.25).double(), torch.full((2,), 0.5).double())
