"""Building blocks beside the peer's, with its weights: outputs within 1e-5 in double precision."""

import pytest
import timm.layers as peer
import torch
from timm.layers import cbam, coord_attn, median_pool
from torch import nn

import imgzoo_layers
from imgzoo_layers import (
    act,
    attention_pool,
    conv,
    drop,
    fast_norm,
    head,
    learned_pool,
    map_attention,
    mlp,
    non_local,
    norm_act,
    patch_embed,
    place_gate,
    pool,
    pool_norm,
    rotary,
    rotary_pool,
    space_to_depth,
)
from imgzoo_layers.norm import LayerNorm2d

pytestmark = pytest.mark.parity

MAP = torch.randn(2, 16, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TOKENS = MAP.flatten(2).transpose(1, 2)
LAST = MAP.permute(0, 2, 3, 1)
GROUPS = {"groups": 4}
torch.manual_seed(0)
PAIRS = {
    "lse": (peer.LsePlus2d(), learned_pool.LogSumExpPool2d(), MAP),
    "lse kept": (peer.LsePlus2d(-2.0, False, False), learned_pool.LogSumExpPool2d(-2.0, False, False), MAP),
    "lse tokens": (peer.LsePlus1d(3.0), learned_pool.LogSumExpPool(3.0), TOKENS),
    "sim": (peer.SimPool2d(16), learned_pool.SimPool2d(16, norm=nn.LayerNorm), MAP),
    "sim gamma": (peer.SimPool1d(16, gamma=1.25), learned_pool.SimPool(16, gamma=1.25, norm=nn.LayerNorm),
                  TOKENS),
    "sim heads": (peer.SimPool2d(16, 4, True, True, norm_layer=nn.LayerNorm),
                  learned_pool.SimPool2d(16, 4, True, True, norm=nn.LayerNorm), MAP),
    "attention": (peer.Attention2d(16, 12, 2), map_attention.Attention2d(16, 12, 2), MAP),
    "attention expanded": (peer.Attention2d(16, 24, 2, False, True, True),
                           map_attention.Attention2d(16, 24, 2, False, True, True), MAP),
    "one head of keys": (peer.MultiQueryAttentionV2(16, 12, 2, 4, 6),
                         map_attention.MultiQueryAttention(16, 12, 2, 4, 6), MAP),
    "one head of keys on small maps": (
        peer.MultiQueryAttention2d(16, 12, 2, 4, 6, 1, 2, padding="same"),
        map_attention.MultiQueryAttention2d(16, 12, 2, 4, 6, 1, 2, padding="same"), MAP),
    "rotary pool": (peer.RotAttentionPool2d(16, head_dim=8), rotary_pool.RotaryAttentionPool2d(16, head_dim=8), MAP),
    "rotary pool of a token": (peer.RotAttentionPool2d(16, 10, (5, 7), None, None, 2, class_token=True),
                               rotary_pool.RotaryAttentionPool2d(16, 10, (5, 7), None, 2, class_token=True), MAP),
    "rotary pool apart": (peer.RotAttentionPool2d(16, None, 7, 32, 8, qkv_separate=True),
                          rotary_pool.RotaryAttentionPool2d(16, None, 7, 32, head_dim=8, separate=True), MAP),
    "rotary pool centered": (peer.RotAttentionPool2d(16, head_dim=8, rope_type="dinov3"),
                             rotary_pool.RotaryAttentionPool2d(16, head_dim=8, rotary="centered"), MAP),
    "rotary map": (peer.RotAttentionPool2d(16, head_dim=8, pool_type=""),
                   rotary_pool.RotaryAttentionPool2d(16, head_dim=8, pool=False), MAP),
    "latent": (peer.AttentionPoolLatent(16, num_heads=2),
               attention_pool.AttentionPoolLatent(16, 2, norm=None), TOKENS),
    "latents": (peer.AttentionPoolLatent(16, num_heads=2, latent_len=3, pool_type="avg", qk_norm=True,
                                         norm_layer=nn.LayerNorm, out_features=12),
                attention_pool.AttentionPoolLatent(16, 2, norm=nn.LayerNorm, dim_out=12, latents=3, pool="avg",
                                                   qk_norm=True), TOKENS),
    "latents kept": (peer.AttentionPoolLatent(16, num_heads=2, latent_len=3, pool_type="", q_proj=False,
                                              pos_embed="abs", feat_size=30, mlp_ratio=2.0),
                     attention_pool.AttentionPoolLatent(16, 2, 2.0, norm=None, latents=3, pool="", q_proj=False,
                                                        tokens=30), TOKENS),
    "average pool": (peer.AvgPool2dSame((3, 2), (2, 1)), pool.AvgPool2dSame((3, 2), (2, 1)), MAP),
    "maximum pool": (peer.create_pool2d("max", (3, 2), (2, 3), padding="same"),
                     pool.MaxPool2dSame((3, 2), (2, 3)), MAP),
    "same": (peer.create_conv2d(16, 8, (3, 2), stride=(2, 1), padding="same", dilation=(1, 2)),
             conv.create_conv(16, 8, (3, 2), (2, 1), "same", (1, 2)), MAP),
    "same dilated": (peer.create_conv2d(16, 8, 3, stride=2, padding="same", dilation=3),
                     conv.create_conv(16, 8, 3, 2, "same", 3), MAP),
    "rectangle": (peer.create_conv2d(16, 8, (1, 5), padding=(0, 2)),
                  conv.create_conv(16, 8, (1, 5), padding=(0, 2)), MAP),
    "mixed": (peer.create_conv2d(16, 16, [3, 5], stride=2, padding="same", depthwise=True),
              conv.create_conv(16, 16, [3, 5], 2, "same", groups=16), MAP),
    "batch norm": (peer.BatchNormAct2d(16, drop_layer=nn.Dropout), norm_act.BatchNormAct2d(16, drop=nn.Dropout), MAP),
    "group norm": (peer.GroupNormAct(16, group_size=4, act_layer="silu", drop_layer=nn.Dropout2d),
                   norm_act.GroupNormAct(16, group_size=4, act="silu", drop=nn.Dropout2d), MAP),
    "gated mlp": (peer.GluMlp(16, 24, 8), mlp.GluMlp(16, 24, 8, act="sigmoid", gate_last=True), TOKENS),
    "mean and maximum": (cbam.CbamModule(16), place_gate.Cbam(16), MAP),
    "mean and maximum at once": (cbam.LightCbamModule(16, mlp_bias=True, spatial_kernel_size=3),
                                 place_gate.Cbam(16, bias=True, kernel=3, light=True), MAP),
    "rows and columns": (coord_attn.CoordAttn(16, has_skip=True), place_gate.CoordinateAttention(16, skip=True), MAP),
    "rows and columns of many": (coord_attn.CoordAttn(512), place_gate.CoordinateAttention(512),
                                 MAP.repeat(1, 32, 1, 1)),
    "rows and columns simply": (coord_attn.SimpleCoordAttn(16), place_gate.SimpleCoordinateAttention(16), MAP),
    "along rows and columns": (coord_attn.EfficientLocalAttn(16), place_gate.EfficientLocalAttention(16), MAP),
    "strips": (coord_attn.StripAttn(16), place_gate.StripAttention(16), MAP),
    "strips as they are": (coord_attn.StripAttn(16, use_conv=False, has_skip=True),
                           place_gate.StripAttention(16, None, skip=True), MAP),
    "gathered": (peer.GatherExcite(16, use_mlp=False), place_gate.GatherExcite(16, mlp=False), MAP),
    "gathered near": (peer.GatherExcite(16, extent=2, use_mlp=False, add_maxpool=True),
                      place_gate.GatherExcite(16, 2, mlp=False, most=True), MAP),
    "gathered far": (peer.GatherExcite(16, extent=4, use_mlp=False), place_gate.GatherExcite(16, 4, mlp=False), MAP),
    "not local": (peer.NonLocalAttn(16), non_local.NonLocal(16), MAP),
    "not local unscaled": (peer.NonLocalAttn(16, use_scale=False, rd_channels=4),
                           non_local.NonLocal(16, scale=False, rd_channels=4), MAP),
    "separable": (peer.SeparableConv2d(16, 8, 3, 2, padding="same", channel_multiplier=2.0),
                  conv.SeparableConv(16, 8, 3, 2, "same", widen=2.0), MAP),
    "separable unit": (peer.SeparableConvNormAct(16, 8, 5, 2, pw_kernel_size=3, bias=True),
                       conv.SeparableConvNormAct(16, 8, 5, 2, bias=True, kernel_out=3), MAP),
    **{f"evo {kind} {apply_act}": (getattr(peer, f"EvoNorm2d{kind}")(16, apply_act=apply_act, **more),
                                   getattr(imgzoo_layers, f"EvoNorm2d{kind}")(16, apply_act=apply_act, **more), MAP)
       for kind, more in (("B0", {}), ("B1", {}), ("B2", {}), ("S0", GROUPS), ("S0a", GROUPS), ("S1", GROUPS),
                          ("S1a", GROUPS), ("S2", GROUPS), ("S2a", GROUPS)) for apply_act in (True, False)},
    "head": (peer.ClassifierHead(16, 5, "avgmax"), head.ClassifierHead(16, 5, "avgmax"), MAP),
    "hidden head": (peer.NormMlpClassifierHead(16, 5, 12), head.NormMlpHead(16, 5, norm=LayerNorm2d, hidden=12), MAP),
    "head of channels last": (peer.ClNormMlpClassifierHead(16, 5), pool_norm.PoolNormHead(16, 5), LAST),
}  # fmt: skip


@pytest.mark.parametrize("kind", PAIRS)
def test_equal_weights_give_equal_outputs(kind):
    theirs, ours, x = PAIRS[kind]
    theirs, ours = theirs.double().eval(), ours.double().eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in theirs.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).abs())
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, (4, 2)])
@pytest.mark.parametrize("kind", ["avg", "max", "avgmax", "catavgmax"])
def test_pools_to_any_size(kind, size):
    for flatten in (False, True):
        expected = peer.SelectAdaptivePool2d(size, kind, flatten=flatten)(MAP)
        torch.testing.assert_close(pool.AdaptivePool2d(size, kind, flatten)(MAP), expected)


@pytest.mark.parametrize("kind", ["B0", "B1", "B2"])
def test_statistics_of_a_batch_move_alike(kind):
    theirs, ours = (getattr(of, f"EvoNorm2d{kind}")(16).train() for of in (peer, imgzoo_layers))
    x = MAP.float()
    for _ in range(2):
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)


@pytest.mark.parametrize(("kernel", "stride", "padding", "same"), [(3, 1, 0, False), (3, 2, 1, False), (5, 2, 0, True)])
def test_medians(kernel, stride, padding, same):
    ours = pool.MedianPool2d(kernel, stride, "same" if same else padding)
    torch.testing.assert_close(ours(MAP), median_pool.MedianPool2d(kernel, stride, padding, same)(MAP))


def test_places_become_channels_alike():
    x = torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(space_to_depth.SpaceToDepth()(x), peer.SpaceToDepth()(x))
    y = torch.randn(2, 12, 2, 3)
    torch.testing.assert_close(space_to_depth.DepthToSpace(2)(y), peer.DepthToSpace(2)(y))


ROTARY = {
    "axial": (peer.RotaryEmbeddingCat(16, in_pixels=False), rotary.AxialRotary(16, (4, 3))),
    "reference": (peer.RotaryEmbeddingCat(16, in_pixels=False, ref_feat_shape=(7, 6)),
                  rotary.AxialRotary(16, (4, 3), reference=(7, 6))),
    "columns first": (peer.RotaryEmbeddingCat(16, in_pixels=False, grid_indexing="xy"),
                      rotary.AxialRotary(16, (4, 3), columns_first=True)),
    "pixels": (peer.RotaryEmbeddingCat(16, max_res=64), rotary.PixelRotary(16, (4, 3), 64)),
    "pixels evenly": (peer.RotaryEmbeddingCat(16, linear_bands=True), rotary.PixelRotary(16, (4, 3), linear=True)),
    "centered": (peer.RotaryEmbeddingDinoV3(16), rotary.CenteredRotary(16, (4, 3))),
    "centered longer": (peer.RotaryEmbeddingDinoV3(16, normalize_coords="max", rotate_half=False),
                        rotary.CenteredRotary(16, (4, 3), normalize="max", halves=False)),
    "centered periods": (peer.RotaryEmbeddingDinoV3(16, None, 0.5, 90.0, normalize_coords="min"),
                         rotary.CenteredRotary(16, (4, 3), normalize="min", shortest=0.5, longest=90.0)),
    "multimodal": (peer.RotaryEmbeddingMRope(64), rotary.MultimodalRotary(64)),
    "multimodal sections": (peer.RotaryEmbeddingMRope(32, (10, 2, 4), 5000.0),
                            rotary.MultimodalRotary(32, (10, 2, 4), 5000.0)),
}  # fmt: skip


@pytest.mark.parametrize("kind", ROTARY)
def test_rotary_tables_of_any_grid(kind):
    theirs, ours = ROTARY[kind]
    for grid in ((4, 3), (3, 7), (1, 2), (8, 8)):
        expected = theirs.get_embed(grid)
        torch.testing.assert_close(ours(grid), expected, rtol=1e-5, atol=1e-5)
        if hasattr(ours, "grid"):  # told of another size
            ours.set_size(grid)
            ours.init_non_persistent_buffers()
            torch.testing.assert_close(ours(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("moved", ["shift", "jitter", "rescale"])
def test_places_move_alike_in_training(moved):
    theirs = peer.RotaryEmbeddingDinoV3(16, **{f"{moved}_coords": 2.0}).train()
    ours = rotary.CenteredRotary(16, (4, 3), **{moved: 2.0}).train()
    torch.manual_seed(0)
    expected = theirs.get_embed((4, 3))
    torch.manual_seed(0)
    torch.testing.assert_close(ours(), expected)


def test_mixed_rotary_of_any_grid():
    theirs, ours = peer.RotaryEmbeddingMixed(64, 2, 4), rotary.MixedRotary(16, 2, 4, (4, 3))
    ours.load_state_dict(theirs.state_dict())
    for grid in ((4, 3), (5, 6)):
        torch.testing.assert_close(ours(grid).flatten(), theirs.get_embed(grid).flatten(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"couple_channels": False}, {"scale_by_keep": False}])
@pytest.mark.parametrize("block", [3, 5])
def test_squares_are_dropped_alike(options, block):
    """The same draws drop the same squares."""
    x = MAP.float()
    torch.manual_seed(0)
    expected = peer.drop_block_2d(x, 0.2, block, **options)
    torch.manual_seed(0)
    torch.testing.assert_close(drop.drop_block_2d(x, 0.2, block, **options), expected)


def test_patch_kernels_of_any_size():
    kernel = torch.randn(8, 3, 16, 16)
    embed = patch_embed.FlexiPatchEmbed((16, 16), 3, 8)
    embed.proj.weight.data.copy_(kernel)
    for size in ((8, 8), (32, 32), (12, 20)):
        expected = peer.resample_patch_embed(kernel, list(size))
        torch.testing.assert_close(embed.kernel(size), expected, rtol=1e-4, atol=1e-4)


def test_maps_of_a_network_as_patches():
    trunk = nn.Conv2d(3, 16, 3, 4, 1)
    theirs = peer.HybridEmbed(trunk, img_size=32, patch_size=2, embed_dim=12).eval()
    ours = patch_embed.HybridEmbed(trunk, 16, 12, 2).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("name", sorted(act.ACT.keys() - {"prelu", "identity", "hardmish"}))
def test_activations(name):
    torch.testing.assert_close(act.act_fn(name)(TOKENS), peer.get_act_fn(name)(TOKENS))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fast_norms_stay_in_autocast_type(dtype):
    x, weight, bias = torch.randn(4, 16), torch.randn(16), torch.randn(16)
    with torch.autocast("cpu", dtype):
        for ours, theirs, shape in ((fast_norm.fast_layer_norm, peer.fast_layer_norm, [16]),
                                    (fast_norm.fast_group_norm, peer.fast_group_norm, 4)):  # fmt: skip
            result = ours(x, shape, weight, bias)
            assert result.dtype == dtype
            torch.testing.assert_close(result, theirs(x, shape, weight, bias))
