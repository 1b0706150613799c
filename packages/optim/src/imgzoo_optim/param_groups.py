"""Parameter groups: weight-decay exclusion, layer-wise decay, Muon's fallback; and a plan one can read."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from imgzoo.errors import UsageError
from imgzoo.groups import layer_ids

log = logging.getLogger(__name__)


def layer_scales(model: nn.Module, decay: float, floor: float = 0.0) -> dict[str, float]:
    """Learning-rate scale of each parameter: `decay` to the power of its distance from the head, at least `floor`."""
    if not hasattr(model, "group_matcher"):
        raise UsageError(f"{type(model).__name__} has no group_matcher; pass param_group_fn instead of layer_decay")
    layers = layer_ids(model, model.group_matcher(coarse=False))  # type: ignore[operator]
    last = max(layers.values(), default=0)
    return {name: max(floor, decay ** (last - layer)) for name, layer in layers.items()}


def _listed(name: str, globs: Sequence[str]) -> bool:
    return any(name == glob or fnmatch.fnmatchcase(name, glob) for glob in globs)


def skips_decay(name: str, param: Any, globs: Sequence[str]) -> bool:
    """Whether weight decay leaves a parameter alone: vectors, scalars, biases and what the globs name."""
    return param.ndim <= 1 or name.endswith(".bias") or _listed(name, globs)


def decay_groups(
    params: nn.Module | Iterable[tuple[str, Any]],
    weight_decay: float,
    *,
    exclude: bool = True,
    no_weight_decay: Sequence[str] = (),
    fallback: Sequence[str] = (),
    fallback_no_weight_decay: bool = False,
    layer_decay: float | None = None,
    layer_decay_min_scale: float = 0.0,
    layer_decay_no_opt_scale: float | None = None,
) -> list[dict[str, Any]]:
    """Put every trainable parameter into exactly one group, by decay, layer scale and fallback.

    `exclude` keeps vectors, biases and the globs of `no_weight_decay` (with the model's own) free of decay.
    `layer_decay` scales learning rates by depth; layers whose scale is under `layer_decay_no_opt_scale` are frozen.
    Parameters that the globs of `fallback` name get `use_fallback`, which Muon reads. Each group keeps their `names`.
    """
    model = params if isinstance(params, nn.Module) else None
    named = list(model.named_parameters()) if model is not None else list(params)  # type: ignore[arg-type]
    globs = list(no_weight_decay) + list(getattr(model, "no_weight_decay", list)())
    fallback = list(fallback) + list(getattr(model, "no_muon", list)())
    scales: dict[str, float] = {}
    if layer_decay is not None:
        if model is None:
            raise UsageError("layer_decay needs the model, not its parameters")
        scales = layer_scales(model, layer_decay, layer_decay_min_scale)

    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, param in named:
        if not param.requires_grad:
            continue
        scale = scales.get(name, 1.0)
        if layer_decay_no_opt_scale and scale < layer_decay_no_opt_scale:
            param.requires_grad_(False)
            continue
        falls = _listed(name, fallback)
        free = (exclude and skips_decay(name, param, globs)) or (falls and fallback_no_weight_decay)
        free = free and bool(weight_decay)
        key = (scale, free, falls)
        if key not in groups:
            groups[key] = {"weight_decay": 0.0 if free else weight_decay, "params": [], "names": []}
            groups[key] |= {"lr_scale": scale} if scales else {}
            groups[key] |= {"use_fallback": True} if falls else {}
        groups[key]["params"].append(param)
        groups[key]["names"].append(name)
    return sorted(groups.values(), key=lambda group: (group.get("lr_scale", 1.0), group["weight_decay"]))


def check_partition(groups: Sequence[dict[str, Any]], model: nn.Module | None) -> None:
    """Raise `UsageError` unless each trainable parameter is in exactly one group."""
    seen: set[int] = set()
    for group in groups:
        for param in group["params"]:
            if id(param) in seen:
                raise UsageError("a parameter is in two groups; param_group_fn must put each into one")
            seen.add(id(param))
    if model is not None:
        left = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in seen]
        if left:
            raise UsageError(f"parameters are in no group: {', '.join(left[:5])}; add them or freeze them")


def explain(optimizer: Any, model: nn.Module | None = None) -> str:
    """The plan as text: one line a group with its size, rate, decay and the names of its parameters."""
    known = {id(p): name for name, p in model.named_parameters()} if model is not None else {}
    lines = ["group  tensors  parameters  lr scale  decay  parameters' names"]
    groups = optimizer.param_groups if hasattr(optimizer, "param_groups") else optimizer
    for i, group in enumerate(groups):
        names = group.get("names") or group.get("param_names") or [known.get(id(p), "?") for p in group["params"]]
        shown = ", ".join(names[:4]) + (f", ... and {len(names) - 4} more" if len(names) > 4 else "")
        note = "  (fallback)" if group.get("use_fallback") else ""
        size = sum(p.numel() for p in group["params"])
        scale, decay = group.get("lr_scale", 1.0), float(group.get("weight_decay", 0.0))
        lines.append(f"{i:5d}  {len(group['params']):7d}  {size:10,d}  {scale:8.4f}  {decay:5g}  {shown}{note}")
    return "\n".join(lines)
