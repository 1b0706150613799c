"""Channel gates by their formulas."""

import pytest
import torch
from torch.nn import functional as F

from imgzoo_layers.gate import GATE, SqueezeExcite, create_gate

MAP = torch.randn(2, 16, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def made(kind, **options):
    torch.manual_seed(0)
    gate = create_gate(kind, 16, **options).double().eval()
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return gate


def dense(layer, x):
    return F.linear(x, layer.weight.flatten(1), layer.bias)


def scaled(scales):
    return MAP * scales[:, :, None, None]


def test_squeeze_excite():
    gate = made("se", rd_ratio=0.25, rd_divisor=1)
    assert gate.fc1.out_channels == 4
    torch.testing.assert_close(gate(MAP), scaled(dense(gate.fc2, dense(gate.fc1, MAP.mean((2, 3))).relu()).sigmoid()))
    assert SqueezeExcite(16, rd_channels=3, bias=False).fc1.weight.shape[0] == 3
    gate = made("ese")
    torch.testing.assert_close(gate(MAP), scaled(F.hardsigmoid(dense(gate.fc, MAP.mean((2, 3))))))


def test_neighboring_channels():
    gate = made("eca")
    mean = MAP.mean((2, 3))
    taps = gate.conv.weight.flatten()
    near = F.pad(mean, (1, 1)).unfold(1, 3, 1) @ taps
    torch.testing.assert_close(gate(MAP), scaled(near.sigmoid()))
    gate = made("ceca")
    ring = torch.cat([mean[:, -1:], mean, mean[:, :1]], 1).unfold(1, 3, 1) @ gate.conv.weight.flatten()
    torch.testing.assert_close(gate(MAP), scaled(ring.sigmoid()))


@pytest.mark.parametrize("attend", [True, False])
@pytest.mark.parametrize("kind", ["gc", "gca"])
def test_global_context(kind, attend):
    gate = made(kind, rd_ratio=0.25, attend=attend)
    weight = torch.full((2, 20), 1 / 20, dtype=MAP.dtype)
    if attend:
        scores = (MAP * gate.conv_attn.weight[0]).sum(1).flatten(1) + gate.conv_attn.bias
        weight = scores.softmax(1)
    context = (MAP.flatten(2) * weight[:, None]).sum(2)
    mlp = gate.mlp_scale if kind == "gc" else gate.mlp_add
    hidden = F.layer_norm(dense(mlp.fc1, context), (4,), mlp.norm.weight, mlp.norm.bias, 1e-6).relu()
    result = dense(mlp.fc2, hidden)
    expected = scaled(result.sigmoid()) if kind == "gc" else MAP + result[:, :, None, None]
    torch.testing.assert_close(gate(MAP), expected)


def test_gates_are_asked_for_by_name():
    assert isinstance(create_gate(None, 16), torch.nn.Identity) and isinstance(
        create_gate(SqueezeExcite, 16), SqueezeExcite
    )
    for name in GATE:
        assert made(name)(MAP).shape == MAP.shape
    with pytest.raises(ValueError, match="unknown attention 'sq'; use one of se"):
        create_gate("sq", 16)
