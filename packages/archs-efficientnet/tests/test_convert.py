"""Weights with the names of the TensorFlow port load into our EfficientNets and compute the same."""

import pytest
import torch

import imgzoo

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
