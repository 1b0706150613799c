"""Options of networks that no published row sets: what they build."""

import pytest
import torch

import imgzoo
from imgzoo.errors import OptionError, UsageError
from imgzoo_layers.reparam import reparameterize


def test_stems_of_rdnet():
    small = dict(depths=[1, 1, 1, 1], growth_rates=[8, 8, 8, 8], stem_dim=16, num_classes=3)
    x = torch.randn(1, 3, 64, 64)
    for patch_size in (2, 8):
        model = imgzoo.create_model("rdnet_tiny", **small, patch_size=patch_size).eval()
        assert model.stem[0].weight.shape == (16, 3, patch_size, patch_size)
        reduced = [patch_size * 2**i for i in range(4)]
        assert model.feature_info.reduction() == reduced
        levels = model.forward_intermediates(x, intermediates_only=True)
        assert [64 // each.shape[2] for each in levels] == reduced
    model = imgzoo.create_model("rdnet_tiny", **small, stem="overlap").eval()
    assert [conv.kernel_size for conv in model.stem[:2]] == [(3, 3), (3, 3)] and model(x).shape == (1, 3)
    with pytest.raises(UsageError, match="leave patch_size=8 out"):
        imgzoo.create_model("rdnet_tiny", stem="overlap", patch_size=8)


def test_averaged_shortcuts_keep_their_batch_norm():
    model = imgzoo.create_model("test_byobnet", norm="groupnorm1", device="meta")
    norms = {name: isinstance(part, torch.nn.BatchNorm2d) for name, part in model.named_modules() if name[-3:] == ".bn"}
    assert norms and all(batch == (".shortcut." in name) for name, batch in norms.items())


@pytest.mark.parametrize("name", ["test_byobnet", "resnet50_clip", "resnet50_mlp"])
def test_heads_of_networks_by_a_table_of_stages(name):
    kinds = {"classifier": "ClassifierHead", "mlp": "NormMlpHead", "attn_abs": "AttentionPool2d",
             "attn_rot": "RotaryAttentionPool2d"}  # fmt: skip
    for head_type, kind in kinds.items():
        head = imgzoo.create_model(name, head_type=head_type, num_classes=3, img_size=64, device="meta").head
        assert type(head).__name__ == kind
    hidden = imgzoo.create_model(name, head_type="mlp", head_hidden_size=16, num_classes=3, device="meta").head
    assert hidden.pre_logits.fc.weight.shape[0] == hidden.fc.weight.shape[1] == 16


@pytest.mark.parametrize("name", ["test_byobnet", "botnet26t_256"])
@torch.no_grad()
def test_a_pool_by_turned_places(name):
    model = imgzoo.create_model(name, attention_pool="rotary", img_size=64, num_classes=3).eval()
    x = torch.randn(1, 3, 64, 64)
    y = model(x)
    assert y.shape == (1, 3) and model.get_classifier() is model.head.proj
    torch.testing.assert_close(model.forward_head(model.forward_features(x)), y)
    model.reset_classifier(5, "")
    assert model(x).shape == (1, 5, 2, 2)
    model.reset_classifier(0, "token")
    assert model(x).shape == (1, model.num_features)
    features = torch.randn(1, model.num_features, 2, 2)
    assert not torch.allclose(model.forward_head(features), model.forward_head(features.flip(3)), rtol=1e-3)


def test_attention_options_of_a_table_of_stages():
    table = {"num_heads": 2, "dim_head": 8, "qkv_bias": True}
    attention = imgzoo.create_model("botnet26t_256", self_attn_kwargs=table, device="meta").stages[3][0].self_attn
    assert attention.num_heads == 2 and attention.head_dim == 8 and attention.qkv.bias is not None
    halo = imgzoo.create_model("halonet26t", self_attn_kwargs={"block_size": 4, "halo_size": 1}, device="meta")
    assert {part.window for part in halo.modules() if hasattr(part, "halo")} == {6}
    with pytest.raises(OptionError, match="has self_attn_options of its own for each stage"):
        imgzoo.create_model("halonet50ts", self_attn_kwargs=table)


def test_norms_of_mambaout_one_by_one():
    small = dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8], num_classes=3)
    for name, first in (("mambaout_femto", False), ("test_mambaout", True)):
        plain = imgzoo.create_model(name, **small)
        whole = dict(stem_mid_norm=first, down_norm_first=not first, hidden_norm=first)
        for option, value in whole.items():
            model = imgzoo.create_model(name, **small, **{option: value}).eval()
            assert model.state_dict().keys() != plain.state_dict().keys() or option == "down_norm_first"
            assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3)
        model = imgzoo.create_model(name, **small, **whole)
        kinds = {type(each.stages[1].downsample).__name__ for each in (model, plain)}
        assert kinds == {"Downsample", "DownsampleNormFirst"}


@torch.no_grad()
def test_kernels_and_ratios_of_repvit():
    small = dict(embed_dim=[8, 16], depth=[1, 1], num_classes=3)
    for legacy in (False, True):
        model = imgzoo.create_model("repvit_m0_9", **small, kernel=5, mlp_ratio=3, legacy=legacy).double().eval()
        convs = {part.kernel_size[0] for part in model.stages.modules() if getattr(part, "groups", 1) > 1}
        assert convs == {1, 5} and model.stages[0].blocks[0].channel_mixer.conv1.c.out_channels == 24
        x = torch.randn(1, 3, 64, 64).double()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1)
                torch.nn.init.uniform_(module.running_mean)
        want = model(x)
        torch.testing.assert_close(reparameterize(model)(x), want)


def test_transitions_of_rdnet_and_densenet():
    small = dict(depths=[1, 1, 1, 1], growth_rates=[8, 8, 8, 8], stem_dim=16, num_classes=3)
    model = imgzoo.create_model("rdnet_tiny", **small, transition_ratio=0.25).eval()
    assert [stage[1].out_channels for stage in model.dense_stages[1:]] == [8, 8, 8]
    assert model.feature_info.channels() == [40, 32, 32, 32] and model(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    dense = dict(depths=[1, 1, 1, 1], growth=8, num_classes=3, aa="blur")
    for stem_only in (True, False):
        model = imgzoo.create_model("densenet121", **dense, aa_stem_only=stem_only).eval()
        pools = {type(part.pool).__name__ for part in model.features if hasattr(part, "pool")}
        assert ("AvgPool2d" in pools) == stem_only and len(pools) == 1
        assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3)


def test_stages_of_fasternet():
    small = dict(embed_dim=8, depths=[1, 1, 1, 1], head_hidden=8, num_classes=3)
    model = imgzoo.create_model("fasternet_t0", **small, merge_size=3, patch_norm=False, layer_scale=0.5).eval()
    assert model.feature_info.reduction() == [4, 12, 36, 108] and isinstance(model.patch_embed.norm, torch.nn.Identity)
    levels = model.forward_intermediates(torch.randn(1, 3, 216, 216), intermediates_only=True)
    assert [216 // each.shape[2] for each in levels] == [4, 12, 36, 108]
    block = model.stages[0].blocks[0]
    x = torch.randn(1, 8, 4, 4)
    torch.testing.assert_close(block(x), x + 0.5 * block.mlp(block.spatial_mixing(x)))


def test_bottlenecks_of_resnet_v2_and_tresnet():
    model = imgzoo.create_model("resnetv2_18", basic=False, bottle_ratio=0.5, layers=[1, 1, 1, 1], device="meta")
    assert [stage.blocks[0].conv2.in_channels for stage in model.stages] == [32, 64, 128, 256]
    assert model.stages[0].blocks[0].downsample is not None
    model = imgzoo.create_model("resnetv2_18", bottle_ratio=0.5, layers=[1, 1, 1, 1], device="meta")
    assert model.stages[3].blocks[0].conv1.out_channels == 256 and model.stages[0].blocks[0].downsample is None
    for everywhere, width in ((False, 76), (True, 72)):
        model = imgzoo.create_model("tresnet_l", all_bottlenecks=everywhere, device="meta")
        assert model.body.conv1.conv.out_channels == width


def test_first_large_layer_of_vgg_and_affines_of_hgnet():
    model = imgzoo.create_model("vgg11", mlp_ratio=0.125, device="meta")
    assert model.pre_logits.fc1.out_channels == 512 and model.pre_logits.fc2.out_channels == 4096
    for name, beside in (("hgnet_tiny", False), ("hgnetv2_b0", True)):
        keys = imgzoo.create_model(name, lab=True, device="meta").state_dict()
        assert [key for key in keys if key.startswith("stages") and ".lab." in key]
        assert bool([key for key in keys if key.startswith("stem") and ".lab." in key]) == beside
