"""transformers: TimmWrapper, TimmBackbone, and DETR on a timm backbone."""

import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    DetrConfig,
    DetrForObjectDetection,
    TimmBackbone,
    TimmBackboneConfig,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TimmWrapperModel,
)

import imgzoo

NAMES = ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"]


@pytest.mark.parametrize("name", NAMES)
def test_wrapper_saves_and_loads(name, tmp_path):
    config = TimmWrapperConfig(architecture=name, num_labels=3)
    model = TimmWrapperForImageClassification(config).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        before = model(x).logits
        model.save_pretrained(tmp_path)
        for reader in (TimmWrapperForImageClassification, AutoModelForImageClassification):
            torch.testing.assert_close(reader.from_pretrained(tmp_path).eval()(x).logits, before)
    assert before.shape == (1, 3)


@pytest.mark.parametrize("name", NAMES)
def test_wrapper_gives_states_and_trains_with_checkpointing(name):
    model = TimmWrapperModel(TimmWrapperConfig(architecture=name))
    assert model.supports_gradient_checkpointing
    model.gradient_checkpointing_enable()
    output = model(torch.randn(1, 3, 224, 224), output_hidden_states=True)
    assert len(output.hidden_states) > 3 and output.pooler_output.ndim == 2
    output.pooler_output.sum().backward()
    assert next(model.parameters()).grad is not None


@pytest.mark.parametrize("name, options", [
    ("resnet18", {}), ("swin_tiny_patch4_window7_224", {}), ("resnet18", {"stem": "deep", "act": "silu"}),
    ("vit_tiny_patch16_224", {"layer_scale": 0.1, "depth": 2, "reg_tokens": 2, "qk_norm": True}),
])  # fmt: skip
def test_wrapper_reads_folders_that_imgzoo_saves(name, options, tmp_path):
    model = imgzoo.create_model(name, num_classes=3, **options).eval()
    imgzoo.save_model(model, tmp_path, class_names=["a", "b", "c"])
    wrapped = TimmWrapperForImageClassification.from_pretrained(tmp_path).eval()
    assert wrapped.config.label2id == {"a": 0, "b": 1, "c": 2}
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(wrapped(x).logits, model(x))


def test_wrapper_names_an_unknown_model():
    with pytest.raises(ImportError, match="not supported in your version of timm"):
        TimmWrapperModel(TimmWrapperConfig(architecture="resnet_of_nobody"))


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "efficientnet_b0"])
def test_backbone(name, tmp_path):
    config = TimmBackboneConfig(backbone=name, out_indices=[1, 2, 3], use_pretrained_backbone=False)
    model = TimmBackbone(config).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        maps = model(x).feature_maps
        channel = 3 if "swin" in name else 1  # whose maps stay (B, H, W, C)
        assert [each.shape[channel] for each in maps] == model.channels
        model.save_pretrained(tmp_path)
        again = TimmBackbone._from_config(config).eval()
        again.load_state_dict(model.state_dict())
        for mine, other in zip(again(x).feature_maps, maps, strict=True):
            torch.testing.assert_close(mine, other)


def test_detr(tmp_path):
    backbone = TimmBackboneConfig(backbone="resnet18", out_indices=[4], freeze_batch_norm_2d=True)
    config = DetrConfig(backbone_config=backbone, use_timm_backbone=False, d_model=32, encoder_layers=1,
                        decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=5, num_labels=3,
                        encoder_attention_heads=2, decoder_attention_heads=2)  # fmt: skip
    model = DetrForObjectDetection(config).eval()
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        before = model(x)
        model.save_pretrained(tmp_path)
        again = DetrForObjectDetection.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(again(x).logits, before.logits)
    assert before.pred_boxes.shape == (1, 5, 4)
