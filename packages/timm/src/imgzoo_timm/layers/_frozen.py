"""Batch norms that stand still, and back again."""

from __future__ import annotations

from typing import Any

from torch import nn

from imgzoo_layers import norm as native

from ._norm import BatchNormAct2d, FrozenBatchNormAct2d
from ._training import copied

try:  # the class that clients ask for
    from torchvision.ops.misc import FrozenBatchNorm2d
except (ImportError, RuntimeError):  # not installed, or not for this torch
    from imgzoo_layers.norm import FrozenBatchNorm2d


def freeze_batch_norm_2d(module: Any) -> Any:
    """Batch norms with their statistics and affine fixed, in place where there are children; returns the module."""
    if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)) and hasattr(module, "act"):
        new = copied(FrozenBatchNormAct2d(module.num_features, module.eps, False), module)  # type: ignore[arg-type]
        new.act = module.act
        return new.to(module.weight.device)  # type: ignore[union-attr]
    if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
        return copied(FrozenBatchNorm2d(module.num_features, module.eps), module).to(module.weight.device)
    for name, child in module.named_children():
        setattr(module, name, freeze_batch_norm_2d(child))
    return module


def unfreeze_batch_norm_2d(module: Any) -> Any:
    """Frozen batch norms as trainable ones again, with their values."""
    if isinstance(module, FrozenBatchNormAct2d):  # which is one of the others, too
        new = copied(BatchNormAct2d(len(module.running_mean), module.eps, apply_act=False), module)
        new.act = module.act
        return new.to(module.weight.device)
    if isinstance(module, (FrozenBatchNorm2d, native.FrozenBatchNorm2d)):
        return copied(nn.BatchNorm2d(module.get_buffer("weight").numel(), module.eps), module).to(module.weight.device)
    for name, child in module.named_children():
        setattr(module, name, unfreeze_batch_norm_2d(child))
    return module
