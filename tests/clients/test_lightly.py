"""lightly: masked vision transformers and modules over timm's."""

import pytest
import timm
import torch
from lightly.models.modules import AIMPredictionHead, MAEDecoderTIMM, MaskedVisionTransformerTIMM
from lightly.models.utils import get_2d_sincos_pos_embed, random_token_mask


def small(**options):
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, **options}
    return timm.models.vision_transformer.VisionTransformer(**options)


def test_mae():
    encoder = MaskedVisionTransformerTIMM(vit=small())
    decoder = MAEDecoderTIMM(num_patches=16, patch_size=8, embed_dim=24, decoder_embed_dim=16, decoder_depth=1,
                             decoder_num_heads=2, mlp_ratio=4.0)  # fmt: skip
    images = torch.randn(2, 3, 32, 32)
    keep, _ = random_token_mask((2, encoder.sequence_length), mask_ratio=0.5)
    tokens = encoder.encode(images, idx_keep=keep)
    assert tokens.shape == (2, keep.shape[1], 24)
    decoded = decoder.predict(decoder.decode(decoder.embed(tokens)[:, :1].expand(-1, 17, -1)))
    assert decoded.shape == (2, 17, 8 * 8 * 3)
    decoded.sum().backward()
    assert get_2d_sincos_pos_embed(24, 4, cls_token=True).shape == (17, 24)


def test_intermediates_and_masks():
    encoder = MaskedVisionTransformerTIMM(vit=small()).eval()
    images = torch.randn(2, 3, 32, 32)
    out, levels = encoder.forward_intermediates(images)
    assert out.shape == (2, 17, 24) and len(levels) == 2
    mask = torch.zeros(2, 17, dtype=torch.bool)
    mask[:, 3:7] = True
    assert encoder.encode(images, mask=mask).shape == (2, 17, 24)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ["vit_tiny_r_s16_p8_224", "vit_small_r26_s32_224"])
def test_mae_over_a_hybrid(name, dynamic):
    vit = timm.create_model(name, depth=1, dynamic_img_size=dynamic)
    encoder, images = MaskedVisionTransformerTIMM(vit=vit).eval(), torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(encoder.encode(images), vit.forward_features(images))
    keep, _ = random_token_mask((1, encoder.sequence_length), mask_ratio=0.5)
    assert encoder.encode(images, idx_keep=keep).shape == (1, keep.shape[1], vit.embed_dim)


def test_aim_head():
    head = AIMPredictionHead(input_dim=24, output_dim=12, num_blocks=2)
    assert head(torch.randn(2, 5, 24)).shape == (2, 5, 12)
