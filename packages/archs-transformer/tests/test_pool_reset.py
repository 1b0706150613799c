"""A network whose pool was changed later is stored as it is: the norm stays on its side of the pool."""

import pytest
import torch

import imgzoo

SMALL = dict(depth=1, num_heads=2, embed_dim=32)
NAMES = {
    "vit_tiny_patch16_224": dict(SMALL, img_size=32), "beit_base_patch16_224": dict(SMALL, img_size=32),
    "eva02_tiny_patch14_224": dict(SMALL, img_size=28), "naflexvit_base_patch16_siglip": SMALL,
    "naflexvit_base_patch16_gap": SMALL,
}  # fmt: skip


@pytest.mark.parametrize("first, then", [("avg", "token"), ("token", "avg"), ("avg", "max"), ("avg", "")])
@pytest.mark.parametrize("name", NAMES)
def test_a_changed_pool_is_stored(name, first, then, tmp_path):
    options = {**NAMES[name], "global_pool": first}
    if name.startswith("naflex"):
        options["class_token"] = True
    model = imgzoo.create_model(name, num_classes=3, **options).eval()
    if then not in ("", *model.pools):
        then = "avgmax"
    model.reset_classifier(0 if then == "" else 5, then)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    imgzoo.save_model(model, tmp_path)
    again = imgzoo.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(1, 3, 28 if "14" in name else 32, 28 if "14" in name else 32)
    with torch.no_grad():
        torch.testing.assert_close(again(x), model(x))
