"""Weights of BiT and of torchvision's Inception-v3 load as their authors publish them."""

import re

import numpy as np
import torch
import torchvision

import imgzoo


def big_transfer(model):
    """google-research/big_transfer: arrays by path, kernels (h, w, in, out), stages and units counted from one."""
    arrays = {}
    for key, value in model.state_dict().items():
        *path, leaf = key.split(".")
        value = value.numpy()
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        norm = "norm" in path[-1]
        leaf = {"weight": "gamma", "bias": "beta"}[leaf] if norm else {"weight": "kernel", "bias": "bias"}[leaf]
        where = "group_norm" if norm else "standardized_conv2d"
        if path[0] == "stages":
            unit = f"block{int(path[1]) + 1}/unit{int(path[3]) + 1:02d}"
            number = re.search(r"\d", path[-1])
            where = f"{unit}/{'abc'[int(number[0]) - 1]}/{where}" if number else f"{unit}/a/proj/{where}"
        elif path[0] == "stem":
            where = f"root_block/{where}"
        elif path[0] == "head":
            where = "head/conv2d"
        arrays[f"resnet/{where}/{leaf}"] = value
    return arrays


def test_big_transfer(tmp_path):
    torch.manual_seed(0)
    options = dict(layers=(1, 2, 1, 1), channels=(128, 256, 256, 256), stem_chs=32, num_classes=5)
    model = imgzoo.create_model("resnetv2_50x1_bit", **options).eval()
    assert model.stem.conv.out_channels == model.feature_info.levels[0].channels == 32
    arrays = big_transfer(model)
    assert "resnet/block2/unit02/c/standardized_conv2d/kernel" in arrays
    assert "resnet/block1/unit01/a/proj/standardized_conv2d/kernel" in arrays
    assert len(arrays) == len(model.state_dict())
    np.savez(tmp_path / "bit.npz", **arrays)
    again = imgzoo.create_model("resnetv2_50x1_bit", pretrained=tmp_path / "bit.npz", **options).eval()
    assert again.load_report.format == "big-transfer"
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again(x), model(x))


def test_torchvision_inception_leaves_its_auxiliary_classifier_behind(tmp_path):
    torch.manual_seed(0)
    theirs = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=True).eval()
    torch.save(theirs.state_dict(), tmp_path / "inception.pth")
    ours = imgzoo.create_model("inception_v3", pretrained=tmp_path / "inception.pth").eval()
    assert ours.load_report.format == "torchvision"
    x = torch.randn(1, 3, 139, 139)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
