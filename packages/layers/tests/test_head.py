"""Heads: what they compute, and that a reset leaves device, type and mode."""

import pytest
import torch
from torch import nn

from imgzoo_layers.head import (
    ClassifierHead,
    ConvClassifier,
    ConvClassifierHead,
    NormMlpHead,
    linear_or_none,
    norm_and_head,
)
from imgzoo_layers.hidden_head import ConvHead, HiddenPool
from imgzoo_layers.norm import LayerNorm2d
from imgzoo_layers.norm_linear import NormLinear, TwoHeads
from imgzoo_layers.pool_norm import PoolNormHead

MAP = torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(0))
HEADS = {
    "linear": (lambda **options: ClassifierHead(8, 5, **options), MAP),
    "channels last": (lambda **options: ClassifierHead(8, 5, channels_last=True, **options), MAP.permute(0, 2, 3, 1)),
    "convolution": (lambda **options: ConvClassifierHead(8, 5, **options), MAP),
    "hidden": (lambda **options: NormMlpHead(8, 5, norm=LayerNorm2d, hidden=6, **options), MAP),
    "norm": (lambda **options: PoolNormHead(8, 5, **options), MAP.permute(0, 2, 3, 1)),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_is_reset(kind):
    make, x = HEADS[kind]
    head = make().double().eval()
    before, keys = head.fc.weight, list(head.state_dict())
    head.reset(7, "max")
    assert head(x.double()).shape == (2, 7) and not head.fc.training
    assert head.fc.weight.dtype == torch.float64 and head.fc.weight is not before
    assert list(head.state_dict()) == keys
    head.reset(0)
    assert head(x.double()).shape == (2, head.dim) and head.global_pool.kind == "max"
    head.reset(5)
    assert head.float()(x).shape == (2, 5)
    with pytest.raises(ValueError, match="unknown global_pool"):
        head.reset(5, "median")
    assert head.global_pool.kind == "max"


@pytest.mark.parametrize("convs", [True, False])
@torch.no_grad()
def test_a_head_without_pool_has_convolutions_and_keeps_its_hidden_layer(convs):
    head = NormMlpHead(8, 5, norm=LayerNorm2d, hidden=6, convs=convs).eval()
    head.pre_logits.fc.weight.requires_grad_(False)
    hidden = head(MAP.mean((2, 3), keepdim=True), pre_logits=True)
    head.reset(7, "")
    ones = (1, 1) if convs else ()
    assert head.fc.weight.shape == (7, 6, *ones) and head.pre_logits.fc.weight.shape == (6, 8, *ones)
    assert head(MAP).shape == (2, 7, 3, 4) and not head.pre_logits.fc.weight.requires_grad
    head.reset(7, "avg")
    assert head.fc.weight.shape == (7, 6) and head.pre_logits.fc.weight.shape == (6, 8)
    torch.testing.assert_close(head(MAP, pre_logits=True), hidden)


@pytest.mark.parametrize("kind", ["linear", "channels last", "convolution"])
def test_a_pool_of_two_a_channel_widens_the_classifier(kind):
    make, x = HEADS[kind]
    head = make(pool="catavgmax")
    assert head(x).shape == (2, 5) and head(x, pre_logits=True).shape == (2, 16)
    head.reset(3, "avg")
    assert head.fc.weight.shape[1] == 8
    head.reset(3, "catavgmax")
    assert head.fc.weight.shape[1] == 16 and head(x).shape == (2, 3)


@pytest.mark.parametrize("kind", ["hidden", "norm"])
def test_a_pool_of_two_a_channel_is_refused_where_a_norm_reads_it(kind):
    with pytest.raises(ValueError, match="catavgmax"):
        HEADS[kind][0](pool="catavgmax")


@pytest.mark.parametrize("kind", HEADS)
def test_without_pool_every_position_is_classified(kind):
    make, x = HEADS[kind]
    head = make(pool="").eval()
    shape = (2, 3, 4, 5) if kind in ("channels last", "norm") else (2, 5, 3, 4)
    assert head(x).shape == shape
    place = head(x).permute(0, 2, 3, 1)[:, 1, 2] if shape[1] == 5 else head(x)[:, 1, 2]
    one = x[:, :, 1:2, 2:3] if shape[1] == 5 else x[:, 1:2, 2:3]
    torch.testing.assert_close(place, head(one).flatten(1))


def test_heads_compute_what_they_say():
    head = NormMlpHead(8, 5, norm=LayerNorm2d, hidden=6).eval()
    vector = head.pre_logits.fc(nn.functional.layer_norm(MAP.mean((2, 3)), (8,), eps=1e-6)).tanh()
    torch.testing.assert_close(head(MAP, pre_logits=True), vector)
    torch.testing.assert_close(head(MAP), head.fc(vector))
    layer = ConvClassifier(8, 5)
    torch.testing.assert_close(layer(MAP[:, :, 0, 0]), layer(MAP)[:, :, 0, 0])
    assert isinstance(linear_or_none(8, 0), nn.Identity) and linear_or_none(8, 3).weight.shape == (3, 8)


def test_dropout_of_a_head_drops_while_training():
    head = ClassifierHead(8, 5, drop_rate=0.5).train()
    assert not torch.equal(head(MAP), head(MAP))
    assert torch.equal(head.eval()(MAP), head(MAP))


def test_norm_before_the_linear_layer():
    layer = NormLinear(8, 5, "linear").eval()
    assert list(layer.state_dict())[:2] == ["bn.weight", "bn.bias"] and "linear.weight" in layer.state_dict()
    torch.nn.init.normal_(layer.bn.running_mean)
    x = torch.randn(3, 8)
    torch.testing.assert_close(layer(x), layer.linear(layer.bn(x)))
    assert not NormLinear(8, 0).state_dict()


def test_two_heads_are_averaged_or_apart():
    heads = TwoHeads(8, 5, 0.0).eval()
    x = torch.randn(3, 8)
    torch.testing.assert_close(heads(x), (heads.head(x) + heads.head_dist(x)) / 2)
    heads.apart = True
    assert isinstance(heads(x), torch.Tensor)
    assert [tuple(each.shape) for each in heads.train()(x)] == [(3, 5), (3, 5)]
    assert TwoHeads(8, 5, 0.0, distilled=False).head_dist is None


def test_the_hidden_layer_reads_pooled_channels():
    class Network(ConvHead, nn.Module):
        def __init__(self, pool):
            super().__init__()
            self._add_head(8, 6, 5, pool, 0.0)

    network = Network("avg").eval()
    hidden = torch.relu(network.conv_head(MAP.mean((2, 3), keepdim=True)).flatten(1))
    torch.testing.assert_close(network.forward_head(MAP, pre_logits=True), hidden)
    torch.testing.assert_close(network.forward_head(MAP), network.classifier(hidden))
    assert Network("").forward_head(MAP).shape == (2, 5, 3, 4)
    with pytest.raises(ValueError, match="hidden layer"):
        HiddenPool("catavgmax")


def test_the_norm_stands_before_the_pool_or_behind_it():
    norm, head = norm_and_head(8, 5, "catavgmax", 0.0, LayerNorm2d, norm_first=True)
    torch.testing.assert_close(head(norm(MAP)), head.fc(torch.cat([norm(MAP).mean((2, 3)), norm(MAP).amax((2, 3))], 1)))
    none, head = norm_and_head(8, 5, "avg", 0.0, LayerNorm2d)
    assert not none.state_dict() and [*head.state_dict()] == ["norm.weight", "norm.bias", "fc.weight", "fc.bias"]
    with pytest.raises(ValueError, match="leave head_hidden out"):
        norm_and_head(8, 5, "avg", 0.0, LayerNorm2d, norm_first=True, hidden=4)
