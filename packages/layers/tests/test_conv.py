"""Convolutions beside torch's own, held against loops that say what they are."""

import pytest
import torch
from torch.nn import functional as F

from imgzoo_layers.conv import CondConv2d, ConvNorm, SeparableConv, SeparableConvNormAct


@pytest.mark.parametrize(("groups", "kernel", "stride", "padding"), [(1, 1, 1, ""), (8, 3, 2, "same"), (8, 5, 1, "")])
def test_a_conditional_convolution_mixes_its_kernels_for_each_sample(groups, kernel, stride, padding):
    torch.manual_seed(0)
    conv = CondConv2d(8, 8, kernel, stride, padding, groups=groups, experts=3)
    torch.nn.init.normal_(conv.weight)
    x, routing = torch.randn(3, 8, 9, 9), torch.rand(3, 3)

    def one(image, share):
        mixed = sum(part * weight for part, weight in zip(share, conv.weight)).view(conv.shape)
        total = max(0, (-(-9 // stride) - 1) * stride + kernel - 9)
        image = F.pad(image[None], (total // 2, total - total // 2) * 2)
        return F.conv2d(image, mixed, stride=stride, groups=groups)

    expected = torch.cat([one(image, share) for image, share in zip(x, routing)])
    torch.testing.assert_close(conv(x, routing), expected)
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(conv, (x, routing), dynamic_shapes=({0: batch}, {0: batch})).module()
    torch.testing.assert_close(exported(x[:2], routing[:2]), expected[:2])


def test_conv_norm_begins_at_its_scale():
    layer = ConvNorm(8, 16, 3, 2, groups=8, scale=0.0)
    assert [key for key, _ in layer.named_parameters()] == ["conv.weight", "bn.weight", "bn.bias"]
    assert layer(torch.randn(2, 8, 7, 10)).shape == (2, 16, 4, 5)
    assert layer(torch.randn(2, 8, 7, 10)).abs().max() == 0
    assert "conv.bias" in ConvNorm(8, 8, bias=True).state_dict()


def test_a_separable_convolution_is_two():
    torch.manual_seed(0)
    conv, x = SeparableConv(4, 6, 3, 2, widen=2.0), torch.randn(2, 4, 7, 7)
    inner = F.conv2d(x, conv.conv_dw.weight, None, 2, 1, groups=4)
    assert inner.shape == (2, 8, 4, 4)
    torch.testing.assert_close(conv(x), F.conv2d(inner, conv.conv_pw.weight))
    unit = SeparableConvNormAct(4, 6, act="silu").eval()
    torch.testing.assert_close(unit(x), F.silu(SeparableConv.forward(unit, x) / (1 + unit.bn.eps) ** 0.5))
