"""Weights in the formats of their authors load into our convolutional networks and compute the same."""

import re

import pytest
import torch
import torchvision

import imgzoo
from imgzoo.errors import WeightsError

TINY = dict(depths=(1, 2, 1, 1), dims=(8, 16, 24, 32), num_classes=5)


def make(name, **options):
    """A model with every parameter away from its initial value."""
    torch.manual_seed(0)
    model = imgzoo.create_model(name, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def same(model, again):
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(x), model(x), rtol=1e-4, atol=1e-4)


def original_convnext(model, linear):
    """facebookresearch/ConvNeXt and ConvNeXt-V2: stem and downsampling in one list, pointwise layers as linear ones."""
    state = {}
    for key, value in model.state_dict().items():
        parts = key.split(".")
        if parts[0] == "stem":
            key = ".".join(["downsample_layers", "0", *parts[1:]])
        elif parts[2:3] == ["downsample"]:
            key = ".".join(["downsample_layers", parts[1], *parts[3:]])
        elif parts[0] == "stages":
            name = {"conv_dw": "dwconv", "fc1": "pwconv1", "fc2": "pwconv2", "norm": "norm", "gamma": "gamma"}
            leaf = parts[-1]
            if "grn" in parts:
                key = f"stages.{parts[1]}.{parts[3]}.grn.{'gamma' if leaf == 'weight' else 'beta'}"
                value = value.reshape(1, 1, 1, -1)
            elif leaf == "gamma":
                key = f"stages.{parts[1]}.{parts[3]}.gamma"
            else:
                key = f"stages.{parts[1]}.{parts[3]}.{name[parts[-2]]}.{leaf}"
                if linear and parts[-2] in ("fc1", "fc2"):
                    value = value.flatten(1) if leaf == "weight" else value
        else:
            key = {"norm": "norm", "fc": "head"}[parts[1]] + f".{parts[2]}"
        state[key] = value.clone()
    return state


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_atto", "convnextv2_atto", "convnextv2_tiny"])
def test_original_convnext(tmp_path, name):
    model = make(name, **TINY)
    state = original_convnext(model, linear=True)
    assert state["stages.1.0.pwconv1.weight"].shape == (64, 16)
    assert len(state) == len(model.state_dict())
    torch.save({"model": state}, tmp_path / "convnext.pth")
    again = imgzoo.create_model(name, pretrained=tmp_path / "convnext.pth", **TINY)
    assert again.load_report.format == "original"
    same(model, again)


@pytest.mark.parametrize("name, renamed", [
    ("convnext_base", {"head.fc": "head.proj"}),
    ("convnext_large_mlp", {"head.pre_logits.fc": "head.mlp.fc1", "head.fc": "head.mlp.fc2"}),
])  # fmt: skip
def test_open_clip_tower(tmp_path, name, renamed):
    options = dict(TINY, head_hidden=48) if name.endswith("mlp") else TINY
    model = make(name, **options)
    torch.nn.init.zeros_(model.head.fc.bias)
    state = {"logit_scale": torch.tensor(4.6), "text.ln_final.weight": torch.ones(8)}
    for key, value in model.state_dict().items():
        moved = next((theirs + key.removeprefix(ours) for ours, theirs in renamed.items() if key.startswith(ours)), "")
        if key != "head.fc.bias":
            state[f"visual.{moved or 'trunk.' + key}"] = value
    torch.save(state, tmp_path / "clip.pt")
    again = imgzoo.create_model(name, pretrained=tmp_path / "clip.pt", **options)
    assert again.load_report.format == "open-clip-trunk"
    same(model, again)


@pytest.mark.parametrize("theirs, ours", [
    ("convnext_tiny", "convnext_tiny"),
    *(pytest.param(f"convnext_{size}", f"convnext_{size}", marks=pytest.mark.slow) for size in ("small", "base")),
])  # fmt: skip
def test_torchvision_convnext(tmp_path, theirs, ours):
    torch.manual_seed(0)
    model = getattr(torchvision.models, theirs)(weights=None, num_classes=7).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    torch.save(model.state_dict(), tmp_path / "convnext.pth")
    again = imgzoo.create_model(ours, pretrained=tmp_path / "convnext.pth").double()
    assert (again.load_report.format, again.num_classes, again.load_report.initialized) == ("torchvision", 7, [])
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(x), model.double()(x), rtol=1e-6, atol=1e-6)


def transformers_resnet(model):
    """transformers' ResNet: an embedder, stages and layers counted from zero."""
    state = {}
    for key, value in model.state_dict().items():
        for pattern, replacement in (
            (r"^conv1\.", "resnet.embedder.embedder.convolution."),
            (r"^bn1\.", "resnet.embedder.embedder.normalization."),
            (r"^layer(\d)\.", lambda m: f"resnet.encoder.stages.{int(m[1]) - 1}.layers."),
            (r"downsample\.0", "shortcut.convolution"), (r"downsample\.1", "shortcut.normalization"),
            (r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution."),
            (r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization."), (r"^fc\.", "classifier.1."),
        ):  # fmt: skip
            key = re.sub(pattern, replacement, key)
        state[key] = value
    return state


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_transformers_resnet(tmp_path, name):
    model = make(name, layers=(1, 2, 1, 1), num_classes=5)
    torch.save(transformers_resnet(model), tmp_path / "resnet.pth")
    again = imgzoo.create_model(name, pretrained=tmp_path / "resnet.pth", layers=(1, 2, 1, 1))
    assert (again.load_report.format, again.load_report.initialized) == ("transformers", [])
    same(model, again)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_without_its_statistics_is_refused(tmp_path, name):
    state = make(name).state_dict()
    torch.save({key: value for key, value in state.items() if key != "layer1.0.bn1.running_var"}, tmp_path / "no.pth")
    with pytest.raises(WeightsError, match=r"lacks 1 tensors \(layer1\.0\.bn1\.running_var"):
        imgzoo.create_model(name, pretrained=tmp_path / "no.pth")


@pytest.mark.parametrize("ours, theirs", [
    ("regnety_004", "regnet_y_400mf"), ("regnetx_004_tv", "regnet_x_400mf"), ("regnety_008_tv", "regnet_y_800mf"),
])  # fmt: skip
def test_torchvision_regnet(tmp_path, ours, theirs):
    torch.manual_seed(0)
    model = getattr(torchvision.models, theirs)(weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "regnet.pth")
    again = imgzoo.create_model(ours, pretrained=tmp_path / "regnet.pth")
    assert again.load_report.format == "torchvision"
    same(model, again)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121"])
def test_torchvision_networks_with_our_names(tmp_path, name):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "resnet.pth")
    same(model, imgzoo.create_model(name, pretrained=tmp_path / "resnet.pth"))


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_torchvision_vgg(tmp_path, name):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None, num_classes=7).eval()
    torch.save(model.state_dict(), tmp_path / "vgg.pth")
    again = imgzoo.create_model(name, pretrained=tmp_path / "vgg.pth").eval()
    assert (again.load_report.format, again.num_classes) == ("torchvision", 7)
    x = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(again(x), model(x), rtol=1e-4, atol=1e-5)
