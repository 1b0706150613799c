"""What a network takes: its size, its channels, and the options that made it so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["get_model_args", "get_model_input_config", "get_model_traits", "resolve_model_input_args"]


def unwrapped(model: Any) -> Any:
    """The network inside wrappers of training and compiling."""
    while hasattr(model, "module") or hasattr(model, "_orig_mod"):
        model = model.module if hasattr(model, "module") else model._orig_mod
    return model


def own_size(model: Any) -> tuple[int, int] | None:
    """The size that tables of a network are made for, None where it takes any."""
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None) or getattr(model, "img_size", None)
    return (size, size) if isinstance(size, int) else size and tuple(size)


def get_model_input_config(model: Any) -> dict[str, Any]:
    """Size, whether it is the only one, and the first convolution."""
    model = unwrapped(model)
    cfg = dict(getattr(model, "pretrained_cfg", None) or {})
    size, chans = own_size(model), getattr(model, "in_chans", None)
    of_weights = tuple(cfg.get("input_size") or (3, 224, 224))
    return {"input_size": (chans or of_weights[0], *(size or of_weights[1:])),
            "fixed_input_size": bool(cfg.get("fixed_input_size", False)),
            "first_conv": cfg.get("first_conv")}  # fmt: skip


def get_model_traits(model: Any) -> dict[str, Any]:
    """The same with classes and channels, `img_size` being None where a network takes any size."""
    model = unwrapped(model)
    config = get_model_input_config(model)
    return {"img_size": own_size(model), "fixed_input_size": config["fixed_input_size"],
            "first_conv": config["first_conv"], "in_chans": getattr(model, "in_chans", None),
            "num_classes": getattr(model, "num_classes", None)}  # fmt: skip


def get_model_args(model: Any, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Options of `create_model` that make a network of this form again."""
    model = unwrapped(model)
    found = {name: getattr(model, name, None) for name in ("in_chans", "num_classes", "global_pool")}
    config = get_model_input_config(model)
    if config["fixed_input_size"] and own_size(model):
        found["img_size"] = own_size(model)
    return {key: value for key, value in {**found, **(overrides or {})}.items() if value is not None}


def resolve_model_input_args(model_name: str, args: Mapping[str, Any] | None = None,
                             **model_kwargs: Any) -> dict[str, Any]:  # fmt: skip
    """Options of `create_model` from a script's `input_size`, `img_size` and `in_chans`; only a network of one size
    is told of another."""
    from ._registry import get_pretrained_cfg

    given = {key: value for key, value in dict(args or {}).items() if value is not None}
    cfg = model_kwargs.pop("pretrained_cfg", None) or get_pretrained_cfg(model_name)
    cfg = cfg if isinstance(cfg, Mapping) or cfg is None else cfg.to_dict()
    whole = given.get("input_size")
    size = given.get("img_size") if whole is None else tuple(whole[-2:])
    chans = given.get("in_chans") or (whole[0] if whole is not None else None)
    found: dict[str, Any] = {"model_name": model_name, **({"pretrained_cfg": cfg} if cfg else {}), **model_kwargs}
    if chans is not None:
        found.setdefault("in_chans", chans)
    if size is not None and cfg and cfg.get("fixed_input_size"):
        found.setdefault("img_size", (size, size) if isinstance(size, int) else tuple(size))
    return found
