"""Weights of torchvision and of the TensorFlow port load into our EfficientNets and MobileNets and compute the same."""

import re

import pytest
import torch
import torchvision
from safetensors.torch import save_file

import imgzoo
from imgzoo.errors import WeightsError

OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
GATE = {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
FIRST = {**GATE, "conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
LATER = {**GATE, "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
         "conv_pwl": "_project_conv", "bn3": "_bn2"}  # fmt: skip


def port(model):
    """One flat list of blocks; the first stage does not expand."""
    state, number = {}, 0
    for ours, theirs in OUTSIDE.items():
        state |= {f"{theirs}.{key}": value for key, value in model.get_submodule(ours).state_dict().items()}
    for i, stage in enumerate(model.blocks):
        for block in stage:
            for ours, theirs in (LATER if i else FIRST).items():
                part = dict(block.named_modules()).get(ours)
                if part is not None:
                    state |= {f"_blocks.{number}.{theirs}.{key}": v for key, v in part.state_dict().items()}
            number += 1
    return state


@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "tf_efficientnet_lite0"])
def test_tensorflow_port(tmp_path, name):
    torch.manual_seed(0)
    model = imgzoo.create_model(name, num_classes=5).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    state = port(model)
    assert len(state) == len(model.state_dict())
    torch.save(state, tmp_path / "port.pth")
    again = imgzoo.create_model(name, pretrained=tmp_path / "port.pth", num_classes=5).eval()
    assert again.load_report.format == "tensorflow-port"
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again(x), model(x))


EPS = {"eps": 1e-3}
TORCHVISION = [
    ("efficientnet_b0", "efficientnet_b0", {}),
    ("efficientnet_b5", "efficientnet_b5", EPS),
    ("efficientnet_v2_s", "efficientnetv2_s", EPS),
    ("mobilenet_v2", "mobilenetv2_100", {}),
    ("mobilenet_v3_large", "mobilenetv3_large_100", EPS),
    ("mobilenet_v3_small", "mobilenetv3_small_100", EPS),
    ("mnasnet0_5", "mnasnet_050", {}),
    ("mnasnet1_3", "mnasnet_100", {"width": 1.3}),
]
OTHERS = [("efficientnet_b1", "efficientnet_b1", {}), ("efficientnet_b2", "efficientnet_b2", {}),
          ("efficientnet_b3", "efficientnet_b3", {}), ("efficientnet_b4", "efficientnet_b4", {}),
          ("efficientnet_b6", "efficientnet_b6", EPS), ("efficientnet_b7", "efficientnet_b7", EPS),
          ("efficientnet_v2_m", "efficientnetv2_m", EPS), ("efficientnet_v2_l", "efficientnetv2_l", EPS),
          ("mnasnet0_75", "mnasnet_075", {}), ("mnasnet1_0", "mnasnet_100", {})]  # fmt: skip


def of_torchvision(name, path):
    """A network of torchvision with every parameter and statistic at a random value, and its file."""
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None, num_classes=7).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
        for key, buffer in theirs.named_buffers():
            if "num_batches" not in key:
                buffer.add_(torch.rand_like(buffer) * 0.1)
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, path)  # which sorts the names
    return theirs


@pytest.mark.parametrize("theirs, ours, options", [
    *TORCHVISION, *(pytest.param(*row, marks=pytest.mark.slow) for row in OTHERS)
])  # fmt: skip
def test_torchvision(tmp_path, theirs, ours, options):
    path = tmp_path / "theirs.safetensors"
    network = of_torchvision(theirs, path)
    model = imgzoo.create_model(ours, pretrained=path, dtype=torch.float64, **options).eval()
    assert (model.load_report.format, model.num_classes, model.load_report.initialized) == ("torchvision", 7, [])
    bare = imgzoo.create_model(ours, pretrained=path, dtype=torch.float64, num_classes=0, **options).eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        want = network(x)
        torch.testing.assert_close(model(x), want, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.get_classifier()(bare(x)), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("theirs, ours, options, said", [
    ("mobilenet_v3_small", "mobilenetv3_small_100", {}, "give eps=0.001"),
    ("efficientnet_b0", "efficientnet_b0", EPS, "give eps=1e-05"),
    ("efficientnet_b0", "tf_efficientnet_b0", {}, 'give padding=""'),
    ("efficientnet_b0", "efficientnet_b1", {}, "they are different networks"),
    ("mobilenet_v2", "efficientnet_b0", {}, "they are different networks"),
    ("mnasnet0_5", "mnasnet_075", {}, "do not fit mnasnet_075"),
])  # fmt: skip
def test_a_network_that_computes_otherwise_is_refused(tmp_path, theirs, ours, options, said):
    of_torchvision(theirs, tmp_path / "theirs.safetensors")
    with pytest.raises(WeightsError, match=re.escape(said)):
        imgzoo.create_model(ours, pretrained=tmp_path / "theirs.safetensors", **options)


@pytest.mark.parametrize("lost", ["features.3.conv.1.1.running_var", "features.3.conv.1.", "classifier.1.bias"])
def test_a_file_of_torchvision_that_lacks_something_is_refused(tmp_path, lost):
    state = of_torchvision("mobilenet_v2", tmp_path / "theirs.safetensors").state_dict()
    kept = {key: value.clone() for key, value in state.items() if not key.startswith(lost)}
    save_file(kept, tmp_path / "theirs.safetensors")
    if lost.startswith("classifier"):  # what a classifier lacks is initialized, and said
        model = imgzoo.create_model("mobilenetv2_100", pretrained=tmp_path / "theirs.safetensors")
        assert model.load_report.initialized == ["classifier.bias"]
        return
    with pytest.raises(WeightsError):
        imgzoo.create_model("mobilenetv2_100", pretrained=tmp_path / "theirs.safetensors")
