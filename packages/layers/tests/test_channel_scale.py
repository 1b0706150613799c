"""Each channel of a map is scaled by its own value, kept as (C, 1, 1)."""

import torch

from imgzoo_layers.channel_scale import ChannelScale2d


def test_channels_are_scaled():
    scale = ChannelScale2d(2, 0.5)
    with torch.no_grad():
        scale.gamma[1] = 3.0
    x = torch.ones(1, 2, 3, 4)
    assert scale.state_dict()["gamma"].shape == (2, 1, 1)
    assert torch.equal(scale(x)[0].unique(dim=2)[:, 0, 0], torch.tensor([0.5, 3.0]))
