"""One model over several ranks: DDP, FSDP2, ZeRO-1; and their state, gathered and dealt out again."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .world import World

if TYPE_CHECKING:
    from imgzoo_train.loop.state import State


def shard(model: nn.Module, world: World) -> nn.Module:
    """FSDP2: every block with parameters of its own, then the rest, sharded over all ranks."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for name, module in model.named_modules():
        if re.search(r"(^|\.)(blocks|layers|stages)(\.\d+)+$", name) and any(True for _ in module.parameters()):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def replicate(model: nn.Module, world: World) -> nn.Module:
    """DDP; buffers stay local, since evaluation reduces running statistics itself."""
    from torch.nn.parallel import DistributedDataParallel

    devices = None if world.device.type == "cpu" else [world.device.index]
    known = inspect.signature(DistributedDataParallel).parameters
    local = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # torch renamed it
    options: dict[str, Any] = {"device_ids": devices, local: False}
    return DistributedDataParallel(model, **options)


def zero_optimizer(create: Callable[[Any], torch.optim.Optimizer], groups: list[dict[str, Any]]) -> Any:
    """ZeRO-1: each rank keeps the optimizer state of its share of the parameters.

    `create(groups)` builds the optimizer over any subset of the parameter groups.
    """
    from torch.distributed.optim import ZeroRedundancyOptimizer

    class Local(torch.optim.Optimizer):
        """Names `create` as a class, which is what ZeroRedundancyOptimizer asks for."""

        def __new__(cls, params: Any, **_: Any) -> Any:
            return create(params)

    return ZeroRedundancyOptimizer(groups, optimizer_class=Local)


def optimizer_state(state: State) -> dict[str, Any]:
    """The whole optimizer's state dict, on the main rank at least."""
    consolidate = getattr(state.optimizer, "consolidate_state_dict", None)
    if consolidate is not None:
        consolidate(to=0)
        return state.optimizer.state_dict() if state.world.main else {}
    return state.optimizer.state_dict()


def load_model(state: State, tensors: dict[str, torch.Tensor]) -> None:
    """Copy weights into the model in place, dealing them out where it is sharded."""
    own = state.plain.state_dict()
    missing = own.keys() ^ tensors.keys()
    if missing:
        from imgzoo_train.files.checkpoints import CheckpointError

        raise CheckpointError(f"the checkpoint is of another model: {sorted(missing)[0]} is in one of them only")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(_like(tensors[name], tensor))


def load_optimizer(state: State, saved: dict[str, Any]) -> None:
    """Load an optimizer's state dict, dealing it out where the parameters are sharded."""
    if state.sharded:
        parameters = [item for group in state.optimizer.param_groups for item in group["params"]]
        rows = {
            index: {
                name: _like(value, parameters[index])
                if isinstance(value, torch.Tensor) and value.shape == parameters[index].shape
                else value
                for name, value in row.items()
            }
            for index, row in saved["state"].items()
        }
        saved = {**saved, "state": rows}
    state.optimizer.load_state_dict(saved)
    for optimizer in (state.optimizer, *(getattr(state.optimizer, name, None) for name in ("optim", "optimizer"))):
        if isinstance(optimizer, torch.optim.Optimizer):
            _lay_out(optimizer)


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give loaded state the memory layout of its parameter, as a fresh one has: fused kernels take that for granted."""
    for parameter, row in optimizer.state.items():
        for name, value in row.items() if isinstance(row, dict) else ():
            alike = isinstance(value, torch.Tensor) and isinstance(parameter, torch.Tensor)
            if alike and value.shape == parameter.shape and value.stride() != parameter.stride():
                row[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _like(tensor: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`tensor` laid out over ranks as `target` is."""
    mesh = getattr(target, "device_mesh", None)
    if mesh is None:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(target.device), mesh, target.placements)  # type: ignore[attr-defined]
