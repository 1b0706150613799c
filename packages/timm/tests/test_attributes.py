"""What networks and their parts tell clients of themselves."""

import importlib

import pytest
import torch

import imgzoo_timm as timm
from imgzoo_timm.layers import Attention, DropPath, Mlp
from imgzoo_timm.models._described import described
from imgzoo_timm.models.vision_transformer import Block


def test_parts_have_the_fields_attributes():
    model = timm.create_model("vit_tiny_patch16_224", drop_path_rate=0.2, depth=3)
    block = model.blocks[-1]
    assert isinstance(block, Block) and isinstance(block.attn, Attention) and isinstance(block.mlp, Mlp)
    assert isinstance(block.drop_path1, DropPath) and block.drop_path1.drop_prob == pytest.approx(0.2)
    assert (model.patch_embed.num_patches, model.patch_embed.grid_size) == (196, (14, 14))
    model.set_input_size((96, 128))
    assert model.patch_embed.grid_size == (6, 8) and model.patch_embed.num_patches == 48
    assert model(torch.randn(1, 3, 96, 128)).shape == (1, 1000)
    assert not model.grad_checkpointing
    model.set_grad_checkpointing()
    assert model.grad_checkpointing and isinstance(model.blocks[0], Block)


def test_licenses_are_spelled_as_the_field_does():
    with torch.device("meta"):
        told = timm.create_model("mobilevitv2_050").default_cfg["license"]
    assert told == timm.models.get_pretrained_cfg("mobilevitv2_050").license == "cvnets-license"


def test_what_a_network_takes():
    from imgzoo_timm.models import get_model_args, get_model_traits, resolve_model_input_args

    vit, resnet = timm.create_model("test_vit", img_size=96), timm.create_model("test_resnet", in_chans=1)
    assert get_model_traits(torch.nn.DataParallel(vit))["img_size"] == (96, 96)
    again = timm.create_model("test_vit", **get_model_args(vit))
    assert [each.shape for each in again.parameters()] == [each.shape for each in vit.parameters()]
    assert "img_size" not in get_model_args(resnet) and get_model_traits(resnet)["in_chans"] == 1
    assert "img_size" not in resolve_model_input_args("resnet18", {"img_size": 64})
    found = resolve_model_input_args("vit_tiny_patch16_224", {"input_size": (1, 64, 96)})
    assert (found["img_size"], found["in_chans"]) == ((64, 96), 1)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224"])
def test_windows_of_swin(name):
    from imgzoo_timm.models.swin_transformer import resolve_stage_window_sizes

    made = dict(depths=(2, 2), num_heads=(1, 1), embed_dim=16, img_size=64, window_size=((4, 8), (4, 4)))
    model = timm.create_model(name, strict_img_size=False, **made)
    stages = model.layers if hasattr(model, "layers") else model.stages
    assert resolve_stage_window_sizes(((4, 8), (4, 4)), 2) == ((4, 8), (4, 4))
    assert [block.window_size for block in stages[0].blocks] == [(4, 8), (4, 8)]
    assert [block.shift_size for block in stages[0].blocks] == [(0, 0), (2, 4)]
    size = "feat_size" if "_cr_" in name else "input_resolution"
    assert getattr(stages[1].blocks[0], size) == (8, 8) and stages[0].blocks[0].attn.window_size == (4, 8)
    traced = torch.jit.trace(model.eval(), torch.randn(1, 3, 64, 64), check_trace=False)
    x = torch.randn(1, 3, 72, 104)
    with torch.no_grad():
        torch.testing.assert_close(traced(x), model(x))


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inception_resnet_v2", "resnet18", "efficientnet_b0"])
@pytest.mark.parametrize("size", [299, 331])
def test_the_pool_covers_the_last_map(name, size):
    with torch.device("meta"):
        model = timm.create_model(name, pretrained_cfg_overlay={"input_size": (3, size, size)}).eval()
        told = described(model, {})["pool_size"]
        assert told == tuple(model.forward_features(torch.empty(1, 3, size, size)).shape[2:])


@pytest.mark.parametrize(
    "name", ["botnet26t_256", "convnext_atto", "repvit_m0_9", "levit_128s", "resnet18", "vgg11", "efficientvit_b0"]
)
def test_networks_tell_their_dropout(name):
    with torch.device("meta"):
        assert timm.create_model(name).drop_rate == 0.0
        assert timm.create_model(name, drop_rate=0.3).drop_rate == 0.3


SIZES_OF_EMBEDDINGS = {
    "pit_ti_224": ((16, 16), (27, 27)), "nest_tiny": ((4, 4), (56, 56)), "swinv2_tiny_window8_256": ((4, 4), (64, 64)),
    "vit_tiny_r_s16_p8_224": ((8, 8), (7, 7)), "xcit_nano_12_p16_224": (16, (14, 14)),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES_OF_EMBEDDINGS)
def test_embeddings_of_a_familys_own_tell_their_sizes(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    patch, grid = SIZES_OF_EMBEDDINGS[name]
    embed = model.patch_embed
    assert (embed.patch_size, embed.grid_size, embed.num_patches) == (patch, grid, grid[0] * grid[1])
    assert embed.img_size == model.img_size == model.default_cfg["input_size"][1:]


@pytest.mark.parametrize("name", ["test_byobnet", "repvit_m0_9", "levit_128s", "swinv2_tiny_window8_256", "test_vit"])
def test_the_pool_is_told_by_its_word(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert model.global_pool == model.pool_kind() != ""
    model.reset_classifier(0, "")
    assert model.global_pool == ""


def test_every_layer_that_sees_the_image_is_named():
    with torch.device("meta"):
        found = {name: timm.create_model(name).default_cfg["first_conv"] for name in ("mobileone_s1", "crossvit_9_240")}
    assert found == {"mobileone_s1": ("stem.conv_kxk.0.conv", "stem.conv_scale.conv"),
                     "crossvit_9_240": ("patch_embed.0.proj", "patch_embed.1.proj")}  # fmt: skip


def test_configurations_of_families_begin_as_the_fields():
    vit = importlib.import_module("imgzoo_timm.models.vision_transformer")._cfg(url="x", num_classes=3)
    assert vit["mean"] == (0.5, 0.5, 0.5) and vit["fixed_input_size"] and vit["classifier"] == "head"
    assert (vit["url"], vit["num_classes"], vit["license"]) == ("x", 3, "apache-2.0")
    convit = importlib.import_module("imgzoo_timm.models.convit")._cfg()
    assert "crop_pct" not in convit and convit["first_conv"] == "patch_embed.proj"
    with torch.device("meta"):
        model = timm.create_model("eca_nfnet_l3")
    assert model.default_cfg["url"] == "" and model.default_cfg["custom_load"] is False
    assert (model.default_cfg["license"], model.default_cfg["paper_ids"]) == ("apache-2.0", "arXiv:2102.06171")
    assert timm.models.get_pretrained_cfg("convnextv2_atto").paper_ids == "arXiv:2301.00808"
    assert timm.create_model("test_vit").default_cfg["license"] == "apache-2.0"


def test_parts_tell_their_sizes():
    with torch.device("meta"):
        for name, window in (("swin_tiny_patch4_window7_224", (7, 7)), ("swinv2_tiny_window8_256", (8, 8))):
            block = timm.create_model(name).layers[0].blocks[1]
            assert (block.window_size, block.dim, block.num_heads, block.mlp_ratio) == (window, 96, 3, 4)
            assert block.shift_size == tuple(side // 2 for side in window) and block.attn.window_size == window
            assert block.input_resolution == tuple(8 * side for side in window) and block.attn.dim == 96
        assert timm.create_model("beit_base_patch16_224").blocks[0].attn.window_size == (14, 14)
        resnet = timm.create_model("resnet18", output_stride=16)
        stages = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        told = [(stage[0].stride, stage[1].stride, stage[1].dilation) for stage in stages]
        assert told == [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)]
        assert [block.has_skip for block in timm.create_model("efficientnet_b0").blocks[1]] == [False, True]
    model = timm.create_model("swin_tiny_patch4_window7_224", depths=(2, 1, 1, 1))
    model.set_input_size((256, 256))
    assert model.layers[0].blocks[1].input_resolution == (64, 64)
    torch.jit.script(model.eval())


def test_the_size_of_the_pool_is_that_of_the_joined_map():
    with torch.device("meta"):
        assert timm.create_model("mobilenetv5_base").default_cfg["pool_size"] == (16, 16)
        lambdas = timm.create_model("lambda_resnet26t")
        assert lambdas.default_cfg["input_size"] == (3, 256, 256) and lambdas.default_cfg["pool_size"] == (8, 8)
        assert not hasattr(lambdas, "img_size")  # its windows fit any map
