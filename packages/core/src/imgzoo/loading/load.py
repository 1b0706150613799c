"""Weights into models: the fast path of `create_model`, and checkpoints into models that exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import WeightsError
from imgzoo.registry import registry
from imgzoo.text import counted

from .adapt import State, cast_like, check_fit, fit_state
from .convert import convert, needed
from .fetch import fetch_weights
from .files import is_index, read_shards, read_state, strip_prefix
from .places import may_map, shard
from .policy import check_license
from .skeleton import assign, build_skeleton
from .source import ModelSource

STATISTICS = ("running_mean", "running_var")
"""Buffers that a file has to bring as it does parameters; others, such as counts and tables, are right as they are."""


@dataclass
class LoadReport:
    """What happened to the weights on their way into a model."""

    file: str
    license: str = ""
    format: str = ""
    """Name of the foreign format they came in; empty for our own keys."""
    adapted: list[str] = field(default_factory=list[str])
    """A sentence for every tensor that was changed or dropped."""
    initialized: list[str] = field(default_factory=list[str])
    """Parameters the file lacks, left at their initial values."""
    unused: list[str] = field(default_factory=list[str])
    """Tensors of the file the model has no place for."""
    classes: int | None = None
    """Classes of the file's classifier; None where it has none."""
    class_names: list[str] = field(default_factory=list[str])
    """Their names, where something says them."""

    def __str__(self) -> str:
        lines = [f"weights from {self.file}, license {self.license or 'unknown'}"]
        lines += [f"  converted from {self.format}"] if self.format else []
        lines += [f"  {note}" for note in self.adapted]
        lines += [f"  initialized: {', '.join(self.initialized)}"] if self.initialized else []
        lines += [f"  unused: {', '.join(self.unused)}"] if self.unused else []
        return "\n".join(lines)


def create_pretrained(
    construct: Callable[..., Any],
    source: ModelSource,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    adopt_classes: bool = False,
) -> Any:
    """Build a network around the weights of `source`: no initial values are drawn except for what the file lacks.

    `adopt_classes` gives the network as many classes as the file has.
    """
    what = f"{source.spec.name}.{source.weights.tag}" if source.weights_from == "tag" and source.weights else ""
    check_license(source.license, what or source.weights_from)
    path = fetch_weights(source)
    state = read_weights(path, source.spec.target, _asked(source), source.weights_from)
    model, numbers = build_skeleton(construct)
    model.name = source.spec.name  # formats differ from network to network of a family
    own = model.state_dict()

    def twin(chans: int) -> State:
        return build_skeleton(partial(construct, in_chans=chans))[0].state_dict()

    fitted, report = fit(state, model, own, source, path, twin)
    if adopt_classes and report.classes not in (None, model.num_classes):
        construct = partial(construct, num_classes=report.classes)
        model, numbers = build_skeleton(construct)
        model.name = source.spec.name
        own = model.state_dict()
        fitted, report = fit(state, model, own, source, path, twin)
    state = fitted
    if len(source.class_names or ()) == report.classes:
        report.class_names = list(source.class_names or ())
    missing, unused = check_fit(state, own, source.spec.name)
    allowed = {f"{head}.{part}" for head in model._heads() for part in ("weight", "bias")}
    buffers = {name for name, _ in model.named_buffers() if not name.endswith(STATISTICS)}
    lacking = [name for name in missing if name not in allowed and name not in buffers]
    if lacking or unused:
        raise WeightsError(misfit(path, source.spec.name, lacking, unused))
    report.initialized = [name for name in missing if name not in buffers]
    if report.initialized:
        parameters = dict(model.named_parameters())
        model, _ = build_skeleton(construct, real={numbers[id(parameters[name])] for name in report.initialized})
    assign(model, cast_like(state, own))
    made_on = torch.get_default_device()
    place = torch.device(device or made_on)
    if dtype is not None or {place.type, made_on.type} != {"cpu"}:  # a walk over all modules
        model.to(device=place, dtype=dtype)
    model.load_report = report
    return model


def read_weights(path: Path, target: str, asked: str = "", where: str = "", use_ema: bool = True) -> State:
    """A weight file, or as much of a model in several files as a network made by `target` has a place for.

    `where` is the location that led to `path`.
    """
    mapped = may_map(path, where)
    if is_index(path):
        return read_shards(path, lambda names: needed(names, target, asked), partial(shard, where, path), mapped)
    return read_state(path, use_ema, mapped)


def _asked(source: ModelSource | None) -> str:
    """The format that a row of the catalog gives its file."""
    return source.weights.format if source and source.weights and source.weights_from == "tag" else ""


def fit(
    state: State, model: Any, own: State, source: ModelSource | None, path: Path, twin: Callable[[int], State | None]
) -> tuple[State, LoadReport]:
    """Strip a prefix, convert and adapt a state dict; the report tells what was done."""
    weights = source.weights if source and source.weights_from == "tag" else None
    report = LoadReport(str(path), source.license if source else "")
    target = source.spec.target if source else target_of(model)
    heads = heads_of(model)
    names = [name for name, _ in model.named_parameters() if not name.startswith(tuple(f"{head}." for head in heads))]
    whole, outside = len(state), 0
    named, prefix = _asked(source), ""
    state, report.format = convert(state, model, own, target, named)
    if not report.format:  # a format that is known may have prefixes of its own
        state, prefix = strip_prefix(state, names)
        outside = whole - len(state)
        state, report.format = convert(state, model, own, target, named) if prefix else (state, "")
    offset = weights.label_offset if weights else 0
    known = [state[f"{head}.weight"] for head in heads if f"{head}.weight" in state]
    rows = [len(weight) - offset for weight in known if weight.ndim]
    report.classes = rows[0] if rows else None
    state, report.adapted = fit_state(state, model, own, offset, twin)
    if prefix:
        others = f", {counted(outside, 'tensor')} outside it left out" if outside else ""
        report.adapted.insert(0, f"the prefix '{prefix}' stripped{others}")
    return state, report


def target_of(model: Any) -> str:
    """The class as catalogs name it; a class derived from one of theirs reads the files that its base does."""
    targets = [f"{each.__module__}:{each.__name__}" for each in type(model).__mro__]
    known = {spec.target for spec in registry("models").specs()}
    return next((each for each in targets if each in known), targets[0])


def heads_of(model: Any) -> tuple[str, ...]:
    """Paths of the classifiers that are there; none in a network that is no `ImageModel`."""
    paths = model._heads() if hasattr(model, "_heads") else ()
    return tuple(path for path in paths if path in dict(model.named_modules()))


def misfit(path: Path, name: str, lacking: list[str], unused: list[str]) -> str:
    """One sentence on a file that belongs to another network."""
    parts: list[str] = []
    if lacking:
        parts.append(f"lacks {len(lacking)} tensors ({', '.join(lacking[:3])}, ...)")
    if unused:
        parts.append(f"has {len(unused)} it cannot place ({', '.join(unused[:3])}, ...)")
    return f"'{path}' does not fit {name}: it {' and '.join(parts)}"
