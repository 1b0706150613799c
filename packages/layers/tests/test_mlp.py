"""Two-layer networks by their formulas."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from imgzoo_layers.mlp import GeGlu, GlobalResponseNorm, GlobalResponseNormMlp, GluMlp, Mlp, SwiGlu, mlp_maker
from imgzoo_layers.norm import LayerNorm

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
MAP = X.transpose(1, 2).unflatten(2, (5, 1))


def test_mlp():
    mlp = Mlp(8, 12, 6, act="relu", norm=LayerNorm)
    torch.testing.assert_close(mlp(X), mlp.fc2(mlp.norm(mlp.fc1(X).relu())))
    assert Mlp(8, 12, bias=False).fc1.bias is None
    conv = Mlp(8, 12, 6, conv=True)
    flat = Mlp(8, 12, 6)
    flat.load_state_dict(
        {key: value.flatten(1) if value.ndim == 4 else value for key, value in conv.state_dict().items()}
    )
    torch.testing.assert_close(conv(MAP).flatten(2).transpose(1, 2), flat(X))


@pytest.mark.parametrize("gate_last", [False, True])
def test_gated_mlp(gate_last):
    mlp = GluMlp(8, 12, 6, gate_last=gate_last, norm=LayerNorm)
    first, second = mlp.fc1(X).chunk(2, -1)
    gated = first * F.silu(second) if gate_last else F.silu(first) * second
    torch.testing.assert_close(mlp(X), mlp.fc2(mlp.norm(gated)))
    with pytest.raises(ValueError, match="even"):
        GluMlp(8, 13)


def test_gate_and_value_as_two_layers():
    mlp = SwiGlu(8, 12, norm=LayerNorm)
    torch.testing.assert_close(mlp(X), mlp.fc2(mlp.norm(F.silu(mlp.fc1_g(X)) * mlp.fc1_x(X))))
    mlp = GeGlu(8, 12, 6)
    y = F.layer_norm(X, (8,), eps=1e-6)
    torch.testing.assert_close(mlp(X), mlp.w2(F.gelu(mlp.w0(y)) * mlp.w1(y)))


@pytest.mark.parametrize("channels_last", [False, True])
def test_global_response_norm(channels_last):
    norm = GlobalResponseNorm(8, channels_last=channels_last)
    x = MAP.permute(0, 2, 3, 1) if channels_last else MAP
    assert torch.equal(norm(x), x)  # the identity at first
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    energy = MAP.norm(dim=(2, 3))
    share = (energy / (energy.mean(1, keepdim=True) + 1e-6))[:, :, None, None]
    weight, bias = norm.weight[:, None, None], norm.bias[:, None, None]
    expected = MAP + weight * MAP * share + bias
    torch.testing.assert_close(norm(x), expected.permute(0, 2, 3, 1) if channels_last else expected)


def test_global_response_norm_in_an_mlp():
    mlp = GlobalResponseNormMlp(8, 12, conv=True)
    nn.init.normal_(mlp.grn.weight)
    torch.testing.assert_close(mlp(MAP), mlp.fc2(mlp.grn(F.gelu(mlp.fc1(MAP)))))


def test_hidden_channels_of_gated_mlps_are_rounded_up():
    apart = mlp_maker("glu", 8, 21, 8)()
    assert isinstance(apart, SwiGlu) and apart.fc1_g.out_features == apart.fc2.in_features == 24
    assert mlp_maker("glu", 8, 21)().fc1.out_features == 42 and mlp_maker("swiglu", 8, 21, 7)().fc2.in_features == 21
    for kind, multiple, why in (
        ("mlp", 8, "gated mlp"),
        ("glu", -8, "at least 0"),
        ("gmlp", 0, "mlp is one of mlp, glu"),
    ):
        with pytest.raises(ValueError, match=why):
            mlp_maker(kind, 8, 21, multiple)
