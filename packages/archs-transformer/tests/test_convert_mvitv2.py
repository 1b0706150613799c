"""MViTv2's original checkpoints load and compute the same: widths that grow in attention, in the mlp, a class token."""

import re

import pytest
import torch

import imgzoo

SMALL = dict(embed_dim=(8, 16, 32, 64), depths=(1, 2, 3, 1), num_heads=(1, 2, 4, 8), img_size=64, num_classes=5)
FIRST = {"0": 0, "1": 1, "2": 3, "3": 6}  # number of a stage's first block


def original(key):
    key = re.sub(r"^stages\.(\d)\.blocks\.(\d)", lambda found: f"blocks.{FIRST[found[1]] + int(found[2])}", key)
    return re.sub(r"shortcut_proj_\w+", "proj", key).replace("head.fc", "head.projection")


@pytest.mark.parametrize("options", [{}, {"expand_attn": False}, {"class_token": True}], ids=str)
def test_original_mvitv2(tmp_path, options):
    torch.manual_seed(0)
    model = imgzoo.create_model("mvitv2_tiny", **SMALL, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    state = {original(key): value for key, value in model.state_dict().items()}
    assert len(state) == len(model.state_dict())
    torch.save({"model_state": state}, tmp_path / "original.pth")
    again = imgzoo.create_model("mvitv2_tiny", pretrained=tmp_path / "original.pth", **SMALL, **options).eval()
    assert again.load_report.format == "original"
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again(x), model(x))
