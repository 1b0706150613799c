"""MobileNetV5 with few blocks: the fused map of its encoder, the head that grows, and levels that train alone."""

import pytest
import torch
from torch.nn import functional as F

import imgzoo
from imgzoo.errors import OptionError, UsageError

STAGES = [["er_r1_k3_s2_e4_c8"], ["uir_r1_a3_k5_s2_e2_c16"], ["uir_r1_a0_k5_s2_e2_c24", "mqa_r1_k3_h2_v2_s1_d8_c24"],
          ["uir_r1_a5_k5_s2_e2_c32", "mqa_r1_k3_h2_s1_d8_c32"]]  # fmt: skip


def made(**options):
    torch.manual_seed(0)
    options = dict(stages=STAGES, stem_size=8, num_features=48, **options)
    return imgzoo.create_model("mobilenetv5_300m_enc", **options).eval()


@pytest.mark.parametrize("size, how", [((256, 256), "as is"), ((512, 512), "means"), ((1024, 512), "means"),
                                       ((200, 96), "interpolated"), ((320, 256), "interpolated")])  # fmt: skip
def test_an_encoder_returns_the_fused_map_at_any_size(size, how):
    model, x = made(), torch.randn(1, 3, *size)
    with torch.inference_mode():
        fine, coarse = model.forward_intermediates(x, [3, 4], intermediates_only=True)
        height, width = fine.shape[2:]
        rows, columns = torch.arange(height) * coarse.shape[2] // height, torch.arange(width) * coarse.shape[3] // width
        fused = model.msfa.ffn(torch.cat([fine, coarse[:, :, rows][:, :, :, columns]], 1))
        if how == "means":
            fused = fused.unflatten(3, (16, -1)).unflatten(2, (16, -1)).mean((3, 5))
        elif how == "interpolated":
            fused = F.interpolate(fused, (16, 16), mode="bilinear")
        assert model(x).shape == (1, 48, 16, 16)
        torch.testing.assert_close(model(x), model.msfa.norm(fused))


def test_the_first_classifier_of_an_encoder_reads_the_mean():
    model, x = made(), torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        fused = model(x)
        model.reset_classifier(7)
        torch.testing.assert_close(model(x), model.classifier(fused.mean((2, 3))))
        model.reset_classifier(0, "")
        torch.testing.assert_close(model(x), fused)
    assert made(num_classes=5)(x).shape == (2, 5)


def test_levels_train_alone():
    model = made(features_only=True)
    levels = model(torch.randn(2, 3, 64, 64))
    torch.stack([level.mean() for level in levels]).sum().backward()
    assert [level.shape[1:] for level in levels] == [(8, 32, 32), (8, 16, 16), (16, 8, 8), (24, 4, 4), (32, 2, 2)]
    assert not [key for key, value in model.named_parameters() if value.grad is None]


def test_the_encoder_loads_out_of_the_language_model(tmp_path):
    model = made()
    state = {f"model.vision_tower.timm_model.{key}": value + 0.1 for key, value in model.state_dict().items()}
    state |= {"model.language_model.norm.weight": torch.ones(4), "lm_head.weight": torch.ones(4, 4)}
    torch.save(state, tmp_path / "gemma.pth")
    again = made(pretrained=tmp_path / "gemma.pth")
    assert again.load_report.format == "gemma3n"
    assert all(torch.equal(value, model.state_dict()[key] + 0.1) for key, value in again.state_dict().items())


def test_without_the_fused_map_the_head_has_a_hidden_layer():
    model, x = made(fuse=False, num_classes=5, global_pool="avg"), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        coarse = model.forward_intermediates(x, [4], intermediates_only=True)[0]
        torch.testing.assert_close(model.forward_features(x), coarse)
        hidden = model.norm_head(model.conv_head(coarse.mean((2, 3), keepdim=True))).flatten(1)
        torch.testing.assert_close(model(x), model.classifier(hidden))
    assert (model.num_features, model.head_hidden_size) == (32, 48)
    model.prune_intermediate_layers([2])
    model.reset_classifier(3, "avg")
    assert model(x).shape == (2, 3) and not [key for key in model.state_dict() if key.startswith(("conv_h", "norm_h"))]


def test_the_field_fuses_the_last_two_stages_alone():
    with pytest.raises(OptionError, match=r"no counterpart of msfa_indices=\[-3, -1\]"):
        made(msfa_indices=(-3, -1))
    assert made(fused_size=(8, 4))(torch.randn(1, 3, 64, 64)).shape == (1, 48, 8, 4)
    with pytest.raises(UsageError, match="fused_size"):
        made(fused_size=0)
