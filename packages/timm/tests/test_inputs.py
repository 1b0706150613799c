"""What a network takes, and what scripts ask of it: channels, sizes, statistics, and folders that say so."""

import json

import pytest
import torch

import imgzoo_timm as timm
from imgzoo.errors import UsageError
from imgzoo_timm.data import resolve_input_data_config
from imgzoo_timm.models import get_model_args, get_model_input_config, get_model_traits, resolve_model_input_args
from imgzoo_timm.models._hub import save_for_hf


def vit(**options):
    return timm.create_model("vit_tiny_patch16_224", embed_dim=32, depth=1, num_heads=4, **options)


@pytest.mark.parametrize(
    ("args", "options"),
    [({"in_chans": 4, "input_size": (3, 32, 32)}, {}), ({"in_chans": 4}, {"in_chans": 3}),
     ({"img_size": 32, "input_size": (3, 48, 48)}, {}), ({"img_size": 32}, {"img_size": 48}),
     ({"in_chans": 0}, {}), ({"img_size": (1, 2, 3)}, {}), ({"input_size": (3,)}, {})],
)  # fmt: skip
def test_a_script_that_contradicts_itself(args, options):
    with pytest.raises(UsageError):
        resolve_model_input_args("vit_tiny_patch16_224", args, **options)


def test_a_flexible_network_keeps_the_size_of_its_options():
    found = resolve_model_input_args("vit_tiny_patch16_224", {"img_size": 64}, img_size=48, dynamic_img_size=True)
    assert found["img_size"] == 48
    flexible = vit(dynamic_img_size=True)
    assert get_model_input_config(flexible)["fixed_input_size"] is False
    assert resolve_input_data_config(flexible, {"img_size": 64})["input_size"] == (3, 64, 64)


@pytest.mark.parametrize("args", [{"in_chans": 4}, {"img_size": 64}, {"mean": (0.5, 0.5)}, {"input_size": (3, 64, 64)}])
def test_input_that_a_network_does_not_take(args):
    with pytest.raises(ValueError):
        resolve_input_data_config(vit(), args)


def test_statistics_of_other_channels_are_averaged():
    found = resolve_input_data_config(timm.create_model("resnet18", in_chans=4))
    assert found["input_size"] == (4, 224, 224)
    assert found["mean"] == (0.449,) * 4 and found["std"] == (0.226,) * 4


def test_a_fixed_size_goes_before_that_of_tests():
    model = vit(pretrained_cfg_overlay={"test_input_size": (3, 64, 64)})
    assert resolve_input_data_config(model, use_test_size=True)["input_size"] == (3, 224, 224)


def test_the_configuration_says_how_a_network_is_made():
    told = {"input_size": (2, 64, 96), "num_classes": 9}
    model = vit(pretrained_cfg_overlay=told)
    assert (model.in_chans, model.num_classes, model.patch_embed.img_size) == (2, 9, (64, 96))
    assert vit(pretrained_cfg_overlay=told, num_classes=0).num_classes == 0
    made = timm.create_model(**resolve_model_input_args("resnet18", pretrained_cfg_overlay=told))
    assert (made.in_chans, resolve_input_data_config(made)["input_size"]) == (2, (2, 64, 96))


def test_traits_of_extractors_and_of_other_modules():
    for name, size in (("test_resnet", None), ("vit_tiny_patch16_224", (224, 224))):
        traits = get_model_traits(timm.create_model(name, features_only=True, in_chans=4))
        assert "num_classes" not in traits and (traits["in_chans"], traits["img_size"]) == (4, size)
    assert get_model_traits(torch.nn.Conv2d(3, 4, 1)) == {}


def test_options_make_a_network_again():
    model = timm.create_model(
        "vit_tiny_patch16_224", embed_dim=32, depth=1, num_heads=4, drop_rate=0.5, global_pool="avg", num_classes=4
    )
    args = get_model_args(model)
    assert "drop_rate" not in args and (args["embed_dim"], args["global_pool"]) == (32, "avg")
    again = timm.create_model("vit_tiny_patch16_224", **args)
    assert [each.shape for each in again.parameters()] == [each.shape for each in model.parameters()]
    resnet = timm.create_model("resnet18", global_pool="max")
    assert get_model_args(resnet)["global_pool"] == resnet.global_pool.pool_type == "max"


def test_a_folder_says_how_images_were_prepared(tmp_path):
    model = timm.create_model("test_resnet", pretrained_cfg_overlay={"test_input_size": (3, 288, 288)})
    before = dict(model.pretrained_cfg)
    save_for_hf(model, tmp_path, data_config={"input_size": (3, 96, 96), "crop_pct": 0.8})
    assert model.pretrained_cfg == before
    stored = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert (stored["input_size"], stored["crop_pct"]) == ([3, 96, 96], 0.8) and "test_input_size" not in stored
    save_for_hf(model, tmp_path, model_config={"notes": "of the field"})
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["notes"] == "of the field" and stored["pretrained_cfg"]["test_input_size"] == [3, 288, 288]


@pytest.mark.parametrize("told", [{"model_args": {"in_chans": 3}}, {"model_config": {"model_args": {"in_chans": 3}}},
                                  {"model_config": {"num_classes": 4}}])  # fmt: skip
def test_a_folder_says_nothing_else_than_the_network_is(told, tmp_path):
    with pytest.raises(UsageError, match="disagrees with the current model"):
        save_for_hf(timm.create_model("test_resnet", in_chans=4), tmp_path / "saved", **told)
    assert not (tmp_path / "saved").exists()


def test_a_network_that_fits_its_tables_to_every_image():
    made = dict(img_size=64, embed_dim=32, depth=1, num_heads=2, global_attn_indexes=(0,))
    sam = timm.create_model("samvit_base_patch16", **made).eval()
    assert get_model_input_config(sam)["fixed_input_size"] is False
    assert sam(torch.randn(1, 3, 96, 48)).isfinite().all()


@pytest.mark.parametrize("options", [dict(dynamic_img_size=True), dict(use_naflex=True)], ids=str)
def test_the_size_of_images_of_a_network_of_any_size_is_kept(tmp_path, options):
    made = timm.create_model("test_vit", num_classes=3, in_chans=4, **options)
    save_for_hf(made, tmp_path, data_config=dict(input_size=(4, 32, 48)))
    again = timm.create_model(f"local-dir:{tmp_path}")
    assert again.pretrained_cfg["input_size"] == (4, 32, 48) and again.img_size == made.img_size == (160, 160)
    asked = timm.create_model(f"local-dir:{tmp_path}", img_size=64)
    assert asked.pretrained_cfg["input_size"] == (4, 64, 64) and asked.img_size == (64, 64)
    fixed = timm.create_model("test_vit", img_size=64)
    assert fixed.pretrained_cfg["input_size"] == (3, 64, 64)
