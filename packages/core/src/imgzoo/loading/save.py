"""Save a model as a folder that describes itself: `config.json` and `model.safetensors`, the layout of the hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.options import parameters_of
from imgzoo.spelling import spoken
from imgzoo.text import json_text

from .adapt import first_conv
from .disk import CONFIG, replacing, write_text
from .source import OWN_PREPROCESSING, PREPROCESSING, named
from .stored import stated

SHARED = ("num_classes", "in_chans", "img_size", "global_pool", "output_stride", "drop_rate", "drop_path_rate",
          "use_naflex")  # fmt: skip
"""Constructor options that the field spells as we do; others are said in its words too, where it has some for them."""


def save_model(
    model: Any,
    folder: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    license: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
    pretrained_cfg: Mapping[str, Any] | None = None,
) -> Path:
    """Write `model` to `folder`, ready for `create_model(folder, pretrained=True)`, `imgzoo predict` and the hub.

    Args:
        class_names: one a class, in order; they travel with the weights.
        license: SPDX id; without it the license of the weights the model started from.
        metrics: numbers to keep beside the weights.
        state: other values for the parameters, such as averaged ones.
        pretrained_cfg: preprocessing that the model was trained with, where it differs from what the model says:
            `mean`, `std`, `crop_pct`, `interpolation`, ... .

    Raises:
        UsageError: the model was not made by `create_model`, or was pruned, or the names do not match the classes.
    """
    if not getattr(model, "name", None):
        raise UsageError("only a model that create_model made can be saved with its description")
    names = list(class_names) if class_names is not None else getattr(model, "class_names", None)
    if names is not None and model.num_classes and len(names) != model.num_classes:
        raise UsageError(f"{len(names)} class names were given for {model.num_classes} classes")
    folder, images = Path(folder), {**model.pretrained_cfg, **stated(pretrained_cfg)}
    text = json_text(plain_values(describe(model, names, license, metrics, images)), 2) + "\n"
    check_whole(model)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(state if state is not None else model.state_dict(), folder / "model.safetensors")
    write_text(folder / CONFIG, text)
    return folder


def check_whole(model: Any) -> None:
    """Raise `UsageError` for a network that pruning took something from: what the file describes would have it."""
    if not getattr(model, "was_pruned", False):
        return
    from imgzoo.factory import create_model

    whole = cast(Any, create_model(model.name, device="meta", **current_arguments(model)))
    gone = sorted(cast("set[str]", set(whole.state_dict()) - set(model.state_dict())))
    if gone:
        raise UsageError(
            f"this {model.name} was pruned and lacks {gone[0]}, so its file could not be read; save the state dict"
        )


def plain_values(config: dict[str, Any]) -> dict[str, Any]:
    """The description as it is, once every option in it is known to be a plain value."""
    for key, value in {**config["model_args"], **config["imgzoo"].get("model_args", {})}.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"the option {key}={value!r} is no plain value, so no file can hold it; save the state dict alone"
            ) from error
    return config


def describe(
    model: Any,
    names: list[str] | None,
    license: str | None,
    metrics: Mapping[str, Any] | None,
    images: Mapping[str, Any],
) -> dict[str, Any]:
    """The contents of `config.json`; `images` says how they are prepared."""
    cfg = {key: images.get(key) for key in ("tag", *PREPROCESSING)}
    if getattr(model, "load_report", None) is None:  # weights of our own: nobody else's name or license
        cfg |= dict.fromkeys(("tag", "license", "url", "hf_hub_id", "origin_url"))
    cfg = {key: value for key, value in cfg.items() if value not in (None, "")}
    heads = model._heads()
    cfg |= {
        "custom_load": False,
        "num_classes": model.num_classes,
        "first_conv": first_conv(model) or None,
        "classifier": heads[0] if len(heads) == 1 else list(heads),
        "license": license or cfg.get("license", ""),
    }
    arguments = current_arguments(model)
    del arguments["num_classes"]  # said once: some readers take it beside `model_args`
    said, own = spoken_arguments(model, arguments)
    config: dict[str, Any] = {
        "architecture": model.name,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "model_args": said,
        "pretrained_cfg": cfg,
    }
    config["imgzoo"] = {"task": getattr(model, "task", "classification")}
    if own:
        config["imgzoo"]["model_args"] = own
    for key in OWN_PREPROCESSING:
        if images.get(key):
            config["imgzoo"][key] = images[key]
    if names:
        config["label_names"] = names
    if metrics:
        config["metrics"] = dict(metrics)
    return config


def spoken_arguments(model: Any, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a model in the field's words, and those that it has no word for."""
    shared = {key: value for key, value in arguments.items() if key in SHARED}
    others = {key: value for key, value in arguments.items() if key not in SHARED}
    said, own = spoken(named(model.name).spec, others) if others else ({}, {})
    return {**shared, **said}, own


def current_arguments(model: Any) -> dict[str, Any]:
    """Options that rebuild the model as it is now: those it was made with, and what was changed since."""
    arguments = {**model.model_args, "num_classes": model.num_classes}
    if model.in_chans != 3:
        arguments["in_chans"] = model.in_chans
    if hasattr(model, "img_size"):
        arguments["img_size"] = list(model.img_size)
    if model.pool_kind() != model.pooled_at_first:
        arguments["global_pool"] = model.pool_kind()
        network: type = model.__class__
        if "fc_norm" in parameters_of(network)[0]:  # which side of the pool the norm is on was settled by the first
            arguments.setdefault("fc_norm", not isinstance(model.fc_norm, nn.Identity))
    return arguments


def write_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file, each with memory of its own.

    Raises `OSError` where the system cannot write it: the library has an error of its own, with the number in its text.
    """
    from safetensors import SafetensorError
    from safetensors import torch as library

    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        plain[key] = tensor if whole and pointer not in seen else tensor.clone()
        seen.add(pointer)
    with replacing(path) as part:
        try:
            cast(Any, library).save_file(plain, part, metadata={"format": "pt"})
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
