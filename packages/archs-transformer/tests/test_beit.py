"""BEiT with learned positions."""

import re

import pytest
import torch

import imgzoo

SMALL = dict(img_size=32, depth=2, embed_dim=48, num_heads=4, num_classes=3)


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "beitv2_base_patch16_224"])
def test_positions_are_added_to_tokens(name):
    model = imgzoo.create_model(name, abs_pos=True, **SMALL).eval()
    plain = imgzoo.create_model(name, **SMALL).eval()
    assert model.state_dict().keys() - plain.state_dict().keys() == {"pos_embed"} and plain.pos_embed is None
    assert 0.01 < model.pos_embed.std() < 0.03
    assert "pos_embed" in model.no_weight_decay() and "pos_embed" not in plain.no_weight_decay()
    plain.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(model(x), plain(x))
        torch.testing.assert_close(torch.jit.script(model)(x), model(x))
        model.pos_embed.zero_()
        torch.testing.assert_close(model(x), plain(x))


def test_positions_follow_the_size_of_the_image():
    model = imgzoo.create_model("beit_base_patch16_224", use_abs_pos_emb=True, **SMALL)
    model.set_input_size(img_size=64)
    assert model.pos_embed.shape == (1, 17, 48) and model(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    assert "pos_embed" in model.no_weight_decay() and re.match(model.layer_groups["stem"], "pos_embed")
