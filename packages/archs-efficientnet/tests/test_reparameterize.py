"""Branches that are linear in inference merge into one convolution each, and compute the same."""

import pytest
import torch
from torch import nn

import imgzoo
from imgzoo_layers.reparam import reparameterize


def trained(name):
    """A model whose norms have statistics and weights of their own."""
    torch.manual_seed(0)
    model = imgzoo.create_model(name, num_classes=5).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


@pytest.mark.parametrize("name, branches", [("ghostnetv3_050", "_rpr_"), ("repghostnet_050", "fusion_bn"),
                                            ("lcnetv2_small", "dw_conv_list")])  # fmt: skip
def test_branches_merge(name, branches):
    model = trained(name)
    merged = reparameterize(model)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(merged(x), model(x), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(reparameterize(merged)(x), merged(x))
    assert any(branches in key for key in model.state_dict())
    assert not any(branches in key for key in merged.state_dict())
