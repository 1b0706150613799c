"""Branches that are linear in inference merge into one convolution each, and compute the same."""

import pytest
import torch
from torch import nn

import imgzoo
from imgzoo_layers.reparam import reparameterize


def trained(name, options):
    """A model whose norms have statistics and weights of their own, and scales that show."""
    torch.manual_seed(0)
    model = imgzoo.create_model(name, num_classes=5, **options).eval()
    for module in model.modules():
        for key, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if key in ("gamma", "running_var") or (isinstance(module, nn.BatchNorm2d) and key == "weight"):
                nn.init.uniform_(value, 0.5, 1.5)
            elif isinstance(module, nn.BatchNorm2d) and key in ("bias", "running_mean"):
                nn.init.normal_(value, std=0.1)
    return model


NARROW = {"embed_dims": [32, 64, 128, 256]}
FIVE_STAGES = {"depths": [1, 1, 1, 1, 1], "embed_dims": [32, 64, 128, 256, 512]}


@pytest.mark.parametrize(
    "name, options, branches",
    [
        ("fastvit_t8", NARROW, "conv_kxk"),
        ("fastvit_sa12", NARROW, "pos_enc"),
        ("fastvit_mci0", NARROW, "small_conv"),
        ("fastvit_mci3", FIVE_STAGES, "small_conv"),
        ("iformer_t", {}, "cpe"),
    ],
)
def test_branches_merge(name, options, branches):
    model = trained(name, options)
    merged = reparameterize(model)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(merged(x), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
        torch.testing.assert_close(reparameterize(merged)(x), merged(x))
    assert any(branches in key for key in model.state_dict())
    assert not any(branches in key for key in merged.state_dict())
