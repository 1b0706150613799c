"""Options of networks that no published row sets: what they build."""

import torch
from torch import nn

import imgzoo


def test_positions_and_channels_of_davit():
    small = dict(depths=[1, 1, 1, 1], embed_dims=[8, 16, 16, 16], num_heads=[2, 2, 2, 2], num_classes=3)
    made = [imgzoo.create_model("davit_tiny", **small, cpe_act=act, by_area=by_area).eval()
            for act, by_area in ((False, False), (True, False), (False, True))]  # fmt: skip
    x, state = torch.randn(1, 3, 64, 64), made[0].state_dict()
    for model in made[1:]:
        model.load_state_dict(state)
        assert not torch.allclose(model(x), made[0](x), rtol=1e-4)
    position = made[1].stages[0].blocks[0][0].cpe1
    y = torch.randn(1, 8, 5, 5)
    torch.testing.assert_close(position(y), y + nn.functional.gelu(position.proj(y)))
    named = imgzoo.create_model("davit_tiny", **small, named_blocks=True)
    assert [*dict(named.stages[0].blocks[0].named_children())] == ["spatial_block", "channel_block"]
