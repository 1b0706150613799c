"""Layers of imgzoo-timm beside the peer's: the same keys and numbers on shared weights."""

import numpy as np
import pytest
import torch
from timm_kit import NORM, both, on_shared_weights, same_tensors
from torch import nn

pytestmark = pytest.mark.parity

TOKENS, MAP = torch.randn(2, 17, 24), torch.randn(2, 24, 8, 8)
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
    dict(act_layer="gelu"), MAP), ("NormMlpClassifierHead", (24, 10), dict(hidden_size=16, pool_type=""), MAP),
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
        dict(latent_dim=16), dict(q_proj=False), dict(qk_norm=True, norm_layer=NORM), dict(qk_norm=True),
        dict(pool_type=""))),
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


@pytest.mark.parametrize("row", LAYERS, ids=lambda row: f"{row[0]}-{'-'.join(row[2])}")
def test_layers_that_script_there_script_here(row):
    name, args, options, x = row
    mine, other = (layer(*args, **options).eval() for layer in both("layers", name))
    try:
        torch.jit.script(other)
    except RuntimeError:
        pytest.skip("it does not script there")
    with torch.no_grad():
        same_tensors(torch.jit.script(mine)(x), mine(x), 5e-5)


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
