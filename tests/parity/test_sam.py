"""SAM's encoder with neck and position table, at a size that a test can bear: too large for the common comparison."""

import pytest
import torch

import kit

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("size", [128, 256])
def test_the_encoder_equals_the_peers(size):
    peer, ours = kit.pair("samvit_base_patch16", img_size=size)
    x = kit.image(size, batch=1)
    with torch.inference_mode():
        kit.assert_equal(ours.forward_features(x), peer.forward_features(x), "features")
        kit.assert_equal(ours(x), peer(x), "pooled")
        levels = zip(ours.forward_intermediates(x)[1], peer.forward_intermediates(x)[1], strict=True)
        for i, (level, expected) in enumerate(levels):
            kit.assert_equal(level, expected, f"level {i}")


@pytest.mark.parametrize("seen", [(128, 64), (96, 160)])
def test_an_image_of_another_size(seen):
    small = {"img_size": 128, "depth": 3, "embed_dim": 96, "num_heads": 3, "global_attn_indexes": (1,)}
    peer, ours = kit.pair("samvit_base_patch16_224", **small)
    ours.dynamic_img_size = True
    x = kit.image(160, batch=2)[:, :, : seen[0], : seen[1]]
    with torch.inference_mode():
        kit.assert_equal(ours(x), peer(x), "pooled")
