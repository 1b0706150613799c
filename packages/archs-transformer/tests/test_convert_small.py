"""Original checkpoints of small networks, written by hand in their authors' names, load and compute the same."""

import re

import pytest
import torch

import imgzoo

MSRA = {"res1": 0, "patchmerge": 1, "res2": 2}
NETWORK = {"stem.conv1": "patch_embed.0", "stem.norm1": "patch_embed.1", "stem.conv2": "patch_embed.3",
           "stem.norm2": "patch_embed.4", "head_dist": "dist_head"}  # fmt: skip
for stage in range(4):
    NETWORK |= {f"stages.{stage}.blocks": f"network.{2 * stage}"}
    NETWORK |= {f"stages.{stage}.downsample.{ours}": f"network.{2 * stage - 1}.{theirs}"
                for ours, theirs in (("conv", "proj"), ("norm", "norm"))}  # fmt: skip


def tiny_vit(key):
    key = key.replace("patch_embed.conv1", "patch_embed.seq.0").replace("patch_embed.conv2", "patch_embed.seq.2")
    key = re.sub(r"^stages\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", key)
    key = key.replace("stages.", "layers.").replace(".conv.", ".c.")
    return key.replace("head.norm", "norm_head").replace("head.fc", "head")


def efficientvit_msra(key):
    stem = re.match(r"patch_embed\.conv(\d)", key)
    if stem:
        key = key.replace(stem[0], f"patch_embed.{2 * int(stem[1]) - 2}")
    for stage in range(3):
        for name, place in MSRA.items():
            key = key.replace(f"stages.{stage}.downsample.{name}", f"blocks{stage + 1}.{place}")
        for i in range(2):
            key = key.replace(f"stages.{stage}.blocks.{i}.", f"blocks{stage + 1}.{i + 3 if stage else i}.")
    return key.replace(".conv.", ".c.").replace("head.linear", "head.l")


def efficientformer(key):
    for ours, theirs in NETWORK.items():
        key = re.sub(rf"^{re.escape(ours)}\.", f"{theirs}.", key)
    return re.sub(r"ls(\d)\.gamma", r"layer_scale_\1", key)


CASES = {
    "tiny_vit_5m_224": (tiny_vit, dict(embed_dims=(8, 8, 16, 16), num_heads=(1, 2, 2, 4), depths=(1, 2, 1, 2)), 96),
    "efficientvit_m1": (efficientvit_msra, dict(embed_dim=(16, 24, 24), depth=(2, 1, 2), img_size=128), 128),
    "efficientformer_l1": (efficientformer, dict(embed_dims=(8, 8, 16, 16), depths=(2, 1, 2, 3), img_size=64), 64),
}


@pytest.mark.parametrize("name", CASES)
def test_original_names(tmp_path, name):
    theirs, options, size = CASES[name]
    torch.manual_seed(0)
    model = imgzoo.create_model(name, num_classes=5, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    state = {theirs(key): value for key, value in model.state_dict().items()}
    indices = {key: module for key, module in model.named_modules() if hasattr(module, "attention_bias_idxs")}
    state |= {theirs(f"{key}.attention_bias_idxs"): module.attention_bias_idxs for key, module in indices.items()}
    assert not any(key.startswith(("stages", "stem")) for key in state)
    torch.save({"model": state}, tmp_path / "original.pth")
    again = imgzoo.create_model(name, pretrained=tmp_path / "original.pth", num_classes=5, **options).eval()
    assert again.load_report.format == "original" and again.load_report.initialized == []
    image = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(again(image), model(image))
