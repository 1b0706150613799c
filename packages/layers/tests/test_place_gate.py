"""Gates of places by their formulas."""

import pytest
import torch
from torch.nn import functional as F

from imgzoo_layers.gate import create_gate
from imgzoo_layers.non_local import NonLocal
from imgzoo_layers.place_gate import Cbam, GatherExcite, StripAttention

MAP = torch.randn(2, 8, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def filled(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module.double().eval()


def test_channels_then_places():
    gate = filled(Cbam(8, rd_ratio=0.5, kernel=1))
    fc1, fc2 = (layer.weight.flatten(1) for layer in (gate.channel.fc1, gate.channel.fc2))
    summed = sum((of @ fc1.T).relu() @ fc2.T for of in (MAP.mean((2, 3)), MAP.amax((2, 3))))
    x = MAP * summed.sigmoid()[..., None, None]
    weight = gate.spatial.conv.conv.weight.flatten()
    places = gate.spatial.conv.bn((x.mean(1) * weight[0] + x.amax(1) * weight[1])[:, None])
    torch.testing.assert_close(gate(MAP), x * places.sigmoid())


def test_strips_add_rows_and_columns():
    scales = (MAP.mean(3)[..., None] + MAP.mean(2)[:, :, None]).sigmoid()
    torch.testing.assert_close(StripAttention(8, None)(MAP), MAP * scales)
    assert filled(StripAttention(8))(MAP).shape == MAP.shape


def test_gathering_by_learned_layers():
    gate = filled(GatherExcite(8, 4, size=(6, 4)))
    assert [type(layer).__name__ for layer in gate.gather] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d"]
    assert gate.gather(MAP).shape == (2, 8, 2, 1) and gate(MAP).shape == MAP.shape
    whole = filled(GatherExcite(8, size=(6, 4), mlp=False))
    taps = whole.gather[0].weight[:, 0]
    scales = whole.gather[1]((MAP * taps).sum((2, 3), keepdim=True)).sigmoid()
    torch.testing.assert_close(whole(MAP), MAP * scales)


def test_gathered_channels_mix():
    gate = filled(GatherExcite(8, rd_ratio=0.5))
    hidden = F.linear(MAP.mean((2, 3)), gate.mlp.fc1.weight.flatten(1), gate.mlp.fc1.bias).relu()
    scales = F.linear(hidden, gate.mlp.fc2.weight.flatten(1), gate.mlp.fc2.bias).sigmoid()
    torch.testing.assert_close(gate(MAP), MAP * scales[..., None, None])


def test_an_extent_that_no_stride_reaches_is_refused():
    with pytest.raises(ValueError, match="extent is 0 or a power of 2, got 3"):
        GatherExcite(8, 3)


def test_all_places_are_gathered():
    block = NonLocal(8, rd_channels=4).double()
    torch.testing.assert_close(block.eval()(MAP), MAP)  # at first
    block = filled(block)
    query, key, value = (
        torch.einsum("bchw,dc->bhwd", MAP, of.weight.flatten(1)).flatten(1, 2) + of.bias
        for of in (block.t, block.p, block.g)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, scale=8**-0.5)
    back = mixed @ block.z.weight.flatten(1).T + block.z.bias
    torch.testing.assert_close(block(MAP), MAP + block.norm(back.transpose(1, 2).reshape(MAP.shape)))


@pytest.mark.parametrize("name", ["cbam", "lcbam", "coord", "scoord", "ela", "strip", "ge", "nl"])
def test_gates_take_any_size_and_script(name):
    gate = create_gate(name, 8).double().eval()
    for x in (MAP, MAP[..., :3], MAP.transpose(2, 3)):
        torch.testing.assert_close(torch.jit.script(gate)(x), gate(x))
