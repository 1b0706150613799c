"""Layers beside imgzoo's own parts and torch's, and those that script."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from imgzoo_archs_cnn import resnest, sknet
from imgzoo_layers.map_attention import MultiQueryAttention2d as Native
from imgzoo_timm import layers
from imgzoo_timm.layers._base import adopt

MAP = torch.randn(2, 24, 8, 8, generator=torch.Generator().manual_seed(0))


def filled(module):
    drawn = torch.Generator().manual_seed(1)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=drawn) * 0.2 + 0.05)
    return module.eval()


def no_block():
    return None


FORMS = {
    "selective": (lambda: layers.SelectiveKernel(24),
                  lambda: sknet.SelectiveKernel(24, 24, 1, 1, 1, nn.BatchNorm2d, nn.ReLU, no_block, 1 / 16, 8, True)),
    "split": (lambda: layers.SplitAttn(24, norm_layer=nn.BatchNorm2d),
              lambda: resnest.SplitAttention(24, 1, 1, 2, nn.BatchNorm2d, no_block)),
    "queries": (lambda: layers.MultiQueryAttention2d(24, num_heads=3, kv_stride=2),
                lambda: Native(24, heads=3, kv_stride=2)),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMS)
def test_forms_of_native_parts(kind):
    mine, native = (filled(make()) for make in FORMS[kind])
    mine.load_state_dict(native.state_dict())
    torch.testing.assert_close(mine(MAP), native(MAP))
    torch.testing.assert_close(torch.jit.script(mine)(MAP), native(MAP))


def test_a_mask_is_added_to_the_scores_of_a_map():
    kind = layers.MultiQueryAttention2d  # its module is read when it is first named
    attention: Any = next(adopt(nn.Sequential(filled(Native(24, heads=3)))).children())
    assert isinstance(attention, kind)
    alone = torch.full((64, 64), -torch.inf).fill_diagonal_(0.0)
    expected = attention.output(attention.value(MAP).repeat(1, 3, 1, 1))
    torch.testing.assert_close(attention(MAP, attn_mask=alone), expected)


def test_kernels_that_cannot_be():
    for options in (dict(kernel_size=4), dict(kernel_size=[1, 3]), dict(kernel_size=[3] * 5)):
        with pytest.raises(ValueError, match="kernels"):
            layers.SelectiveKernel(24, **options)
    assert [path.conv.kernel_size for path in layers.SelectiveKernel(24, keep_3x3=False).paths] == [(3, 3), (5, 5)]
    assert [path.conv.dilation for path in layers.SelectiveKernel(24, dilation=2).paths] == [(2, 2), (4, 4)]


@pytest.mark.parametrize(("act", "expected"), [("leaky_relu", lambda x: F.leaky_relu(x, 0.3)), (nn.ELU, F.elu),
                                               ("", lambda x: x)])  # fmt: skip
def test_in_place_norms_are_norms(act, expected):
    mine = filled(layers.InplaceAbn(24, act_layer=act, act_param=0.3 if act == "leaky_relu" else 1.0))
    plain = nn.BatchNorm2d(24).eval()
    plain.load_state_dict(mine.state_dict(), strict=False)
    torch.testing.assert_close(mine(MAP), expected(plain(MAP)))
    mine.train()
    plain.train()
    torch.testing.assert_close(mine(MAP), expected(plain(MAP)))
    torch.testing.assert_close(mine.running_var, plain.running_var)
    with pytest.raises(ValueError, match="act_layer"):
        layers.InplaceAbn(24, act_layer="relu")


@pytest.mark.parametrize("last", [True, False])
def test_patches_of_another_size_are_embedded_as_their_kernels(last):
    embed = layers.PatchEmbedInterpolator((4, 4), 3, 10, channels_last=last)
    kernel, bias, image = torch.randn(10, 3, 4, 4), torch.randn(10), torch.randn(2, 3, 12, 10)
    resized = layers.resample_patch_embed(kernel, [6, 5])
    expected = F.conv2d(image, resized, bias, (6, 5))
    torch.testing.assert_close(embed(image, kernel, bias, (6, 5), is_linear=False), expected)
    patches = image.unflatten(3, (2, 5)).unflatten(2, (2, 6)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    patches = patches.permute(0, 1, 3, 4, 2) if last else patches  # (B, N, h, w, C)
    flat = (kernel.permute(0, 2, 3, 1) if last else kernel).flatten(1)
    embed.prewarm([(6, 5)])
    torch.testing.assert_close(embed(patches, flat, bias, (6, 5)), expected.flatten(2).mT)
    assert not embed.state_dict() and embed.resample_linear_weight(flat, (4, 4)).shape == flat.shape
    with pytest.raises(ValueError, match="not flat"):
        embed(patches.flatten(2), flat, bias, (6, 5))


def test_tables_of_distances_and_kernels_of_experts():
    table = torch.arange(4.0).view(2, 2)[..., None].expand(2, 2, 3).flatten(0, 1)
    wide = layers.resize_rel_pos_bias_table_levit(table, (16, 3), "bilinear", False)
    assert torch.equal(wide.view(4, 4, 3)[[0, 0, 3, 3], [0, 3, 0, 3], 0], torch.arange(4.0))
    assert layers.resize_rel_pos_bias_table_levit(table, (4, 3)) is table
    with pytest.raises(ValueError, match="heads"):
        layers.resize_rel_pos_bias_table_levit(table, (16, 4))
    weight = torch.zeros(2, 18)
    layers.get_condconv_initializer(lambda kernel: kernel.fill_(kernel.ndim), 2, (2, 1, 3, 3))(weight)
    assert weight.unique().tolist() == [4.0]
    with pytest.raises(ValueError, match="flat"):
        layers.get_condconv_initializer(nn.init.ones_, 3, (2, 1, 3, 3))(weight)


@pytest.mark.parametrize("options", [{}, {"qkv_separate": True}, {"class_token": True, "pool_type": ""},
                                     {"rope_type": "dinov3"}, {"rope_type": "base"}], ids=str)  # fmt: skip
def test_pools_script(options):
    pools = (
        [layers.RotAttentionPool2d] if "rope_type" in options else [layers.RotAttentionPool2d, layers.AttentionPool2d]
    )
    for pool in pools:
        mine = pool(24, head_dim=8, **options).eval()
        torch.testing.assert_close(torch.jit.script(mine)(MAP), mine(MAP))


@pytest.mark.parametrize("options", [dict(embed_dim=12), dict(embed_dim=12, out_features=6), dict(out_features=0),
                                     dict(embed_dim=12, out_features=0), dict(embed_dim=16, latent_dim=4)])  # fmt: skip
def test_latents_attend_in_a_width_of_their_own(options):
    made = layers.AttentionPoolLatent(8, num_heads=2, **options)
    wide = options.get("embed_dim", 8)
    out = wide if options.get("out_features") == 0 else options.get("out_features", 8)
    assert made(torch.randn(2, 5, wide)).shape == (2, made.out_features) and made.out_features == out
    assert (made.mlp is None) == (options.get("out_features") == 0)
    with pytest.raises(ValueError, match="latent_dim"):
        layers.AttentionPoolLatent(8, embed_dim=16, num_heads=2, latent_dim=4, q_proj=False)


@pytest.mark.parametrize("name", ["ClassifierHead", "NormMlpClassifierHead", "ClNormMlpClassifierHead"])
def test_a_new_classifier_keeps_precision_and_mode(name):
    head = getattr(layers, name)(4, 3, dtype=torch.float64).eval()
    for classes in (0, 2):
        head.reset(classes, "avgmax", dtype=torch.float64)
        assert not any(module.training for module in head.modules())
        assert all(each.dtype == torch.float64 for each in head.parameters())
    x = torch.randn(2, 3, 3, 4) if name.startswith("Cl") and name != "ClassifierHead" else torch.randn(2, 4, 3, 3)
    assert head(x.double()).shape == (2, 2)
    with pytest.raises(ValueError, match="pool"):
        head.reset(2, "most")


def test_latents_norm_queries_and_keys_without_a_norm_of_their_own():
    made = layers.AttentionPoolLatent(8, num_heads=2, qk_norm=True)
    assert type(made.q_norm) is type(made.k_norm) is nn.LayerNorm and made.q_norm.normalized_shape == (4,)
    assert type(made.norm) is nn.Identity and made(torch.randn(2, 5, 8)).shape == (2, 8)
