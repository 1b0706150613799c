"""Initial weights, by the schemes the papers name."""

import math

from torch import Tensor, nn


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Normal values cut off at the absolute bounds a and b; bounds ten deviations away cut nothing."""
    if min(b - mean, mean - a) >= 10 * std:
        return nn.init.normal_(tensor, mean, std)
    return nn.init.trunc_normal_(tensor, mean=mean, std=std, a=a, b=b)


def trunc_normal_tf_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Normal values cut off at a and b standard deviations, as JAX and TensorFlow do."""
    return nn.init.trunc_normal_(tensor, mean, std, mean + a * std, mean + b * std)


def variance_scaling_(tensor: Tensor, scale: float = 1.0, mode: str = "fan_in", kind: str = "normal") -> Tensor:
    """Values of variance scale / fan; `kind` is "normal", "truncated_normal" or "uniform" (arXiv:1502.01852)."""
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(tensor)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    variance = scale / fan
    if kind == "truncated_normal":  # the cut removes variance; 0.8796 is the std of N(0, 1) cut at 2
        return trunc_normal_tf_(tensor, std=math.sqrt(variance) / 0.87962566103423978)
    if kind == "normal":
        return nn.init.normal_(tensor, std=math.sqrt(variance))
    bound = math.sqrt(3 * variance)
    return nn.init.uniform_(tensor, -bound, bound)


def lecun_normal_(tensor: Tensor) -> Tensor:
    """Truncated normal of variance 1 / fan_in."""
    return variance_scaling_(tensor, mode="fan_in", kind="truncated_normal")


def init_fan_out_(model: nn.Module) -> None:
    """Convolutions normal with variance 2 / fan_out (He), as the ResNet paper does; norms are left at one and zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def init_conv_per_group_(conv: nn.Conv2d) -> None:
    """Normal with variance 2 / fan_out, the fan-out of one group counted as TensorFlow's networks do; biases zero."""
    fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels // conv.groups
    nn.init.normal_(conv.weight, std=(2.0 / fan_out) ** 0.5)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def init_linear_(model: nn.Module, std: float = 0.02) -> None:
    """Linear layers truncated normal of `std` with zero biases, as transformers begin."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
