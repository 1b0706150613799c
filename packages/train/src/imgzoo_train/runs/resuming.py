"""Going on with other settings or other data: what may change is applied and said, what may not is refused by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import ImgzooError, UsageError
from imgzoo.text import first_line
from imgzoo_train.config.flags import FLAGS
from imgzoo_train.config.settings import Config, rows
from imgzoo_train.loop.state import State
from imgzoo_train.runs.folder import RunFolder

FIXED = frozenset(
    [
        "model.name", "model.pretrained", "model.in_chans", "model.img_size", "model.global_pool", "model.num_classes",
        "model.freeze", "model.unfreeze_epoch", "model.lora", "model.split_bn", "model.options", "optim.name",
        "optim.layer_decay", "loss.task", "distill.kind", "run.seed", "run.trainer", "data.val_share", "data.folds",
        "data.fold",
    ]
)  # fmt: skip
"""Settings that decide what a checkpoint holds, what its numbers mean, or which images it has not seen."""
JUDGED = (
    "run.metric", "loss.threshold", "data.source", "data.val_source", "data.val_split", "data.range", "data.max_pixels",
    "data.max_bad_val", "data.input_size", "data.interpolation", "data.crop_pct", "data.mean", "data.std",
    "data.sequence",
)  # fmt: skip
"""Settings that decide what a score is: under others, scores of before do not compare."""
FREE = frozenset(["version", "recipe", "run.output"])
OPTIMIZER = {
    "optim.lr": ("lr", "base_lr"),
    "optim.weight_decay": ("weight_decay",),
    "optim.momentum": ("momentum", "betas"),
}
"""Setting -> the fields of an optimizer's groups that it decides."""
SAMPLED = 256

Changes = dict[str, tuple[Any, Any]]


def changes(old: Config, new: Config) -> Changes:
    """`{"run.epochs": (4, 6)}`: settings that differ."""
    found: Changes = {}
    for key in rows():
        section, _, name = key.rpartition(".")
        pair = tuple(getattr(getattr(config, section) if section else config, name) for config in (old, new))
        if key not in FREE and pair[0] != pair[1]:
            found[key] = (pair[0], pair[1])
    return found


def check(folder: Path, config: Config) -> None:
    """Raise `UsageError` where there is no run to go on with, naming the settings that a run cannot change."""
    if not folder.is_dir():
        raise UsageError(f"{folder} holds no run to resume; leave out --resume to begin one")
    found = changes(Config.load(RunFolder(folder).config_file), config)
    wrong = [key for key in found if key in FIXED]
    if wrong:
        raise UsageError(
            f"a run goes on as it began: {describe({key: found[key] for key in wrong})}; begin another --output"
        )


def judged_by(config: Config, validation: Any) -> dict[str, Any]:
    """The settings under which scores are measured, and a digest of the images."""
    settings = {key: getattr(getattr(config, key.split(".")[0]), key.split(".")[1]) for key in JUDGED}
    return {**settings, "validation": describe_data(validation, [])["digest"]}


def describe(found: Changes) -> str:
    """`--epochs 4 -> 6, --batch-size 16 -> 32`."""
    return ", ".join(
        f"{FLAGS[key][0] if key in FLAGS else key} {_text(a)} -> {_text(b)}" for key, (a, b) in found.items()
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return "none" if value in (None, "", {}) else str(value)


def take_over(state: State, found: Any, data: Mapping[str, Any]) -> str:
    """Load a checkpoint into the state; a sentence on data that changed since, empty for the same.

    Raises `UsageError` where classes changed, and where the checkpoint is of another network.
    """
    told = compare_data(found.parts.get("data", data), data)
    try:
        state.load(found.parts)
    except (ValueError, KeyError, RuntimeError) as error:
        reason = first_line(error)
        raise UsageError(f"{found.folder} does not fit the settings of this run ({reason})") from error
    return told


def apply_to_groups(optimizer: torch.optim.Optimizer, fresh: list[dict[str, Any]], found: Changes) -> None:
    """Give loaded parameter groups the fields of `fresh` ones that changed settings decide."""
    fields = {name for key in found for name in OPTIMIZER.get(key, ())}
    if "optim.options" in found:
        old, new = found["optim.options"]
        fields |= {name for name in {**old, **new} if old.get(name) != new.get(name)}
    for group, begun in zip(optimizer.param_groups, fresh, strict=True):
        for name in fields & group.keys():
            group[name] = begun[name] if name in begun else begun["lr"]


def fields_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The fields of each group, without its parameters."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def describe_data(source: Any, names: list[str]) -> dict[str, Any]:
    """Class names, sample count and a digest of some names: what a checkpoint remembers of its data."""
    count = len(source)
    digest = hashlib.sha256(str(count).encode())
    for index in sorted({round(place * (count - 1) / SAMPLED) for place in range(SAMPLED + 1)}):
        digest.update(f"{index}\0{_key(source, index)}\0".encode(errors="surrogatepass"))
    return {"classes": list(names), "count": count, "digest": digest.hexdigest()}


def _key(source: Any, index: int) -> str:
    """The name of a sample; empty where it would have to be read, and cannot be."""
    try:
        return str(source.key(index))
    except (ImgzooError, OSError, ValueError):
        return ""


def compare_data(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """A sentence on data that changed; empty for the same. Raises `UsageError` where classes did."""
    if old["classes"] != new["classes"]:
        gone = [name for name in old["classes"] if name not in new["classes"]]
        came = [name for name in new["classes"] if name not in old["classes"]]
        parts = [
            f"{verb} {', '.join(map(repr, part[:5]))}" for verb, part in (("lost", gone), ("gained", came)) if part
        ]
        what = " and ".join(parts) or "come in another order"
        raise UsageError(
            f"the classes of the data have {what} since this run began, which would change what its outputs mean; "
            "begin another --output, with --pretrained this run's folder"
        )
    if old["count"] != new["count"]:
        return f"the data has {new['count']} images, {old['count']} when this was saved; it goes on with what there is"
    return "the data holds other files than when this was saved" if old["digest"] != new["digest"] else ""
