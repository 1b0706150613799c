"""Networks beside imgzoo's own: the same numbers, subclasses, options, weights drawn anew, second classifiers."""

import importlib
import math
import pickle
from functools import partial

import pytest
import torch
from client_code import SMALL, families
from torch import nn

import imgzoo
import imgzoo_timm as timm
from imgzoo.errors import OptionError, UsageError
from imgzoo_layers import pool
from imgzoo_timm.layers import create_pool2d
from imgzoo_timm.models.efficientvit_mit import EfficientVit, EfficientVitLarge
from imgzoo_timm.models.vision_transformer import Block, PatchEmbed, VisionTransformer


@pytest.mark.parametrize("name", families())
def test_adopted_networks_stay_themselves(name):
    with torch.device("meta"):
        native, model = imgzoo.create_model(name), timm.create_model(name)
    assert isinstance(model, type(native)) and list(model.state_dict()) == list(native.state_dict())
    seen = model.default_cfg["first_conv"]
    assert ({seen} if isinstance(seen, str) else set(seen)) <= {each for each, _ in model.named_modules()}
    assert model.feature_info.channels() == native.feature_info.channels()
    assert [row["index"] for row in model.feature_info.info] == list(range(len(native.feature_info)))
    assert pickle.loads(pickle.dumps(type(model))) is type(model)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext", "test_byobnet"])
def test_numbers_are_those_of_imgzoo(name):
    native = imgzoo.create_model(name).eval()
    model = timm.create_model(name).eval()
    model.load_state_dict(native.state_dict())
    x = torch.randn(2, *model.default_cfg["input_size"])
    with torch.no_grad():
        torch.testing.assert_close(model(x), native(x))
        torch.testing.assert_close(model.forward_head(model.forward_features(x)), native(x))


def test_a_derived_transformer_runs_its_own_path():
    class Derived(VisionTransformer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.extra = nn.Linear(self.embed_dim, self.num_classes)
            self.extra.apply(self._init_weights)

        def forward_features(self, x):
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1)
            x = self.pos_drop(x + self.pos_embed)
            for block in self.blocks:
                x = block(x)
            return self.norm(x)

    torch.manual_seed(0)
    model = Derived(**SMALL, mlp_ratio=4, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6)).eval()
    plain = VisionTransformer(**SMALL, norm_layer=partial(nn.LayerNorm, eps=1e-6)).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x), plain(x))
    assert model.norm.eps == 1e-6 and model.extra.bias.abs().sum() == 0
    with pytest.raises(ValueError, match="another size"):
        model(torch.randn(1, 3, 40, 40))
    pickle.dumps(plain)


def test_words_without_a_counterpart_are_named():
    with pytest.raises(OptionError, match="no option nonsense"):
        timm.models.cait.Cait(nonsense=3)
    with pytest.raises(OptionError, match="by name"):
        timm.models.cait.Cait(224)
    with pytest.raises((OptionError, ValueError), match="pos_embed"):
        VisionTransformer(**SMALL, pos_embed="rope")
    with pytest.raises(RuntimeError, match="Unknown model"):
        timm.create_model("resnet_of_nobody")
    assert timm.models.cait.Cait(depth=1, embed_dim=24, num_heads=2, init_values=1e-4, num_classes=3).num_classes == 3


def test_patch_embeddings_check_and_pad():
    embed = PatchEmbed(img_size=32, patch_size=8, embed_dim=12)
    with pytest.raises(ValueError, match="another size"):
        embed(torch.randn(1, 3, 33, 32))
    assert PatchEmbed(None, 8, embed_dim=12, dynamic_img_pad=True)(torch.randn(1, 3, 33, 30)).shape == (1, 20, 12)


@pytest.mark.parametrize("kind, native", [("max", pool.MaxPool2dSame), ("avg", pool.AvgPool2dSame)])
@pytest.mark.parametrize("options", [{}, {"ceil_mode": True}])
def test_local_pools_take_plain_numbers(kind, native, options):
    x = torch.randn(1, 2, 7, 8)
    torch.testing.assert_close(create_pool2d(kind, 3, 2, padding="same", **options)(x), native(3, 2)(x))
    if kind == "max":
        again = create_pool2d(kind, 3, 2, padding="same", dilation=2)(x)
        torch.testing.assert_close(again, native(3, 2, 2)(x))


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_maxvit", "swin_tiny_patch4_window7_224"])
def test_weights_are_drawn_anew(name):
    small = dict(embed_dim=16, depths=(1, 1), num_heads=(1, 1)) if name.startswith("swin") else {}
    model = timm.create_model(name, device="meta", dtype=torch.float64, num_classes=5, **small).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
    model.init_weights()
    assert all(torch.isfinite(tensor).all() for tensor in [*model.parameters(), *model.buffers()])
    side = model.pretrained_cfg["input_size"][1]
    assert torch.isfinite(model.eval()(torch.randn(1, 3, side, side, dtype=torch.float64))).all()
    with pytest.raises(OptionError, match=r"drawn one way|weight_init is '', 'jax'"):
        model.init_weights("senseless")


def test_a_neck_of_no_channels():
    made = dict(img_size=64, embed_dim=32, depth=1, num_heads=2, global_attn_indexes=(0,))
    assert timm.create_model("samvit_base_patch16", neck_chans=0, **made).num_features == 32


def test_a_network_of_the_field_that_is_a_form_of_another_here():
    large, base = (timm.create_model(name) for name in ("efficientvit_l1", "efficientvit_b0"))
    assert isinstance(large, EfficientVitLarge) and isinstance(large, EfficientVit)
    assert isinstance(base, EfficientVit) and not isinstance(base, EfficientVitLarge)
    assert type(pickle.loads(pickle.dumps(large))) is EfficientVitLarge
    own = EfficientVitLarge(widths=(8, 8, 16, 16, 32), depths=(1,) * 5, head_widths=(16, 16), num_classes=3, head_dim=8)
    assert own(torch.randn(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("name", ["test_vit", "naflexvit_base_patch16_gap"])
def test_weights_are_scaled_by_depth_where_it_is_asked(name):
    torch.manual_seed(0)
    drawn = [[], []]
    for scaled, found in zip((True, False), drawn):
        model = timm.create_model(name, embed_dim=192, depth=3, num_heads=3, fix_init=scaled)
        found += [layer.weight.std() for block in model.blocks for layer in (block.attn.proj, block.mlp.fc2)]
    wanted = [(2.0 * i) ** -0.5 for i in (1, 1, 2, 2, 3, 3)]
    torch.testing.assert_close(torch.stack(drawn[0]) / torch.stack(drawn[1]), torch.tensor(wanted), rtol=0.05, atol=0)
    own = VisionTransformer(**{**SMALL, "embed_dim": 192}, fix_init=True)
    assert own.blocks[1].mlp.fc2.weight.std() < 0.6 * own.blocks[1].mlp.fc1.weight.std()
    with pytest.raises(OptionError, match="fix_init"):
        timm.create_model("test_resnet", fix_init=True)
    cfg = timm.models.NaFlexVitCfg(embed_dim=192, depth=3, num_heads=3, global_pool="avg", fix_init=False)
    weight = timm.models.NaFlexVit(cfg).blocks[2].mlp.fc2.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_positions_of_patches_of_any_shape_are_asked_for_in_the_fields_words():
    options = dict(depth=1, embed_dim=8, num_heads=1, pos_embed_grid_size=(2, 3))
    assert timm.create_model("naflexvit_base_patch16_gap", **options).embeds.pos_embed.shape == (1, 2, 3, 8)
    parts = timm.create_model("naflexvit_base_patch16_gap", **options, pos_embed="factorized").embeds
    assert parts.pos_embed_y.shape == (1, 2, 8) and parts.pos_embed_x.shape == (1, 3, 8)


DERIVED = {"coat_tiny": "coat.CoaT", "levit_128s": "levit.Levit",
           "deit_tiny_distilled_patch16_224": "VisionTransformer",
           "efficientvim_m1_dist": "efficientvim.EfficientViM", "pit_ti_distilled_224": "pit.PoolingVisionTransformer",
           "res2net50_14w_8s": "ResNet", "resnest14d": "ResNet", "skresnet18": "ResNet",
           "vit_tiny_r_s16_p8_224": "VisionTransformer", "vitamin_small_224": "VisionTransformer"}  # fmt: skip


@pytest.mark.parametrize("name", DERIVED)
def test_networks_derive_from_those_of_the_field(name):
    module, _, word = f"models.{DERIVED[name]}".rpartition(".")
    with torch.device("meta"):
        native, model = imgzoo.create_model(name, num_classes=3), timm.create_model(name, num_classes=3)
    parent = getattr(importlib.import_module(f"imgzoo_timm.{module}"), word)
    assert isinstance(model, parent) and type(model) is not parent
    assert list(model.state_dict()) == list(native.state_dict())
    # one of a vision transformer is that of its parent, with masks
    path = VisionTransformer if parent is VisionTransformer else type(native)
    assert type(model).forward_features is path.forward_features


def test_what_derives_only_here_does_not_there():
    with torch.device("meta"):
        model = timm.create_model("swinv2_tiny_window8_256")
    assert not isinstance(model, timm.models.SwinTransformer)


def test_a_distilled_transformer_takes_what_its_parent_takes():
    class MyBlock(Block):
        pass

    model = timm.models.VisionTransformerDistilled(block_fn=MyBlock, **SMALL)
    assert isinstance(model.blocks[0], MyBlock) and model.num_prefix_tokens == 2
    model.set_distilled_training()
    assert [each.shape for each in model.train()(torch.randn(2, 3, 32, 32))] == [(2, 7), (2, 7)]
    rest = {key: value for key, value in SMALL.items() if key not in ("img_size", "patch_size")}
    assert timm.models.VisionTransformerDistilled(32, 8, **rest).patch_embed.grid_size == (4, 4)


def test_initial_weights_as_in_jax():
    model = VisionTransformer(**SMALL, weight_init="jax_nlhb")
    assert model.head.weight.abs().sum() == 0 and model.head.bias[0].item() == pytest.approx(-1.9459, abs=1e-4)
    assert 0 < model.blocks[0].mlp.fc1.bias.abs().max() < 1e-4
    assert VisionTransformer(**SMALL, weight_init="jax").head.bias.abs().sum() == 0
    for mlp_layer in (timm.layers.SwiGLU, timm.layers.SwiGLUPacked):  # AIM v2 has no biases to begin at one
        plain = VisionTransformer(**SMALL, weight_init="jax", mlp_layer=mlp_layer, proj_bias=False)
        assert next(plain.blocks[0].mlp.parameters()).abs().max() > 0
    gated = timm.create_model("aimv2_large_patch14_224", weight_init="jax", depth=1, embed_dim=16, num_heads=2)
    assert gated.blocks[0].mlp.fc1_g.weight.std() < 1e-5


SPREADS = {"jax": 0.5**0.5, "jax_nlhb": 0.5**0.5, "moco": 1.0, "reset": 3**-0.5}
"""Of queries, keys and values, times the root of the channels."""


@pytest.mark.parametrize("word", SPREADS)
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_relpos_small_patch16_224", "deit_tiny_patch16_224",
                                  "swin_tiny_patch4_window7_224", "vitamin_small_224"])  # fmt: skip
def test_first_weights_by_a_word(name, word):
    torch.manual_seed(0)
    fresh = timm.create_model(name, weight_init=word, num_classes=7)
    later = timm.create_model(name, num_classes=7)
    later.init_weights(word)
    for model in (fresh, later):
        qkv = next(module for key, module in model.named_modules() if key.endswith("qkv"))
        assert qkv.weight.std().item() * qkv.in_features**0.5 == pytest.approx(SPREADS[word], rel=0.03)
        head = model.get_classifier()
        bound = {"moco": (6 / (head.in_features + 7)) ** 0.5, "reset": head.in_features**-0.5}.get(word, 0)
        assert head.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
        assert (head.bias + math.log(7) * (word == "jax_nlhb")).abs().max() <= (bound if word == "reset" else 1e-6)


def test_first_weights_of_networks_by_class_and_by_configuration(tmp_path):
    small = {key: value for key, value in SMALL.items() if key not in ("img_size", "num_classes")}
    swin = timm.models.SwinTransformer(embed_dim=24, depths=(1, 1), num_heads=(2, 4), weight_init="jax")
    cfg = timm.models.naflexvit.NaFlexVitCfg(**small, weight_init="jax")
    for model in (VisionTransformer(**SMALL, weight_init="jax"), swin, timm.models.NaFlexVit(cfg)):
        assert model.head.get_parameter("fc.weight" if model is swin else "weight").abs().sum() == 0
    for refused in (lambda: VisionTransformer(**SMALL, weight_init="senseless"),
                    lambda: timm.create_model("vit_tiny_patch16_224", weight_init="senseless")):  # fmt: skip
        with pytest.raises(OptionError, match=r"weight_init is '', 'jax', .*, not 'senseless'"):
            refused()
    model = timm.create_model("vit_tiny_patch16_224")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    loaded = timm.create_model("vit_tiny_patch16_224", pretrained=True, weight_init="jax",
                               pretrained_cfg_overlay={"file": str(tmp_path / "weights.pth")})  # fmt: skip
    assert all(value.equal(loaded.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_ns_224"])
def test_swin_without_a_strict_size_takes_any(name):
    options, x = dict(depths=(2, 1, 1, 1), embed_dim=24), torch.randn(1, 3, 192, 160)
    for library in (imgzoo, timm):
        torch.manual_seed(0)
        loose = library.create_model(name, strict_img_size=False, **options).eval()
        other = library.create_model(name, dynamic_img_size=True, strict_img_size=False, **options).eval()
        other.load_state_dict(loose.state_dict())
        torch.testing.assert_close(loose(x), other(x))
        with pytest.raises(ValueError, match="another size"):
            library.create_model(name, **options)(x)
    swin = timm.models.SwinTransformer(strict_img_size=False, **options)
    assert swin.dynamic_img_size


def test_coordinates_of_patches_come_by_themselves():
    small = dict(embed_dim=64, depth=2, num_heads=2, num_classes=5)
    model = timm.create_model("naflexvit_base_patch16_gap", enable_patch_interpolator=True, **small).eval()
    patches, coordinates = torch.randn(2, 6, 768), torch.cartesian_prod(torch.arange(2), torch.arange(3))
    valid = torch.arange(6) < torch.tensor([[6], [4]])
    coordinates = coordinates * valid[..., None]
    record = dict(patches=patches, patch_coord=coordinates, patch_valid=valid)
    torch.testing.assert_close(model(patches, coordinates, patch_valid=valid), model(record))
    whole = dict(record, patch_coord=coordinates[:1].expand(2, -1, -1), patch_valid=torch.ones_like(valid))
    torch.testing.assert_close(model(patches, patch_coord=whole["patch_coord"]), model(whole))
    found = model.forward_features(**record)
    torch.testing.assert_close(model.forward_head(**found), model(record))
    levels = model.forward_intermediates(patches, 1, patch_coord=coordinates, patch_valid=valid, output_fmt="NLC",
                                         intermediates_only=True)  # fmt: skip
    torch.testing.assert_close(
        levels, model.forward_intermediates(record, 1, output_fmt="NLC", intermediates_only=True)
    )
    assert (
        model(torch.randn(2, 6, 8, 8, 3), coordinates, valid).shape == model(torch.randn(2, 3, 32, 48)).shape == (2, 5)
    )
    with pytest.raises(OptionError, match="leave attn_mask out"):
        model(patches, coordinates, valid, attn_mask=valid)
    other = timm.create_model("test_vit", use_naflex=True, num_classes=5).eval()
    torch.testing.assert_close(other(patches, whole["patch_coord"]), other(whole))
    found = other.forward_features(**whole)
    torch.testing.assert_close(other.forward_head(**found), other(whole))
    levels = other.forward_intermediates(whole, 1, output_fmt="NLC", output_dict=True)
    torch.testing.assert_close(levels["image_features"], found["patches"])
    assert torch.equal(levels["patch_valid"], whole["patch_valid"]) and len(levels["image_intermediates"]) == 1
    again = pickle.loads(pickle.dumps(other))
    torch.testing.assert_close(again(*whole.values()), other(whole))


def test_the_embedding_of_patches_is_one_of_the_fields():
    valid = torch.arange(12) < torch.tensor([[6], [12]])
    places = torch.zeros(2, 12, 2, dtype=torch.long)
    places[0, :6] = torch.cartesian_prod(torch.arange(2), torch.arange(3))
    places[1] = torch.cartesian_prod(torch.arange(3), torch.arange(4))
    options = dict(patch_size=2, embed_dim=8, proj_type="linear", class_token=False, pos_embed_grid_size=(5, 7))
    part = timm.models.naflexvit.NaFlexEmbeds(**options, reg_tokens=1, pos_embed_use_grid_sample=True).eval()
    with torch.no_grad():
        part.pos_embed.normal_()
    patches = torch.randn(2, 12, 12)
    tokens, grid = part(patches, places, valid)
    assert (part.embed_dim, part.num_prefix_tokens, part.pos_embed_grid_size, grid) == (8, 1, (5, 7), None)
    image = patches[1].reshape(3, 4, 2, 2, 3).permute(4, 0, 2, 1, 3).reshape(1, 3, 6, 8)
    assert part(image)[1] == (3, 4)
    other = timm.models.naflexvit.NaFlexEmbeds(**options, reg_tokens=1, pos_embed_antialias=False)
    other.load_state_dict(part.state_dict())
    torch.testing.assert_close(tokens[1:], other(image)[0])  # at points of the table: as an image without smoothing
    assert not torch.allclose(tokens[1:], part(image)[0], atol=1e-3)
    torch.testing.assert_close(part(patches[1:], places[1:])[0], tokens[1:])
    torch.testing.assert_close(torch.export.export(part, (patches, places, valid)).module()(patches, places, valid)[0],
                               tokens)  # fmt: skip
    model = timm.create_model("naflexvit_base_patch16_gap", embed_dim=64, depth=1, num_heads=2)
    assert isinstance(model.embeds, timm.models.naflexvit.NaFlexEmbeds)
    assert model.embeds(torch.randn(1, 3, 32, 64))[0].shape == (1, 12, 64)
    for wrong in (dict(proj_type="flat"), dict(pos_embed="sine"), dict(pos_drop_rate=0.5)):
        with pytest.raises(OptionError, match=rf"not .*{next(iter(wrong))}="):
            timm.models.naflexvit.NaFlexEmbeds(**{**options, **wrong})


@pytest.mark.parametrize("name", ["gemma4_vit_167m", "gemma4_vit_167m_enc"])
def test_towers_of_gemma_take_patches(name):
    small = dict(embed_dim=32, depth=2, num_heads=2, head_dim=16, intermediate_size=64, position_embedding_size=32)
    model = timm.create_model(name, **small).eval()
    x = torch.rand(2, 3, 48, 96)
    patches = x.unflatten(3, (-1, 16)).unflatten(2, (-1, 16)).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    coordinates = torch.cartesian_prod(torch.arange(3), torch.arange(6)).expand(2, -1, -1)
    valid = torch.ones(2, 18, dtype=torch.bool)
    record = dict(patches=patches, patch_coord=coordinates, patch_valid=valid)
    for given in ((record,), (patches, coordinates), (patches, coordinates, valid)):
        torch.testing.assert_close(model(*given), model(x))
        assert model.forward_features(*given).shape == (2, 18, 32)
    levels = model.forward_intermediates(record, output_fmt="NLC", output_dict=True)
    assert levels["image_features"].shape == (2, 18, 32) and len(levels["image_intermediates"]) == 2
    again = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(again(record), model(x))
    assert isinstance(model, getattr(timm.models.gemma4_vit, "Gemma4VitEncoder" if name.endswith("enc") else
                                     "Gemma4VitClassifier"))  # fmt: skip


@pytest.mark.parametrize("name", ["repvit_m1", "iformer_t"])
def test_a_second_classifier_is_kept_by_name(name):
    model, x = timm.create_model(name, distillation=True), torch.randn(2, 3, 64, 64)
    for kept in (True, False, True):
        model.reset_classifier(5, distillation=kept)
        assert len(model._heads()) == (2 if kept else 1) and model.get_classifier() is model.head
        model.set_distilled_training(True)
        assert isinstance(model(x), tuple) == kept
    with pytest.raises(OptionError, match="leave distillation out"):
        timm.create_model("test_resnet").reset_classifier(5, distillation=True)


def test_what_a_network_does_not_take_is_an_assertion_error_too():
    with pytest.raises(AssertionError, match="global_pool"):
        timm.create_model("test_vit", global_pool="catavgmax")
    model = timm.create_model("test_vit")
    with pytest.raises(AssertionError, match="global_pool"):
        model.reset_classifier(3, "catavgmax")
    with pytest.raises(UsageError, match="window_size"):
        timm.create_model("swin_tiny_patch4_window7_224").set_input_size(window_size=0)
    with pytest.raises(OptionError, match="no option 'strange'"):
        timm.create_model("test_vit", strange=1)


def test_a_pool_takes_its_kind_again():
    """As torch-pruning gives every attribute back that it saved."""
    pool, x = timm.create_model("resnet18").global_pool, torch.randn(1, 2, 3, 3)
    pool.pool_type = "max"
    assert pool.pool_type == "max" and pool(x).flatten().equal(x.amax((2, 3)).flatten())
