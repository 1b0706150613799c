"""CLIP's ResNets, RepVGG and MobileOne in the formats of their authors load and compute the same."""

import re

import pytest
import torch

import imgzoo

TINY = dict(depths=(1, 2, 1, 1), dims=(32, 64, 64, 128), num_classes=5)


def make(name, **options):
    torch.manual_seed(0)
    model = imgzoo.create_model(name, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def same(model, again, size):
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(x), model(x), rtol=1e-5, atol=1e-5)


def clip_name(key):
    """openai/CLIP, `ModifiedResNet`."""
    parts = key.split(".")
    kind = {"conv": "conv", "bn": "bn"}
    if parts[0] == "stem":
        return f"visual.{kind[parts[2]]}{parts[1][-1]}.{parts[-1]}"
    if parts[0] == "head":
        names = {"pos_embed": "positional_embedding", "proj": "c_proj", "q": "q_proj", "k": "k_proj", "v": "v_proj"}
        return ".".join(["visual", "attnpool", names[parts[1]], *parts[2:]])
    block = f"visual.layer{int(parts[1]) + 1}.{parts[2]}"
    if parts[3] == "shortcut":
        return f"{block}.downsample.{0 if parts[5] == 'conv' else 1}.{parts[-1]}"
    return f"{block}.{kind[parts[4]]}{parts[3][4]}.{parts[-1]}"


@pytest.mark.parametrize("theirs, ours", [("resnet50_clip", "resnet50_clip"), ("resnet50_clip", "resnet50_clip_gap")])
def test_clip(tmp_path, theirs, ours):
    options = dict(TINY, img_size=64)
    model = make(theirs, **options)
    state = {clip_name(key): value for key, value in model.state_dict().items()}
    assert "visual.layer2.0.downsample.0.weight" in state and "visual.attnpool.c_proj.bias" in state
    torch.save({"logit_scale": torch.tensor(4.6), **state}, tmp_path / "clip.pt")
    if ours != theirs:
        options["num_classes"] = 0
    again = imgzoo.create_model(ours, pretrained=tmp_path / "clip.pt", **options)
    assert again.load_report.format == "clip"
    if ours == theirs:
        same(model, again, 64)
    else:
        x = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(again.eval().forward_features(x), model.forward_features(x))


def parallel_name(key, branches):
    """DingXiaoH/RepVGG and apple/ml-mobileone: branches `rbr_*`, stages counted from one behind the stem."""
    key = re.sub(r"^stages\.(\d)\.", lambda found: f"stage{int(found[1]) + 1}.", key).replace("stem.", "stage0.")
    for ours, name in branches.items():
        key = key.replace(f".{ours}.", f".{name}.")
    return key.replace("head.fc.", "linear.")


@pytest.mark.parametrize("name, branches, options", [
    ("repvgg_a0", {"conv_kxk": "rbr_dense", "conv_1x1": "rbr_1x1", "identity": "rbr_identity"}, {}),
    ("repvgg_d2se", {"conv_kxk": "rbr_dense", "conv_1x1": "rbr_1x1", "identity": "rbr_identity",
                     "attn.fc1": "se.down", "attn.fc2": "se.up"}, {"stem_width": 32}),
    ("mobileone_s0", {"conv_kxk": "rbr_conv", "conv_scale": "rbr_scale", "identity": "rbr_skip"},
     {"depths": (2, 4, 2, 2)}),
])  # fmt: skip
def test_parallel_branches(tmp_path, name, branches, options):
    options = {**TINY, **options}
    model = make(name, **options)
    state = {parallel_name(key, branches): value for key, value in model.state_dict().items()}
    assert not any(key.startswith(("stem", "stages", "head")) for key in state)
    torch.save(state, tmp_path / "weights.pth")
    again = imgzoo.create_model(name, pretrained=tmp_path / "weights.pth", **options)
    assert again.load_report.format == "original"
    same(model, again, 64)
