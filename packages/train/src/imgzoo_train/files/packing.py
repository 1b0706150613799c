"""Nested state (dicts, lists, numbers, tensors) as plain JSON plus a flat table of tensors, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

_MARKS = ("$tensor", "$tuple", "$map", "$float")


def pack(tree: Any, prefix: str = "") -> tuple[Any, dict[str, torch.Tensor]]:
    """Split `tree` into JSON and tensors; `unpack` restores it, key types and tuples included.

    Raises `TypeError` for a value that is neither data nor a tensor.
    """
    tensors: dict[str, torch.Tensor] = {}
    return _pack(tree, prefix, tensors), tensors


def _pack(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        while path in tensors:
            path += "_"
        tensors[path] = value
        return {"$tensor": path}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, Mapping):
        return _pack_map(value, path, tensors)
    if isinstance(value, (list, tuple)):
        items = [_pack(item, _join(path, index), tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    raise TypeError(f"state at '{path}' is a {type(value).__name__}, which a checkpoint cannot hold")


def _pack_map(value: Mapping[Any, Any], path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if all(isinstance(key, str) and key not in _MARKS for key in value):
        return {key: _pack(item, _join(path, key), tensors) for key, item in value.items()}
    return {"$map": [[key, _pack(item, _join(path, key), tensors)] for key, item in value.items()]}


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def unpack(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Inverse of `pack`."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$tuple" in value:
        return tuple(unpack(item, tensors) for item in value["$tuple"])
    if "$float" in value:
        return float(value["$float"])
    if "$map" in value:
        return {key: unpack(item, tensors) for key, item in value["$map"]}
    return {key: unpack(item, tensors) for key, item in value.items()}


def map_tensors(tree: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """`tree` with every tensor replaced by `function(tensor)`."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: map_tensors(item, function) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map_tensors(item, function) for item in tree)
    return tree


def snapshot(tree: Any) -> Any:
    """A copy of `tree` on the CPU that later updates do not touch; sharded tensors are gathered (collective)."""
    return map_tensors(tree, _detached)


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that is sharded over ranks (collective); any other as it is."""
    whole = getattr(tensor, "full_tensor", None)
    return whole() if whole is not None else tensor


def _detached(tensor: torch.Tensor) -> torch.Tensor:
    tensor = gathered(tensor.detach())
    return tensor.cpu() if tensor.device.type != "cpu" else tensor.clone(memory_format=torch.contiguous_format)
