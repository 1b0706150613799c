"""Activations and norms change places in a finished network; nothing else does, and nothing in silence."""

import pytest
import torch
from torch import nn

from imgzoo_layers.exchange import Acts, Biases, Norms
from imgzoo_layers.norm import GroupNorm1, LayerNorm, LayerNorm2d, LayerNormFp32, RmsNorm, RmsNorm2d, SimpleNorm
from imgzoo_layers.norm_act import BatchNormAct2d, GroupNormAct, RmsNormAct2d


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU(inplace=True))
        self.bn = BatchNormAct2d(8, act="gelu", eps=1e-4)
        self.map = LayerNorm2d(8)
        self.tokens = LayerNorm(8, eps=0.5)
        self.act = nn.GELU()
        self.tanh = nn.GELU(approximate="tanh")
        self.head = nn.Sequential(nn.LayerNorm(8), self.act)
        nn.init.zeros_(self.bn.weight)


def test_activations_of_one_kind_change_and_one_that_stands_twice_stays_one():
    net = Net()
    Acts("gelu")(net, act="silu")
    assert isinstance(net.act, nn.SiLU) and net.act is net.head[1] and isinstance(net.bn.act, nn.SiLU)
    assert isinstance(net.tanh, nn.GELU) and isinstance(net.stem[2], nn.ReLU)
    Acts("relu")(net, act=nn.Mish)
    assert isinstance(net.stem[2], nn.Mish) and net.stem[2].inplace
    Acts("gelu_tanh")(net, act="gelu")
    assert net.tanh.approximate == "none"


def test_nothing_given_changes_nothing():
    net = Net()
    before = [type(part) for part in net.modules()]
    Norms("layernorm")(net)
    Norms("layernorm")(net, norm=None, eps=None)
    assert [type(part) for part in net.modules()] == before


def test_patterns_say_which():
    net = Net()
    Acts("gelu", ("!head.*",))(net, act="relu")
    assert isinstance(net.act, nn.ReLU) and isinstance(net.head[1], nn.GELU)
    net = Net()
    Norms("batchnorm", ("stem.*",))(net, "groupnorm1")
    assert isinstance(net.stem[1], GroupNorm1) and isinstance(net.bn, BatchNormAct2d)


def test_norms_keep_epsilon_activation_and_first_values():
    net = Net()
    Norms("batchnorm")(net, "rmsnorm2d")
    assert isinstance(net.stem[1], RmsNorm2d) and net.stem[1].eps == 1e-3
    assert isinstance(net.bn, RmsNormAct2d) and net.bn.eps == 1e-4 and isinstance(net.bn.act, nn.GELU)
    assert not net.bn.weight.any() and net.stem[1].weight.all()
    x = torch.randn(2, 8, 4, 4)
    net.bn.weight.data.fill_(2)
    expected = nn.functional.gelu(2 * x / (x.square().mean(1, keepdim=True) + 1e-4).sqrt())
    torch.testing.assert_close(net.bn(x), expected)


@pytest.mark.parametrize("norm, kind", [("rmsnorm", RmsNorm), ("simple_norm", SimpleNorm), (SimpleNorm, SimpleNorm),
                                        ("layernormfp32", LayerNormFp32)])  # fmt: skip
def test_norms_of_tokens_are_not_those_of_maps(norm, kind):
    net = Net()
    Norms("layernorm")(net, norm, eps=0.25)
    assert type(net.tokens) is type(net.head[0]) is kind and net.tokens.eps == net.head[0].eps == 0.25
    assert type(net.map) is LayerNorm2d and net.map.eps == 1e-6


def test_a_name_means_the_form_that_the_place_needs():
    net = Net()
    Norms("layernorm*")(net, "rmsnorm")
    assert type(net.map) is RmsNorm2d and type(net.tokens) is RmsNorm
    net = Net()
    Norms("layernorm2d")(net, "rmsnorm")
    assert type(net.map) is RmsNorm2d and isinstance(net.tokens, nn.LayerNorm)


def test_biases_come_as_zeros_and_go():
    net = nn.ModuleDict({"attn": nn.ModuleDict({"qkv": nn.Linear(4, 12), "q": nn.Conv2d(4, 4, 1, bias=False)})})
    kept = net["attn"]["qkv"].bias
    change = Biases(("*.qkv", "*.q"))
    change(net, qkv_bias=True)
    assert net["attn"]["qkv"].bias is kept and not net["attn"]["q"].bias.any()
    change(net, qkv_bias=False)
    assert list(net.state_dict()) == ["attn.qkv.weight", "attn.q.weight"]
    with pytest.raises(ValueError, match="no part that qkv_bias changes: leave it out"):
        Biases(("*.kv",))(net, qkv_bias=True)


def test_the_same_norm_stays_and_an_epsilon_comes_alone():
    net = Net()
    before = net.tokens
    Norms("layernorm")(net, "layernorm")
    assert net.tokens is before and before.eps == 0.5
    Norms("layernorm")(net, eps=0.1)
    assert net.tokens is before and before.eps == net.head[0].eps == 0.1


def test_a_class_without_an_activation_is_taken_in_its_form_with_one():
    net = Net()
    Norms("batchnorm", ("bn",))(net, GroupNorm1)
    assert isinstance(net.bn, GroupNormAct) and isinstance(net.bn.act, nn.GELU)
    with pytest.raises(ValueError, match="identity cannot stand with an activation behind it; use one of batchnorm"):
        Norms("batchnorm", ("bn",))(Net(), nn.Identity)


@pytest.mark.parametrize("change, said", [
    (lambda net: Acts("gelu")(net, act="nonsense"), "unknown activation 'nonsense'"),
    (lambda net: Acts("silu")(net, act="relu"), "no part that act changes: leave it out"),
    (lambda net: Norms("layernorm")(net, "batchnorm"), "'batchnorm' is not one of tokens; use one of layernorm,"),
    (lambda net: Norms("batchnorm")(net, "nonsense"), "'nonsense' is not one of maps; use one of batchnorm,"),
    (lambda net: Norms("layernorm2d")(net, "layernormfp32"), "is not one of maps"),
    (lambda net: Norms("groupnorm1")(net, "batchnorm"), "no part that norm changes: leave it out"),
])  # fmt: skip
def test_what_cannot_be_is_told(change, said):
    with pytest.raises(ValueError, match=said):
        change(Net())
