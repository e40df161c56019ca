"""NUTS, a kernel of ours, SVI with an automatic guide and the EM loop on one program: the speech is the same.

What is compared is the Wiener filter of the posterior mean, h_fn = E[sigma / (sigma + WH) | x] (derivations, eq. 6.9),
in every bin. In the first test the noise is known, as the loop fitted it before, and two latent numbers a frame can be
integrated on a grid: every way is held against that integral, within its own Monte-Carlo error. In the second the
noise is open: NUTS and SVI average over W and H, where the loop takes their most probable values.
"""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import MultivariateNormal, MultivariateStudentT
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from scenes import LATENT, Scene, draw_scene, settings
from torch import Tensor

from pyro_minvae.inference.mcem.loop import mcem
from pyro_minvae.inference.mcem.statistics import Statistics
from pyro_minvae.inference.mcmc.diagnostics import effective_sample_size
from pyro_minvae.inference.mcmc.mala import Mala
from pyro_minvae.inference.mcmc.pyro_kernel import PyroKernel
from pyro_minvae.models.gain import FLAT
from pyro_minvae.models.noise.nmf import Nmf
from pyro_minvae.models.noise.stationary import stationary
from pyro_minvae.models.noisy import NoisyMixture

FRAMES, CHAINS = 3, 16
# Root mean square of standard scores, of which few are independent: z of a frame is two numbers. By chance it is
# above with probability 1e-5.
MOST_SCORE = 2.5


class Known(Nmf):
    """Noise whose factors EM leaves where they are."""

    def em_step(self, statistics: Statistics) -> None:
        pass


class Toy:
    """A recording of one speaker in noise of one component, W and H fitted by the loop; gains are 1."""

    def __init__(self, kind: str, seed: int) -> None:
        self.scene: Scene = draw_scene((kind,), frames=FRAMES, seed=seed)
        (self.source,), self.power = self.scene.sources, self.scene.power
        self.noise = Known(self.power, rank=1, generator=seeded(0))
        fitted = Nmf(self.power, rank=1, generator=seeded(0))
        for _ in self.loop(fitted, steps=5, keep=5, iterations=40):
            pass
        self.noise.W, self.noise.A = fitted.W, fitted.A
        self.variance = self.noise.variance()
        sites = {**self.noise.site_values(), "gain": torch.ones(1, FRAMES, dtype=torch.float64)}
        program = NoisyMixture([self.source], self.noise, FLAT, summed=True)
        self.program = poutine.condition(program, sites)

    def loop(self, noise: Nmf, **changes: object):  # type: ignore[no-untyped-def]
        """The EM loop without gains."""
        config = settings(kernel="mala", step_size=0.4, gain=False, chains=CHAINS, **changes)
        return mcem([self.source], noise, self.power, config=config, generator=seeded(1))

    def filters(self, z: Tensor) -> Tensor:
        """sigma / (sigma + WH): [..., N, L] to [..., N, F]."""
        sigma = self.source.model.variance(z, self.source.visual)
        return sigma / (sigma + self.variance)

    def log_posterior(self, z: Tensor) -> Tensor:
        """Up to a constant, [..., N]: written out here, by nobody's program."""
        total = self.source.model.variance(z, self.source.visual) + self.variance
        return self.source.model.log_prior(z, self.source.visual) - (total.log() + self.power / total).sum(-1)

    def exact(self) -> Tensor:
        """E[h | x] [N, F] by the grid."""
        axis = torch.linspace(-10.0, 10.0, 301, dtype=torch.float64)
        z = torch.cartesian_prod(axis, axis)[:, None, :].expand(-1, FRAMES, LATENT)
        weight = self.log_posterior(z).softmax(0)
        assert float(weight[z.abs().amax(-1) > 9.9].sum()) < 1e-6
        return (weight[..., None] * self.filters(z)).sum(0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_nuts(toy: Toy) -> tuple[Tensor, Tensor]:
    mcmc = MCMC(NUTS(toy.program), num_samples=300, warmup_steps=100, disable_progbar=True)
    mcmc.run(toy.power)
    return summary(toy.filters(mcmc.get_samples()["z_0"])[None])


def by_our_kernel(toy: Toy) -> tuple[Tensor, Tensor]:
    start = toy.source.start.expand(CHAINS, FRAMES, LATENT).contiguous()
    mcmc = MCMC(
        PyroKernel(Mala(0.4), toy.program, site="z_0"),
        num_samples=400,
        warmup_steps=150,
        initial_params={"z_0": start},
        disable_progbar=True,
    )
    mcmc.run(toy.power)
    return summary(toy.filters(mcmc.get_samples()["z_0"]).transpose(0, 1))


def by_the_loop(toy: Toy) -> tuple[Tensor, Tensor]:
    states = list(toy.loop(toy.noise, steps=8, keep=1, iterations=260, warmup=100))
    sigma = torch.stack([state.sigma[0] for state in states[60:]], 1)
    found = summary(sigma / (sigma + toy.variance))
    filters = torch.stack([state.filters()[0] for state in states[60:]]).mean(0)
    torch.testing.assert_close(filters, found[0])
    return found


def fitted_guide(program: Callable[..., object], power: Tensor, steps: int) -> AutoMultivariateNormal:
    """Stock SVI; the rate falls to a twentieth."""
    guide = AutoMultivariateNormal(program)
    schedule = pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.04}, "gamma": 0.05 ** (1 / steps)}
    )
    svi = SVI(program, guide, schedule, Trace_ELBO(8, max_plate_nesting=1, vectorize_particles=True))
    for _ in range(steps):
        svi.step(power)
        schedule.step()
    return guide


def by_svi(toy: Toy) -> tuple[Tensor, Tensor]:
    """Draws from the guide with twice its covariance and heavy tails, weighted by p(z | x) / q(z) frame by frame."""
    q = fitted_guide(toy.program, toy.power, 400).get_posterior()
    mean = q.mean.view(FRAMES, LATENT)
    frames = (
        q.covariance_matrix.view(FRAMES, LATENT, FRAMES, LATENT).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    )
    narrow = MultivariateNormal(mean, frames)
    wide = MultivariateStudentT(torch.tensor(3.0).to(mean), mean, torch.linalg.cholesky(2 * frames))
    with torch.no_grad():
        # What is not Gaussian costs the guide this much; the weights mend it.
        plain = toy.filters(narrow.sample((4000,))).mean(0)
        assert root_mean_square(plain - toy.exact()) < 0.05
        z = wide.sample((20000,))
        weight = (toy.log_posterior(z) - wide.log_prob(z)).softmax(0)[..., None]
        filters = toy.filters(z)
    found = (weight * filters).sum(0)
    return found, (weight * (filters - found)).square().sum(0).sqrt()


def root_mean_square(values: Tensor) -> float:
    return float(values.detach().square().mean().sqrt())


def summary(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and its Monte-Carlo error of draws [R, S, N, F] of R chains."""
    # A few hundred draws of one chain do not tell well what they are worth.
    most = draws.shape[0] * draws.shape[1] / 2
    count = effective_sample_size(draws, rank=False).clamp(max=most)
    return draws.mean((0, 1)), draws.flatten(0, 1).std(0) / count.sqrt()


WAYS = {"nuts": by_nuts, "our kernel": by_our_kernel, "loop": by_the_loop, "svi": by_svi}


@pytest.fixture(autouse=True)
def own_store() -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


# Seeds whose posteriors have one mode a frame, since one Gaussian and one chain of NUTS know of no more.
@pytest.mark.parametrize(("kind", "seed"), [("standard", 1), ("mixture", 0)])
def test_all_ways_to_infer_the_speech_agree(kind: str, seed: int) -> None:
    toy = Toy(kind, seed)
    exact = toy.exact()
    # The scores are sharp enough to tell noise that is twice as loud.
    toy.variance *= 2
    wrong = toy.exact()
    toy.variance /= 2
    for name, way in WAYS.items():
        mean, error = way(toy)
        score, planted = (root_mean_square((mean - other) / error) for other in (exact, wrong))
        assert score < MOST_SCORE, name
        assert planted > 2 * MOST_SCORE, name


def test_nuts_and_svi_average_over_the_noise() -> None:
    """All of W, H and z are open: the two ways of full Bayes are nearer to each other than to the loop's estimate."""
    scene = draw_scene(("standard",), frames=4, seed=1)
    (source,), noise = scene.sources, stationary(scene.power, generator=seeded(0))
    program = poutine.condition(
        NoisyMixture([source], noise, proper=True), {"gain": torch.ones(1, 4, dtype=torch.float64)}
    )

    def filters(sites: dict[str, Tensor]) -> Tensor:
        sigma = source.model.variance(sites["z_0"], source.visual)
        return sigma / (sigma + sites["noise"])

    mcmc = MCMC(NUTS(program, max_tree_depth=5), num_samples=150, warmup_steps=80, disable_progbar=True)
    mcmc.run(scene.power)
    draws = mcmc.get_samples()
    by_nuts = filters({**draws, **Predictive(program, draws, parallel=True)()})
    guide = fitted_guide(program, scene.power, 600)
    found = Predictive(program, guide=guide, num_samples=3000, parallel=True, return_sites=("z_0", "noise"))
    by_guide = filters(found(scene.power))
    config = settings(
        kernel="mala", step_size=0.2, gain=False, chains=CHAINS, steps=5, keep=1, iterations=200
    )
    states = list(mcem([source], noise, scene.power, config=config, generator=seeded(1)))
    by_em = torch.stack([state.filters()[0] for state in states[60:]]).mean(0)

    full = by_nuts.mean(0)
    assert root_mean_square(by_guide.mean(0) - full) < 0.03 < root_mean_square(by_em - full) < 0.1
