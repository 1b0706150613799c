"""Convolutions beside torch's own, held against loops that say what they are."""

import pytest
import torch
from torch.nn import functional as F

from imgzoo_layers.conv import (
    CondConv2d,
    ConvNorm,
    Pointwise2d,
    Scale2d,
    SeparableConv,
    SeparableConvNormAct,
    create_conv,
)


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


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("side", [1, 3])
def test_a_convolution_of_pooled_maps_is_a_matrix_product(side, bias):
    conv = Pointwise2d(6, 4, bias).double()
    x = torch.randn(2, 6, side, side, dtype=torch.double, requires_grad=True)
    want, inputs = F.conv2d(x, conv.weight, conv.bias), [x, *conv.parameters()]
    torch.testing.assert_close(conv(x), want)
    assert conv(x).grad_fn.name() == want.grad_fn.name()  # as tools that prune by the graph of gradients ask
    for ours, plain in zip(torch.autograd.grad(conv(x).square().sum(), inputs),
                           torch.autograd.grad(want.square().sum(), inputs), strict=True):  # fmt: skip
        torch.testing.assert_close(ours, plain)
    with torch.no_grad():
        torch.testing.assert_close(conv(x), want)
    with torch.no_grad(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as run:
        torch.testing.assert_close(torch.jit.script(conv)(x), conv(x))
    assert not any("conv" in event.key for event in run.key_averages())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
def test_a_pointwise_convolution_of_each_channel_is_a_factor(stride, bias):
    conv = create_conv(6, 6, 1, stride, "", groups=6, bias=bias).double()
    assert isinstance(conv, Scale2d)
    x = torch.randn(2, 6, 7, 8, dtype=torch.double, requires_grad=True)
    want = F.conv2d(x, conv.weight, conv.bias, stride, groups=6)
    torch.testing.assert_close(conv(x), want, rtol=0, atol=1e-15)
    inputs = [x, *conv.parameters()]
    for ours, plain in zip(torch.autograd.grad(conv(x).square().sum(), inputs),
                           torch.autograd.grad(want.square().sum(), inputs), strict=True):  # fmt: skip
        torch.testing.assert_close(ours, plain)


def test_a_factor_of_channels_takes_the_precision_of_its_image():
    conv, x = create_conv(6, 6, 1, groups=6, bias=True), torch.randn(2, 6, 4, 4)
    assert conv(x.bfloat16()).dtype is torch.bfloat16  # as autocast hands it over
    assert not isinstance(create_conv(6, 12, 1, groups=6), Scale2d) and not isinstance(create_conv(1, 1, 1), Scale2d)
