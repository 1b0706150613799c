"""Levels counted in steps finer than those of `feature_info`: by every stage, or by every block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from imgzoo.errors import OptionError
from imgzoo.features import Feature
from imgzoo.features import FeatureInfo as NativeInfo
from imgzoo_layers.prune import out_channels

from ._features import FeatureInfo, family_of

MOBILE = {"efficientnet", "hardcorenas", "mobilenetv3", "mobilenetv5"}
"""Families whose levels may be counted by every stage."""


HIERA = {"hiera", "hieradet_sam2"}
"""Families whose levels may be counted by every block."""


@contextmanager
def finer(model: Any, every_stage: bool, coarse: bool) -> Iterator[None]:
    """Let levels be the stem and every stage that is left, or every block unless `coarse`, while it lasts; then those
    of before that are left."""
    if not every_stage and coarse:
        yield
        return
    word, families = ("coarse", HIERA) if not coarse else ("extra_blocks", MOBILE)
    if family_of(model) not in families:
        raise OptionError(f"{type(model).__name__} has no levels beside those of feature_info: leave {word} out")
    info = model.feature_info
    levels = list(levels_by_stage(model) if coarse else levels_by_block(model))
    before, model.feature_info, model.levels_left = model.levels_left, FeatureInfo.of(NativeInfo(levels)), ()
    try:
        yield
    finally:
        deepest = max(model.levels_left, default=None)
        if deepest is None:
            model.feature_info, model.levels_left = info, before
        else:  # it was pruned
            left = {level.module for level in levels[: deepest + 1]}
            places = tuple(i for i, level in enumerate(info.levels) if level.module in left)
            if places:
                model.feature_info, model.levels_left = info, places


def levels_by_stage(model: Any) -> Iterator[Feature]:
    rows, reached = {level.module: level for level in model.feature_info.levels}, 2
    for path in (model.parts.stem[-1], *(path for path, _ in model._stages())):
        row = rows.get(path)
        reached = reached if row is None else row.reduction
        yield row or Feature(channels_of(model.get_submodule(path)), reached, path)


def levels_by_block(model: Any) -> Iterator[Feature]:
    """What is told of a stage is told of its blocks."""
    ends = {int(level.module.rpartition(".")[2]): level for level in model.feature_info.levels}
    for path, _ in model._stages():
        place = int(path.rpartition(".")[2])
        yield next(level for end, level in ends.items() if place <= end)._replace(module=path)


def channels_of(part: nn.Module) -> int:
    """Channels that a stem's norm or a stage puts out."""
    own = getattr(part, "num_features", None) or getattr(getattr(part, "bn", None), "num_features", None)
    return own or out_channels(part)
