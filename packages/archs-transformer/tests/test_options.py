"""Options of networks that no published row sets: what they build."""

import pytest
import torch
from torch import nn

import imgzoo
from imgzoo.errors import OptionError, UsageError
from imgzoo_layers.reparam import reparameterize


def test_positions_and_channels_of_davit():
    small = dict(depths=[1, 1, 1, 1], embed_dims=[8, 16, 16, 16], num_heads=[2, 2, 2, 2], num_classes=3)
    made = [imgzoo.create_model("davit_tiny", **small, cpe_act=act, by_area=by_area).eval()
            for act, by_area in ((False, False), (True, False), (False, True))]  # fmt: skip
    x, state = torch.randn(1, 3, 64, 64), made[0].state_dict()
    for model in made[1:]:
        model.load_state_dict(state)
        assert not torch.allclose(model(x), made[0](x), rtol=1e-4)
    position = made[1].stages[0].blocks[0][0].cpe1
    y = torch.randn(1, 8, 5, 5)
    torch.testing.assert_close(position(y), y + nn.functional.gelu(position.proj(y)))
    named = imgzoo.create_model("davit_tiny", **small, named_blocks=True)
    assert [*dict(named.stages[0].blocks[0].named_children())] == ["spatial_block", "channel_block"]


HIERA = dict(depths=[1, 1, 1, 1], embed_dim=8, num_classes=3)


@pytest.mark.parametrize("side", [2, 4, 8])
@pytest.mark.parametrize("window_pos", [False, True])
@torch.no_grad()
def test_patches_of_a_mask_unit_of_hiera_attend_to_one_another(side, window_pos):
    more = dict(patch_kernel=(4, 4), patch_padding=(0, 0), mask_unit_attn=[True, False, False, False])
    model = imgzoo.create_model("hiera_tiny_224", **HIERA, **more, img_size=64, mask_unit_size=(side, side),
                                window_pos=window_pos, pos_size=(3, 5)).eval()  # fmt: skip
    assert not window_pos or model.pos_embed_win.shape == (1, 8, side, side)
    x = torch.randn(1, 3, 64, 64)
    other = x.clone()
    other[:, :, 40:44, 20:24] += 1  # a patch in row 10 and column 5
    before, after = (model.forward_intermediates(each, [0], intermediates_only=True)[0] for each in (x, other))
    changed = torch.zeros(16, 16, dtype=torch.bool)
    changed[10 // side * side :, 5 // side * side :][:side, :side] = True
    assert torch.equal((before - after).abs().amax((0, 1)) > 0, changed)
    assert not torch.equal(model.forward_features(x), model.forward_features(other))


@pytest.mark.parametrize("unit", [(16, 16), (8, 16), (16, 32), (2, 32)])
@torch.no_grad()
def test_large_mask_units_of_hiera_have_every_nth_place(unit):
    more = dict(patch_kernel=(4, 4), patch_padding=(0, 0), mask_unit_attn=[True, False, False, False])
    model = imgzoo.create_model("hiera_tiny_224", **HIERA, **more, img_size=(64, 128), mask_unit_size=unit).eval()
    x = torch.randn(1, 3, 64, 128)
    other = x.clone()
    other[:, :, 40:44, 20:24] += 1  # a patch in row 10 and column 5: of place 4 of 8, in two rows of four
    before, after = (model.forward_intermediates(each, [0], intermediates_only=True)[0] for each in (x, other))
    changed = (before - after).abs().amax((0, 1)).unflatten(0, (2, 8)).unflatten(2, (4, 8)).amax((1, 3)) > 0
    units = 8 * 64 // (unit[0] * unit[1])
    assert changed.flatten().nonzero().flatten().tolist() == [place for place in range(8) if place % units == 4 % units]


@pytest.mark.parametrize("options", [{"mask_unit_size": (4, 8)}, {"mask_unit_size": (6, 6)}, {"mask_unit_size": (2, 2)},
                                     {"mask_unit_size": (4, 4), "mask_unit_attn": [True] * 4},
                                     {"mask_unit_size": (12, 12), "q_pool": 1}])  # fmt: skip
def test_mask_units_of_hiera_that_do_not_fit(options):
    with pytest.raises(UsageError, match="mask_unit_size is not"):
        imgzoo.create_model("hiera_tiny_224", **HIERA, **options)
    with pytest.raises(UsageError, match="q_pool is at most 3"):
        imgzoo.create_model("hiera_tiny_224", **HIERA, q_pool=4)
    with pytest.raises(UsageError, match="sides are multiples of 64"):
        imgzoo.create_model("hiera_tiny_224", **HIERA, mask_unit_size=(16, 16))


@pytest.mark.parametrize("options, reduced", [
    ({"patch_size": 8}, [8, 16, 32, 64]), ({"patch_stride": (2, 2), "q_pool": 2}, [2, 4, 8, 8]),
    ({"q_pool": 0}, [4, 4, 4, 4]),
])  # fmt: skip
@torch.no_grad()
def test_patches_and_pools_of_sam_2(options, reduced):
    small = dict(depths=[1, 2, 1, 1], embed_dim=8, num_classes=3)
    model = imgzoo.create_model("sam2_hiera_tiny", **small, **options).eval()
    levels = model.forward_intermediates(torch.randn(1, 3, 256, 256), intermediates_only=True)
    assert [256 // each.shape[2] for each in levels] == reduced == model.feature_info.reduction()
    with pytest.raises(UsageError, match="dim_mul is more than 1"):
        imgzoo.create_model("sam2_hiera_tiny", dim_mul=1.0)
    with pytest.raises(UsageError, match="first of 4 stages does not pool"):
        imgzoo.create_model("sam2_hiera_tiny", q_pool=4)


def test_norms_of_patches():
    small = dict(depth=1, img_size=32, eps=1e-3, device="meta")
    kinds = {True: ("LayerNorm", 1e-3), "rmsnorm": ("RmsNorm", 1e-6), nn.LayerNorm: ("LayerNorm", 1e-5)}
    for given, wanted in kinds.items():
        norm = imgzoo.create_model("test_vit", embed_norm=given, **small).patch_embed.norm
        assert (type(norm).__name__, norm.eps) == wanted
    for given in (False, ""):
        norm = imgzoo.create_model("test_vit", embed_norm=given, **small).patch_embed.norm
        assert isinstance(norm, nn.Identity)
    with pytest.raises(UsageError, match="unknown norm 'nonsense'"):
        imgzoo.create_model("test_vit", embed_norm="nonsense", **small)
    with pytest.raises(OptionError, match="embed_norm"):
        imgzoo.create_model("vit_tiny_r_s16_p8_224", embed_norm=True, device="meta")


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("key_bias", [True, False])
def test_layers_of_queries_keys_and_values_of_eva(fused, key_bias):
    model = imgzoo.create_model("eva02_tiny_patch14_224", depth=1, qkv_fused=fused, key_bias=key_bias, device="meta")
    keys = {key.removeprefix("blocks.0.attn.") for key in model.state_dict() if key.startswith("blocks.0.attn.")}
    assert ("qkv.weight" in keys, "k_proj.weight" in keys) == (fused, not fused)
    assert bool({"qkv.bias", "k_proj.bias"} & keys) == key_bias


@torch.no_grad()
def test_norms_of_sequences_of_patches():
    small = dict(depth=1, embed_dim=32, num_heads=2, num_classes=3)
    model = imgzoo.create_model("naflexvit_base_patch16_gap", **small, norm="rmsnorm", eps=1e-3, pre_norm=True,
                                embed_norm="layernorm", scale_mlp_norm=True, scale_attn_norm=True).eval()  # fmt: skip
    block = model.blocks[0]
    for norm in (model.norm_pre, block.norm1, block.norm2, block.attn.norm, block.mlp.norm, model.fc_norm):
        assert (type(norm).__name__, norm.eps) == ("RmsNorm", 1e-3)
    assert type(model.embeds.norm).__name__ == "LayerNorm" and model.embeds.proj.bias is None
    x = torch.randn(1, 3, 32, 48)
    patches = x.unflatten(3, (-1, 16)).unflatten(2, (-1, 16)).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    where = torch.cartesian_prod(torch.arange(2), torch.arange(3))[None]
    torch.testing.assert_close(model((patches, where, torch.ones(1, 6, dtype=torch.bool))), model(x))
    with pytest.raises(UsageError, match="know no proj_bias"):
        imgzoo.create_model("naflexvit_base_patch16_gap", **small, rope="axial", proj_bias=False)


@torch.no_grad()
def test_downsamplings_of_fastvit():
    small = dict(depths=[1, 1, 1, 1], embed_dims=[8, 8, 16, 16], num_classes=3)
    model = imgzoo.create_model("fastvit_t8", **small, downsamples=[True, False, False, True], cls_ratio=1.0).eval()
    levels = model.forward_intermediates(torch.randn(1, 3, 64, 64), intermediates_only=True)
    assert [64 // each.shape[2] for each in levels] == [8, 8, 16, 32] == model.feature_info.reduction()
    assert model.num_features == 16
    for wrong in (
        {"cls_ratio": 1.5},
        {"downsamples": [True]},
        {"down_kernel": 4},
        {"down_kernel": 1},
        {"down_stride": 0},
    ):
        with pytest.raises(UsageError):
            imgzoo.create_model("fastvit_t8", **small, **wrong)


@torch.no_grad()
@pytest.mark.parametrize(("name", "options", "strides"), [
    ("fastvit_t8", dict(down_stride=3, down_kernel=3, downsamples=[False, False, True, True]), [4, 4, 12, 36]),
    ("fastvit_t8", dict(down_stride=1, down_kernel=5), [4, 4, 4, 4]),
    ("swiftformer_xs", dict(downsamples=[True, False, True, True]), [8, 8, 16, 32]),
    ("efficientformer_l1", dict(downsamples=[True, True, True, True], img_size=288), [8, 16, 32, 64]),
    ("efficientformer_l1", dict(downsamples=[False, False, True, False], embed_dims=[8, 8, 16, 16], img_size=288),
     [4, 4, 8, 8]),
    ("efficientformerv2_s0", dict(downsamples=[True, True, True, True], img_size=288, mlp_ratios=4), [8, 16, 32, 64]),
    ("efficientformerv2_s0", dict(downsamples=[False, True, True, False], embed_dims=[8, 16, 32, 32], img_size=288,
                                  mlp_ratios=4), [4, 8, 16, 16]),
    ("swiftformer_xs", dict(down_stride=3, downsamples=[False, False, True, True]), [4, 4, 12, 36])])  # fmt: skip
def test_strides_of_downsamplings_are_those_of_the_levels(name, options, strides):
    small = dict(depths=[1, 1, 1, 1], embed_dims=[8, 8, 16, 32], num_classes=3)
    model = imgzoo.create_model(name, **{**small, **options}).eval()
    x = torch.randn(1, 3, 288, 288)
    levels = model.forward_intermediates(x, intermediates_only=True)
    assert all(abs(each.shape[2] - 288 / stride) < 2 for each, stride in zip(levels, strides, strict=True))
    assert strides == model.feature_info.reduction()
    if name == "fastvit_t8":
        torch.testing.assert_close(reparameterize(model)(x), model(x), rtol=1e-4, atol=1e-5)


def test_downsamplings_of_swiftformer_that_cannot_be():
    for wrong in ({"downsamples": [True]}, {"down_kernel": 0}, {"down_stride": 0}, {"down_padding": -1}):
        with pytest.raises(UsageError, match=next(iter(wrong))) as raised:
            imgzoo.create_model("swiftformer_xs", device="meta", **wrong)
        assert len(str(raised.value).splitlines()) == 1


def test_norms_of_tokens_apart_from_those_of_maps():
    kinds = {
        "davit_tiny": dict(depths=[1, 1, 1, 1], embed_dims=[8, 8, 8, 8], num_heads=[2, 2, 2, 2]),
        "gcvit_xxtiny": dict(depths=[2, 1, 1, 1], embed_dim=16),
        "efficientformer_l1": dict(depths=[1, 1, 1, 2]),
    }
    for name, options in kinds.items():
        old, new = (imgzoo.create_model(name, **options, **more, device="meta")
                    for more in ({}, {"norm_layer_cl": "rmsnorm"}))  # fmt: skip
        changed = {type(part): type(new.get_submodule(path)).__name__ for path, part in old.named_modules()
                   if type(part) is not type(new.get_submodule(path))}  # fmt: skip
        assert list(changed.values()) == ["RmsNorm"] and nn.LayerNorm in changed
    former = imgzoo.create_model("efficientformer_l1", token_norm="rmsnorm", token_eps=0.5, eps=0.25, device="meta")
    eps = {type(part).__name__: part.eps for part in former.modules() if hasattr(part, "eps")}
    assert eps == {"BatchNorm2d": 0.25, "RmsNorm": 0.5}
    with pytest.raises(UsageError, match="norm 'batchnorm' is not one of tokens"):
        imgzoo.create_model("davit_tiny", token_norm="batchnorm", device="meta")


def test_windows_of_gcvit_by_their_side():
    small = dict(depths=[1, 1, 1, 1], embed_dim=16, num_heads=[1, 1, 1, 1], num_classes=3)
    model = imgzoo.create_model("gcvit_xxtiny", **small, img_size=128, window_size=[8, 4, 4, 4]).eval()
    assert [stage.blocks[0].window for stage in model.stages] == [(8, 8), (4, 4), (4, 4), (4, 4)]
    assert model(torch.randn(1, 3, 128, 128)).shape == (1, 3)
    for window, message in ((3, "3 does not divide"), (16, "window_ratio of a stage of stride")):
        with pytest.raises(UsageError, match=message):
            imgzoo.create_model("gcvit_xxtiny", **small, img_size=128, window_size=window)


def test_blocks_of_edgenext():
    small = dict(depths=[2, 2, 2, 2], dims=[8, 16, 32, 64], heads=[1, 2, 4, 8], scales=[2, 2, 2, 2], num_classes=3)
    model = imgzoo.create_model("edgenext_xx_small", **small, global_blocks=[2, 0, 1, 2], positions=[True, True, False,
                                True], mlp_ratio=2.5).eval()  # fmt: skip
    attend = [[hasattr(block, "xca") for block in stage.blocks] for stage in model.stages]
    assert attend == [[True, True], [False, False], [False, True], [True, True]]
    told = [block.pos_embd is not None for stage in model.stages for block in stage.blocks if hasattr(block, "xca")]
    assert told == [True, True, False, True, True] and model.stages[0].blocks[0].mlp.fc1.out_features == 20
    assert [stage.blocks[-1].xca.num_heads for stage in model.stages if hasattr(stage.blocks[-1], "xca")] == [1, 4, 8]
    strided = imgzoo.create_model("edgenext_xx_small", **small, down_block=True).eval()
    assert isinstance(strided.stages[1].downsample, nn.Identity) and strided.stages[1].blocks[0].conv_dw.stride == (
        2,
        2,
    )
    assert strided(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    with pytest.raises(UsageError, match="global_blocks is less than its depth"):
        imgzoo.create_model("edgenext_xx_small", **small, down_block=True, global_blocks=[0, 2, 1, 1])


def test_levels_of_nest():
    small = dict(embed_dims=8, num_heads=2, depths=1, img_size=64, num_classes=3)
    model = imgzoo.create_model("nest_tiny", **small, num_levels=4).eval()
    assert [level.side for level in model.levels] == [8, 4, 2, 1] and model(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    with pytest.raises(UsageError, match="depths 2: give one a stage"):
        imgzoo.create_model("nest_tiny", num_levels=3, depths=[1, 1], img_size=64)


def test_widths_of_pit_are_those_of_its_heads():
    model = imgzoo.create_model("pit_ti_224", base_dims=[8, 8, 16], num_heads=[1, 2, 3], depths=[1, 1, 1])
    assert model.feature_info.channels() == [8, 16, 48]
    with pytest.raises(UsageError, match="base_dims"):
        imgzoo.create_model("pit_ti_224", base_dims=[8, 8])


def test_ratios_of_levit():
    small = dict(embed_dim=[16, 32, 32], depth=[1, 1, 1], num_heads=[2, 2, 2], key_dim=8, img_size=64, num_classes=3)
    model = imgzoo.create_model("levit_256d", **small, attn_ratio=1.5, mlp_ratio=3.0, attn_act="relu").eval()
    block, down = model.stages[1].blocks[0], model.stages[1].downsample
    assert block.attn.widths == [8, 8, 12] and block.mlp.ln1.linear.out_features == 96
    assert down.attn_downsample.widths == [8, 32] and down.mlp.ln1.linear.out_features == 64
    acts = {type(block.attn.proj.act).__name__, type(down.attn_downsample.proj.act).__name__}
    assert acts == {"ReLU"} and not isinstance(block.mlp.act, nn.ReLU)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3)


def test_strides_and_shares_of_next_vit():
    small = dict(depths=[1, 1, 1, 1], dims=[32, 32, 32, 32], dims_attend=[32, 64, 96, 128], num_classes=3)
    model = imgzoo.create_model("nextvit_small", **small, stem_dims=[8, 16, 24], strides=[2, 1, 2, 2], mix_ratio=0.5,
                                drop_path_rate=0.4).eval()  # fmt: skip
    assert [conv.conv.out_channels for conv in model.stem] == [8, 16, 24, 24]
    levels = model.forward_intermediates(torch.randn(1, 3, 128, 128), intermediates_only=True)
    assert [128 // each.shape[2] for each in levels] == model.feature_info.reduction() == [8, 8, 16, 32]
    block = model.stages[3].blocks[0]
    assert block.norm1.num_features == 64 and block.mhsa_drop_path.rate == block.mhca_drop_path.rate


def test_channels_that_ask_in_shvit_and_iformer():
    small = dict(embed_dim=[16, 24, 32], depth=[1, 1, 1], partial_dim=[8, 8, 8], num_classes=3)
    model = imgzoo.create_model("shvit_s1", **small, qk_dim=[4, 8, 12]).eval()
    assert [stage.blocks[0].mixer.m.head_dim for stage in model.stages[1:]] == [8, 12]
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    former = imgzoo.create_model("iformer_t", attn_ratio=2, num_classes=3).eval()
    attention = next(part for part in former.modules() if hasattr(part, "v_gate"))
    assert attention.v_gate.c.out_channels == 4 * attention.v_gate.c.in_channels
    assert former(torch.randn(1, 3, 64, 64)).shape == (1, 3)


def test_contexts_and_heads_of_focalnet():
    small = dict(depths=[1, 1, 1, 1], embed_dim=8, num_classes=3)
    summed, meant = (imgzoo.create_model("focalnet_tiny_srf", **small, modulation_mean=mean).eval()
                     for mean in (False, True))  # fmt: skip
    meant.load_state_dict(summed.state_dict())
    x, seen = torch.randn(1, 8, 8, 8), []
    for model in (summed, meant):
        modulation = model.layers[0].blocks[0].modulation
        modulation.h.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        modulation(x)
    torch.testing.assert_close(seen[1], seen[0] / 3)
    hidden = imgzoo.create_model("focalnet_tiny_srf", **small, head_hidden=16).eval()
    assert isinstance(hidden.norm, nn.Identity) and hidden.head_hidden_size == 16
    assert hidden(torch.randn(1, 3, 64, 64)).shape == (1, 3)


@torch.no_grad()
def test_visformer_without_positions():
    small = dict(embed_dim=32, init_channels=8, num_heads=2, depths=[1, 1, 1], img_size=64, num_classes=3)
    model = imgzoo.create_model("visformer_tiny", **small, abs_pos=False).eval()
    assert not [key for key in model.state_dict() if key.startswith("pos_embed")]
    x = torch.randn(1, 3, 64, 64)
    last, levels = model.forward_intermediates(x)
    assert [64 // each.shape[2] for each in levels] == model.feature_info.reduction()
    torch.testing.assert_close(model.forward_head(last), model(x))
    torch.testing.assert_close(torch.jit.script(model)(x), model(x))
    model.set_input_size(96)
    assert model(torch.randn(1, 3, 96, 96)).shape == (1, 3)
    model.prune_intermediate_layers([1])
    assert model(torch.randn(1, 3, 96, 96)).shape[0] == 1


@torch.no_grad()
def test_branches_of_crossvit():
    small = dict(embed_dims=[16, 32], depth=1, stages=1, num_classes=3, img_size=240, num_heads=[2, 4])
    model = imgzoo.create_model("crossvit_tiny_240", **small, mlp_ratio=[2, 3, 1]).eval()
    fine, coarse = (branch[0] for branch in model.blocks[0].blocks)
    assert (fine.attn.num_heads, coarse.attn.num_heads) == (2, 4)
    assert (fine.mlp.fc1.out_features, coarse.mlp.fc1.out_features) == (32, 96)
    x = torch.randn(1, 3, 240, 240)
    border = x.clone()
    border[:, :, :6] += 1
    for crop, same in ((True, True), (False, False)):
        model = imgzoo.create_model("crossvit_tiny_240", **small, crop_scale=crop).eval()
        seen = [model.embed(each)[1] for each in (x, border)]
        assert torch.equal(*seen) == same
    assert torch.allclose(torch.jit.script(model)(x), model(x))
    patched = imgzoo.create_model("crossvit_tiny_240", **small, patch_size=[8, 16]).eval()
    assert (patched.grid_0, patched.grid_1) == ((30, 30), (14, 14)) and patched(x).shape == (1, 3)
    with pytest.raises(UsageError, match="multi_conv is not for 8"):
        imgzoo.create_model("crossvit_tiny_240", patch_size=[8, 16], multi_conv=True)


@torch.no_grad()
def test_convolutions_of_lowformer_and_cpubone():
    small = dict(widths=[8, 8, 16, 32, 60], depths=[1, 2, 2, 2, 2], head_widths=[16, 8], num_classes=3)
    x = torch.randn(1, 3, 65, 63)
    for name in ("lowformer_b0", "cpubone_nano"):
        model = imgzoo.create_model(name, **small, fused_conv=False, expand_groups=2).eval()
        convs = {key: part for key, part in model.named_modules() if isinstance(part, nn.Conv2d)}
        assert not [key for key in convs if ".spatial_conv." in key and ("stages.0" in key or "stem" in key)]
        assert {part.groups for key, part in convs.items() if key.endswith("inverted_conv.conv")} == {2}
        narrow = {part.groups for key, part in convs.items() if key.endswith("point_conv.conv")}
        assert narrow == ({2} if name == "lowformer_b0" else {1})
        assert sum(key.endswith(".o_proj") for key in convs) > 1 and model(x).shape == (1, 3)
        stems = [imgzoo.create_model(each, depths=[1, 1, 1, 1, 1], device="meta").stem[1].main.spatial_conv.conv
                 for each in (name, name.partition("_")[0] + "_b3")]  # fmt: skip
        assert [conv.out_channels // conv.in_channels for conv in stems] == [2, 4]
    halved = imgzoo.create_model("cpubone_nano", **small, fused_down=False)
    kinds = ["depth_conv" in dict(stage[0].main.named_children()) for stage in halved.stages]
    assert kinds == [False, False, True, True]
    large = imgzoo.create_model("cpubone_nano", **small, small_kernels=False, upsample="transpose").eval()
    assert not [key for key, part in large.named_modules() if getattr(part, "kernel_size", None) == (2, 2)]
    assert [part for part in large.modules() if isinstance(part, nn.ConvTranspose2d)] and large(x).shape == (1, 3)


def test_gated_mlps_of_eva():
    small = dict(embed_dim=24, depth=1, num_heads=2, img_size=28, mlp_ratio=2)
    for more, apart in (({}, False), ({"scale_mlp_norm": True}, True), ({"mlp_multiple": 8}, True)):
        for kind in ("glu", "swiglu"):
            options = {"scale_mlp_norm": False, **small, **more, "mlp": kind}
            model = imgzoo.create_model("eva02_base_patch14_224", **options, device="meta")
            assert hasattr(model.blocks[0].mlp, "fc1_g") == (apart or kind == "swiglu")


def test_norms_of_mlps_and_patches():
    beit = dict(embed_dim=12, depth=1, num_heads=2, img_size=32, num_classes=3)
    for gated in (False, True):
        model = imgzoo.create_model("beit_base_patch16_224", **beit, scale_mlp_norm=True, swiglu=gated)
        assert model.blocks[0].mlp.norm.weight.shape == (48,)
    mixer = imgzoo.create_model("mixer_s16_224", embed_dim=12, num_blocks=1, img_size=32, stem_norm=True)
    assert mixer.stem.norm.weight.shape == (12,)


def test_hidden_states_and_keys():
    small = dict(embed_dim=[16, 16, 16], depths=[1, 1, 1], num_classes=3)
    model = imgzoo.create_model("efficientvim_m1", **small, ssd_expand=1.5).eval()
    assert model.stages[0].blocks[0].mixer.out_proj.conv.weight.shape == (16, 24, 1)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    keys = imgzoo.create_model("efficientvit_m0", embed_dim=[16, 16, 16], depth=[1, 1, 1], key_dim=[4, 8, 12])
    assert [stage.blocks[0].mixer.m.attn.widths[:2] for stage in keys.stages] == [[4, 4], [8, 8], [12, 12]]
    deep = imgzoo.create_model("sequencer2d_s", depths=[1, 1, 1, 1], rnn_layers=2, device="meta")
    assert {part.num_layers for part in deep.modules() if isinstance(part, nn.LSTM)} == {2}


@torch.no_grad()
def test_scales_and_depth_of_csatv2():
    small = dict(dims=[8, 8, 16, 16], depths=[1, 1, 2, 2], transformer_depths=[0, 0, 1, 1], num_classes=3)
    model = imgzoo.create_model("csatv2", **small, layer_scale=0.5, transformer_drop_path=True, drop_path_rate=0.5)
    drops = [part.rate for part in model.modules() if type(part).__name__ == "DropPath"]
    assert drops == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.4, 0.5, 0.5])
    assert sum(key.endswith(".gamma") for key in model.state_dict()) == 8
    assert model.eval()(torch.randn(1, 3, 128, 128)).shape == (1, 3)
    plain = imgzoo.create_model("csatv2", **small, drop_path_rate=0.5)
    attending = [part for part in plain.modules() if type(part).__name__ == "TransformerBlock"]
    assert all(isinstance(block.drop_path1, nn.Identity) for block in attending)


def test_activations_and_skips_of_metaformer():
    small = dict(depths=[1, 1, 1, 1], dims=[32, 32, 32, 32], num_classes=3)
    model = imgzoo.create_model("caformer_s18", **small, mlp_act="gelu", res_scale=[0.5, None, None, 2.0])
    assert {type(stage.blocks[0].mlp.act).__name__ for stage in model.stages} == {"GELU"}
    skips = [getattr(stage.blocks[0].res_scale1, "scale", None) for stage in model.stages]
    assert [None if skip is None else skip[0].item() for skip in skips] == [0.5, None, None, 2.0]
    assert "act1.scale" in str([*model.state_dict()])  # what mixes positions keeps its own


def test_a_distilled_network_keeps_its_class_token():
    with pytest.raises(UsageError, match="leave class_token=False out"):
        imgzoo.create_model("deit_tiny_distilled_patch16_224", class_token=False)
