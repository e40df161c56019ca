"""The encoders: what their outputs mean, and what they see."""

from __future__ import annotations

import pytest
import torch
from laws import BINS, FEATURES, make_frames, make_sequences, normal_draws
from torch import Tensor, nn

from pyro_minvae.config.components import (
    AudioEncoderConfig,
    JointEncoderConfig,
    ResponsibilityNetworkConfig,
    VisualEncoderConfig,
)
from pyro_minvae.models.networks import (
    AudioWeight,
    GaussianNetwork,
    JointNetwork,
    LogPower,
    audio_network,
    visual_network,
)
from pyro_minvae.types import Visual


def test_scale_is_the_root_of_the_variance() -> None:
    """The second output is log v, and the Gaussian's scale is exp(log v / 2)."""
    network = GaussianNetwork(nn.Identity(), 3, 3).double()
    with torch.no_grad():
        for layer in (network.mean, network.log_variance):
            layer.weight.copy_(torch.eye(3))
            layer.bias.zero_()
    x = torch.tensor([[-2.0, 0.0, 3.0]], dtype=torch.float64)
    mean, scale = network(x)
    torch.testing.assert_close(mean, x)
    torch.testing.assert_close(scale.square().log(), x)


@pytest.mark.parametrize("size", [1e3, 1e6, 1e12])
def test_scales_stay_positive_and_finite_on_odd_frames(size: float) -> None:
    network = visual_network(FEATURES, 3, VisualEncoderConfig(hidden=(6,)))
    with torch.no_grad():
        _, scale = network.eval()(size * normal_draws(50, FEATURES, seed=1).float())
    assert bool(torch.isfinite(scale).all())
    assert float(scale.min()) > 0


@pytest.mark.parametrize("kind", ["log-power", "power"])
def test_silence_and_loud_frames_give_finite_gaussians(kind: str) -> None:
    network = audio_network(BINS, 3, AudioEncoderConfig(hidden=(6,), input=kind))
    power = torch.tensor([0.0, 1e-12, 1.0, 1e6])[:, None].expand(4, BINS).clone().requires_grad_()
    mean, scale = network(power)
    (mean.sum() + scale.log().sum()).backward()
    assert all(bool(torch.isfinite(value).all()) for value in (mean, scale, power.grad))


def test_log_power_of_usual_frames_is_of_order_one() -> None:
    values = LogPower()(torch.tensor([0.0, 1e-4, 1.0, 1e4]))
    assert float(values.abs().max()) < 2.5
    assert bool((values.diff() > 0).all())


@pytest.mark.parametrize("hidden", [(6,), (8, 6)])
def test_dropout_only_acts_in_training(hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = visual_network(FEATURES, 3, VisualEncoderConfig(hidden=hidden, dropout=0.5))
    x = normal_draws(7, FEATURES, seed=1).float()
    network.eval()
    assert torch.equal(network(x)[0], network(x)[0])
    network.train()
    assert not torch.equal(network(x)[0], network(x)[0])


def joint_inputs(power: Tensor, visual: Visual, *, seen: bool = True) -> Tensor:
    """log(power + 1e-4) / 5, the features of frames with lips (zero on the others), and whether there are any."""
    valid = visual.valid[:, None] & seen
    features = torch.where(valid, visual.features, 0.0)
    return torch.cat([(power + 1e-4).log() / 5, features, valid.double()], -1)


def test_joint_network_takes_sound_and_lips_side_by_side() -> None:
    network = JointNetwork(BINS, FEATURES, 3, JointEncoderConfig(hidden=(6, 4))).double()
    (power, visual), inner = make_frames(6), network.network
    for lips, seen in ((visual, True), (None, False)):
        hidden = joint_inputs(power, visual, seen=seen)
        for layer in (inner.trunk.layers[0], inner.trunk.layers[2]):
            hidden = torch.tanh(hidden @ layer.weight.T + layer.bias)
        mean, scale = network(power, lips)
        torch.testing.assert_close(mean, hidden @ inner.mean.weight.T + inner.mean.bias)
        log_variance = hidden @ inner.log_variance.weight.T + inner.log_variance.bias
        torch.testing.assert_close(scale.square().log(), log_variance)


def test_network_of_the_responsibility_is_a_sigmoid_of_both() -> None:
    network, (power, visual) = (
        AudioWeight(BINS, FEATURES, ResponsibilityNetworkConfig(hidden=(5,))).double(),
        make_frames(6),
    )
    (layer, _), (out,) = network.trunk.layers, (network.logit,)
    for lips, seen in ((visual, True), (None, False)):
        hidden = torch.tanh(joint_inputs(power, visual, seen=seen) @ layer.weight.T + layer.bias)
        expected = 1 / (1 + torch.exp(-(hidden @ out.weight.T + out.bias)[:, 0]))
        torch.testing.assert_close(network(power, lips), expected)


@pytest.mark.parametrize("make", [JointNetwork, AudioWeight])
def test_networks_of_both_keep_the_axes_of_chains_and_recordings(make: type) -> None:
    if make is JointNetwork:
        network, first = JointNetwork(BINS, FEATURES, 3, JointEncoderConfig(hidden=(6,))).double(), 0
    else:
        network, first = AudioWeight(BINS, FEATURES, ResponsibilityNetworkConfig(hidden=(5,))).double(), ...
    power, visual = make_sequences(2, 4)
    whole = network(power.expand(3, -1, -1, -1), visual)
    one = network(power[1], Visual(visual.features[1], visual.valid[1]))
    torch.testing.assert_close(whole[first][2, 1], one[first])
