"""Networks by the field's configurations."""

import pytest
import torch

from imgzoo.errors import OptionError
from imgzoo_timm import models
from imgzoo_timm.models import (
    ByoBlockCfg,
    ByoModelCfg,
    MaxxVitCfg,
    MaxxVitTransformerCfg,
    NaFlexVitCfg,
    NfCfg,
    RegNetCfg,
)

ByobNet = models.ByobNet
BLOCKS = (ByoBlockCfg("edge", 1, 32, br=0.5), ByoBlockCfg("bottle", 2, 64, gs=16, br=0.5))
ROWS = {
    "byobnet": (ByobNet, ByoModelCfg(BLOCKS, attn_layer="se", attn_kwargs=dict(rd_ratio=0.25)), (2, 64)),
    "maxxvit": (models.MaxxVit, MaxxVitCfg((32, 64), (1, 2), ("C", ("C", "T")), 16), (2, 64)),
    "nfnet": (models.NormFreeNet, NfCfg((1, 1, 1, 1), (16, 32, 48, 64)), (2, 64)),
    "regnet": (models.RegNet, RegNetCfg(depth=6, w0=16, wa=36.0, wm=2.5, group_size=8), (2, 248)),
    "mvitv2": (models.MultiScaleVit, models.MultiScaleVitCfg((1, 1, 1, 1), 24), (2, 192)),
    "naflexvit": (models.NaFlexVit, NaFlexVitCfg(depth=1, embed_dim=48, num_heads=3, global_pool="avg"), (2, 48)),
}


@pytest.mark.parametrize("name", ROWS)
def test_networks_are_built_and_take_options_beside(name):
    network, cfg, shape = ROWS[name]
    sized = dict(img_size=64) if name in ("maxxvit", "mvitv2") else {}
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for model in (network(cfg, num_classes=0, **sized), network(cfg=cfg, num_classes=0, in_chans=3, **sized)):
            assert model.eval()(images).shape == shape
        built = models.build_model_with_cfg(network, name, False, model_cfg=cfg, num_classes=5, **sized)
        assert built.eval()(images).shape == (2, 5) and isinstance(built, network)


def test_published_rows_are_the_networks_of_the_catalog():
    with torch.device("meta"):
        made = models.NormFreeNet(NfCfg(
            (1, 2, 6, 3), (256, 512, 1536, 1536), stem_type="deep_quad", stem_chs=128, group_size=128, bottle_ratio=0.5,
            extra_conv=True, num_features=3072, act_layer="gelu", attn_layer="se",
            attn_kwargs=dict(rd_ratio=0.5)))  # fmt: skip
        named = models.create_model("nfnet_f0")
    assert [(key, value.shape) for key, value in made.state_dict().items()] == [
        (key, value.shape) for key, value in named.state_dict().items()]  # fmt: skip


def test_fields_are_given_anew():
    model = ByobNet(ROWS["byobnet"][1], act_layer="silu", num_features=40, num_classes=3)
    assert model.num_features == 40 and {type(part).__name__ for part in model.modules()} >= {"SiLU"}


@pytest.mark.parametrize(("network", "cfg", "word"), [
    (ByobNet, ByoModelCfg(BLOCKS, head_type="attn_what"), "head_type"),
    (ByobNet, ByoModelCfg(((BLOCKS[0], ByoBlockCfg("edge", 1, 32, br=1.0)),)), "br"),
    (ByobNet, ByoModelCfg((ByoBlockCfg("edge", 1, 32, block_kwargs=dict(depth=2)),)), "depth"),
    (ByobNet, ByoModelCfg((ByoBlockCfg("rep", 1, 32, gs=16),)), "gs"),
    (ByobNet, ByoModelCfg(BLOCKS, stem_chs=(7, 9)), "stem_type"),
    (ByobNet, ByoModelCfg((ByoBlockCfg("self_attn", 1, 32),), self_attn_layer="halo", self_attn_kwargs=dict(x=1)), "x"),
    (models.MaxxVit, MaxxVitCfg(transformer_cfg=MaxxVitTransformerCfg(dim_head=16)), "dim_head"),
    (models.NormFreeNet, NfCfg((1, 1, 1, 1), (16, 32, 48, 64), gamma_in_act=True), "same_padding"),
    (models.NormFreeNet, NfCfg((1, 1, 1, 1), (16, 32, 48, 64), attn_layer="se", attn_kwargs=dict(act="relu")),
     "rd_ratio"),
    (models.MultiScaleVit, models.MultiScaleVitCfg(mode="pool"), "mode"),
    (models.NaFlexVit, NaFlexVitCfg(rope_type="spiral"), "rope_type"),
    (models.NaFlexVit, NaFlexVitCfg(block_fn="Block"), "block_fn"),
    (models.VisionTransformerSAM, NfCfg((1,), (2,)), "by name"),
    (ByobNet, dict(blocks=()), "configuration")])  # fmt: skip
def test_what_networks_have_not_is_refused_by_name(network, cfg, word):
    with pytest.raises(OptionError, match=word) as raised:
        network(cfg)
    assert len(str(raised.value).splitlines()) == 1


def test_blocks_of_naflexvit_are_as_its_configuration_says():
    told = dict(depth=1, embed_dim=48, num_heads=3, attn_gated=True, swiglu_mlp=True, swiglu_align_to=32, mlp_ratio=3.1,
                rope_type="axial", attn_only_layer_scale=True, init_values=0.1, pos_embed="none",
                embed_proj_type="conv", qkv_fused=False, num_kv_heads=1, global_pool="avg")  # fmt: skip
    model = models.NaFlexVit(NaFlexVitCfg(**told), num_classes=0).eval()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes["embeds.proj.weight"] == (48, 3, 16, 16) and "embeds.pos_embed" not in shapes
    assert shapes["blocks.0.attn.k_proj.weight"] == (16, 48) and shapes["blocks.0.attn.gate.weight"] == (48, 48)
    assert shapes["blocks.0.mlp.fc1_g.weight"] == (160, 48)
    assert "blocks.0.gamma_1" in shapes and "blocks.0.gamma_2" not in shapes
    assert model(torch.randn(1, 3, 64, 48)).shape == (1, 48)
