"""Standardized convolutions against their formula, filter by filter."""

import math

import pytest
import torch
from torch.nn import functional as F

from imgzoo_layers.std_conv import ScaledStdConv2d, StdConv2d


def by_formula(conv, scale=1.0):
    kernels = []
    for kernel in conv.weight.detach().double():
        values = kernel.flatten().tolist()
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        kernels.append((kernel - mean) / math.sqrt(variance + conv.eps) * scale)
    return torch.stack(kernels)


@pytest.mark.parametrize("groups, eps", [(1, 1e-6), (2, 1e-2)])
def test_each_filter_is_standardized(groups, eps):
    torch.manual_seed(0)
    conv = StdConv2d(4, 6, 3, groups=groups, eps=eps)
    x = torch.randn(2, 4, 9, 9)
    expected = F.conv2d(x.double(), by_formula(conv), padding=1, groups=groups)
    torch.testing.assert_close(conv(x).double(), expected, atol=1e-5, rtol=1e-5)


def test_gains_and_gamma_scale_by_the_root_of_the_fan_in():
    torch.manual_seed(0)
    conv = ScaledStdConv2d(4, 6, 3, groups=2, gamma=1.7)
    with torch.no_grad():
        conv.gain.normal_()
    x = torch.randn(2, 4, 9, 9)
    kernels = by_formula(conv, 1.7 / math.sqrt(2 * 3 * 3)) * conv.gain.detach().double()
    expected = F.conv2d(x.double(), kernels, conv.bias.detach().double(), padding=1, groups=2)
    torch.testing.assert_close(conv(x).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [StdConv2d, ScaledStdConv2d])
def test_gradients_keep_one_copy_of_the_kernels(kind):
    """The one that the convolution itself keeps; the standardization keeps the parameter."""
    conv, kept = kind(8, 6, 3), {}
    own = {parameter.data_ptr() for parameter in conv.parameters()}

    def keep(tensor):
        return kept.setdefault(tensor.data_ptr(), tensor)

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        conv(torch.randn(2, 8, 7, 7))
    assert sum(each.numel() == conv.weight.numel() for place, each in kept.items() if place not in own) == 1


@pytest.mark.parametrize("kind", [StdConv2d, ScaledStdConv2d])
def test_gradients_are_those_of_the_formula(kind):
    torch.manual_seed(0)
    conv = kind(4, 6, 3, groups=2, padding="same", stride=2).double()
    parameters, x = dict(conv.named_parameters()), torch.randn(2, 4, 8, 8, dtype=torch.float64)

    def called(*values):
        return torch.func.functional_call(conv, dict(zip(parameters, values)), (x,))

    assert torch.autograd.gradcheck(called, list(parameters.values()))


@pytest.mark.parametrize("kind", [StdConv2d, ScaledStdConv2d])
@pytest.mark.parametrize("padding", ["", "same"])
def test_kernels_are_applied_once_for_inference(kind, padding):
    torch.manual_seed(0)
    conv = kind(4, 6, 3, 2, padding, groups=2, bias=True, eps=1e-2)
    x = torch.randn(2, 4, 9, 8)
    wanted = conv(x)
    conv.reparameterize()
    assert torch.equal(conv(x), wanted)
    assert not isinstance(conv, StdConv2d)
    assert conv.state_dict().keys() == {"weight", "bias"}


def test_scaled_convolution_keeps_the_variance_of_white_noise():
    torch.manual_seed(0)
    conv = ScaledStdConv2d(64, 64, 3, padding=0, bias=False)
    assert conv(torch.randn(8, 64, 32, 32)).var().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("size, kernel, stride", [(8, 3, 2), (9, 3, 2), (10, 7, 2), (9, 3, 1), (8, 2, 1)])
def test_same_padding_puts_the_odd_pixel_last(size, kernel, stride):
    torch.manual_seed(0)
    conv = StdConv2d(3, 5, kernel, stride, padding="same")
    x = torch.randn(1, 3, size, size)
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    first, last = total // 2, total - total // 2
    expected = F.conv2d(F.pad(x.double(), (first, last, first, last)), by_formula(conv), stride=stride)
    assert expected.shape[-1] == math.ceil(size / stride)
    torch.testing.assert_close(conv(x).double(), expected, atol=1e-5, rtol=1e-5)
