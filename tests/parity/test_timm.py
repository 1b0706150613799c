"""imgzoo-timm beside the peer: the same names, signatures, attributes and numbers."""

import argparse
import importlib
import inspect
import random
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import imgzoo_timm
from imgzoo.registry import registry
from imgzoo_timm._door import rooms

pytestmark = pytest.mark.parity
EARLIER = {"timm.optim.novograd", "timm.optim.optim_factory", "timm.models.factory", "timm.models.features",
           "timm.models.fx_features", "timm.models.helpers", "timm.models.hub", "timm.models.registry"}  # fmt: skip
"""Paths and names of earlier versions of the peer, which research code still imports."""
EARLIER_NAMES = {"Nadam", "NovoGrad", "_pil_interp"}
for name in imgzoo_timm.PACKAGES:
    importlib.import_module(f"imgzoo_timm.{name}")
PATHS = sorted(path for path, room in rooms.items() if room.homes and not path.startswith("imgzoo_timm.models.layers"))


def peer_module(path):
    return importlib.import_module(path.replace("imgzoo_timm", "timm", 1))


def ours(path, name):
    return getattr(importlib.import_module(f"imgzoo_timm.{path}"), name)


def theirs(path, name):
    module = importlib.import_module(f"timm.{path}")
    if not hasattr(module, name):  # only the module that it stands in shows it
        own = f"imgzoo_timm.{path}."
        module = next(peer_module(each) for each in PATHS if each.startswith(own) and name in rooms[each].homes)
    return getattr(module, name)


def both(path, name):
    return ours(path, name), theirs(path, name)


def parameters(thing):
    """Names, kinds and defaults of a signature; classes and functions by their names."""
    try:
        found = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return None

    def shown(value):
        if "required" in repr(value):
            value = inspect.Parameter.empty
        if callable(value) and value is not inspect.Parameter.empty:
            return getattr(value, "__name__", type(value).__name__)
        return repr(tuple(value) if isinstance(value, list) else value).replace("torch.bfloat16", "'bfloat16'")

    return [(each.name, each.kind, shown(each.default)) for each in found]


@pytest.mark.parametrize("path", PATHS)
def test_names_stand_where_the_peer_has_them_with_its_signatures(path):
    if path.replace("imgzoo_timm", "timm", 1) in EARLIER:
        return
    module, peer = importlib.import_module(path), peer_module(path)
    inside = path.count(".") == 1  # a package shows the names of all its modules
    for name in rooms[path].homes:
        if name in EARLIER_NAMES or (inside and not hasattr(peer, name)):
            continue
        mine, other = getattr(module, name), getattr(peer, name)
        if callable(mine):
            assert parameters(mine) == parameters(other), name
        elif isinstance(mine, (str, int, float, tuple)):
            assert mine == other, name


def same_tensors(mine, other, tolerance=1e-5):
    mine, other = ([each] if isinstance(each, torch.Tensor) else list(each) for each in (mine, other))
    for a, b in zip(mine, other, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


def on_shared_weights(mine, other, *inputs, train=False):
    own, peers = mine.state_dict(), other.state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in peers.items()}
    drawn = torch.Generator().manual_seed(0)
    for value in peers.values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=drawn) * 0.2 + 0.05)
    mine.load_state_dict(peers)
    mine.train(train), other.train(train)
    with torch.no_grad():
        same_tensors(mine(*inputs), other(*inputs), 5e-5)


torch.manual_seed(0)
TOKENS, MAP = torch.randn(2, 17, 24), torch.randn(2, 24, 8, 8)
NORM = partial(nn.LayerNorm, eps=1e-6)
LAYERS = [
    ("Mlp", (24, 48), {}, TOKENS), ("Mlp", (24,), dict(act_layer=nn.ReLU, bias=(True, False), norm_layer=NORM), TOKENS),
    ("Mlp", (24, 40, 12), dict(use_conv=True), MAP), ("GluMlp", (24, 48), {}, TOKENS),
    ("SwiGLUPacked", (24, 48), {}, TOKENS), ("SwiGLU", (24, 48), dict(norm_layer=NORM), TOKENS),
    ("SwiGLU", (24, 45), dict(align_to=8), TOKENS), ("GatedMlp", (24, 48), {}, TOKENS),
    ("ConvMlp", (24, 40), dict(norm_layer=nn.BatchNorm2d), MAP), ("GlobalResponseNormMlp",
    (24, 48), {}, MAP.permute(0, 2, 3, 1)),
    ("Attention", (24, 4), {}, TOKENS), ("Attention", (24, 4),
    dict(qkv_bias=True, qk_norm=True, norm_layer=NORM), TOKENS),
    ("Attention", (24, 4), dict(attn_head_dim=8, dim_out=12, gated=True), TOKENS),
    ("LayerScale", (24, 0.1), {}, TOKENS), ("LayerScale2d", (24,), {}, MAP), ("DropPath", (0.3,), {}, TOKENS),
    ("AttentionPoolLatent", (24,), dict(num_heads=4, norm_layer=NORM), TOKENS),
    ("AttentionPool2d", (24, 8), dict(head_dim=8, out_features=10), MAP),
    ("AttentionPool2d", (24, 4), dict(num_heads=3, qkv_separate=True, class_token=True), MAP),
    ("AttentionPool2d", (24, 8), dict(head_dim=8, pool_type=""), MAP),
    ("RotAttentionPool2d", (24,), dict(head_dim=8, out_features=10), MAP),
    ("RotAttentionPool2d", (24,), dict(head_dim=8, ref_feat_size=4, pool_type=""), MAP),
    ("PatchEmbed", (8, 2, 24, 16), {}, MAP), ("PatchEmbed", (8, 2, 24, 16),
    dict(output_fmt="NHWC", norm_layer=NORM), MAP),
    ("PatchEmbed", (None, 3, 24, 16), dict(flatten=False, dynamic_img_pad=True), MAP),
    ("LayerNorm", (24,), {}, TOKENS), ("LayerNorm2d", (24,), {}, MAP), ("GroupNorm", (24, 4), {}, MAP),
    ("GroupNorm1", (24,), {}, MAP), ("RmsNorm", (24,), {}, TOKENS), ("RmsNorm2d", (24,), {}, MAP),
    ("SimpleNorm", (24,), {}, TOKENS), ("SimpleNorm2d", (24,), {}, MAP), ("BatchNormAct2d", (24,), {}, MAP),
    ("BatchNormAct2d", (24,), dict(act_layer="silu", eps=1e-3), MAP), ("GroupNormAct", (24, 4), {}, MAP),
    ("GroupNorm1Act", (24,), dict(apply_act=False), MAP), ("LayerNormAct2d", (24,), {}, MAP), ("RmsNormAct2d",
    (24,), {}, MAP),
    ("FrozenBatchNormAct2d", (24,), {}, MAP), ("SqueezeExcite", (24,), {}, MAP),
    ("SqueezeExcite", (24,), dict(rd_channels=6, add_maxpool=True, norm_layer=nn.BatchNorm2d, act_layer=nn.SiLU), MAP),
    ("EffectiveSqueezeExcite", (24,), dict(add_maxpool=True), MAP), ("EcaModule", (24,), {}, MAP), ("CecaModule",
    (24,), {}, MAP),
    ("ConvNormAct", (24, 12, 3), dict(stride=2), MAP), ("ConvNormAct", (24, 12, 3),
    dict(apply_norm=False, padding="same"), MAP),
    ("ConvNormAct", (24, 12, 3), dict(stride=2, norm_layer="groupnorm1", act_layer=nn.GELU), MAP),
    ("SeparableConvNormAct", (24, 12), {}, MAP), ("Conv2dSame", (24, 12, 3, 2), {}, MAP), ("StdConv2d",
    (24, 12, 3), {}, MAP),
    ("StdConv2dSame", (24, 12, 3, 2), {}, MAP), ("BlurPool2d", (24,), {}, MAP), ("AvgPool2dSame", (3, 2), {}, MAP),
    ("create_pool2d", ("max", 3, 2), dict(padding="same"), MAP),
    ("create_pool2d", ("avg", 3, 2), dict(padding="same"), MAP),
    ("create_pool2d", ("max", 3, 2), {}, MAP), ("create_pool2d", ("max", 3), dict(padding="same", dilation=2), MAP),
    ("SelectAdaptivePool2d", (), {}, MAP), ("SelectAdaptivePool2d", (), dict(pool_type="avg"), MAP),
    ("SelectAdaptivePool2d", (), dict(pool_type="catavgmax", flatten=True), MAP),
    ("SelectAdaptivePool2d", (2,), dict(pool_type="avgmax", flatten=True), MAP), ("SelectAdaptivePool2d", (),
    dict(pool_type="max"), MAP),
    ("SelectAdaptivePool2d", (), dict(pool_type=""), MAP), ("SelectAdaptivePool2d", (),
    dict(pool_type="avg", input_fmt="NHWC"), MAP),
    ("ClassifierHead", (24, 10), {}, MAP), ("ClassifierHead", (24, 10), dict(pool_type="avgmax", use_conv=True), MAP),
    ("NormMlpClassifierHead", (24, 10), dict(hidden_size=16), MAP), ("NormMlpClassifierHead", (24, 10),
    dict(act_layer="gelu"), MAP),
    ("LayerNormFp32", (24,), {}, TOKENS), ("LayerNorm2dFp32", (24,), {}, MAP), ("RmsNormFp32", (24,), {}, TOKENS),
    ("RmsNorm2dFp32", (24,), {}, MAP), ("SimpleNormFp32", (24,), {}, TOKENS), ("SimpleNorm2dFp32", (24,), {}, MAP),
    ("LayerNormAct", (24,), {}, TOKENS), ("LayerNormActFp32", (24,), dict(act_layer="silu"), TOKENS),
    ("LayerNormAct2dFp32", (24,), {}, MAP), ("RmsNormAct", (24,), {}, TOKENS), ("RmsNormActFp32", (24,), {}, TOKENS),
    ("RmsNormAct2dFp32", (24,), dict(apply_act=False), MAP),
    *((f"EvoNorm2d{kind}", (24,), options, MAP) for kind in ("B0", "B1", "B2") for options in ({}, dict(eps=0.1))),
    *((f"EvoNorm2d{kind}", (24, 4), options, MAP) for kind in ("S0", "S0a", "S1", "S1a", "S2", "S2a")
      for options in ({}, dict(apply_act=False))),
    ("EvoNorm2dS1", (24,), dict(group_size=6, act_layer=nn.GELU), MAP),
    ("FilterResponseNormAct2d", (24,), dict(act_layer="silu"), MAP), ("FilterResponseNormTlu2d", (24,), {}, MAP),
    ("GlobalContext", (24,), {}, MAP), ("GlobalContext", (24,), dict(fuse_add=True, use_attn=False), MAP),
    ("GlobalContext", (24,), dict(fuse_add=True, fuse_scale=False, rd_channels=5, gate_layer="hard_sigmoid"), MAP),
    ("CbamModule", (24,), {}, MAP),
    ("CbamModule", (24,), dict(rd_channels=5, spatial_kernel_size=3, mlp_bias=True), MAP),
    ("LightCbamModule", (24,), {}, MAP), ("GlobalResponseNorm", (24,), {}, MAP.permute(0, 2, 3, 1)),
    ("GlobalResponseNorm", (24,), dict(channels_last=False), MAP), ("GatherExcite", (24,), dict(use_mlp=False), MAP),
    ("GatherExcite", (24,), dict(use_mlp=False, extent=2), MAP),
    ("NonLocalAttn", (24,), {}, MAP), ("BatNonLocalAttn", (24,), dict(block_size=4), MAP),
    ("ScaledStdConv2d", (24, 12, 3), {}, MAP), ("ScaledStdConv2dSame", (24, 12, 3), dict(stride=2, gamma=1.7), MAP),
    ("SeparableConv2d", (24, 12), dict(stride=2), MAP), ("MixedConv2d", (24, 12, [3, 5]), {}, MAP),
    ("SpaceToDepth", (4,), {}, MAP), ("DepthToSpace", (2,), {}, MAP), ("AttentionRope", (24, 4), {}, TOKENS),
    ("AttentionRope", (24, 4), dict(qkv_fused=False, num_kv_heads=2, dim_out=12, proj_bias=False), TOKENS),
    ("AttentionRope", (24, 4), dict(qk_norm=True, scale_norm=True, norm_layer=NORM, attn_head_dim=8), TOKENS),
    ("DiffAttention", (24, 4), dict(depth=2), TOKENS), ("AttentionPoolPrr", (24, 4), {}, TOKENS),
    ("AttentionPoolPrr", (24, 4), dict(pool_type="avg", pre_norm=True, post_norm=True, norm_layer=NORM), TOKENS),
    *(("AttentionPoolLatent", (24,), dict(num_heads=4, **options), TOKENS) for options in (dict(out_features=0),
        dict(out_features=10), dict(feat_size=17, pos_embed="abs"), dict(latent_len=3, pool_type="avg"),
        dict(latent_dim=16), dict(q_proj=False), dict(qk_norm=True, norm_layer=NORM), dict(pool_type=""))),
    *(("RotAttentionPool2d", (24,), dict(head_dim=8, rope_type=kind), MAP) for kind in ("base", "dinov3")),
    ("ClNormMlpClassifierHead", (24, 10), dict(hidden_size=16), MAP.permute(0, 2, 3, 1)),
    ("ClNormMlpClassifierHead", (24, 10), dict(pool_type="avgmax", input_fmt="NLC"), TOKENS),
    ("ClNormMlpClassifierHead", (24, 10), dict(pool_type="", input_fmt="NLC"), TOKENS),
    ("RelPosBiasTf", ((4, 4), 3), {}, torch.randn(2, 3, 16, 16)),
    ("RelPosMlp", ((4, 4), 3), {}, torch.randn(2, 3, 16, 16)),
    *(("SelectiveKernel", (24,), options, MAP) for options in (dict(), dict(out_channels=16, stride=2, groups=4),
      dict(kernel_size=[3, 5, 7], dilation=2), dict(keep_3x3=False, rd_channels=5),
      dict(kernel_size=5, split_input=False),
      dict(drop_layer=nn.Dropout, act_layer=nn.SiLU, norm_layer=nn.BatchNorm2d))),
    *(("SplitAttn", (24,), options, MAP) for options in (dict(), dict(out_channels=16, groups=2, stride=2, bias=True),
      dict(radix=1, norm_layer=nn.BatchNorm2d), dict(radix=3, padding=0), dict(rd_channels=8, kernel_size=5),
      dict(drop_layer=nn.Dropout, dilation=2, act_layer=nn.SiLU))),
    *(("MultiQueryAttention2d", (24,), options, MAP) for options in (dict(), dict(dim_out=12, key_dim=4, value_dim=6),
      dict(num_heads=3, query_strides=2, kv_stride=2, use_bias=True), dict(query_strides=(4, 2), padding="same"),
      dict(kv_stride=2, padding="same", dw_kernel_size=5))),
    ("SplitBatchNorm2d", (24,), {}, MAP), ("Swish", (), {}, MAP), ("HardSwish", (), {}, MAP), ("HardMish", (), {}, MAP),
    ("QuickGELU", (), {}, MAP), ("PReLU", (), {}, MAP), ("RelPosBias", ((4, 4), 3), {}, torch.randn(2, 3, 16, 16)),
]  # fmt: skip


@pytest.mark.parametrize("row", LAYERS, ids=lambda row: f"{row[0]}-{'-'.join(row[2])}")
def test_layers_give_the_same_numbers(row):
    name, args, options, x = row
    mine, other = (layer(*args, **options) for layer in both("layers", name))
    on_shared_weights(mine, other, x)


def test_forms_that_carry_no_weights():
    table = torch.randn(16, 3)
    for options in ((), ("bilinear", False)):
        same_tensors(
            *(resize(table, (36, 3), *options) for resize in both("layers", "resize_rel_pos_bias_table_levit"))
        )
    filled = []
    for initializer in both("layers", "get_condconv_initializer"):
        torch.manual_seed(0)
        filled.append(torch.zeros(3, 72))
        initializer(nn.init.kaiming_normal_, 3, (4, 2, 3, 3))(filled[-1])
        with pytest.raises(ValueError):
            initializer(nn.init.ones_, 2, (4, 2, 3, 3))(filled[-1])
    same_tensors(*filled, 0)
    mine, other = (
        norm(24, act_layer="elu") for norm in both("layers", "InplaceAbn")
    )  # the peer's needs a library to run
    assert list(mine.state_dict()) == list(other.state_dict()) and mine.act_name == other.act_name
    kernel, bias = torch.randn(10, 3, 4, 4), torch.randn(10)
    for options in ({}, dict(interpolation="bilinear", antialias=False), dict(channels_last=False)):
        mine, other = (embed((4, 4), 3, 10, **options) for embed in both("layers", "PatchEmbedInterpolator"))
        last = options.get("channels_last", True)
        patches, flat = torch.randn(2, 7, *((6, 5, 3) if last else (3, 6, 5))), torch.randn(10, 48)
        same_tensors(*(each(patches, flat, bias, (6, 5)) for each in (mine, other)), 1e-4)
        same_tensors(*(each(patches.flatten(2)[..., :48], flat) for each in (mine, other)))
        image = torch.randn(2, 3, 12, 10)
        same_tensors(*(each(image, kernel, bias, (6, 5), False) for each in (mine, other)), 1e-4)


@pytest.mark.parametrize("options", [{}, dict(qkv_separate=True), dict(class_token=True, pool_type="")], ids=str)
def test_pools_script_to_the_same_numbers(options):
    for name in ("AttentionPool2d", "RotAttentionPool2d"):
        mine, other = (pool(24, head_dim=8, **options).eval() for pool in both("layers", name))
        mine.load_state_dict(other.state_dict())
        x = MAP[..., :7, :7]
        with torch.no_grad():
            same_tensors(torch.jit.script(mine)(x), other(x), 5e-5)


ROPE = {
    "RotaryEmbedding": [dict(), dict(in_pixels=False, rotate_half=True, grid_indexing="xy"),
                        dict(grid_type="centered", normalize_coords="max", ref_feat_shape=[3, 3], grid_offset=0.25)],
    "RotaryEmbeddingCat": [dict(), dict(linear_bands=True, ref_feat_shape=[7, 6]), dict(in_pixels=False),
                           dict(in_pixels=False, ref_feat_shape=[7, 7]), dict(in_pixels=False, grid_indexing="xy"),
                           dict(in_pixels=False, grid_offset=0.5), dict(in_pixels=False, rotate_half=True),
                           dict(grid_type="centered", normalize_coords="min")],
    "RotaryEmbeddingDinoV3": [dict(), dict(rotate_half=False), dict(min_period=0.5, max_period=9.0),
                              dict(normalize_coords="max", grid_indexing="xy", grid_offset=0.25)],
    "RotaryEmbeddingMixed": [dict(depth=3, num_heads=4), dict(depth=3, num_heads=4, grid_indexing="ij")],
    "RotaryEmbeddingMRope": [dict(mrope_section=(4, 6, 6)), dict(mrope_section=(2, 3, 3))],
}  # fmt: skip
MOVES = [dict(), dict(shift_coords=0.5), dict(jitter_coords=2.0), dict(shift_coords=0.2, rescale_coords=2.0)]


@pytest.mark.parametrize("moves", MOVES, ids=lambda moves: "-".join(moves) or "still")
@pytest.mark.parametrize(("name", "options"), [(name, each) for name, rows in ROPE.items() for each in rows])
def test_rotary_tables(name, options, moves):
    dim = 64 if name == "RotaryEmbeddingMixed" else 32
    mine, other = (layer(dim, **options, **moves) for layer in both("layers", name))
    mine.load_state_dict(other.state_dict())
    tables = []
    for each in (mine, other):
        torch.manual_seed(5)
        rows = [each.get_embed([4, 5]), each.eval().get_embed([2, 3])]
        tables.append([table for row in rows for table in (row if isinstance(row, tuple) else (row,))])
        if hasattr(other, "get_batch_embeds"):
            tables[-1].append(each.get_batch_embeds([(4, 5), (2, 2)], 24))
    same_tensors(*tables, 5e-4)  # of angles of hundreds of turns
    if name != "RotaryEmbeddingMRope":  # the peer turns no map by it
        x = torch.randn(2, dim, 3, 4)
        same_tensors(mine(x), other(x), 5e-4)
        kept, peers = (layer(dim, feat_shape=[4, 5], **options) for layer in both("layers", name))
        kept.load_state_dict(peers.state_dict())
        assert [key for key, _ in kept.named_buffers()] == [key for key, _ in peers.named_buffers()]
        kept.update_feat_shape([3, 3]), peers.update_feat_shape([3, 3])
        same_tensors(kept.get_embed(), peers.get_embed(), 5e-4)


def test_rotations_and_waves():
    x, table = torch.randn(2, 3, 20, 32), torch.randn(20, 64)
    for half in (False, True):
        for each in (x, x.bfloat16()):
            same_tensors(*(turn(each, table, half) for turn in both("layers", "apply_rot_embed_cat")), 0)
    for name in ("rot", "rope_rotate_half"):
        same_tensors(*(turn(x) for turn in both("layers.pos_embed_sincos", name)), 0)
    for options in ({}, dict(include_grid=True, in_pixels=False), dict(linear_bands=True, num_bands=8, max_res=32)):
        same_tensors(*(build([3, 4], **options) for build in both("layers", "build_fourier_pos_embed")), 1e-4)
    for options in ({}, dict(concat_grid=False), dict(keep_spatial=True)):
        same_tensors(*(layer(16, 4, **options)(MAP) for layer in both("layers", "FourierEmbed")))
    tokens, keep = torch.randn(2, 20, 8), torch.tensor([[0, 2, 5], [1, 3, 19]])
    for table in (torch.randn(20, 7), torch.randn(3, 20, 7)):
        same_tensors(*(take(tokens, table, keep) for take in both("layers", "apply_keep_indices_nlc")))


@pytest.mark.parametrize("kind", ["cat", "dinov3", "mixed"])
@pytest.mark.parametrize("half", [False, True])
def test_networks_turn_by_any_table(kind, half):
    if half and kind == "mixed":
        for create in both("models", "create_model"):
            with pytest.raises(ValueError):
                create("eva02_tiny_patch14_224", rope_type=kind, rope_rotate_half=half, depth=1)
        return
    options = dict(use_rot_pos_emb=True, rope_type=kind, rope_rotate_half=half, depth=1, img_size=56, num_classes=5)
    mine, other = (create("eva02_tiny_patch14_224", **options) for create in both("models", "create_model"))
    on_shared_weights(mine, other, torch.randn(1, 3, 56, 56))


def test_functions_of_layers():
    for name in ("resample_abs_pos_embed",):
        mine, other = both("layers", name)
        table = torch.randn(1, 17, 8)
        for size in ([4, 4], [8, 8], [3, 5]):
            same_tensors(mine(table, size), other(table, size))
        same_tensors(mine(table, [2, 3], [2, 8]), other(table, [2, 3], [2, 8]))
    for size in ([4, 4], [8, 6]):
        same_tensors(*(each(torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1)), size)
                       for each in both("layers", "resample_patch_embed")), 1e-4)  # fmt: skip
    for options in ({}, dict(reverse_coord=True), dict(interleave_sin_cos=True)):
        same_tensors(*(each([3, 5], dim=16, **options) for each in both("layers", "build_sincos2d_pos_embed")))
    for options in ({}, dict(class_token=True)):
        same_tensors(*(each((3, 4), **options) for each in both("layers", "gen_relative_position_index")))
    table = torch.randn(5 * 5 + 3, 4, generator=torch.Generator().manual_seed(1))
    same_tensors(*(each(table, (4, 4), (7 * 7 + 3, 4)) for each in both("layers", "resize_rel_pos_bias_table_simple")))
    for args in ((3,), (3, 2), (7, 1, 2)):
        assert len({each(*args) for each in both("layers", "get_padding")}) == 1
    for args in ((33, 8), (33, 8, 40), (10, 16)):
        assert len({each(*args) for each in both("layers", "make_divisible")}) == 1
    for value in (3, (1, 2), [4, 5, 6], "ab"):
        assert len({each(value) for each in both("layers", "to_2tuple")}) == 1
    for depths in (5, [2, 3]):
        mine, other = (each(0.3, depths) for each in both("layers", "calculate_drop_path_rates"))
        np.testing.assert_allclose(np.hstack(mine), np.hstack(other), rtol=1e-6)
    for kind in ("", "token", "avg", "max", "avgmax"):
        same_tensors(*(each(TOKENS, kind) for each in both("layers", "global_pool_nlc")))


@pytest.mark.parametrize("name", ["layernorm", "layernorm2dfp32", "rmsnorm", "rmsnormfp32", "evonormb0", "frn",
                                  "frntlu", "batchnorm", nn.LayerNorm])  # fmt: skip
def test_norms_with_activation_by_name(name):
    mine, other = (make(name, "gelu")(24) for make in both("layers", "get_norm_act_layer"))
    channels_last = "2d" not in type(other).__name__
    on_shared_weights(mine, other, TOKENS if channels_last else MAP)


def test_attention_over_another_map():
    mine, other = (layer(24, num_heads=4).eval() for layer in both("layers", "MultiQueryAttentionV2"))
    mine.load_state_dict(other.state_dict())
    with torch.no_grad():
        same_tensors(mine(MAP, m=MAP.flip(0)), other(MAP, m=MAP.flip(0)))


def test_mixtures_of_kernels_and_patches_of_maps():
    mine, other = (layer(24, 12, 3, num_experts=3) for layer in both("layers", "CondConv2d"))
    on_shared_weights(mine, other, MAP, torch.rand(2, 3))
    images = torch.randn(2, 3, 32, 32)
    for name in ("HybridEmbed", "HybridEmbedWithSize"):
        mine, other = (layer(nn.Conv2d(3, 8, 4, 4), 32, 2, embed_dim=12) for layer in both("layers", name))
        for each in ("grid_size", "num_patches", "feature_size", "feature_ratio", "feature_dim"):
            assert getattr(mine, each) == getattr(other, each), each
        assert mine.feat_ratio() == other.feat_ratio()
        if name == "HybridEmbed":
            on_shared_weights(mine, other, images)
        else:
            mine.load_state_dict(other.state_dict())
            rows = [each(images) for each in (mine, other)]
            same_tensors(rows[0][0], rows[1][0])
            assert list(rows[0][1]) == list(rows[1][1])
    for options in ({}, dict(mode="cr"), dict(pretrained_win_size=(6, 6))):
        same_tensors(*(each((4, 3), **options) for each in both("layers", "gen_relative_log_coords")))


@pytest.mark.parametrize("options", [dict(stride=2), dict(padding="same", stride=2), dict(depthwise=True),
                                     dict(padding="valid"), dict(padding=2, dilation=2), dict(bias=True)])  # fmt: skip
def test_convolutions_by_their_padding(options):
    out = 24 if options.get("depthwise") else 12
    mine, other = (make(24, out, 3, **options) for make in both("layers", "create_conv2d"))
    on_shared_weights(mine, other, MAP)


# networks that research code derives from


def test_vision_transformer_has_the_attributes():
    options = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=7)
    mine, other = (each(**options) for each in both("models", "VisionTransformer"))
    shared = ("num_classes", "num_features", "head_hidden_size", "embed_dim", "num_prefix_tokens", "num_reg_tokens",
              "has_class_token", "no_embed_class", "global_pool", "in_chans", "grad_checkpointing",
              "dynamic_img_size")  # fmt: skip
    assert {name: getattr(mine, name) for name in shared} == {name: getattr(other, name) for name in shared}
    for name in ("img_size", "patch_size", "grid_size", "num_patches", "flatten", "strict_img_size"):
        assert getattr(mine.patch_embed, name) == getattr(other.patch_embed, name), name
    for name in ("num_heads", "head_dim", "attn_dim", "scale", "fused_attn"):
        assert getattr(mine.blocks[0].attn, name) == getattr(other.blocks[0].attn, name), name
    parts = [sorted(type(each).__name__ for each in model.modules()) for model in (mine, other)]
    assert parts[0] == parts[1]


VITS = [dict(), dict(norm_layer=partial(nn.LayerNorm, eps=1e-6), qkv_bias=False), dict(norm_layer=nn.LayerNorm),
        dict(global_pool="avg", init_values=1e-5, class_token=False), dict(reg_tokens=2, no_embed_class=True),
        dict(act_layer="quick_gelu", pre_norm=True), dict(dynamic_img_size=True), dict(qk_norm=True, fc_norm=True),
        dict(global_pool="map")]  # fmt: skip


@pytest.mark.parametrize("options", VITS, ids=lambda options: "-".join(options) or "plain")
def test_vision_transformers_give_the_same_numbers(options):
    size = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=7)
    mine, other = (each(**size, **options) for each in both("models", "VisionTransformer"))
    x = torch.randn(2, 3, 40 if "dynamic_img_size" in options else 32, 32)
    on_shared_weights(mine, other, x)
    same_tensors(mine.forward_features(x), other.forward_features(x))
    same_tensors(mine._pos_embed(mine.patch_embed(x)), other._pos_embed(other.patch_embed(x)))
    same_tensors(mine.get_intermediate_layers(x, 2), other.get_intermediate_layers(x, 2))


def test_a_mask_reaches_the_attention():
    size = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=7)
    mine, other = (each(**size).eval() for each in both("models", "VisionTransformer"))
    mine.load_state_dict(other.state_dict())
    x, mask = torch.randn(2, 3, 32, 32), torch.randn(17, 17)
    with torch.no_grad():
        same_tensors(mine(x, attn_mask=mask), other(x, attn_mask=mask))


def derived(library):  # noqa: C901  (three classes)
    """Three networks as research code writes them, over one library or the other."""
    vit = importlib.import_module(f"{library}.models.vision_transformer")
    layers = importlib.import_module(f"{library}.layers")

    class Distilled(vit.VisionTransformer):  # in the manner of DeiT
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.dist_token = nn.Parameter(torch.zeros(1, 1, self.embed_dim))
            self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches + 2, self.embed_dim))
            self.head_dist = nn.Linear(self.embed_dim, self.num_classes)
            layers.trunc_normal_(self.dist_token, std=0.02)
            self.head_dist.apply(self._init_weights)

        def forward_features(self, x):
            x = self.patch_embed(x)
            tokens = [each.expand(len(x), -1, -1) for each in (self.cls_token, self.dist_token)]
            x = self.pos_drop(torch.cat([*tokens, x], dim=1) + self.pos_embed)
            for block in self.blocks:
                x = block(x)
            x = self.norm(x)
            return x[:, 0], x[:, 1]

        def forward(self, x):
            x, dist = self.forward_features(x)
            return (self.head(x) + self.head_dist(dist)) / 2

    class Masked(nn.Module):  # in the manner of MAE
        def __init__(self, dim=24):
            super().__init__()
            self.patch_embed = vit.PatchEmbed(32, 8, 3, dim)
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
            self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches + 1, dim))
            self.blocks = nn.ModuleList(vit.Block(dim, 3, 4, qkv_bias=True, norm_layer=nn.LayerNorm) for _ in range(2))
            self.norm = nn.LayerNorm(dim)
            self.pred = nn.Linear(dim, self.patch_embed.patch_size[0] ** 2 * 3)

        def forward(self, x):
            x = self.patch_embed(x) + self.pos_embed[:, 1:]
            x = x[:, ::2]
            x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1), x], dim=1)
            for block in self.blocks:
                x = block(x)
            return self.pred(self.norm(x))

    class Pooled(vit.VisionTransformer):  # MAE's fine-tuning
        def __init__(self, global_pool=False, **kwargs):
            super().__init__(**kwargs)
            self.mean = global_pool
            if global_pool:
                self.fc_norm = kwargs["norm_layer"](kwargs["embed_dim"])
                del self.norm

        def forward_features(self, x):
            x = self.patch_embed(x)
            x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self.pos_embed
            x = self.pos_drop(x)
            for block in self.blocks:
                x = block(x)
            return self.fc_norm(x[:, 1:].mean(dim=1))

        def forward_head(self, x):
            return self.head(x)

        def forward(self, x):
            return self.forward_head(self.forward_features(x))

    size = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=7, mlp_ratio=4,
                qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6))  # fmt: skip
    return [Distilled(**size), Masked(), Pooled(global_pool=True, **size)]


@pytest.mark.parametrize("which", [0, 1, 2], ids=["deit", "mae", "mae-finetune"])
def test_derived_networks_give_the_same_numbers(which):
    on_shared_weights(derived("imgzoo_timm")[which], derived("timm")[which], torch.randn(2, 3, 32, 32))


def test_blocks_of_the_callers_own():
    def build(library):
        vit = importlib.import_module(f"{library}.models.vision_transformer")

        class Own(vit.Block):
            def forward(self, x):
                return x + self.drop_path1(self.attn(self.norm1(x)))

        return vit.VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, block_fn=Own)

    on_shared_weights(build("imgzoo_timm"), build("timm"), torch.randn(2, 3, 32, 32))


RESNETS = [("BasicBlock", dict()), ("Bottleneck", dict(cardinality=4, base_width=8, stem_type="deep", stem_width=16)),
           ("Bottleneck", dict(block_args=dict(attn_layer="se"), avg_down=True, act_layer=nn.SiLU)),
           ("BasicBlock", dict(output_stride=8, drop_path_rate=0.2, aa_layer="avg"))]  # fmt: skip


@pytest.mark.parametrize("row", RESNETS, ids=lambda row: "-".join([row[0], *row[1]]))
def test_resnets_give_the_same_numbers(row):
    def build(library):
        home = importlib.import_module(f"{library}.models.resnet")
        options = dict(row[1])
        if options.get("aa_layer") == "avg":
            options["aa_layer"] = nn.AvgPool2d
        return home.ResNet(getattr(home, row[0]), [1, 2, 1, 1], num_classes=7, **options)

    on_shared_weights(build("imgzoo_timm"), build("timm"), torch.randn(2, 3, 64, 64))


def test_a_residual_block_of_the_callers_own():
    def build(library):
        home = importlib.import_module(f"{library}.models.resnet")

        class Scaled(home.BasicBlock):
            def __init__(self, *args, factor=1.0, **kwargs):
                super().__init__(*args, **kwargs)
                self.factor = factor

            def forward(self, x):
                return super().forward(x) * self.factor

        return home.ResNet(Scaled, [1, 1, 1, 1], num_classes=7, block_args=dict(factor=0.5))

    on_shared_weights(build("imgzoo_timm"), build("timm"), torch.randn(2, 3, 64, 64))


def test_swin_convnext_and_efficientnet_give_the_same_numbers():
    x = torch.randn(2, 3, 64, 64)
    swin = dict(img_size=64, window_size=4, embed_dim=24, depths=(1, 2), num_heads=(2, 4), num_classes=7,
                norm_layer=nn.LayerNorm)  # fmt: skip
    on_shared_weights(*(each(**swin) for each in both("models", "SwinTransformer")), x)
    for options in (dict(), dict(use_grn=True, ls_init_value=None), dict(conv_mlp=True, act_layer="relu"),
                    dict(kernel_sizes=5, head_norm_first=True)):  # fmt: skip
        size = dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), num_classes=7)
        on_shared_weights(*(each(**size, **options) for each in both("models", "ConvNeXt")), x)
    stages = [["ds_r1_k3_s1_e1_c16_se0.25"], ["ir_r2_k3_s2_e6_c24_se0.25", "ir_r1_k5_s1_e4_c24_noskip"],
              ["er_r1_k3_s2_e2_c32"], ["cn_r1_k1_s1_c40"]]  # fmt: skip

    def build(library):
        home = importlib.import_module(f"{library}.models.efficientnet")
        blocks = home.decode_arch_def(stages, 1.5)
        width = partial(home.round_channels, multiplier=1.1)
        return home.EfficientNet(blocks, num_classes=7, num_features=home.round_channels(64, 1.1), stem_size=16,
                                 round_chs_fn=width, act_layer=nn.SiLU,
                                 norm_layer=partial(nn.BatchNorm2d, eps=1e-3))  # fmt: skip

    on_shared_weights(build("imgzoo_timm"), build("timm"), x)


NAMES = ["vit_tiny_patch16_224", "resnet18", "swin_tiny_patch4_window7_224", "convnext_atto", "efficientnet_b0",
         "test_byobnet", "test_nfnet", "mixer_s32_224", "deit_tiny_distilled_patch16_224"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_created_models_have_the_configuration_and_the_extractors_keys(name):
    with torch.device("meta"):
        mine, other = (create(name) for create in both("models", "create_model"))
        features = [create(name, features_only=True) for create in both("models", "create_model")]
    keys = ("first_conv", "classifier", "pool_size", "input_size", "mean", "std", "crop_pct", "num_classes")
    assert {key: mine.default_cfg[key] for key in keys} == {key: other.default_cfg[key] for key in keys}
    assert mine.default_cfg is mine.pretrained_cfg
    assert list(features[0].state_dict()) == list(features[1].state_dict())
    assert [key for key, _ in features[0].named_parameters()] == [key for key, _ in features[1].named_parameters()]
    rows = [each.feature_info.get_dicts(["num_chs", "reduction", "module", "index"]) for each in features]
    assert rows[0] == rows[1]
    assert getattr(features[1], "output_fmt", "NCHW") == features[0].output_fmt


@pytest.mark.parametrize("filter", ["resnet1*", ["vit_tiny*", "swin_t*"], "*.a1_in1k", "convnext_atto"])
def test_names_are_listed_alike(filter):
    mine, other = both("models", "list_models")
    for options in ({}, dict(pretrained=True), dict(exclude_filters="*18*"), dict(include_tags=True)):
        assert mine(filter, **options) == other(filter, **options), options
    assert ours("models", "list_pretrained")(filter) == theirs("models", "list_pretrained")(filter)


# data


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
EVALS = [dict(), dict(input_size=(3, 32, 48)), dict(input_size=64, crop_mode="squash"),
     dict(input_size=64, crop_pct=1.0),
         dict(input_size=64, crop_mode="border", interpolation="bicubic"), dict(input_size=64, normalize=False),
         dict(input_size=64, use_prefetcher=True), dict(input_size=64, crop_border_pixels=4),
         dict(input_size=64, is_training=True, no_aug=True)]  # fmt: skip


@pytest.mark.parametrize("options", EVALS, ids=lambda options: "-".join(options) or "plain")
def test_evaluation_transforms_give_the_same_pixels(options):
    mine, other = (create(**options) for create in both("data", "create_transform"))
    same_tensors(mine(PICTURE), other(PICTURE))


@pytest.mark.parametrize("options", [dict(), dict(scale=(0.3, 1.0), interpolation="bicubic"),
     dict(hflip=0.0, vflip=0.5),
                                     dict(color_jitter=0.3, interpolation="random"),
                                     dict(train_crop_mode="rkrc")])  # fmt: skip
def test_training_transforms_draw_as_the_peer_does(options):
    results = []
    for create in both("data", "create_transform"):
        random.seed(3), torch.manual_seed(3), np.random.seed(3)
        results.append(create(48, is_training=True, **options)(PICTURE))
    same_tensors(*results)


def test_training_transforms_have_the_steps():
    for options in (dict(auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25), dict(color_jitter=0.4, separate=True),
                    dict(grayscale_prob=0.2, gaussian_blur_prob=0.1, color_jitter_prob=0.5)):  # fmt: skip
        rows = []
        for create in both("data", "create_transform"):
            made = create(224, is_training=True, **options)
            parts = made if isinstance(made, tuple) else (made,)
            rows.append([[type(step).__name__ for step in part.transforms] for part in parts])
        assert rows[0] == rows[1]


MIXES = [dict(), dict(cutmix_alpha=1.0), dict(mixup_alpha=0.0, cutmix_alpha=1.0), dict(cutmix_minmax=(0.2, 0.8)),
         dict(mixup_alpha=0.8, cutmix_alpha=1.0, prob=0.5, mode="elem"), dict(cutmix_alpha=1.0, mode="pair"),
         dict(mixup_alpha=0.8, cutmix_alpha=1.0, correct_lam=False)]  # fmt: skip


@pytest.mark.parametrize("options", MIXES, ids=lambda options: "-".join(options) or "plain")
def test_mixup_draws_as_the_peer_does(options):
    for seed in range(6):
        results = []
        for mixup in both("data", "Mixup"):
            np.random.seed(seed)
            x = torch.arange(6 * 3 * 16 * 16.0).reshape(6, 3, 16, 16)
            results.append(mixup(num_classes=5, **options)(x, torch.arange(6) % 5))
        same_tensors(results[0], results[1])


def test_data_configurations():
    models = [create("resnet18") for create in both("models", "create_model")]
    for args in (None, {}, dict(img_size=128), dict(input_size=(1, 64, 64), mean=[0.5], std=[0.2]),
    dict(crop_pct=0.9)):  # fmt: skip
        for options in ({}, dict(use_test_size=True)):
            mine, other = (resolve(args, model=model, **options) for resolve, model in
                           zip(both("data", "resolve_data_config"), models))  # fmt: skip
            assert mine == other


# training


SCHEDULES = [dict(), dict(warmup_epochs=3, min_lr=0.01, decay_epochs=5),
             dict(warmup_epochs=3, warmup_prefix=True, cycle_limit=2, noise=(0.3, 0.8))]  # fmt: skip


@pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated")
@pytest.mark.parametrize("name", ["cosine", "tanh", "poly", "step", "multistep", "wsd", "plateau"])
@pytest.mark.parametrize("options", SCHEDULES)
def test_schedulers_give_the_same_rates(name, options):
    rates = []
    for create in both("scheduler", "create_scheduler_v2"):
        groups = [dict(params=[torch.zeros(1, requires_grad=True)], lr=lr) for lr in (1.0, 0.5)]
        groups[1]["lr_scale"] = 0.5
        optimizer = torch.optim.SGD(groups, lr=1.0)
        scheduler, epochs = create(optimizer, name, 20, decay_milestones=(5, 12), **options)
        rows = [[epochs], [group["lr"] for group in optimizer.param_groups]]
        first = name == "plateau" and not options  # without warm-up the peer begins at the rate of its start
        for epoch in range(first, epochs):
            scheduler.step(epoch, metric=1 - abs(epoch - 4) / 30)
            rows.append([group["lr"] for group in optimizer.param_groups])
        rates.append(rows)
    for mine, other in zip(*rates, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-9)


def test_schedulers_by_update():
    rates = []
    for create in both("scheduler", "create_scheduler_v2"):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        scheduler, _ = create(optimizer, "cosine", 4, warmup_epochs=1, step_on_epochs=False, updates_per_epoch=10)
        rows = []
        for update in range(40):
            scheduler.step_update(update)
            rows.append(optimizer.param_groups[0]["lr"])
        rates.append(rows)
    np.testing.assert_allclose(*rates, rtol=1e-6)


OPTIMIZERS = ["AdaBelief", "Adafactor", "AdamP", "AdamWLegacy", "Adan", "Adopt", "LaProp", "Lamb", "Lars", "Lion",
     "MADGRAD",
              "Mars", "NAdamLegacy", "NAdamW", "NvNovoGrad", "RAdamLegacy", "RMSpropTF", "SGDP", "SGDW"]  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_step_alike(name):
    results = []
    for made in both("optim", name):
        torch.manual_seed(0)
        model = nn.Linear(8, 6)
        optimizer = made(model.parameters(), lr=0.01, weight_decay=0.02)
        for i in range(5):
            optimizer.zero_grad()
            (model(torch.ones(2, 8) * (i + 1)).square().sum()).backward()
            optimizer.step()
        results.append(list(model.parameters()))
    same_tensors(*results, 1e-4)


def test_optimizers_by_name_have_the_groups():
    args = argparse.Namespace(
        opt="adamw", lr=1e-3, weight_decay=0.05, momentum=0.9, opt_eps=1e-8, opt_betas=(0.9, 0.99)
    )
    model = theirs("models", "create_model")("vit_tiny_patch16_224", depth=2)
    groups = []
    for create in both("optim", "create_optimizer"):
        groups.append([(len(group["params"]), group["weight_decay"], group["lr"], group["betas"])
                       for group in create(args, model).param_groups])  # fmt: skip
    assert sorted(groups[0]) == sorted(groups[1])
    rows = []
    for create in both("optim", "create_optimizer_v2"):
        made = create(model, "sgd", lr=0.1, weight_decay=0.01, layer_decay=0.7)
        rows.append(
            sorted(
                (round(group["lr_scale"], 6), group["weight_decay"], len(group["params"]))
                for group in made.param_groups
            )
        )
    assert rows[0] == rows[1]


@pytest.mark.filterwarnings("ignore:It is highly recommended")
def test_optimizers_by_name_are_the_classes():
    model = nn.Linear(3, 4)
    names = [name for name in theirs("optim", "list_optimizers")() if not name.startswith(("bnb", "fused"))]
    for name in names:
        mine, other = (create(model, name, lr=0.1) for create in both("optim", "create_optimizer_v2"))
        assert type(mine).__name__ == type(other).__name__, name
        assert isinstance(mine, ours("optim", "get_optimizer_class")(name, bind_defaults=False))
        mine, other = (tell(name) for tell in both("optim", "get_optimizer_info"))
        for key in ("has_eps", "has_momentum", "has_betas", "num_betas", "second_order", "defaults"):
            assert getattr(mine, key) == getattr(other, key), (name, key)
    assert type(ours("optim", "create_optimizer_v2")(model, "lookahead_lion", lr=0.1)) is ours("optim", "Lookahead")


def test_what_optimizers_refuse():
    model = nn.Linear(3, 4)
    for refused, args, options in (
        (ValueError, (model, "nobody"), {}), (ValueError, (model, ""), {}), (ValueError, (model, "lookahead_"), {}),
        (ValueError, (model, "adamw"), dict(lr=-1.0)), (ValueError, (model, "adamw"), dict(betas=(1.1, 0.9))),
        (TypeError, (model, "adamw"), dict(nonsense=1)), (TypeError, (torch.zeros(2), "sgd"), dict(lr=0.1)),
        (TypeError, (model, "kron"), dict(foreach=True)), (ValueError, ([], "sgd"), dict(lr=0.1)),
    ):  # fmt: skip
        for create in both("optim", "create_optimizer_v2"):
            with pytest.raises(refused):
                create(*args, **options)
    for options in (dict(eps=1e-6, foreach=False), dict(betas=(0.8, 0.9))):
        for create in both("optim", "create_optimizer_v2"):
            create(model, "lion" if "eps" in options else "sgd", lr=0.1, **options)
    for find in (*both("optim", "get_optimizer_info"), *both("optim", "get_optimizer_class")):
        with pytest.raises(ValueError):
            find("nobody")


def test_registries_of_optimizers():
    answers = []
    for name in (0, 1):
        path = (ours, theirs)[name]
        names, told = path("optim", "OptimizerRegistry")(), path("optim", "OptimInfo")
        names.register(told("Mine", torch.optim.SGD, "of a script", has_eps=False, has_momentum=True))
        names.register(told("other", "torch.optim.RMSprop", defaults=dict(alpha=0.5)))
        names.register_alias("my", "mine")
        with pytest.raises(KeyError):
            names.register_alias("nothing", "nobody")
        with pytest.raises(ValueError):
            names.create_optimizer(nn.Linear(3, 4), "nobody")
        made = names.create_optimizer(nn.Linear(3, 4), "my", lr=0.1, weight_decay=0.2, momentum=0.7, eps=1e-3)
        second = names.create_optimizer(nn.Linear(3, 4).parameters(), "lookahead_other", lr=0.1, eps=1e-3)
        answers.append([names.list_optimizers(), names.list_optimizers("m*", with_description=True),
                        names.get_optimizer_class("other").keywords, type(second).__name__,
                        [(each["weight_decay"], each["momentum"], len(each["params"])) for each in made.param_groups],
                        [group["alpha"] for group in second.param_groups]])  # fmt: skip
    assert answers[0] == answers[1]


def test_layers_of_networks_that_tell_of_none():
    for classifier in (None, "2"):
        model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 2))
        if classifier:
            model.pretrained_cfg = {"classifier": classifier}
        for options in ({}, dict(layers_per_group=2), dict(num_groups=2)):
            mine, other = (group(model, **options) for group in both("optim", "auto_group_layers"))
            assert mine == other
        for options in ({}, dict(layer_decay_min_scale=0.7)):
            rows = []
            for create in both("optim", "create_optimizer_v2"):
                made = create(model, "sgd", lr=0.1, weight_decay=0.2, layer_decay=0.5, **options)
                rows.append(sorted((group["lr_scale"], group["weight_decay"], len(group["params"]))
                                   for group in made.param_groups))  # fmt: skip
            assert rows[0] == rows[1]


LOSSES = [("LabelSmoothingCrossEntropy", (0.2,), {}, "hard"), ("SoftTargetCrossEntropy", (), {}, "soft"),
          ("BinaryCrossEntropy", (), {}, "hard"), ("BinaryCrossEntropy", (),
          dict(target_threshold=0.2, sum_classes=True), "soft"),
          ("BinaryCrossEntropy", (0.0,), dict(reduction="sum"), "soft"), ("BinaryCrossEntropy", (),
          dict(smooth_dense=True), "soft"),
          ("JsdCrossEntropy", (3,), {}, "hard"), ("AsymmetricLossMultiLabel", (), {}, "multi"),
          ("AsymmetricLossMultiLabel", (2, 1), dict(reduction="sum", smoothing=0.1), "multi"),
          ("PolyCrossEntropy", (), {}, "hard"), ("PolyBinaryCrossEntropy", (), dict(gamma=2.0, alpha=0.3), "multi"),
          ("TwoWayLoss", (), {}, "multi"), ("ZlprLoss", (), {}, "multi"),
          ("AsymmetricLossSingleLabel", (), {}, "hard")]  # fmt: skip


@pytest.mark.parametrize("row", LOSSES, ids=lambda row: f"{row[0]}-{'-'.join(row[2])}")
def test_losses_give_the_same_numbers(row):
    name, args, options, kind = row
    x = torch.randn(6, 5)
    soft = torch.rand(6, 5).softmax(1)
    target = {"hard": torch.arange(6) % 5, "soft": soft, "multi": (soft > 0.2).float()}[kind]
    mine, other = (loss(*args, **options) for loss in both("loss", name))
    same_tensors(mine(x, target), other(x, target))


def test_helpers():
    output, target = torch.randn(20, 7), torch.arange(20) % 7
    same_tensors(*(each(output, target, (1, 5)) for each in both("utils", "accuracy")))
    for steps in (1, 2, 4):
        assert len({tuple(each(n, steps) for n in range(1, 300)) for each in both("utils", "decay_batch_step")}) == 1
    for text in ("required rank 4", "illegal memory", "out of memory", "not supported"):
        assert len({each(text) for each in both("utils", "check_batch_size_retry")}) == 1
    for name in ("resnet50.a1", "hf-hub:timm/x.y", "vit-b"):
        assert len({each(name) for each in both("models", "safe_model_name")}) == 1
    for text in ("a10b2", "layer.9.x"):
        assert next(each(text) for each in both("utils", "natural_key")) == theirs("utils", "natural_key")(text)
    parser = argparse.ArgumentParser()
    parser.add_argument("--opt", nargs="*", action=ours("utils", "ParseKwargs"), default={})
    assert parser.parse_args(["--opt", "a=1", "b=x", "c=(1,2)"]).opt == {"a": 1, "b": "x", "c": (1, 2)}


@pytest.mark.parametrize("name", ["ModelEma", "ModelEmaV2", "ModelEmaV3"])
def test_averages_follow_alike(name):
    results = []
    for average in both("utils", name):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        ema = average(model, decay=0.8)
        for step in range(4):
            with torch.no_grad():
                model[0].weight.add_(step + 1)
            ema.update(model, **({"step": step + 3} if name == "ModelEmaV3" else {}))
        results.append(list((ema.ema if name == "ModelEma" else ema.module).state_dict().values()))
    same_tensors(*results)
    if name == "ModelEmaV3":
        for step in range(20):
            rates = {round(each(nn.Linear(1, 1), use_warmup=True, update_after_step=3).get_decay(step), 9)
                     for each in both("utils", name)}  # fmt: skip
            assert len(rates) == 1


def test_sequences_and_groups():
    model = theirs("models", "create_model")("resnet18")
    matcher = model.group_matcher()
    for name in ("group_parameters", "group_modules"):
        for options in ({}, dict(reverse=True)):
            mine, other = (each(model, matcher, **options) for each in both("models", name))
            assert mine == other, name
    layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
    x = torch.randn(2, 4, requires_grad=True)
    for options in ({}, dict(every=2), dict(skip_last=True)):
        same_tensors(*(each(layers, x, **options) for each in both("models", "checkpoint_seq")))
    weight = torch.randn(4, 3, 3, 3)
    for chans in (1, 2, 3, 4, 7):
        same_tensors(*(each(chans, weight) for each in both("models", "adapt_input_conv")))


def test_frozen_and_split_norms():
    x = torch.randn(4, 3, 32, 32)
    for name in ("freeze_batch_norm_2d", "convert_splitbn_model"):
        results = []
        for convert in both("layers", name):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Sequential(nn.BatchNorm2d(8)))
            model = convert(model)
            results += [list(model.state_dict()), model(x)]
        assert results[0] == results[2]
        same_tensors(results[1], results[3])


COUNTS = [10, 50, 2, 7, 90]
CLASSIFICATION = [
    dict(), dict(smoothing=0.1), dict(soft_targets=True), dict(loss_type="bce"), dict(loss_type="asl", smoothing=0.1),
    dict(loss_type="bce", bce_target_thresh=0.2, bce_sum=True, smoothing=0.1), dict(loss_type="poly", smoothing=0.1),
    dict(loss_type="bce", class_weight=[1.0, 2, 3, 1, 1], pos_weight=2.0), dict(loss_type="jsd", jsd_splits=2),
    dict(multi_label=True), dict(multi_label=True, smoothing=0.1, pos_weight=2.0),
    dict(multi_label=True, loss_type="asl"),
    dict(multi_label=True, loss_type="poly", poly_gamma=2.0), dict(multi_label=True, loss_type="zlpr"),
    dict(multi_label=True, loss_type="twoway"),
    dict(multi_label=True, loss_type="db", class_counts=COUNTS, num_samples=100),
    dict(multi_label=True, loss_type="db", class_counts=COUNTS, num_samples=100, db_neg_scale=4.0, db_init_bias=1.0),
]  # fmt: skip


@pytest.mark.parametrize("options", CLASSIFICATION, ids=lambda row: "-".join(map(str, row.items())) or "plain")
def test_losses_by_name_give_the_same_numbers(options):
    x = 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1, 2, 3, 4, 0])
    if options.get("multi_label") or options.get("soft_targets"):
        target = torch.nn.functional.one_hot(target, 5).float()
        target[:, 4] = 1.0
    mine, other = (create(**options) for create in both("loss", "create_classification_loss"))
    same_tensors(mine(x, target), other(x, target))


def test_what_losses_refuse():
    for options in (dict(loss_type="zz"), dict(multi_label=True, loss_type="ce"), dict(loss_type="twoway"),
                    dict(loss_type="ce", class_weight=2.0), dict(multi_label=True, loss_type="db")):  # fmt: skip
        for create in both("loss", "create_classification_loss"):
            with pytest.raises(ValueError):
                create(**options)


@pytest.mark.parametrize("method", ["neg_pos", "inv_freq", "effective_num"])
def test_weights_of_classes(method):
    for options in ({}, dict(power=0.5, max_weight=3.0), dict(beta=0.9)):
        mine, other = (make([0, *COUNTS], 100, method, **options) for make in both("loss", "compute_class_weights"))
        assert mine[0] == other[0]
        same_tensors(mine[1], other[1])


# tasks


def small(name="test_resnet", seed=0, **options):
    """The same network of both, by the peer's class: tasks take any."""
    torch.manual_seed(seed)
    return theirs("models", "create_model")(name, num_classes=7, **options)


IMAGES, LABELS = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.arange(4)
DENSE = torch.nn.functional.one_hot(LABELS, 7).float()
TASKS = [
    ("ClassificationTask", {}), ("ClassificationTask", dict(criterion_kwargs=dict(smoothing=0.1))),
    ("ClassificationTask", dict(criterion=nn.MultiMarginLoss())), ("MultiLabelClassificationTask", {}),
    *(("LogitDistillationTask", options) for options in ({}, dict(temperature=3.0), dict(task_loss_weight=0.3),
      dict(distill_loss_weight=0.2), dict(distill_loss_weight=0.2, task_loss_weight=0.1))),
    ("FeatureDistillationTask", {}), ("FeatureDistillationTask", dict(student="test_efficientnet")),
    ("TokenDistillationTask", {}), ("TokenDistillationTask", dict(distill_type="hard", task_loss_weight=0.4)),
]  # fmt: skip


def tasks(name, options):
    """One of each library, over equal networks."""
    options, made = dict(options), []
    student = options.pop("student", "test_resnet")
    for task in both("task", name):
        if name == "TokenDistillationTask":
            model = small("deit_tiny_distilled_patch16_224", img_size=64, depth=1)
        else:
            model = small(student)
        teacher = {} if name.endswith("ClassificationTask") else {"teacher_model": small(seed=1)}
        made.append(task(model, **teacher, **options, verbose=False))
    return made


@pytest.mark.parametrize(("name", "options"), TASKS)
def test_tasks_give_the_same_losses(name, options):
    mine, other = tasks(name, options)
    assert list(mine.state_dict()) == list(other.state_dict())
    mine.load_state_dict(other.state_dict())
    target = DENSE if name.startswith("Multi") else LABELS
    for mode in (True, False)[: 1 if name.startswith("Token") else 2]:  # the peer's has one output in evaluation
        found, wanted = (each.train(mode)(IMAGES, target) for each in (mine, other))
        assert list(found) == list(wanted)
        same_tensors(found.values(), wanted.values(), 1e-4)
    for exclude in (False, True):
        assert len({len(list(each.get_clip_parameters(exclude))) for each in (mine, other)}) == 1
    for ema in (False, True):
        states = [each.get_checkpoint_state(ema=ema) for each in (mine, other)]
        found, wanted = ({key: list(value) for key, value in each.items()} for each in states)
        assert found == wanted
        mine.setup_ema(decay=0.5), other.setup_ema(decay=0.5)
    assert mine.has_ema() and mine.get_eval_model().num_classes == 7
    for public in [key for key in vars(type(other)) if not key.startswith("_")]:
        if inspect.isfunction(getattr(type(other), public)):
            assert parameters(getattr(type(mine), public)) == parameters(getattr(type(other), public)), public


@pytest.mark.parametrize("name", ["ClassificationEvaluator", "MultiLabelClassificationEvaluator"])
def test_evaluators_give_the_same_scores(name):
    output = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    target = (output + torch.randn(20, 7, generator=torch.Generator().manual_seed(1)) > 0).float()
    target = target if name.startswith("Multi") else torch.arange(20) % 7
    for limit in (None, 13, 0):
        mine, other = (make(max_samples=limit) for make in both("task", name))
        assert (mine.metric_names, mine.default_metric) == (other.metric_names, other.default_metric)
        for each in (mine, other):
            each.update(output[:8], target[:8]), each.update(output[8:], target[8:])
        for told in ("compute", "summary"):
            rows = [getattr(each, told)() for each in (mine, other)]
            assert list(rows[0]) == list(rows[1])
            np.testing.assert_allclose(list(rows[0].values()), list(rows[1].values()), rtol=1e-5)
    for share in range(3):
        sampler = theirs("data.distributed_sampler", "OrderedDistributedSampler")(range(11), 3, share)
        own = ours("data", "OrderedDistributedSampler")(range(11), 3, share)
        assert ours("task", "evaluation_sample_limit")(argparse.Namespace(sampler=own)) == theirs(
            "task", "evaluation_sample_limit")(torch.utils.data.DataLoader(range(11), sampler=sampler))  # fmt: skip


def test_what_tasks_refuse():
    for name, options in (("LogitDistillationTask", dict(loss_type="l1")), ("TokenDistillationTask", {}),
                          ("TokenDistillationTask", dict(distill_type="warm")), ("ClassificationTask", dict(
                              criterion=nn.CrossEntropyLoss(), criterion_kwargs=dict(smoothing=0.1)))):  # fmt: skip
        for task in both("task", name):
            teacher = {} if name == "ClassificationTask" else {"teacher_model": small()}
            with pytest.raises(ValueError):
                task(small(), **teacher, **options, verbose=False)
    for evaluator in both("task", "MultiLabelClassificationEvaluator"):
        with pytest.raises(ValueError):
            evaluator(threshold=2.0)
        with pytest.raises(ValueError):
            evaluator().update(torch.randn(3, 4), LABELS)


def test_tasks_go_on_from_each_others_checkpoints(tmp_path):
    options = dict(student="test_efficientnet")
    for writer in (0, 1):
        made = tasks("FeatureDistillationTask", options)
        task, reader = made[writer], made[1 - writer]
        task.setup_ema(decay=0.5)
        reader.setup_ema(decay=0.5)
        with torch.no_grad():
            for value in task.trainable_module_ema.parameters():
                value.add_(1.0)
        optimizer = torch.optim.SGD(task.parameters(), 0.1)
        saver = (ours, theirs)[writer]("utils", "CheckpointSaver")(
            task.get_eval_model(), optimizer, checkpoint_dir=str(tmp_path), task=task
        )
        saver.save_checkpoint(3, 1.0)
        resume = (theirs, ours)[writer]("task", "resume_task_checkpoint")
        path = str(tmp_path / "last.pth.tar")
        assert resume(reader, path, torch.optim.SGD(reader.parameters(), 0.1), weights_only=False) == 4
        (theirs, ours)[writer]("task", "load_task_ema_checkpoint")(reader, path, weights_only=False)
        same_tensors(task.trainable_module_ema.state_dict().values(), reader.trainable_module_ema.state_dict().values())
        same_tensors(task.trainable_module.state_dict().values(), reader.trainable_module.state_dict().values())
        meta = ours("utils", "load_checkpoint_metadata")(path)
        assert meta["epoch"] == theirs("utils", "load_checkpoint_metadata")(path)["epoch"] == 3


def test_batches_of_several_sizes():
    samples = torch.utils.data.SequentialSampler(range(40))
    for options in (dict(), dict(choice_weights=(0.7, 0.2, 0.1)), dict(schedule_spread=0.3, schedule_random_mix=0.4)):
        mine, other = (make(samples, (2, 4, 5), choice_schedule="progressive", schedule_epochs=4, **options)
                       for make in both("data", "ScheduledBatchSampler"))  # fmt: skip
        for epoch in range(6):
            same_tensors(*(each.choice_weights_for_epoch(epoch) for each in (mine, other)), 1e-6)
    for make in both("data", "ScheduledBatchSampler"):
        kept = [len(list(make(samples, [3, 5], num_batches=count))) for count in (2, 4)]
        assert kept == [2, 4] and all(size == 3 for _, size in make(samples, [3]).schedule)
        assert sum(map(len, make(samples, [3], drop_last=False))) == 40
        for bad in (dict(batch_sizes=[]), dict(batch_sizes=[0]), dict(batch_sizes=[2, 3], choice_weights=[1.0]),
                    dict(batch_sizes=[2], num_batches=0), dict(batch_sizes=[2], choice_schedule="warm")):  # fmt: skip
            with pytest.raises(ValueError):
                make(samples, **bad)


def test_parts_of_images_and_targets_of_several_labels():
    for size in ((16, 16), (30, 8), (7, 40)):
        same_tensors(*(torch.from_numpy(np.array(crop(PICTURE.resize((20, 11)), size)))
                       for crop in both("data", "center_crop_or_pad")))  # fmt: skip
        same_tensors(*(torch.from_numpy(np.array(crop(PICTURE.resize((20, 10)), -3, 5, *size)))
                       for crop in both("data", "crop_or_pad")))  # fmt: skip
    for options, target in ((dict(), [0, 2]), (dict(), []), (dict(dense=True), [0, 0.5, 1, 0]),
                            (dict(), torch.tensor([1, 3]))):  # fmt: skip
        same_tensors(*(make(4, **options)(target) for make in both("data", "MultiLabelTarget")))
    for make in both("data", "MultiLabelTarget"):
        for options, target in ((dict(), 2), (dict(), [7]), (dict(dense=True), [1.0])):
            with pytest.raises(ValueError):
                make(4, **options)(target)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the peer leaves files open
def test_readers_of_folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            PICTURE.save(tmp_path / name / f"{i}.png")
    (tmp_path / "classes.txt").write_text("b\na\n")
    mine, other = (make("", str(tmp_path)) for make in both("data", "create_reader"))
    assert (len(mine), mine.class_to_idx) == (len(other), other.class_to_idx)
    for i in range(6):
        (file, target), (opened, wanted) = mine[i], other[i]
        with opened:
            assert file.read() == opened.read() and target == wanted
        for options in ({}, dict(basename=True), dict(absolute=True)):
            assert mine.filename(i, **options) == other.filename(i, **options)
    maps = both("data.readers.class_map", "load_class_map")
    assert maps[0]("classes.txt", str(tmp_path)) == maps[1]("classes.txt", str(tmp_path))
    datasets = [make(str(tmp_path)) for make in both("data", "ImageDataset")]
    assert [each[4][1] for each in datasets] == [1, 1]
    assert datasets[0].filenames(basename=True) == datasets[1].filenames(basename=True)
    model = small("test_vit")
    for args in ({}, dict(img_size=64)):
        assert len({str(tell(model, args)) for tell in both("data", "resolve_input_data_config")}) == 1


def test_weights_of_classes_from_files(tmp_path):
    (tmp_path / "stats.json").write_text('{"pos_counts": [1, 5, 2], "num_samples": 10}')
    (tmp_path / "own.json").write_text('{"pos_weight": [4, 5, 6]}')
    (tmp_path / "rows.txt").write_text("1\n2\n3\n")
    loads, stats, resolves = (both("loss", name) for name in
                              ("load_class_weights", "load_class_stats", "resolve_class_weights"))  # fmt: skip
    told = [load(str(tmp_path / "stats.json")) for load in stats]
    for value, kind in ((str(tmp_path / "own.json"), "pos_weight"), (str(tmp_path / "rows.txt"), "class_weight"),
                        ("1,2,3", "class_weight"), ((1, 2), "class_weight"), ("neg_pos", "pos_weight"),
                        ("inv_freq", "class_weight"), ("effective_num", "class_weight")):  # fmt: skip
        same_tensors(*(resolve(value, kind, each) for resolve, each in zip(resolves, told)))
    for value in (None, 2.0, 3, "2.5"):
        assert loads[0](value) == loads[1](value)
    for load in loads:
        for value in ("nonsense", str(tmp_path / "own.json")):
            with pytest.raises(ValueError):
                load(value)
    for resolve, each in zip(resolves, told):
        for value, kind, known in (("neg_pos", "class_weight", each), ("inv_freq", "class_weight", None)):
            with pytest.raises(ValueError):
                resolve(value, kind, known)


@pytest.mark.parametrize("method", ["fx", "hook"])
def test_attention_is_taken_out_alike(method):
    fused = both("layers", "set_fused_attn")
    try:
        for switch in fused:
            switch(False)
        networks = [create("test_vit", num_classes=7) for create in both("models", "create_model")]
    finally:
        for switch in fused:
            switch(True)
    networks[0].load_state_dict(networks[1].state_dict())
    x = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        found, wanted = (take(model, method=method)(x) for take, model in
                         zip(both("utils", "AttentionExtract"), networks))  # fmt: skip
    assert list(found) == list(wanted)
    same_tensors(found.values(), wanted.values())
    with pytest.raises(RuntimeError):
        ours("utils", "AttentionExtract")(networks[0], names=["nothing"], method=method)


FIRST = {spec.family: spec.name for spec in reversed(registry("models").specs()) if spec.family}
POOLED_APART = {"mobilenetv5", "nest"}
"""Families whose pool the peer tells otherwise: of a map of a fixed size, and as a list."""


@pytest.mark.parametrize("family", sorted(FIRST.keys() - POOLED_APART))
def test_what_is_told_of_pools(family):
    told = theirs("models", "get_pretrained_cfg")(FIRST[family])
    if told is None:
        return
    with torch.device("meta"):
        model = ours("models", "create_model")(FIRST[family])
    size = told.input_size[-1]
    if model.default_cfg["input_size"][-1] == size:
        assert model.default_cfg["pool_size"] == told.pool_size


# patches of images of any shape, and policies as lists


SIDES = [(90, 120), (500, 20), (33, 17), (7, 900), (333, 331)]


def test_sizes_and_patches_of_sequences():
    sizes = both("data.naflex_transforms", "get_image_size_for_seq")
    for sides in SIDES:
        for length in (1, 3, 7, 20, 48, 333, 576):
            for options in (dict(), dict(max_ratio=1.1), dict(patch_size=(16, 8))):
                mine, other = (size(sides, max_seq_len=length, **options) for size in sizes)
                assert mine[1] == other[1] and mine[0] == pytest.approx(other[0], abs=1e-4, rel=1e-3), (
                    sides,
                    length,
                    options,
                )
    image = torch.randn(3, 40, 70)
    for options in ({}, dict(channels_last=False), dict(flatten_patches=False), dict(include_info=False),
                    dict(flatten_patches=False, channels_last=False)):  # fmt: skip
        same_tensors(*(cut(image, (16, 8), **options) for cut in both("data", "patchify_image")), 0)
    mine, other = (make(16)(PICTURE) for make in both("data", "Patchify"))
    assert list(mine) == list(other)
    same_tensors(mine.values(), other.values(), 0)
    for name in ("ResizeToSequence", "CenterCropToSequence"):
        for sides in SIDES[:3]:
            for length in (20, 200):
                mine, other = (make(16, length)(PICTURE.resize(sides)) for make in both("data", name))
                same_tensors(torch.from_numpy(np.array(mine)), torch.from_numpy(np.array(other)), 0)
    for name in ("ResizeKeepRatioToSequence", "RandomCropToSequence"):
        assert len({make(16, 48)(PICTURE).size for make in both("data", name)}) == 1
    random.seed(0)
    areas = [np.mean([np.prod(make(16, 48, scale=(0.3, 0.6))(PICTURE).size) for _ in range(60)])
             for make in both("data", "RandomResizedCropToSequence")]  # fmt: skip
    assert areas[0] == pytest.approx(areas[1], rel=0.1)


@pytest.mark.parametrize("options", [
    dict(), dict(is_training=True), dict(patchify=True), dict(is_training=True, no_aug=True, patchify=True),
    dict(is_training=True, patchify=True, re_prob=0.2, auto_augment="rand-m9"), dict(crop_border_pixels=4),
    dict(patchify=True, use_prefetcher=True), dict(patchify=True, naflex=False)])  # fmt: skip
def test_transforms_of_sequences_have_the_steps(options):
    made = [
        create(224, **{"naflex": True, "max_seq_len": 50, **options}) for create in both("data", "create_transform")
    ]
    assert len({str([type(step).__name__ for step in each.transforms]) for each in made}) == 1
    if not options.get("is_training") or options.get("no_aug"):
        mine, other = (each(PICTURE) for each in made)
        if options.get("patchify"):
            mine, other = mine.values(), other.values()
        same_tensors(mine, other)


class Pictures(torch.utils.data.Dataset):
    transform = target_transform = None

    def __init__(self, count=37):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        image = Image.fromarray(np.full((40 + i % 40, 90 - i % 40, 3), i % 250, np.uint8))
        return (self.transform(image) if self.transform else image), i % 5


def batches_of(loader):
    return [({key: getattr(value, "shape", value) for key, value in row.items()}, targets.shape, row["patches"].dtype,
             targets.dtype) for row, targets in loader]  # fmt: skip


@pytest.mark.parametrize("prefetch", [False, True])
def test_batches_of_sequences(prefetch):
    for args in ((16384, 128), (16384, 576), (16384, 576, 20, 8), (1000, 576, None, 8), (16384, 700, None, 8, "round"),
                 (16384, 576, None, 8, "ceil")):  # fmt: skip
        assert len({size(*args) for size in both("data", "calculate_naflex_batch_size")}) == 1, args
    shared = dict(train_seq_lens=(4, 9, 16), max_seq_len=9, batch_size=4, num_workers=0, persistent_workers=False,
                  pin_memory=False, color_jitter=0, use_prefetcher=prefetch, device=torch.device("cpu"))  # fmt: skip
    mine, other = (make(Pictures(), patch_size=16, **shared) for make in both("data", "create_naflex_loader"))
    assert len(mine) == len(other) and batches_of(mine) == batches_of(other)
    for (rows, targets), (wanted, classes) in zip(mine, other):
        same_tensors([targets, rows["patch_coord"]], [classes, wanted["patch_coord"]], 0)
        same_tensors(rows["patches"][rows["patch_valid"]], wanted["patches"][wanted["patch_valid"]], 1e-4)
    kinds = []
    for make, mixup in zip(both("data", "create_naflex_loader"), both("data", "NaFlexMixup")):
        for options in (dict(patch_size=16), dict(patch_size_choices=[8, 16]), dict(mixup_fn=mixup(num_classes=5))):
            loader = make(Pictures(400), is_training=True, **options, **shared)
            rows = batches_of(loader)
            assert sum(targets[0] for _, targets, *_ in rows) == 400 and len(rows) == len(loader)
            kinds.append({(row["patches"][2:], row["seq_len"], targets[1:], kind, other) for row, targets, kind, other
                          in rows})  # fmt: skip
            sizes = {row["seq_len"]: set() for row, *_ in rows}
            for row, targets, *_ in rows[:-1]:
                sizes[row["seq_len"]].add(targets[0])
            assert sizes.keys() <= {4, 9, 16} and all(max(each) <= max(1, 64 // size) for size, each in sizes.items())
    assert kinds[:3] == kinds[3:]


def test_mixing_of_images_of_any_shape():
    sizes = [(1, 8, 8 + 4 * i) for i in range(5)]
    shares, pairs = [], []
    for mix in both("data", "mix_batch_variable_size"):
        for cut in (False, True):
            drawn = []
            for seed in range(400):
                random.seed(seed), np.random.seed(seed)
                images = [torch.full(size, float(i)) for i, size in enumerate(sizes)]
                mixed, lam, partner = mix(images, mixup_alpha=0.0 if cut else 1.0, cutmix_alpha=1.0 if cut else 0.0)
                for i, other in partner.items():
                    assert partner[other] == i and mixed[i].shape == sizes[i]
                    expected = lam[i] * i + (1 - lam[i]) * other
                    assert mixed[i].mean().item() == pytest.approx(expected, abs=1e-4)
                assert lam[4] == 1.0 and 4 not in partner
                drawn += lam[:4]
            shares.append(np.mean(drawn))
        pairs.append(pairs)
    np.testing.assert_allclose(shares[:2], shares[2:], atol=0.04)
    for target, options in ((torch.tensor([0, 1, 2]), dict(smoothing=0.3)),
                            (torch.eye(3), dict(smoothing=0.3, multi_label=True))):  # fmt: skip
        same_tensors(*(make(target, {0: 1, 1: 0}, [0.7, 0.6, 1.0], num_classes=3, **options)
                       for make in both("data", "pairwise_mixup_target")))  # fmt: skip


@pytest.mark.parametrize("spatial", ["region", "patch"])
def test_patches_are_erased_as_often(spatial):
    coord, shares = torch.cartesian_prod(torch.arange(20), torch.arange(20))[None], []
    for erasing in both("data.naflex_random_erasing", "PatchRandomErasing"):
        random.seed(0), torch.manual_seed(0), np.random.seed(0)
        erase, gone = erasing(1.0, device="cpu", spatial_mode=spatial), []
        for _ in range(200):
            patches = torch.ones(1, 400, 1, 1, 3)
            erase(patches, coord, torch.ones(1, 400, dtype=torch.bool))
            gone.append((patches == 0).float().mean().item())
        shares.append([np.mean(gone), np.min(gone), np.max(gone)])
    np.testing.assert_allclose(*shares, atol=0.03)


def test_policies_hold_the_operations():
    def rows(policy):
        ops = getattr(policy, "ops", None) or [op for row in policy.policy for op in row]
        return sorted((op.name, op.prob, op.magnitude, op.magnitude_std) for op in ops)

    module = "data.auto_augment"
    for text in ("rand-m9-n3-mstd0.5", "rand-m9-mstd0.5-inc1", "rand-m7-tweights", "rand-m7-p0.3-t3aw"):
        mine, other = (make(text, {}) for make in both(module, "rand_augment_transform"))
        assert rows(mine) == rows(other) and mine.num_layers == other.num_layers
        assert (mine.choice_weights is None) == (other.choice_weights is None)
        if mine.choice_weights is not None:
            weights = [{op.name: round(each, 6) for op, each in zip(made.ops, made.choice_weights)}
                       for made in (mine, other)]  # fmt: skip
            assert weights[0] == weights[1]
    for own in (["Rotate", "Color"], {"Rotate": 1, "Color": 3}):
        mine, other = (make("rand-m9", {}, own) for make in both(module, "rand_augment_transform"))
        assert rows(mine) == rows(other)
        assert np.array_equal(mine.choice_weights, other.choice_weights)
    for text in ("original", "originalr", "v0", "v0r", "3a", "original-mstd0.5"):
        mine, other = (make(text, {}) for make in both(module, "auto_augment_transform"))
        assert rows(mine) == rows(other)
    mine, other = (make("augmix-m5-w4-d2-b1", {}) for make in both(module, "augment_and_mix_transform"))
    assert rows(mine) == rows(other)
    assert {name: getattr(mine, name) for name in ("alpha", "width", "depth", "blended")} == {
        name: getattr(other, name) for name in ("alpha", "width", "depth", "blended")}  # fmt: skip
    names = [op.name for op in ours("data", "rand_augment_ops")()]
    assert names == [op.name for op in theirs("data", "rand_augment_ops")()]
    hparams = dict(img_mean=(1, 2, 3), interpolation=Image.Resampling.BILINEAR, translate_pct=0.2)
    rows_of = ours("data", "auto_augment_policy")
    names += [op.name for text in ("original", "v0", "3a") for row in rows_of(text) for op in row]
    for name in sorted({*names} - {"GaussianBlurRand"}):
        found = [{np.array(op(PICTURE)).tobytes() for _ in range(24)} for op in (
                 make(name, 1.0, 7, hparams) for make in both(module, "AugmentOp"))]  # fmt: skip
        assert found[0] & found[1] and (len(found[0]) > 4 or found[0] == found[1]), name


def test_names_of_classes():
    told = {"a": "x", "b": "y"}
    infos = [(make(["a", "b"], told), make({0: "a", 5: "b"}, told), net())
             for make, net in zip(both("data", "CustomDatasetInfo"), both("data", "ImageNetInfo"))]  # fmt: skip
    for mine, other in zip(*infos):
        for name in ("num_classes", "label_names", "label_descriptions", "label_indices"):
            assert getattr(mine, name)() == getattr(other, name)(), name
        assert mine.label_descriptions(True, True) == other.label_descriptions(True, True)
        for number in other.label_indices()[:3]:
            assert mine.index_to_description(number, True) == other.index_to_description(number, True)
        for kind in ("name", "description", "detailed"):
            maps = [make(info, kind) for make, info in zip(both("data", "DatasetInfoLabelMapper"), (mine, other))]
            for number in (0, 3, 5, 5000):
                assert maps[0](number) == maps[1](number)
            assert maps[0].coverage(4) == maps[1].coverage(4)
    for size in ((12, 16), (6, 16), (4, 4)):
        mine, other = ({tuple(make.get_params(PICTURE.resize((10, 8)), size)) for _ in range(400)}
                       for make in both("data", "RandomPad"))  # fmt: skip
        assert size == (4, 4) or mine == other


# networks by their configurations


FAMILIES_OF_CONFIGS = {"byobnet": "ByobNet", "byoanet": "ByobNet", "maxxvit": "MaxxVit", "nfnet": "NormFreeNet",
                       "regnet": "RegNet", "mvitv2": "MultiScaleVit"}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES_OF_CONFIGS)
def test_published_configurations_build_the_networks(family):
    size = dict(img_size=256) if family == "byoanet" else {}
    published = list(importlib.import_module(f"timm.models.{family}").model_cfgs.items())
    for name, cfg in published[:: max(1, len(published) // 6)]:
        options = dict(img_size=224) if name.startswith("resnet") and cfg.head_type == "attn_abs" else size
        with torch.device("meta"):
            mine, other = (make(cfg, **options) for make in both("models", FAMILIES_OF_CONFIGS[family]))
        shapes = [[(key, value.shape) for key, value in each.state_dict().items()] for each in (mine, other)]
        assert shapes[0] == shapes[1], name


def byo_configs(models):
    block, cfg = models.ByoBlockCfg, models.ByoModelCfg
    yield cfg(blocks=(block("edge", 1, 32, 2, 0, 0.5), block("bottle", 2, 64, 2, 16, 0.5)), stem_chs=24,
              downsample="avg", attn_layer="se", attn_kwargs=dict(rd_ratio=0.25), stem_pool="")  # fmt: skip
    yield cfg(blocks=(block("bottle", 2, 32, 1, 0, 2.0), block("bottle", 1, 64, 2, 8, 2.0)), downsample="",
              act_layer="silu", block_kwargs=dict(bottle_in=True, linear_out=True), num_features=48,
              width_factor=1.5)  # fmt: skip
    yield cfg(blocks=(block("rep", 2, 32, 2, 0, 1.0), block("basic", 1, 64, 2, 0, 1.0)), stem_type="rep", stem_chs=16)
    yield cfg(blocks=((block("bottle", 1, 32, 1, 0, 0.25), block("self_attn", 1, 32, 1, 0, 0.25)),
                      block("self_attn", 1, 64, 2, 0, 0.25)), stem_type="tiered",
              self_attn_layer="halo", self_attn_kwargs=dict(block_size=8, halo_size=2, dim_head=8))  # fmt: skip
    yield cfg(blocks=(block("dark", 1, 32, 2, None, 0.5), block("dark", 1, 48)), stem_type="7x7", stem_chs=16,
              head_type="mlp", head_hidden_size=20)  # fmt: skip
    yield cfg(blocks=(block("basic", 1, 32, 2, None, 0.5), block("basic", 1, 48)), stem_type="3x3", stem_chs=16)


@pytest.mark.parametrize("row", range(6))
def test_networks_of_ones_own_blocks_give_the_same_numbers(row):
    libraries = [importlib.import_module(f"{library}.models") for library in ("imgzoo_timm", "timm")]
    made = [each.ByobNet(list(byo_configs(each))[row], num_classes=7, img_size=64) for each in libraries]
    on_shared_weights(*made, torch.randn(1, 3, 64, 64))


def other_configs(models):
    yield models.MaxxVit, models.MaxxVitCfg(
        embed_dim=(32, 64), depths=(1, 2), block_type=("C", ("C", "T")), stem_width=(16, 32)
    ), dict(img_size=64)  # fmt: skip
    yield models.MaxxVit, models.MaxxVitCfg(
        embed_dim=(32, 64), depths=(1, 1), block_type=("M", "M"), stem_width=16,
        conv_cfg=models.MaxxVitConvCfg(block_type="convnext"),
        transformer_cfg=models.MaxxVitTransformerCfg(no_block_attn=True, init_values=0.1)
    ), dict(img_size=64)  # fmt: skip
    yield models.NormFreeNet, models.NfCfg((1, 1, 1, 1), (16, 32, 48, 64), attn_layer="se", attn_kwargs={}), {}
    yield models.RegNet, models.RegNetCfg(
        depth=6, w0=16, wa=36.0, wm=2.5, group_size=8, downsample="", linear_out=True), {}  # fmt: skip
    yield models.MultiScaleVit, models.MultiScaleVitCfg(depths=(1, 1, 1, 1), embed_dim=24), dict(img_size=(64, 64))
    yield models.NaFlexVit, models.NaFlexVitCfg(
        depth=1, embed_dim=48, num_heads=3, class_token=True, reg_tokens=2, init_values=0.1, global_pool="token",
        pos_embed_ar_preserving=True), {}  # fmt: skip


@pytest.mark.parametrize("row", range(6))
def test_networks_of_ones_own_configurations_give_the_same_numbers(row):
    libraries = [importlib.import_module(f"{library}.models") for library in ("imgzoo_timm", "timm")]
    rows = [list(other_configs(each))[row] for each in libraries]
    assert repr(rows[0][1]) == repr(rows[1][1])
    on_shared_weights(*(make(cfg, num_classes=7, **options) for make, cfg, options in rows), torch.randn(1, 3, 64, 64))


WITHOUT = {
    "data": {"add_img_extensions", "del_img_extensions", "set_img_extensions"},
    "models": {"ClassAttn", "EfficientNetFeatures", "EfficientVitLarge", "HighResolutionNetFeatures",
               "LayerScaleBlock", "LayerScaleBlockClassAttn", "MixerBlock", "MobileNetV3Features",
               "MobileNetV5Encoder", "TalkingHeadAttn", "adapt_model_from_string", "create_block", "create_byob_stem",
               "load_custom_pretrained", "set_pretrained_check_hash", "set_pretrained_download_progress"},
}  # fmt: skip
"""Public names of the peer that have no equivalent here."""


@pytest.mark.filterwarnings("ignore::imgzoo.errors.ImgzooDeprecationWarning")
@pytest.mark.parametrize("path", imgzoo_timm.PACKAGES)
def test_public_names_without_an_equivalent_are_known_and_told(path):
    module, peer = importlib.import_module(f"imgzoo_timm.{path}"), importlib.import_module(f"timm.{path}")
    public = [name for name, value in vars(peer).items()
              if not name.startswith("_") and getattr(value, "__module__", "").startswith("timm")]  # fmt: skip
    missing = {name for name in public if not hasattr(module, name)}
    assert missing == WITHOUT.get(path, set())
    for name in missing:
        with pytest.raises(AttributeError, match=f"has no {name}: ") as raised:
            getattr(module, name)
        assert str(raised.value).partition(": ")[2] not in (rooms[f"imgzoo_timm.{path}"].advice, "")
