"""Settings that do nothing without another, or beside one: a table, and the sentence for whoever gives one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from imgzoo.errors import UsageError
from imgzoo_train.config.flags import FLAGS
from imgzoo_train.config.recipes import load_recipe
from imgzoo_train.config.settings import Config, rows


class Idle(NamedTuple):
    """`keys` do nothing `why`, unless the condition `works` holds."""

    keys: tuple[str, ...]
    works: Callable[[Config], Any]
    why: str


def _augments(config: Config, name: str) -> Any:
    return config.data.augment.get(name)


_CROP = tuple(f"data.augment.{name}" for name in ("crop_kind", "scale", "ratio"))
_STEPS = tuple(
    f"data.augment.{name}" for name in ("hflip", "vflip", "auto_augment", "color_jitter", "grayscale_prob", "blur_prob")
)
_OWN_DRAW = ("auto_augment", "color_jitter", "grayscale_prob", "blur_prob", "erase", "row")
"""Steps that each version of an image draws for itself; crop and flips are one draw for all."""
IDLE = (
    Idle(("optim.clip_mode",), lambda c: c.optim.clip is not None, "without --clip"),
    Idle(("loss.threshold",), lambda c: c.loss.task == "multilabel", "without --task multilabel"),
    Idle(("model.unfreeze_epoch",), lambda c: c.model.freeze, "without --freeze"),
    Idle(("model.split_bn",), lambda c: (_augments(c, "splits") or 1) > 1, "without --splits"),
    Idle(
        ("data.mix_prob", "data.mix_off_epoch"), lambda c: c.data.mixup or c.data.cutmix, "without --mixup or --cutmix"
    ),
    Idle(("data.fold",), lambda c: c.data.folds, "without --folds"),
    Idle(("data.last_batch",), lambda c: not c.data.sizes and len(c.data.sequence) < 2, "where batches differ in size"),
    Idle(_CROP, lambda c: not c.data.sequence, "beside --sequence"),
    Idle(_CROP + _STEPS, lambda c: not _augments(c, "row"), "beside --row"),
    Idle(
        ("data.augment.splits",),
        lambda c: any(_augments(c, name) for name in _OWN_DRAW),
        "without --auto-augment or another step that differs from version to version",
    ),
    Idle(("data.augment.erase_mode", "data.augment.erase_count"), lambda c: _augments(c, "erase"), "without --erase"),
    Idle(
        ("data.augment.color_jitter",),
        lambda c: not (policy := _augments(c, "auto_augment")) or "3a" in policy or _augments(c, "force_color_jitter"),
        "beside --auto-augment without --force-color-jitter",
    ),
    Idle(
        ("data.augment.color_jitter_prob", "data.augment.force_color_jitter"),
        lambda c: _augments(c, "color_jitter"),
        "without --color-jitter",
    ),
    Idle(("distill.temperature", "distill.hard"), lambda c: c.distill.kind != "feature", "with --distill feature"),
    Idle(("distill.temperature",), lambda c: not c.distill.hard, "with --distill-hard"),
    Idle(("run.ema_warmup",), lambda c: c.run.ema, "without --ema"),
    Idle(
        ("run.ema_cpu", "run.ema_precision"), lambda c: c.run.ema or c.run.swa_epochs, "without --ema or --swa-epochs"
    ),
    Idle(("run.max_nonfinite",), lambda c: c.run.nonfinite != "raise", "without --nonfinite skip or rollback"),
    Idle(("run.rollback_lr",), lambda c: c.run.nonfinite == "rollback", "without --nonfinite rollback"),
)


def check_idle(config: Config) -> None:
    """Raise `UsageError` for a setting that differs from the default, and from the recipe's, and does nothing."""
    usual = Config().merged(load_recipe(config.recipe), config.recipe) if config.recipe else Config()
    for row in IDLE:
        given = [key for key in row.keys if value_of(config, key) not in (value_of(usual, key), None)]
        if given and not row.works(config):
            flag = flag_of(given[0])
            raise UsageError(f"{flag} does nothing {row.why}: leave {flag} out, or change the other")


def value_of(config: Config, key: str) -> Any:
    """The value of a setting, as `optim.lr` or `data.augment.hflip`; None for an augmentation that is not given."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part)
    return value


def flag_of(key: str) -> str:
    """How a setting is called on the command line."""
    if key in rows():
        return FLAGS[key][0].partition("/")[0] if key in FLAGS else key
    return "--" + key.rpartition(".")[2].replace("_", "-")
