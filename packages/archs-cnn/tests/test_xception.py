"""Aligned Xception: what `preact` decides is all that its two forms differ in."""

import torch

import imgzoo


def test_without_preact_the_last_block_ends_in_activations():
    model = imgzoo.create_model("xception41p", preact=False, middle=1).eval()
    other = imgzoo.create_model("xception41", middle=1, eps=1e-5).eval()
    other.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x), other(x))
        assert model.forward_features(x).min() >= 0
