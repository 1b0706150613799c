"""Attention in its forms: unfused equals fused, rotations turn pairs of channels by place, heads are shared."""

import math

import pytest
import torch

from imgzoo_layers.attention import Attention, set_fused_attn
from imgzoo_layers.class_attention import ClassAttention
from imgzoo_layers.position import ConvPosition
from imgzoo_layers.rotary import AxialRotary, CenteredRotary, MixedRotary, rotate
from imgzoo_layers.rotary_attention import QvBiasAttention, RotaryAttention, SplitRotaryAttention, heads_of_keys
from imgzoo_layers.window import WindowAttention

DIM, HEADS, GRID = 32, 4, (3, 5)
MODULES = {
    "plain": lambda: Attention(DIM, HEADS, qk_norm=True, scale_norm=True),
    "class": lambda: ClassAttention(DIM, HEADS),
    "rotary": lambda: RotaryAttention(DIM, HEADS, qk_norm=True),
    "grouped": lambda: RotaryAttention(DIM, HEADS, kv_heads=2),
    "split": lambda: SplitRotaryAttention(DIM, HEADS, scale_norm=True),
    "qv_bias": lambda: QvBiasAttention(DIM, HEADS),
    "gated": lambda: QvBiasAttention(DIM, HEADS, gated=True, scale_norm=True),
    "no bias": lambda: QvBiasAttention(DIM, HEADS, qkv_bias=False),
    "window": lambda: WindowAttention(DIM, HEADS, (4, 4)),
}


@pytest.mark.parametrize("kind", MODULES)
@torch.no_grad()
def test_unfused_attention_is_the_same_and_shows_its_weights(kind):
    torch.manual_seed(0)
    module, x = MODULES[kind]().double().eval(), torch.randn(2, 16, DIM, dtype=torch.float64)
    expected, seen = module(x), []
    module.attn_drop.register_forward_hook(lambda m, args, output: seen.append(output))
    set_fused_attn(module, False)
    torch.testing.assert_close(module(x), expected)
    assert len(seen) == 1 and seen[0].shape[-1] == 16
    torch.testing.assert_close(seen[0].sum(-1), torch.ones_like(seen[0].sum(-1)))


@torch.no_grad()
def test_grouped_heads_equal_repeated_ones():
    torch.manual_seed(0)
    shared, full = RotaryAttention(DIM, HEADS, kv_heads=2), RotaryAttention(DIM, HEADS)
    full.load_state_dict({**full.state_dict(), **{k: v for k, v in shared.state_dict().items() if "proj" in k}})
    for name in ("weight", "bias"):
        q, k, v = getattr(shared.qkv, name).split([DIM, DIM // 2, DIM // 2])
        k, v = (part.unflatten(0, (2, -1)).repeat_interleave(2, dim=0).flatten(0, 1) for part in (k, v))
        getattr(full.qkv, name).copy_(torch.cat([q, k, v]))
    x = torch.randn(2, 7, DIM)
    torch.testing.assert_close(shared(x), full(x))


@pytest.mark.parametrize("halves", [False, True])
def test_rotation_turns_pairs_and_keeps_lengths(halves):
    angle, x = 0.7, torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    table = torch.cat([torch.full((1, 4), math.sin(angle)), torch.full((1, 4), math.cos(angle))], dim=-1)
    y = rotate(x, table, halves)[0]
    for a, b in ((0, 2), (1, 3)) if halves else ((0, 1), (2, 3)):
        assert y[a] == pytest.approx(float(x[0, a] * math.cos(angle) - x[0, b] * math.sin(angle)))
        assert y[b] == pytest.approx(float(x[0, b] * math.cos(angle) + x[0, a] * math.sin(angle)))


def tables():
    yield AxialRotary(16, GRID), False
    yield CenteredRotary(16, GRID), True
    yield MixedRotary(16, 2, HEADS, GRID), False


@torch.no_grad()
def test_scores_depend_on_the_distance_alone():
    q, k = torch.randn(16, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    for module, halves in tables():
        table = module.double()()
        table = table[1, 2] if table.ndim == 4 else table  # one depth and head
        turned_q = rotate(q.expand(15, 16), table, halves).unflatten(0, GRID)
        turned_k = rotate(k.expand(15, 16), table, halves).unflatten(0, GRID)
        scores = torch.einsum("hwd,HWd->hwHW", turned_q, turned_k)
        torch.testing.assert_close(scores[0, 0, 1, 2], scores[1, 2, 2, 4], rtol=1e-5, atol=1e-5)
        assert (scores[0, 0, 1, 2] - scores[0, 0, 2, 1]).abs() > 1e-6


def test_tables_follow_the_grid_and_come_back_after_the_meta_device():
    for module, _ in tables():
        wider = type(module).forward(module, (6, 5))
        assert wider.shape[-2] == 30
        module.set_size((6, 5))
        module.init_non_persistent_buffers()
        assert torch.equal(module(), wider)
        expected = {name: b.clone() for name, b in module.named_buffers()}
        module.to("meta").to_empty(device="cpu")
        assert all(torch.equal(module.get_buffer(name), value) for name, value in expected.items())


def test_attention_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="5 heads"):
        Attention(32, 5)
    with pytest.raises(ValueError, match="evenly"):
        RotaryAttention(32, 4, kv_heads=3)


@torch.no_grad()
def test_position_by_convolution_leaves_the_prefix():
    layer, x = ConvPosition(8, prefix=2), torch.randn(1, 2 + 15, 8)
    y = layer(x, GRID)
    assert torch.equal(y[:, :2], x[:, :2])
    image = x[:, 2:].transpose(1, 2).unflatten(2, GRID)
    torch.testing.assert_close(y[:, 2:], (layer.proj(image) + image).flatten(2).transpose(1, 2))


@torch.no_grad()
def test_a_gate_lets_through_what_the_input_says():
    torch.manual_seed(0)
    attn, x = RotaryAttention(DIM, HEADS, gated=True, scale_norm=True), torch.randn(2, 7, DIM)
    plain = RotaryAttention(DIM, HEADS, scale_norm=True)
    plain.load_state_dict({key: value for key, value in attn.state_dict().items() if "gate" not in key})
    through = torch.eye(DIM)
    attn.proj.weight.copy_(through), plain.proj.weight.copy_(through)
    attn.proj.bias.zero_(), plain.proj.bias.zero_()
    torch.testing.assert_close(attn(x), plain(x) * attn.gate(x).sigmoid())
    assert RotaryAttention(DIM, HEADS, qkv_bias=False, gated=True).gate.bias is None


def test_heads_of_keys_are_one_number_or_one_a_block():
    assert heads_of_keys(None, 2, "mixed") == [None, None]
    assert heads_of_keys(2, 3, None) == [2, 2, 2] and heads_of_keys([2, 1], 2, "axial") == [2, 1]
    with pytest.raises(ValueError, match="a number for each of 3 blocks, not 2"):
        heads_of_keys([2, 1], 3, None)
    with pytest.raises(ValueError, match="leave num_kv_heads out"):
        heads_of_keys(2, 3, "mixed")
