"""How images are prepared for a model, as the field's tables. No torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from imgzoo.errors import UsageError

from ._constants import DEFAULT_CROP_MODE, DEFAULT_CROP_PCT, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

log = logging.getLogger(__name__)


def _table(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else dict(vars(value))


def _channels(value: Any, count: int, name: str) -> tuple[float, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if len(values) == 1:
        values *= count
    if len(values) != count:
        raise UsageError(f"{name} has {len(values)} numbers for {count} channels")
    return values


def resolve_data_config(args: Any = None, pretrained_cfg: Any = None, model: Any = None, use_test_size: bool = False,
                        verbose: bool = False) -> dict[str, Any]:  # fmt: skip
    """Input size, resampling, crop and statistics: what `args` say, then the model's configuration, then defaults."""
    given = {key: value for key, value in _table(args).items() if value is not None}
    cfg = _table(pretrained_cfg) or _table(getattr(model, "pretrained_cfg", None))
    found: dict[str, Any] = {}
    chans = given.get("in_chans") or given.get("chans") or (given["input_size"][0] if given.get("input_size") else 0)
    size = given.get("input_size")
    if size is not None:
        size = tuple(size)
    elif given.get("img_size") is not None:
        side = given["img_size"]
        pair = tuple(side) if isinstance(side, (tuple, list)) else (side, side)
        size = (chans or cfg.get("input_size", (3,))[0], *pair)
    else:
        size = (cfg.get("test_input_size") if use_test_size else None) or cfg.get("input_size") or (3, 224, 224)
        size = (chans or size[0], *size[1:])
    found["input_size"] = tuple(size)
    found["interpolation"] = given.get("interpolation") or cfg.get("interpolation") or "bicubic"
    for key, default in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
        value = given.get(key) or cfg.get(key) or default
        found[key] = _channels(value, len(tuple(value)) if key not in given else size[0], key)
    crop = given.get("crop_pct") or (cfg.get("test_crop_pct") if use_test_size else None) or cfg.get("crop_pct")
    found["crop_pct"] = crop or DEFAULT_CROP_PCT
    found["crop_mode"] = given.get("crop_mode") or cfg.get("crop_mode") or DEFAULT_CROP_MODE
    if verbose:
        log.info("images are prepared by %s", ", ".join(f"{key}={value}" for key, value in found.items()))
    return found


def resolve_input_data_config(model: Any, args: Any = None, pretrained_cfg: Any = None, use_test_size: bool = False,
                              verbose: bool = False) -> dict[str, Any]:  # fmt: skip
    """The same of a model, or of its name: channels and, where it takes one, size are the model's, and statistics of
    other channels than its own are averaged.

    Raises:
        UsageError: `args` ask for an input that the model does not take.
    """
    from imgzoo_timm.models._input import asked_input, get_model_input_config
    from imgzoo_timm.models._registry import get_pretrained_cfg

    if isinstance(model, str):
        return resolve_data_config(args, pretrained_cfg or get_pretrained_cfg(model), None, use_test_size, verbose)
    given = {key: value for key, value in _table(args).items() if value is not None}
    cfg = _table(pretrained_cfg) or _table(getattr(model, "pretrained_cfg", None))
    config = get_model_input_config(model)
    (chans, *own), fixed = config["input_size"], config["fixed_input_size"]
    asked_chans, asked_size = asked_input(given)
    if asked_chans not in (None, chans):
        raise UsageError(f"the model takes images of {chans} channels, not {asked_chans}")
    if fixed and asked_size not in (None, tuple(own)):
        raise UsageError(f"the model takes images of {tuple(own)}, not {asked_size}: make it with img_size")
    of_weights = cfg.get("input_size") or config["input_size"]
    if use_test_size and cfg.get("test_input_size"):
        of_weights = cfg["test_input_size"]
    size = tuple(own) if fixed else asked_size or tuple(of_weights[1:])
    for key, default in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
        usual = tuple(cfg.get(key) or default)
        mixed = usual if len(usual) in (1, chans) else (round(sum(usual) / len(usual), 8),)
        given[key] = _channels(given.get(key, mixed), chans, key)
    given = {**given, "input_size": (chans, *size)}
    return resolve_data_config(given, cfg, None, use_test_size, verbose)


def resolve_model_data_config(model: Any, args: Any = None, pretrained_cfg: Any = None, use_test_size: bool = False,
                              verbose: bool = False) -> dict[str, Any]:  # fmt: skip
    return resolve_data_config(args, pretrained_cfg, model, use_test_size, verbose)
