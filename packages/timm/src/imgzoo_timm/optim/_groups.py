"""Groups of parameters."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from typing import Any

from torch import nn

from imgzoo_optim.param_groups import decay_groups

log = logging.getLogger(__name__)


def auto_group_layers(model: nn.Module, layers_per_group: int = 12, num_groups: int | None = None) -> dict[str, int]:
    """A layer for each parameter by its place, so many in one, the classifier last; one for all if none is told of."""
    names = [name for name, _ in model.named_parameters()]
    head = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    heads = tuple(f"{each}." for each in ([head] if isinstance(head, str) else head))
    body = [name for name in names if not name.startswith(heads)] if heads else names
    if not heads:
        return dict.fromkeys(names, 0)
    size = math.ceil(len(body) / num_groups) if num_groups else layers_per_group
    last = math.ceil(len(body) / size)
    return {name: body.index(name) // size if name in body else last for name in names}


def param_groups_weight_decay(
    model: nn.Module, weight_decay: float = 1e-5, weight_decay_exclude_1d: bool = True,
    no_weight_decay_list: Collection[str] = (), fallback_list: Collection[str] = (),
    fallback_no_weight_decay: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Parameters with and without decay."""
    groups = decay_groups(model, weight_decay, exclude=weight_decay_exclude_1d,
                          no_weight_decay=tuple(no_weight_decay_list), fallback=tuple(fallback_list),
                          fallback_no_weight_decay=fallback_no_weight_decay)  # fmt: skip
    return sorted(groups, key=lambda group: group["weight_decay"] != 0)


def param_groups_layer_decay(
    model: nn.Module, weight_decay: float = 0.05, no_weight_decay_list: Collection[str] = (),
    fallback_list: Collection[str] = (), fallback_no_weight_decay: bool = False, weight_decay_exclude_1d: bool = True,
    layer_decay: float = 0.75, min_scale: float = 0.0, no_opt_scale: float | None = None, verbose: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Parameters by layer, each with the share `lr_scale` of the rate."""
    if not hasattr(model, "group_matcher"):
        groups = param_groups_weight_decay(model, weight_decay, weight_decay_exclude_1d, no_weight_decay_list,
                                           fallback_list, fallback_no_weight_decay)  # fmt: skip
        found = by_place(groups, model, layer_decay, min_scale, no_opt_scale)
    else:
        found = decay_groups(model, weight_decay, exclude=weight_decay_exclude_1d,
                             no_weight_decay=tuple(no_weight_decay_list), fallback=tuple(fallback_list),
                             fallback_no_weight_decay=fallback_no_weight_decay, layer_decay=layer_decay,
                             layer_decay_min_scale=min_scale, layer_decay_no_opt_scale=no_opt_scale)  # fmt: skip
        place = {id(value): i for i, value in enumerate(model.parameters())}
        found.sort(key=lambda group: place[id(group["params"][0])])  # as the field, by the first of each
    if verbose:
        for group in found:
            log.info("%s parameters: lr_scale %s, weight_decay %s", len(group["params"]), group.get("lr_scale", 1.0),
                     group["weight_decay"])  # fmt: skip
    return found


def by_place(groups: list[dict[str, Any]], model: nn.Module, decay: float, floor: float,
             frozen: float | None) -> list[dict[str, Any]]:  # fmt: skip
    """The groups of a network that tells of no layers, each parted by `auto_group_layers`."""
    layers = auto_group_layers(model)
    groups_of = {id(value): group for group in groups for value in group["params"]}
    last, parts = max(layers.values(), default=0), {}
    for name, value in model.named_parameters():
        group = groups_of.get(id(value))
        scale = max(floor, decay ** (last - layers[name]))
        if group is None:
            continue
        if frozen is not None and scale < frozen:
            value.requires_grad_(False)
            continue
        part = parts.setdefault((id(group), scale), {**group, "params": [], "lr_scale": scale})
        part["params"].append(value)
    return list(parts.values())
