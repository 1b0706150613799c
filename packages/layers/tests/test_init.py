"""Initial weights have the moments that the papers name."""

import math

import pytest
import torch
from torch import nn

from imgzoo_layers.init import (
    init_conv_per_group_,
    init_fan_out_,
    init_linear_,
    lecun_normal_,
    trunc_normal_,
    trunc_normal_tf_,
    variance_scaling_,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_truncated_normals():
    x = trunc_normal_(torch.empty(100_000), std=1.0, a=-1.0, b=2.0)
    assert x.min() >= -1 and x.max() <= 2 and x.max() > 1.9
    x = trunc_normal_tf_(torch.empty(100_000), mean=1.0, std=0.1)
    assert x.min() >= 0.8 and x.max() <= 1.2 and x.mean().item() == pytest.approx(1, abs=0.01)
    x = trunc_normal_(torch.empty(100_000), std=0.02)  # bounds so far away cut nothing
    assert x.std().item() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("kind", ["normal", "truncated_normal", "uniform"])
@pytest.mark.parametrize("mode, fan", [("fan_in", 200), ("fan_out", 400), ("fan_avg", 300)])
def test_variance_is_scaled_by_the_fan(kind, mode, fan):
    weight = variance_scaling_(torch.empty(400, 200), 2.0, mode, kind)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / fan), rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=0.002)


def test_lecun():
    assert lecun_normal_(torch.empty(400, 200)).std().item() == pytest.approx(200**-0.5, rel=0.02)


def test_networks():
    network = nn.Sequential(nn.Conv2d(64, 64, 3, groups=4), nn.Linear(256, 256), nn.Linear(4, 4, bias=False))
    init_linear_(network)
    assert network[1].weight.std().item() == pytest.approx(0.02, rel=0.03) and network[1].bias.abs().max() == 0
    init_fan_out_(network)
    assert network[0].weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)
    init_conv_per_group_(network[0])
    assert network[0].weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.05)
    assert network[0].bias.abs().max() == 0
