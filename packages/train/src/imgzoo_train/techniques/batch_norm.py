"""Batch norm over ranks and over augmentation splits."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from imgzoo.model.swapping import swap_in, swap_out
from imgzoo_train.ranks.world import World

try:  # what nn.SyncBatchNorm runs on an accelerator
    from torch.nn.modules._functions import SyncBatchNorm as fused
except ImportError:  # a torch without it takes the formula below
    fused = None

BATCH_NORM = nn.modules.batchnorm._BatchNorm


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose gradient is all-reduced too."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def batch_norm_over_ranks(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` with the statistics of all ranks, which may hold different numbers of samples.

    Two passes in float32 or wider: the squares are those of what is left after the mean, which cancels nothing.
    """
    if not training:
        return torch.batch_norm(input, weight, bias, running_mean, running_var, False, momentum, eps, False)
    if fused is not None and input.is_cuda:
        size = dist.get_world_size()
        return fused.apply(input, weight, bias, running_mean, running_var, eps, momentum, dist.group.WORLD, size)
    dims, shape = [0, *range(2, input.ndim)], [1, -1] + [1] * (input.ndim - 2)
    wide = input.to(torch.promote_types(input.dtype, torch.float32))
    sums = _SumOverRanks.apply(torch.cat([wide.sum(dims), wide.new_full((1,), input.numel() / input.shape[1])]))
    size = sums[-1]
    mean = sums[:-1] / size
    centered = wide - mean.view(shape)
    variance = _SumOverRanks.apply(centered.square().sum(dims)) / size
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * size / (size - 1).clamp(min=1)).to(running_var.dtype), momentum)
    scale = torch.rsqrt(variance + eps) * (1.0 if weight is None else weight)
    output = centered * scale.view(shape)
    return (output if bias is None else output + bias.view(shape)).to(input.dtype)


class _OverRanks(TorchFunctionMode):
    """While it is active, a batch norm is the one over ranks."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.batch_norm:
            return batch_norm_over_ranks(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class Synced:
    """A batch norm with the statistics of all ranks; what a subclass adds, such as its activation, stays."""

    def forward(self, input: Tensor) -> Tensor:
        with _OverRanks():
            return super().forward(input)  # type: ignore[misc]


def sync_batch_norm(model: nn.Module, world: World) -> nn.Module:
    """Let every batch norm use the statistics of all ranks; keys stay."""
    if world.size > 1:
        for module in model.modules():
            if isinstance(module, BATCH_NORM):
                swap_in(module, Synced)
    return model


class Split:
    """A batch norm whose first split of a batch goes through itself, each other one through a layer of its own."""

    training: bool
    aux_bn: nn.ModuleList

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)  # type: ignore[misc]
        own, *others = input.split(input.shape[0] // (len(self.aux_bn) + 1))
        parts = [super().forward(own)]  # type: ignore[misc]
        return torch.cat(parts + [layer(part) for layer, part in zip(self.aux_bn, others)])


def split_batch_norm(model: nn.Module, splits: int) -> nn.Module:
    """Give each augmentation split but the first batch-norm layers of its own (AdvProp, arXiv:1911.09665)."""
    for module in list(model.modules()):
        if isinstance(module, BATCH_NORM) and not hasattr(module, "aux_bn"):
            extra = [copy.deepcopy(module) for _ in range(splits - 1)]
            swap_in(module, Split)
            module.aux_bn = nn.ModuleList(extra)
    return model


def merge_split(model: nn.Module) -> nn.Module:
    """Take the auxiliary layers off again."""
    for module in model.modules():
        if hasattr(module, "aux_bn"):
            del module.aux_bn
            swap_out(module, Split)
    return model


@torch.no_grad()
def distribute_statistics(model: nn.Module, world: World, how: str) -> None:
    """Let ranks agree on running statistics: the mean of all (`reduce`), or the main rank's (`broadcast`)."""
    if world.size == 1 or not how:
        return
    for name, buffer in model.named_buffers():
        if "running_mean" in name or "running_var" in name:
            if how == "reduce":
                world.reduce(buffer).div_(world.size)
            else:
                dist.broadcast(buffer, 0)
