"""Networks of fixed size that are set to another, beside the peer's that is created for it or set to it too."""

import warnings

import pytest
import torch
from safetensors.torch import save_file

import imgzoo

import kit
from small import QUICK

pytestmark = pytest.mark.parity

CREATED = {"crossvit_9_240": 120, "efficientvit_m1": 128, "mvitv2_tiny": 128}


@pytest.mark.parametrize("name", CREATED)
def test_set_is_as_created(name):
    size = CREATED[name]
    peer = kit.timm.create_model(name, img_size=size).eval()
    kit.perturb(peer)
    ours = imgzoo.create_model(name).eval()
    ours.set_input_size(size)
    ours.load_state_dict(peer.state_dict())
    x = kit.image(size)
    with torch.no_grad():
        kit.assert_equal(ours(x), peer(x), f"{size} pixels")


@pytest.mark.parametrize("size", [128, 288])
def test_tables_are_resized_the_same(size):
    peer, ours = kit.pair("efficientvit_m1")
    peer.set_input_size(size)
    ours.set_input_size(size)
    x = kit.image(size)
    with torch.no_grad():
        kit.assert_equal(ours(x), peer(x), f"{size} pixels")


RESIZED = {"beit_base_patch16_224": 192, "deit_tiny_patch16_224": 288, "efficientvit_m1": 96,
           "eva02_tiny_patch14_224": 280, "maxvit_tiny_tf_224": 160, "mvitv2_tiny": 160,
           "swin_tiny_patch4_window7_224": 160, "test_coatnet": 96, "test_vit": 128, "tnt_s_legacy_patch16_224": 192,
           "vit_tiny_r_s16_p8_224": 160, "vitamin_small_224": 192}  # fmt: skip
"""One name of each family of which the peer loads a file for another size."""


@pytest.mark.parametrize("name", RESIZED)
def test_tables_of_a_file_are_resized_the_same(name, tmp_path):
    path, options = tmp_path / "model.safetensors", {**QUICK.get(name, {})}
    peer = kit.timm.create_model(name, **options)
    for key, value in peer.state_dict().items():
        if value.is_floating_point():
            value.normal_(generator=torch.Generator().manual_seed(len(key)))
    state = {key: value.clone() for key, value in peer.state_dict().items()}
    save_file(state, path)
    options["img_size"], file = RESIZED[name], {"file": str(path), "custom_load": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = kit.timm.create_model(name, pretrained=True, pretrained_cfg_overlay=file, **options).state_dict()
    ours = imgzoo.create_model(name, pretrained=path, **options).state_dict()
    resized = [key for key, value in theirs.items() if value.shape != state[key].shape]
    assert resized
    for key in resized:
        kit.assert_equal(ours[key], theirs[key], key)
