"""Convolutions over maps smaller than their kernel, in float32 where a CPU computes in low precision.

oneDNN leaves the weight gradient of a strided bfloat16 convolution uninitialized for taps that never meet the map, on
processors with instructions for bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from imgzoo.model.swapping import swap_in, swap_out


def too_small(shape: Sequence[int], kernel: Sequence[int], dilation: Sequence[int]) -> bool:
    """Whether a map (..., H, W) is smaller than the dilated kernel along any side."""
    return any(side < step * (taps - 1) + 1 for side, taps, step in zip(shape[-2:], kernel[-2:], dilation))


def low(tensor: Tensor) -> bool:
    """Whether a convolution of this tensor would compute in low precision on the CPU."""
    return tensor.is_cpu and _outside(tensor) in (torch.bfloat16, torch.float16)


@torch.library.custom_op("imgzoo_train::conv2d", mutates_args=())
def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """`torch.conv2d` that leaves the dtype of the precision in force where the map is too small for it."""
    dtype = compute_dtype(x, weight, dilation)
    parts = [part if part is None else part.to(dtype) for part in (x, weight, bias)]
    with torch.autocast("cpu", enabled=False):
        output = torch.conv2d(parts[0], parts[1], parts[2], stride, padding, dilation, groups)  # type: ignore[arg-type]
    return output.to(_outside(x))


def _outside(x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def compute_dtype(x: Tensor, weight: Tensor, dilation: Sequence[int]) -> torch.dtype:
    """float32 for a map that is too small, else what the precision in force says."""
    return torch.float32 if too_small(x.shape, weight.shape, dilation) else _outside(x)


@conv2d.register_fake
def _shape(x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        output = torch.conv2d(x, weight.to(x.dtype), None, stride, padding, dilation, groups)
    return output.to(_outside(x))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.stride, ctx.padding, ctx.dilation, ctx.groups = inputs
    ctx.sizes = None if bias is None else list(bias.shape)
    ctx.dtype = torch.float32 if too_small(x.shape, weight.shape, ctx.dilation) else output.dtype
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    x, weight = ctx.saved_tensors
    parts = (part.to(ctx.dtype) for part in (gradient, x, weight))
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.sizes is not None]
    found = torch.ops.aten.convolution_backward(
        *parts, ctx.sizes, ctx.stride, ctx.padding, ctx.dilation, False, [0, 0], ctx.groups, wanted
    )
    kinds = (x.dtype, weight.dtype, weight.dtype)
    return *(part if part is None else part.to(kind) for part, kind in zip(found, kinds)), None, None, None, None


conv2d.register_autograd(_backward, setup_context=_keep)


class Watched:
    """A layer whose convolutions are watched, in a trace and when a checkpointed block is run again too."""

    def forward(self, *inputs: Any, **options: Any) -> Any:
        with SmallMaps():
            return super().forward(*inputs, **options)  # type: ignore[misc]


def protect(model: nn.Module) -> nn.Module:
    """Let every layer that convolves watch its calls."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) or (hasattr(module, "stride") and any(True for _ in module.parameters(False))):
            swap_in(module, Watched)
    return model


def release(model: nn.Module) -> nn.Module:
    """Undo `protect`."""
    for module in model.modules():
        swap_out(module, Watched)
    return model


class SmallMaps(TorchFunctionMode):
    """While it is active, convolutions that would take a bad gradient go through `conv2d` above.

    A trace does not see the sizes it will run at, so every strided convolution goes there while one is recorded. `seen`
    counts them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d:
            call = _call(*args, **kwargs)
            if call is not None:
                self.seen += 1
                return conv2d(*call)
        return func(*args, **kwargs)


def _call(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[Any, ...] | None:
    """The arguments of `conv2d` where it is needed, else None."""
    stride, dilation = _pair(stride), _pair(dilation)
    if max(weight.shape[-2:]) == 1 or isinstance(padding, str):
        return None
    tracing = torch._C._is_tracing() and max(stride) > 1 and x.is_cpu
    if tracing or (low(x) and too_small(x.shape, weight.shape, dilation)):
        return x, weight, bias, stride, _pair(padding), dilation, groups
    return None


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else [int(each) for each in value]
