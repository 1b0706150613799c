"""Running a network's constructor: what it refuses, or dies of, is told in one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from traceback import walk_tb
from typing import Any

import torch

from .errors import ImgzooError, UsageError
from .options import exchanges_of, lines_of
from .specs import ModelSpec

COMMON = ("num_classes", "in_chans", "img_size", "global_pool", "output_stride", "drop_rate", "drop_path_rate")


def call(build: Callable[..., Any], spec: ModelSpec, arguments: dict[str, Any], given: dict[str, Any]) -> Any:
    """Run the constructor; a value it refuses, or one of those `given` that it dies of, is told in one sentence."""
    for key in ("num_classes", "in_chans"):
        if key in arguments and (isinstance(arguments[key], bool) or not isinstance(arguments[key], int)):
            raise UsageError(f"{key} must be a whole number, got {arguments[key]!r}")
    try:
        model = built(build, arguments)
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        widths = given and re.search(r"channels|groups|heads|norm '", str(error))
        own = f" with {of_channels(build, arguments, given)}" if widths else ""
        raise UsageError(f"{spec.name}{own}: {ungrouped(error)}") from error
    except (TypeError, LookupError, AttributeError, OSError, ArithmeticError, AssertionError, RuntimeError) as error:
        if not given or isinstance(error, (torch.OutOfMemoryError, ImgzooError)):
            raise
        unknown = [key for key, value in given.items() if isinstance(error, KeyError) and error.args == (value,)]
        if unknown:  # a word that no table has
            raise UsageError(
                f"{spec.name}: {unknown[0]} has no {error.args[0]!r}; see imgzoo info {spec.name} --options"
            ) from error
        own = ", ".join(f"{key}={value!r}" for key, value in given.items())
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(
            f"{spec.name} cannot be built with {own} ({reason}); see imgzoo info {spec.name} --options"
        ) from error
    seen = model.named_parameters() if given.keys() - set(COMMON) else ()
    empty = next((name for name, each in seen if not each.numel()), None)
    if empty is not None:
        own = of_channels(build, arguments, given)
        raise UsageError(f"{spec.name} with {own}: {empty.rpartition('.')[0]} has no channels left; give more")
    stride = given.get("output_stride")
    if stride is not None and stride != (found := max(model.feature_info.reduction(), default=stride)):
        raise UsageError(
            f"{spec.name}: output_stride={stride} cannot be had, a position of its last map would stand for {found} "
            "pixels; use 8, 16 or 32"
        )
    return model


def built(build: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """The network, with those of its parts exchanged that its constructor has no word for."""
    later = exchanges_of(build)
    model = build(**{name: value for name, value in arguments.items() if name not in later})
    exchange_parts(build, model, arguments)
    return model


def exchange_parts(build: Callable[..., Any], model: Any, options: Mapping[str, Any]) -> None:
    """Change a finished network as those of the options say that its constructor does not take."""
    by_part: dict[Callable[..., None], dict[str, Any]] = {}
    for name, part in exchanges_of(build).items():
        if options.get(name) is not None:
            by_part.setdefault(part, {})[name] = options[name]
    for part, given in by_part.items():
        part(model, **given)


def ungrouped(error: ValueError) -> str:
    """What a layer was refused for; where its channels do not divide into groups, with the multiple that it needs.

    PyTorch's own sentence has no numbers: they are read where it was raised.
    """
    *_, (frame, _) = walk_tb(error.__traceback__)
    seen = frame.f_locals
    groups = seen.get("num_groups", seen.get("groups"))
    channels = [seen[key] for key in ("num_channels", "in_channels", "out_channels") if key in seen]
    if "groups" not in str(error) or not isinstance(groups, int) or not channels:
        return str(error)
    if groups < 1:
        return f"a layer has {channels[0]} channels, which is less than a group of them"
    odd = next((each for each in channels if each % groups), channels[0])
    return f"a layer of {groups} groups has {odd} channels; it needs a multiple of {groups}"


def of_channels(build: Callable[..., Any], arguments: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Those of the `given` options that say how many channels there are, and what the row says of groups, in words."""
    lines = lines_of(build)
    own = [key for key in given if re.search(r"channels|group|heads|radix", lines.get(key, "") + key)] or list(given)
    row = [key for key in arguments if key not in own and re.match(r"(channels of a )?group", lines.get(key, ""))]
    return ", ".join(f"{key}={arguments.get(key)!r}" for key in (*own, *row) if arguments.get(key))
