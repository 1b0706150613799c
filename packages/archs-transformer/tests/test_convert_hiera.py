"""Hiera's original checkpoints, fine-tuned or with the decoder of their pretraining, load and compute the same."""

import pytest
import torch

import imgzoo

SMALL = dict(embed_dim=16, num_heads=1, depths=(1, 1, 2, 1), img_size=64, num_classes=5)


@pytest.mark.parametrize("pretrained", [False, True], ids=["fine-tuned", "masked autoencoder"])
def test_original_hiera(tmp_path, pretrained):
    torch.manual_seed(0)
    model = imgzoo.create_model("hiera_tiny_224", **SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    norm = "encoder_norm." if pretrained else "norm."
    state = {
        key.replace("head.norm.", norm).replace("head.fc.", "head.projection."): value
        for key, value in model.state_dict().items()
        if not (pretrained and key.startswith("head.fc."))
    }
    if pretrained:
        state |= {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 4, 8)}
        state |= {"decoder_norm.weight": torch.ones(8), "multi_scale_fusion_heads.0.weight": torch.zeros(8, 16, 2, 2)}
    torch.save({"model_state": state}, tmp_path / "original.pth")
    again = imgzoo.create_model("hiera_tiny_224", pretrained=tmp_path / "original.pth", **SMALL).eval()
    assert again.load_report.format == "original"
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            again.forward_head(again.forward_features(x), pre_logits=True),
            model.forward_head(model.forward_features(x), pre_logits=True),
        )
        if not pretrained:
            torch.testing.assert_close(again(x), model(x))
