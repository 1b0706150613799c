"""Networks made and derived through imgzoo-timm beside the peer's: the same attributes, keys and numbers."""

import importlib
import importlib.util
import io
import re
from functools import partial

import pytest
import timm
import torch
from client_code import GRIDDED, HOOKED, Steps
from client_parts import ROWS, build
from timm_kit import (
    both,
    on_shared_weights,
    same_tensors,
)
from torch import nn

import imgzoo
import imgzoo_timm
from imgzoo.registry import registry
from imgzoo.spelling import written

from kit import perturb

pytestmark = pytest.mark.parity


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


ANY_SIZE = {
    "crossvit_9_240": {}, "efficientvit_m0": {},
    "samvit_base_patch16_224": {"depth": 2, "embed_dim": 48, "num_heads": 3, "global_attn_indexes": (1,)},
}  # fmt: skip


@pytest.mark.parametrize("size", [(288, 256), (64, 192)])
@pytest.mark.parametrize("name", ANY_SIZE)
def test_what_takes_images_of_any_size(name, size):
    makers = both("models", "create_model")
    mine, other = (make(name, num_classes=7, **ANY_SIZE[name]).double() for make in makers)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    on_shared_weights(mine, other, x)
    assert mine.default_cfg["fixed_input_size"] == other.default_cfg["fixed_input_size"]


VITS = [dict(), dict(norm_layer=partial(nn.LayerNorm, eps=1e-6), qkv_bias=False), dict(norm_layer=nn.LayerNorm),
        dict(global_pool="avg", init_values=1e-5, class_token=False), dict(reg_tokens=2, no_embed_class=True),
        dict(act_layer="quick_gelu", pre_norm=True), dict(dynamic_img_size=True), dict(qk_norm=True, fc_norm=True),
        dict(global_pool="map"), dict(embed_norm_layer=nn.LayerNorm), dict(embed_norm_layer="rmsnorm")]  # fmt: skip


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


@pytest.mark.parametrize("name", ["vit_dwee_patch16_reg1_gap_256", "vit_dpwee_patch16_reg1_gap_256",
                                  "vit_pwee_patch16_reg1_gap_256", "vit_small_patch16_18x2_224",
                                  "vit_xsmall_patch16_clip_224", "vit_tiny_r_s16_p8_224"])  # fmt: skip
def test_a_mask_reaches_every_kind_of_block(name):
    given = dict(depth=2, embed_dim=48, num_heads=3, num_classes=7)
    mine, other = (make(name, **given) for make in both("models", "create_model"))
    mine, other, _ = doubled(mine, other)
    mine.load_state_dict(other.state_dict())
    x = torch.randn(1, 3, *other.default_cfg["input_size"][1:], dtype=torch.float64)
    with torch.no_grad():
        count = other.forward_features(x).shape[1]
        for how in (dict(attn_mask=torch.rand(count, count) > 0.3), dict(is_causal=True)):
            same_tensors(mine(x, **how), other(x, **how), 1e-8)


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
    yield cfg(blocks=(block("bottle", 1, 32, 2, 0, 0.25), block("self_attn", 1, 64, 2, 0, 0.25)), head_type="attn_rot",
              self_attn_layer="halo", self_attn_kwargs=dict(qkv_bias=True, avg_down=True,
                                                            scale_pos_embed=True))  # fmt: skip
    yield cfg(blocks=(block("basic", 1, 32, 2, None, 0.5), block("basic", 1, 48)), head_type="mlp")


@pytest.mark.parametrize("row", range(8))
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
    yield models.NormFreeNet, models.NfCfg((1, 1, 1, 1), (16, 32, 48, 64), alpha=0.3, attn_gain=1.5, ch_div=4,
                                           attn_layer="eca", attn_kwargs={}, std_conv_eps=0.1), {}  # fmt: skip
    for kind in ("basic", "dark", "edge"):
        rows = tuple(models.ByoBlockCfg(type=kind, d=2, c=32 * i, s=2, gs=8, br=0.5) for i in (1, 2))
        yield models.ByobNet, models.ByoModelCfg(blocks=rows), {}
    yield models.RegNet, models.RegNetCfg(
        depth=6, w0=16, wa=36.0, wm=2.5, group_size=8, downsample="", linear_out=True), {}  # fmt: skip
    yield models.MultiScaleVit, models.MultiScaleVitCfg(depths=(1, 1, 1, 1), embed_dim=24), dict(img_size=(64, 64))
    yield models.NaFlexVit, models.NaFlexVitCfg(
        depth=1, embed_dim=48, num_heads=3, class_token=True, reg_tokens=2, init_values=0.1, global_pool="token",
        pos_embed_ar_preserving=True), {}  # fmt: skip
    yield models.NaFlexVit, models.NaFlexVitCfg(
        depth=1, embed_dim=48, num_heads=3, norm_layer="rmsnorm", embed_norm_layer="layernorm", pre_norm=True,
        scale_attn_inner_norm=True, scale_mlp_norm=True, attn_pool_num_heads=2,
        attn_pool_mlp_ratio=2.0), {}  # fmt: skip


@pytest.mark.parametrize("row", range(11))
def test_networks_of_ones_own_configurations_give_the_same_numbers(row):
    libraries = [importlib.import_module(f"{library}.models") for library in ("imgzoo_timm", "timm")]
    rows = [list(other_configs(each))[row] for each in libraries]
    assert repr(rows[0][1]) == repr(rows[1][1])
    on_shared_weights(*(make(cfg, num_classes=7, **options) for make, cfg, options in rows), torch.randn(1, 3, 64, 64))


ATTRIBUTES = ["repvit_m0_9", "levit_128s", "efficientvim_m1", "pit_ti_224", "nest_tiny", "vit_tiny_r_s16_p8_224",
              "volo_d1_224", "xcit_nano_12_p16_224", "cait_xxs24_224", "swinv2_tiny_window8_256", "pvt_v2_b0",
              "samvit_base_patch16", "crossvit_9_240", "visformer_tiny", "focalnet_tiny_srf", "test_coatnet",
              "mobileone_s1", "fastvit_mci1", "fastvit_t8", "naflexvit_base_patch16_gap",
              "sequencer2d_s", "qwen3_vit_88m", "deepseek_vit_412m"]  # fmt: skip


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_networks_have_the_attributes_that_clients_read(name):
    with torch.device("meta"):
        mine, other = (create(name) for create in both("models", "create_model"))
    for attribute in ("global_pool", "embed_dim", "feature_dim", "num_features", "num_prefix_tokens", "num_reg_tokens"):
        wanted = getattr(other, attribute, None)
        if wanted is not None and not isinstance(wanted, nn.Module):
            assert getattr(mine, attribute) == wanted, attribute
    for attribute in ("grid_size", "img_size", "num_patches", "patch_size"):
        wanted = getattr(getattr(other, "patch_embed", None), attribute, None)
        if wanted is not None:
            assert getattr(mine.patch_embed, attribute) == wanted, attribute
    assert mine.default_cfg["first_conv"] == other.default_cfg["first_conv"]


FORMS = [("dict", "cs3darknet_focus_s"), ("dict", "csatv2"), ("hook", "cs3darknet_focus_s"), ("hook", "levit_128s"),
         ("hook", "tf_mobilenetv3_small_minimal_100"), (None, "pit_ti_224"), (None, "legacy_xception")]  # fmt: skip


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_extractors_have_the_form_of_the_field(form, name):
    options = dict(features_only=True) if form is None else dict(features_only=True, feature_cls=form)
    with torch.device("meta"):
        mine, other = (create(name, **options) for create in both("models", "create_model"))
        assert list(mine.state_dict()) == list(other.state_dict())
        if form == "dict":
            x = torch.randn(1, *mine.default_cfg["input_size"])
            assert list(mine(x)) == list(other(x))


ROPE = [dict(rope_type="axial"), dict(rope_type="axial", rope_rotate_half=True), dict(rope_type="mixed"),
        dict(rope_type="axial", rope_grid_indexing="xy", rope_grid_offset=0.5, rope_ref_feat_shape=(16, 16)),
        dict(rope_type="mixed", rope_grid_indexing="xy"), dict(rope_type="dinov3", rope_temperature=100.0),
        dict(rope_type="mrope", rope_mrope_section=(10, 11, 11))]  # fmt: skip
SHAPES = [(10, 6), (4, 9), (5, 5)]


def doubled(mine, other):
    """Both in float64, with the peer's weights moved off their start."""
    perturb(other.double().eval())
    mine.double().eval()
    state = {key: value.clone() for key, value in other.state_dict().items()}
    torch.save(state, file := io.BytesIO())
    return mine, other, file


def same_on_images_and_patches(mine, other):
    side = mine.patch_size[0]
    images = [torch.randn(3, rows * side, columns * side, dtype=torch.float64) for rows, columns in SHAPES]
    with torch.no_grad():
        for x in images:
            same_tensors(mine(x[None]), other(x[None]), 1e-8)
        same_tensors(mine(patchified(images, side)), other(patchified(images, side)), 1e-8)


def patchified(images, side):
    rows, grids = [], []
    for x in images:
        patches = x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).permute(1, 3, 2, 4, 0)
        rows.append(patches.flatten(2).flatten(0, 1))
        grids.append(torch.cartesian_prod(*map(torch.arange, patches.shape[:2])))
    pad = torch.nn.utils.rnn.pad_sequence
    valid = pad([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
    return {"patches": pad(rows, batch_first=True), "patch_coord": pad(grids, batch_first=True), "patch_valid": valid}


@pytest.mark.parametrize("options", ROPE, ids=lambda each: "-".join(map(str, each.values())))
def test_rotary_positions_of_naflexvit(options):
    size = dict(depth=2, embed_dim=128, num_heads=2, num_classes=7)
    mine, other = (make("naflexvit_base_patch16_gap", **size, **options) for make in both("models", "create_model"))
    mine, other, _ = doubled(mine, other)
    mine.load_state_dict(other.state_dict())
    same_on_images_and_patches(mine, other)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "vit_small_patch16_dinov3",
                                  "vit_small_patch16_rope_mixed_224", "vit_base_patch16_siglip_224"])  # fmt: skip
def test_use_naflex_gives_the_same_numbers(name, tmp_path):
    """The peer lays the patch kernels flat, and its table on a grid: its weights are read all the same."""
    mine, other = (make(name, depth=2, num_classes=7, use_naflex=True) for make in both("models", "create_model"))
    mine, other, file = doubled(mine, other)
    (tmp_path / "peer.pth").write_bytes(file.getvalue())
    imgzoo.load_checkpoint(mine, tmp_path / "peer.pth")
    same_on_images_and_patches(mine, other)


@pytest.mark.parametrize("name, options", [("gemma4_vit_167m", dict(num_classes=3)), ("gemma4_vit_167m_enc", {}),
                                           ("gemma4_vit_167m", dict(num_classes=0))])  # fmt: skip
def test_towers_of_gemma_take_patches_of_images_of_any_shape(name, options):
    small = dict(embed_dim=32, depth=2, num_heads=2, head_dim=16, intermediate_size=64, position_embedding_size=32)
    mine, other = (make(name, **small, **options) for make in both("models", "create_model"))
    mine, other, _ = doubled(mine, other)
    mine.load_state_dict(other.state_dict())
    record = patchified([torch.rand(3, *shape).double() for shape in [(48, 96), (48, 48), (96, 96)]], 16)
    valid = record["patch_valid"]
    with torch.no_grad():
        torch.testing.assert_close(mine(record), other(record), rtol=0, atol=1e-5)
        found = [model.forward_features(record)[valid] for model in (mine, other)]
        torch.testing.assert_close(*found, rtol=0, atol=1e-5)
        levels = [model.forward_intermediates(record, output_fmt="NLC", intermediates_only=True)
                  for model in (mine, other)]  # fmt: skip
    for got, want in zip(*levels, strict=True):
        torch.testing.assert_close(got[valid], want[valid], rtol=0, atol=1e-5)


@pytest.mark.parametrize("pool", [None, "avg", "", "own"])
@pytest.mark.parametrize("name, own", [("deepseek_vit_412m_enc", "align"), ("gemma4_vit_167m_enc", "soft"),
                                       ("qwen3_vit_88m_enc", "merge")])  # fmt: skip
def test_encoders_of_language_models_merge_tokens_by_their_own_pool_alone(name, own, pool):
    small = dict(embed_dim=32, depth=1, num_heads=2, global_pool=own if pool == "own" else pool)
    if name.startswith("gemma"):
        small |= dict(head_dim=16, intermediate_size=64, position_embedding_size=32)
    mine, other = (make(name, **small).eval().double() for make in both("models", "create_model"))
    mine.load_state_dict(other.state_dict())
    x = torch.rand(1, 3, 84, 126) if name.startswith("deepseek") else torch.rand(1, 3, 96, 192)
    with torch.no_grad():
        torch.testing.assert_close(mine(x.double()), other(x.double()), rtol=0, atol=1e-5)


FAMILIES = sorted({spec.family for spec in registry("models").specs() if spec.family})


@pytest.mark.parametrize("family", FAMILIES)
def test_configurations_of_a_family_begin_alike(family):
    other = importlib.util.find_spec(f"timm.models.{family}") and importlib.import_module(f"timm.models.{family}")
    for name in [each for each in dir(other) if each.startswith("_") and each.endswith("cfg")]:
        wanted = getattr(other, name)
        wanted = wanted(url="x", crop_pct=0.5) if name == "_cfg" else None
        if isinstance(wanted, dict) and "input_size" in wanted:
            found = getattr(importlib.import_module(f"imgzoo_timm.models.{family}"), name)(url="x", crop_pct=0.5)
            alike = [{key: tuple(each) if isinstance(each, list) else each for key, each in cfg.items()}
                     for cfg in (found, wanted)]  # fmt: skip
            assert alike[0] == alike[1], name


@pytest.mark.parametrize("name", [*(name for name in HOOKED if name != "hiera_tiny_224"), "test_vit"])
def test_hooks_on_blocks_see_the_same(name):
    models = [create(name, **HOOKED.get(name, {})).eval() for create in both("models", "create_model")]
    mine, other, _ = doubled(*models)
    mine.load_state_dict(other.state_dict())
    x, seen = torch.randn(1, *mine.default_cfg["input_size"], dtype=torch.float64), ([], [])
    for model, found in zip((mine, other), seen):
        for block in (*model.blocks[:2], *([model.patch_embed] if name == "test_vit" else ())):
            block.register_forward_hook(lambda part, args, output, found=found: found.extend([args[0], output]))
        with torch.no_grad():
            model(x)
    same_tensors(*seen, 1e-8)


@pytest.mark.parametrize("name", GRIDDED)
def test_blocks_of_maps_see_and_take_the_same(name):
    options, side, path = GRIDDED[name]
    size = dict(img_size=side) if name == "test_maxvit" else {}
    mine, other, _ = doubled(*(create(name, **options, **size).eval() for create in both("models", "create_model")))
    mine.load_state_dict(other.state_dict())
    x, seen = torch.randn(1, 3, side, side, dtype=torch.float64), ([], [])
    for model, found in zip((mine, other), seen):
        for part in (path, f"{path}.attn", f"{path}.mlp", f"{path}.attn_grid.attn"):
            if part in dict(model.named_modules()):
                model.get_submodule(part).register_forward_hook(
                    lambda part, args, output, found=found: found.extend([args, output])
                )
        with torch.no_grad():
            model(x)
    assert len(seen[0]) == len(seen[1]) >= 4
    for given, expected in zip(*seen):
        if isinstance(given, tuple):
            assert [tuple(each) for each in given[1:]] == [tuple(each) for each in expected[1:]]
            given, expected = given[0], expected[0]
        same_tensors(given, expected, 1e-8)
    given = seen[1][-2]
    with torch.no_grad():
        same_tensors(mine.get_submodule(path)(*given), other.get_submodule(path)(*given), 1e-8)


@pytest.mark.parametrize("row", ROWS)
def test_parts_of_a_callers_own_by_name(row):
    mine, other, _ = doubled(build(imgzoo_timm, row).eval(), build(timm, row).eval())
    assert list(mine.state_dict()) == list(other.state_dict())
    mine.load_state_dict(other.state_dict())
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    same_tensors(mine(x), other(x), 1e-8)


@pytest.mark.parametrize("name", ["repvit_m1", "levit_128s", "levit_conv_128s", "shvit_s1", "iformer_t",
                                  "efficientvit_m0", "tiny_vit_5m_224", "ghostnetv3_050", "fastvit_t8",
                                  "nextvit_small", "efficientvim_m1"])  # fmt: skip
def test_folded_networks_have_the_keys(name):
    """The peer folds in float32 alone."""
    mine, other = (create(name).eval() for create in both("models", "create_model"))
    perturb(other)
    mine.load_state_dict(other.state_dict())
    folded = [fold(model) for fold, model in zip(both("utils.model", "reparameterize_model"), (mine, other))]
    assert set(folded[0].state_dict()) == set(folded[1].state_dict())
    assert hasattr(mine, "fuse") == hasattr(other, "fuse")
    folded[0].load_state_dict(folded[1].state_dict())
    x = torch.randn(1, *mine.default_cfg["input_size"])
    with torch.no_grad():
        same_tensors(folded[0](x), folded[1](x), 1e-4)


def test_unknown_tags_are_refused():
    for create in both("models", "build_model_with_cfg"):
        with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
            create(Steps, "resnet18", False, pretrained_cfg="nothing")


@pytest.mark.parametrize(
    ("form", "flat"), [("list", True), ("dict", True), ("hook", True), ("hook", False), ("fx", False)]
)
def test_extractors_of_a_clients_own_network(form, flat):
    mine, other = (build(Steps, "steps", False, features_only=True, feature_cls=form, out_indices=(0, 1),
                         feature_cfg={} if form == "fx" else dict(flatten_sequential=flat))
                   for build in both("models", "build_model_with_cfg"))  # fmt: skip
    assert list(mine.state_dict()) == list(other.state_dict()) and mine.default_cfg == other.default_cfg
    assert mine.feature_info.get_dicts() == other.feature_info.get_dicts()
    mine.load_state_dict(other.state_dict())
    maps = [model(torch.ones(1, 3, 32, 32)) for model in (mine, other)]
    assert form != "dict" or list(maps[0]) == list(maps[1])
    same_tensors(*(each.values() if form == "dict" else each for each in maps))
    assert form not in ("list", "dict") or mine.return_layers == other.return_layers


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_ns_224"])
def test_swin_without_a_strict_size(name):
    options = dict(strict_img_size=False, depths=(2, 1, 1, 1), embed_dim=24, num_classes=7)
    mine, other, _ = doubled(*(create(name, **options) for create in both("models", "create_model")))
    mine.load_state_dict(other.state_dict(), strict=False)
    native = imgzoo.create_model(name, **options).double().eval()
    native.load_state_dict(mine.state_dict())
    for size in ((192, 160), (256, 256)):
        x = torch.randn(1, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            same_tensors(mine(x), other(x), 1e-8)
            same_tensors(native(x), other(x), 1e-8)


@pytest.mark.parametrize("name", ["efficientvit_m3", "coatnext_nano_rw_224"])
def test_other_sizes(name):
    for size in (192, 256):
        mine, other, _ = doubled(*(create(name, img_size=size, num_classes=7) for create in
                                   both("models", "create_model")))  # fmt: skip
        mine.load_state_dict(other.state_dict())
        x = torch.randn(1, 3, size, size, dtype=torch.float64)
        with torch.no_grad():
            same_tensors(mine(x), other(x), 1e-8)


class OwnPool(nn.Module):
    """Means as scripts write them, flat or not."""

    def __init__(self, flat):
        super().__init__()
        self.flat = flat

    def forward(self, x):
        x = x.clamp(min=1e-6).pow(3).mean((2, 3), keepdim=True).pow(1 / 3)
        return x.flatten(1) if self.flat else x


POOLING = ["regnetx_002", "convnext_atto", "fastvit_t8", "davit_tiny", "dpn48b", "resnetv2_18", "vgg11",
           "mobilenetv3_small_050", "efficientvit_b0", "ghostnet_050", "poolformerv2_s12", "rexnet_100", "starnet_s050",
           "gcvit_xxtiny", "hgnetv2_b0", "dla46x_c", "inception_next_atto"]  # fmt: skip


@pytest.mark.parametrize("name", POOLING)
def test_a_pool_of_the_callers_own(name):
    """What the peer's head takes: a vector, a map of one place, or both."""
    taken = 0
    with torch.device("meta"):
        mine, other = (create(name).eval() for create in both("models", "create_model"))
        x = torch.empty(2, *mine.default_cfg["input_size"])
        for flat in (True, False):
            for model in (other, mine):
                owner = model if isinstance(getattr(model, "global_pool", None), nn.Module) else model.head
                owner.global_pool = OwnPool(flat)
            try:
                expected = [other(x).shape, other.forward_head(other.forward_features(x), pre_logits=True).shape]
            except (RuntimeError, ValueError, AttributeError):  # the peer's does not take it
                continue
            taken += 1
            assert [mine(x).shape, mine.forward_head(mine.forward_features(x), pre_logits=True).shape] == expected
    assert taken


@pytest.mark.parametrize("name", ["test_efficientnet", "mobilenetv3_small_050"])
@pytest.mark.parametrize("indices", [None, 2, [1, 3], [-1]], ids=str)
def test_every_stage_counts_as_a_level(name, indices):
    own, peer = (make(name, num_classes=0).eval().double() for make in both("models", "create_model"))
    own.load_state_dict(peer.state_dict())
    x = torch.randn(1, 3, 64, 64).double()
    for _ in range(2):
        with torch.no_grad():
            got, want = (model.forward_intermediates(x, indices, extra_blocks=True, intermediates_only=True)
                         for model in (own, peer))  # fmt: skip
        torch.testing.assert_close(got, want)
        chosen = [model.prune_intermediate_layers(indices or 1, extra_blocks=True) for model in (own, peer)]
        assert chosen[0] == chosen[1] and len(own.blocks) == len(peer.blocks)
        torch.testing.assert_close(own(x), peer(x))
        if not isinstance(indices, list) or indices == [-1]:  # the peer counts what pruning took
            break


@pytest.mark.parametrize("name", ["hiera_tiny_224", "sam2_hiera_tiny"])
@pytest.mark.parametrize("indices", [None, [2], [1], [1, 4]], ids=str)
def test_blocks_of_hiera_are_levels_where_they_are_counted_so(name, indices):
    size = dict(stages=(1, 2, 2, 1), num_classes=0)
    size |= dict(global_att_blocks=(2,)) if name.startswith("sam2") else {}
    own, peer = (make(name, **size).eval().double() for make in both("models", "create_model"))
    perturb(peer)
    own.load_state_dict(peer.state_dict())
    x = torch.randn(1, 3, 224, 224).double()
    with torch.no_grad():
        got, want = (model.forward_intermediates(x, indices=indices, coarse=False, intermediates_only=True)
                     for model in (own, peer))  # fmt: skip
        torch.testing.assert_close(got, want)
        chosen = [model.prune_intermediate_layers(indices or 1, coarse=False) for model in (own, peer)]
        assert chosen[0] == chosen[1] and len(own.blocks) == len(peer.blocks)
        got, want = (model.forward_intermediates(x, indices=chosen[0], coarse=False, intermediates_only=True)
                     for model in (own, peer))  # fmt: skip
        torch.testing.assert_close(got, want)


PREPROCESSING = ("num_classes", "input_size", "test_input_size", "min_input_size", "fixed_input_size", "crop_pct",
                 "test_crop_pct", "crop_mode", "interpolation", "mean", "std")  # fmt: skip
"""What a configuration holds without a network."""
OF_NETWORK = ("first_conv", "classifier", "pool_size")
"""What a configuration tells of the network."""
OTHERWISE = {
    "csatv2": {"first_conv"},  # the field names none of the three convolutions of its transform
    "csatv2_21m": {"first_conv", "pool_size"},  # its last map is larger than 8x8
    "deepseek_vit_412m_enc": {"classifier"},  # encoders grow a classifier here
    "levit_384_s8": {"classifier"},  # it has two
    "qwen3_vit_88m_enc": {"classifier"},
    "vitamin_xlarge_336": {"input_size"},  # the field's network takes 336 pixels, and its configuration says 256
}
"""What differs, because the field's configuration contradicts its network."""


def test_configurations_of_all_names_hold_the_same():
    differ, names = {}, timm.list_models()
    for name in names:
        other, mine = (each.models.get_pretrained_cfg(name) for each in (timm, imgzoo_timm))
        wrong = [key for key in PREPROCESSING if getattr(mine, key) != getattr(other, key)]
        if wrong:
            differ[name] = wrong
    assert len(names) > 1300 and not differ


TOLD = sorted({spec.target: spec.name for spec in reversed(registry("models").specs())}.values())
TOLD += ["lambda_resnet26t", "mobilenetv5_base", "levit_256", *OTHERWISE]


@pytest.mark.parametrize("name", [name for name in dict.fromkeys(TOLD) if timm.is_model(name)])
def test_a_network_has_the_configuration_of_the_fields(name):
    with torch.device("meta"):
        other, mine = (each.create_model(name).default_cfg for each in (timm, imgzoo_timm))
    pairs = {key: (mine.get(key), other.get(key)) for key in PREPROCESSING + OF_NETWORK}
    differ = {key for key, pair in pairs.items() if written(pair[0]) != written(pair[1])}
    assert differ == OTHERWISE.get(name, set())


ATTENTIONS = {
    "efficientvit_msra.CascadedGroupAttention": (dict(dim=256, key_dim=16, num_heads=4, resolution=7,
                                                      kernels=(7, 5, 3, 3)), (2, 256, 7, 7)),
    "efficientvit_msra.CascadedGroupAttention, narrow": (dict(dim=64, key_dim=8, num_heads=4, attn_ratio=2,
                                                              resolution=7, kernels=(5, 5, 3, 3)), (2, 64, 7, 7)),
    "efficientformer_v2.Attention2d": (dict(dim=48, resolution=8, act_layer=nn.SiLU), (2, 48, 8, 8)),
    "efficientformer_v2.Attention2d, strided": (dict(dim=48, resolution=(8, 6), stride=2), (2, 48, 8, 6)),
    "tiny_vit.Attention": (dict(dim=64, key_dim=32, num_heads=2, attn_ratio=1, resolution=(7, 7)), (2, 49, 64)),
    "levit.AttentionDownsample": (dict(in_dim=64, out_dim=96, key_dim=16, num_heads=4, attn_ratio=4, resolution=(6, 8),
                                       act_layer=nn.Hardswish), (2, 48, 64)),
    "levit.AttentionDownsample of maps": (dict(in_dim=64, out_dim=96, key_dim=16, num_heads=4, attn_ratio=4,
                                               resolution=6, use_conv=True), (2, 64, 6, 6)),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attentions_of_families_take_the_fields_arguments(name):
    family, _, kind = re.split("[ ,]", name)[0].partition(".")
    options, shape = ATTENTIONS[name]
    mine, other = (getattr(importlib.import_module(f"{library}.models.{family}"), kind)(**options)
                   for library in ("imgzoo_timm", "timm"))  # fmt: skip
    on_shared_weights(mine, other, torch.randn(shape))


SAMPLED = [dict(), dict(pos_embed_use_grid_sample=True), dict(pos_embed="factorized", class_token=True, reg_tokens=2),
           dict(pos_embed_interp_mode="bilinear", pos_embed_use_grid_sample=True, pos_embed_ar_preserving=True),
           dict(pos_embed_grid_size=None, default_img_size=(10, 14)), dict(pos_embed="none"),
           dict(proj_bias=False, proj_norm_layer=torch.nn.LayerNorm), dict(proj_type="conv"),
           dict(proj_type=None, pos_embed="none", pos_embed_grid_size=None)]  # fmt: skip


@pytest.mark.parametrize("options", SAMPLED, ids=str)
def test_embeddings_of_naflexvit(options):
    options = {"patch_size": 2, "embed_dim": 8, "proj_type": "linear", "pos_embed_grid_size": (5, 7), **options}
    mine, other = (importlib.import_module(f"{library}.models.naflexvit").NaFlexEmbeds(**options).double()
                   for library in ("imgzoo_timm", "timm"))  # fmt: skip
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    mine.load_state_dict(other.state_dict())
    valid = torch.arange(12) < torch.tensor([[6], [12]])
    places = torch.zeros(2, 12, 2, dtype=torch.long)
    places[0, :6] = torch.cartesian_prod(torch.arange(2), torch.arange(3))
    places[1] = torch.cartesian_prod(torch.arange(3), torch.arange(4))
    inputs = (torch.randn(2, 3, 6, 16).double(),), (torch.randn(2, 12, 12).double(), places, valid)
    if options["proj_type"] != "linear":  # the peer's convolution takes images alone
        inputs = inputs[:1]
    for given in inputs:
        (got, grid), (want, wanted) = mine(*given), other(*given)
        kept = got.shape[1] - 12 if len(given) == 3 else 0  # rows that were filled up are any
        rows = torch.nn.functional.pad(valid, (kept, 0), value=True) if len(given) == 3 else slice(None)
        torch.testing.assert_close(got[rows], want[rows], rtol=0, atol=1e-5)
        assert grid == wanted
    told = [key for key in vars(other) if key.startswith(("pos_embed_", "num_", "has_")) and key[-1] not in "xy"]
    told = [key for key in told if mine.abs_pos or key != "pos_embed_grid_size"]
    assert {key: getattr(mine, key) for key in told} == {key: getattr(other, key) for key in told}
    assert all(getattr(mine, key) == getattr(other, key) for key in ("is_linear", "embed_dim", "in_chans"))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("size", [(8, 12), (9, 13)])
def test_images_are_cut_into_patches(size, channels_last):
    x = torch.randn(2, 3, *size)
    mine, other = (importlib.import_module(f"{library}.models.naflexvit").batch_patchify(
        x, (2, 4), channels_last=channels_last) for library in ("imgzoo_timm", "timm"))  # fmt: skip
    assert torch.equal(mine[0], other[0]) and mine[1] == other[1]
