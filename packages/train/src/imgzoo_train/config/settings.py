"""The run configuration: typed sections, read from defaults < recipe < TOML file < command line, saved resolved.

A key that no section has is an error. How a setting looks on the command line stands in `flags.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import tomli_w

from imgzoo.errors import OptionError, UsageError

from .limits import checked_value

VERSION = 1


@dataclass
class ModelSection:
    """Which network, and what is done to it before training."""

    name: str = ""
    pretrained: str = ""
    num_classes: int | None = None
    in_chans: int | None = None
    img_size: list[int] = field(default_factory=list[int])
    global_pool: str | None = None
    drop_rate: float | None = None
    drop_path_rate: float | None = None
    grad_checkpointing: bool = False
    freeze: list[str] = field(default_factory=list[str])
    unfreeze_epoch: int | None = None
    lora: int = 0
    split_bn: int = 0
    options: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class DataSection:
    """Where the images come from, and what happens to them."""

    source: str = ""
    val_source: str = ""
    val_split: str = ""
    val_share: float = 0.0
    allow_shared: bool = False
    range: str | None = None
    max_pixels: int | None = None
    batch_size: int = 64
    val_batch_size: int | None = None
    workers: int = 0
    input_size: list[int] = field(default_factory=list[int])
    interpolation: str | None = None
    crop_pct: float | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    sizes: list[int] = field(default_factory=list[int])
    sequence: list[int] = field(default_factory=list[int])
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    mix_off_epoch: int | None = None
    max_bad: float = 0.0
    max_bad_val: float = 0.0
    last_batch: bool = False
    sampler: Literal["shuffle", "balanced", "sqrt"] = "shuffle"
    folds: int = 0
    fold: int = 0
    repeats: int = 1
    augment: dict[str, Any] = field(default_factory=dict[str, Any])
    options: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class OptimSection:
    """The optimizer and what is done to gradients."""

    name: str = "adamw"
    lr: float = 0.001
    weight_decay: float = 0.05
    momentum: float | None = None
    layer_decay: float | None = None
    accumulate: int = 1
    clip: float | None = None
    clip_mode: Literal["norm", "value", "agc"] = "norm"
    options: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class ScheduleSection:
    """The learning rate as a function of the update number."""

    name: str = "cosine"
    warmup_epochs: float = 0.0
    per: Literal["update", "epoch"] = "update"
    options: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class LossSection:
    """The task and its loss."""

    task: Literal["classification", "multilabel", "regression"] = "classification"
    name: str = ""
    smoothing: float = 0.0
    class_weights: str = ""
    """`balanced`, `effective`, `positives`, from the data or a file of counts (`balanced:FILE`); a file of weights."""
    threshold: float = 0.5
    """Probability above which a label is said to hold, in scores of several labels an image."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class DistillSection:
    """A teacher."""

    teacher: str = ""
    teacher_pretrained: str = "true"
    kind: Literal["", "logit", "feature", "token"] = ""
    """Empty: logits, where there is a teacher."""
    weight: float = 0.5
    temperature: float = 1.0
    hard: bool = False


@dataclass
class RunSection:
    """How long, where, how precise, and what is kept."""

    epochs: int = 10
    seed: int = 0
    output: str = ""
    device: str = ""
    precision: Literal["fp32", "tf32", "bf16", "fp16", "pure-bf16"] = "fp32"
    deterministic: bool = False
    compile: bool = False
    torchscript: Literal["", "trace", "script"] = ""
    channels_last: bool = True
    strategy: Literal["ddp", "fsdp2", "zero1"] = "ddp"
    sync_bn: bool = False
    dist_bn: Literal["", "broadcast", "reduce"] = "reduce"
    ema: list[float] = field(default_factory=list[float])
    ema_warmup: bool = True
    ema_cpu: bool = False
    ema_precision: Literal["float32", "stochastic"] = "float32"
    swa_epochs: int = 0
    nonfinite: Literal["raise", "skip", "rollback"] = "raise"
    max_nonfinite: int = 10
    rollback_lr: float = 1.0
    log_every: int = 0
    eval_every: int = 1
    save_every: int = 0
    keep_last: int = 2
    keep_best: int = 1
    milestone: int = 0
    patience: int = 0
    metric: str = ""
    threads: int = 0
    stall: float = 600.0
    loggers: list[str] = field(default_factory=list[str])
    trainer: str = ""


@dataclass
class Config:
    """A whole run; `Config.load`, `Config.merged` and `Config.dump` are the way in and out."""

    version: int = VERSION
    recipe: str = ""
    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection = field(default_factory=DataSection)
    optim: OptimSection = field(default_factory=OptimSection)
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    loss: LossSection = field(default_factory=LossSection)
    distill: DistillSection = field(default_factory=DistillSection)
    run: RunSection = field(default_factory=RunSection)

    def merged(self, values: Mapping[str, Any], where: str) -> Config:
        """This configuration with `values` (nested tables) over it; `where` names their origin in errors."""
        return _merge(self, values, where, "")

    def dump(self) -> str:
        """The resolved configuration as TOML."""
        return tomli_w.dumps(_plain(self))

    @staticmethod
    def load(path: Path, base: Config | None = None) -> Config:
        """Read a TOML file over `base`; raises `UsageError` for a file that is no valid configuration."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the configuration {path}: {error}") from error
        return (base or Config()).merged(parse(text, str(path)), str(path))


def parse(text: str, where: str) -> dict[str, Any]:
    """TOML text as nested tables; raises `UsageError` naming `where` and the line."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{where} is not valid TOML: {error}") from error


def output_folder(config: Config) -> str:
    """The run folder: as given, or the first free `runs/<model>-<n>`."""
    if config.run.output:
        return config.run.output
    name = "".join(character if character.isalnum() or character in "._-" else "-" for character in config.model.name)
    number = 1
    while Path(f"runs/{name}-{number}").exists():
        number += 1
    return f"runs/{name}-{number}"


def size_of(sides: list[int]) -> int | tuple[int, int] | None:
    """`[]`, `[224]` or `[224, 320]` as None, 224 or (224, 320)."""
    return (sides[0] if len(sides) == 1 else (sides[0], sides[1])) if sides else None


@functools.cache
def field_types(section: type) -> dict[str, Any]:
    """Type of every field of a section."""
    return typing.get_type_hints(section)


def rows() -> dict[str, Any]:
    """Every setting and its type, e.g. `"optim.lr": float`."""
    found: dict[str, Any] = {}
    for outer, kind in field_types(Config).items():
        if not dataclasses.is_dataclass(kind):
            found[outer] = kind
            continue
        for inner, inner_kind in field_types(cast("type", kind)).items():
            found[f"{outer}.{inner}"] = inner_kind
    return found


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"optim.lr": 1}` as `{"optim": {"lr": 1}}`."""
    result: dict[str, Any] = {}
    for key, value in flat.items():
        target = result
        *tables, last = key.split(".")
        for table in tables:
            deeper = target.setdefault(table, {})
            if not isinstance(deeper, dict):
                raise UsageError(f"'{key}' sets a value inside another value")
            target = cast("dict[str, Any]", deeper)
        target[last] = value
    return result


def parse_setting(text: str, flag: str = "--set", example: str = "optim.options.nesterov=true") -> tuple[str, Any]:
    """A `KEY=VALUE` of `--set`, or of another flag; the value is TOML, or a string if it is not."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise UsageError(f"{flag} takes KEY=VALUE, such as {example}, not '{text}'")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return key.strip(), value


def _merge(target: Any, values: Mapping[str, Any], where: str, prefix: str) -> Any:
    kinds = field_types(cast("type[Any]", type(target)))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        label = f"{prefix}{key}"
        if key not in kinds:
            near = difflib.get_close_matches(str(key), list(kinds), n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it may hold {', '.join(kinds)}"
            raise OptionError(f"unknown key '{label}' in {where}; {hint}")
        current = getattr(target, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise UsageError(f"'{label}' in {where} must be a table, not {value!r}")
            changes[key] = _merge(current, cast("Mapping[str, Any]", value), where, f"{label}.")
            continue
        checked = checked_value(value, kinds[key], label, where)
        if isinstance(checked, dict) and isinstance(current, dict):
            checked = {**cast("dict[str, Any]", current), **cast("dict[str, Any]", checked)}
        changes[key] = checked
    result = dataclasses.replace(target, **changes)
    if isinstance(result, Config) and result.version != VERSION:
        raise UsageError(f"{where} has version {result.version}; this imgzoo-train reads version {VERSION}")
    return result


def _plain(target: Any) -> dict[str, Any]:
    """A section as nested tables; what is None is left out."""
    result: dict[str, Any] = {}
    for row in dataclasses.fields(target):
        value = getattr(target, row.name)
        if value is not None:
            result[row.name] = _plain(value) if dataclasses.is_dataclass(value) else value
    return result
