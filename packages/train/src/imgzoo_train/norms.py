"""Batch norm over ranks and over augmentation splits."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from .distributed import World

BATCH_NORM = nn.modules.batchnorm._BatchNorm


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose gradient is all-reduced too."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def synced_forward(self: Any, input: torch.Tensor) -> torch.Tensor:
    """Batch norm with the statistics of all ranks, on any device; ranks may hold different numbers of samples."""
    if not self.training:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
    dims = [0, *range(2, input.ndim)]
    shape = [1, -1] + [1] * (input.ndim - 2)
    count = input.new_full((1,), input.numel() / input.shape[1])
    sums = torch.cat([input.sum(dims), input.square().sum(dims), count])
    total = _SumOverRanks.apply(sums)
    size = total[-1]
    channels = input.shape[1]
    mean = total[:channels] / size
    variance = (total[channels:-1] / size - mean.square()).clamp(min=0)
    with torch.no_grad():
        momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked + 1)
        if self.track_running_stats:
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * size / (size - 1).clamp(min=1), momentum)
    scale = torch.rsqrt(variance + self.eps) * (self.weight if self.weight is not None else 1.0)
    output = (input - mean.view(shape)) * scale.view(shape)
    return output + self.bias.view(shape) if self.bias is not None else output


def sync_batch_norm(model: nn.Module, world: World) -> nn.Module:
    """Let every batch norm use the statistics of all ranks; keys and extras (such as a fused activation) stay."""
    if world.size == 1:
        return model
    for module in model.modules():
        if isinstance(module, BATCH_NORM):
            _override(module, synced_forward)
    return model


def split_forward(self: Any, input: torch.Tensor) -> torch.Tensor:
    """Batch norm with the first split through the own layer and each other split through its own auxiliary layer."""
    if not self.training:
        return BATCH_NORM.forward(self, input)
    parts = input.split(input.shape[0] // (len(self.aux_bn) + 1))
    outputs = [BATCH_NORM.forward(self, parts[0])]
    outputs += [layer(part) for layer, part in zip(self.aux_bn, parts[1:])]
    return torch.cat(outputs)


def split_batch_norm(model: nn.Module, splits: int) -> nn.Module:
    """Give each augmentation split but the first batch-norm layers of its own (AdvProp, arXiv:1911.09665)."""
    for module in list(model.modules()):
        if isinstance(module, BATCH_NORM) and not hasattr(module, "aux_bn"):
            plain = next(kind for kind in type(module).__mro__ if kind.__module__ == BATCH_NORM.__module__)
            extra: Any = [plain(module.num_features, module.eps, module.momentum) for _ in range(splits - 1)]
            for layer in extra:
                layer.to(module.running_mean.device if module.running_mean is not None else None)
                layer.load_state_dict(module.state_dict())
            _override(module, split_forward)
            module.aux_bn = nn.ModuleList(extra)
    return model


def merge_split(model: nn.Module) -> nn.Module:
    """Take the auxiliary layers off again."""
    for module in model.modules():
        if hasattr(module, "aux_bn"):
            del module.aux_bn
            _restore(module)
    return model


def _override(module: Any, forward: Any) -> None:
    """Replace batch norm's part of a module's forward. A subclass that adds to it keeps what it adds."""
    kind = type(module)
    bases = (kind,)
    module.__class__ = type(kind.__name__, bases, {"forward": _around(kind, forward), "_plain_class": kind})


def _restore(module: Any) -> None:
    module.__class__ = module._plain_class


def _around(kind: type[nn.Module], forward: Any) -> Any:
    own = kind.forward is not BATCH_NORM.forward

    def run(self: Any, input: torch.Tensor) -> torch.Tensor:
        output = forward(self, input)
        if own and hasattr(self, "act"):
            output = self.act(self.drop(output) if hasattr(self, "drop") else output)
        return output

    return run


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
