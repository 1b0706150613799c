"""Networks with position tables take another image size: told later, or with a checkpoint of the old size."""

import pytest
import torch

import imgzoo
from imgzoo.loading import save_model

SMALL = {
    "beit_base_patch16_224": dict(embed_dim=32, depth=2, num_heads=4),
    "cait_xxs24_224": dict(embed_dim=32, depth=2, num_heads=4),
    "convit_tiny": dict(embed_dim=32, depth=3, num_heads=4, local_up_to_layer=2),
    "crossvit_9_240": dict(embed_dims=(16, 32), depth=1, stages=2),
    "crossvit_9_dagger_240": dict(embed_dims=(16, 32), depth=1, stages=2),
    "test_coatnet": {},
    "test_maxvit": {},
    "maxvit_tiny_tf_224": dict(dims=(32, 32, 64, 64), depths=(1, 1, 1, 1), stem_dims=(8, 16), head_hidden=64),
    "maxxvit_rmlp_nano_rw_256": dict(dims=(32, 32, 64, 64), depths=(1, 1, 1, 1), stem_dims=(8, 16)),
    "vit_tiny_r_s16_p8_224": dict(embed_dim=48, depth=2),
    "pit_ti_224": dict(embed_dims=(16, 32, 64), depths=(1, 1, 1)),
    "tnt_s_patch16_224": dict(embed_dim=32, depth=2, num_heads=4),
    "tnt_s_legacy_patch16_224": dict(embed_dim=32, depth=2, num_heads=4),
}
SIZES = [(96, 96), (64, 128)]


def make(name, size, **options):
    torch.manual_seed(0)
    model = imgzoo.create_model(name, img_size=size, num_classes=5, **SMALL[name], **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_checkpoint_of_another_size(name, size, tmp_path):
    """Loading at a new size and setting the size later give the same network."""
    model = make(name, (64, 64))
    save_model(model, tmp_path)
    loaded = imgzoo.create_model(
        name, pretrained=str(tmp_path / "model.safetensors"), img_size=size, num_classes=5, **SMALL[name]
    ).eval()
    model.set_input_size(size)
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(loaded(x), model(x))
    for level, row in zip(model.forward_intermediates(x, intermediates_only=True), model.feature_info, strict=True):
        assert level.shape[1] == row["num_chs"]
        assert abs(level.shape[-1] - size[1] / row["reduction"]) <= 1
    assert loaded.load_report.adapted or name == "maxxvit_rmlp_nano_rw_256", "a network of offsets needs no resizing"


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_same_size_changes_nothing(name):
    model = make(name, (64, 64))
    x = torch.randn(2, 3, 64, 64)
    before = model(x)
    model.set_input_size((64, 64))
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("name", SMALL)
def test_other_sizes_are_refused_until_told(name):
    model = make(name, (64, 64))
    with pytest.raises(ValueError, match="set_input_size"):
        model(torch.randn(1, 3, 96, 96))
