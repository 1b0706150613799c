"""Weights into models: the fast path of `create_model`, and checkpoints into models that exist."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import WeightsError

from .adapt import State, cast_like, check_fit, fit_state
from .convert import convert
from .fetch import fetch_weights
from .files import read_state
from .policy import check_license
from .skeleton import assign, build_skeleton
from .source import Source


@dataclass
class LoadReport:
    """What happened to the weights on their way into a model."""

    file: str
    license: str = ""
    format: str = ""
    """Name of the foreign format they came in; empty for our own keys."""
    adapted: list[str] = field(default_factory=list)
    """A sentence for every tensor that was changed or dropped."""
    initialized: list[str] = field(default_factory=list)
    """Parameters the file lacks, left at their initial values."""
    unused: list[str] = field(default_factory=list)
    """Tensors of the file the model has no place for."""

    def __str__(self) -> str:
        lines = [f"weights from {self.file}, license {self.license or 'unknown'}"]
        lines += [f"  converted from {self.format}"] if self.format else []
        lines += [f"  {note}" for note in self.adapted]
        lines += [f"  initialized: {', '.join(self.initialized)}"] if self.initialized else []
        lines += [f"  unused: {', '.join(self.unused)}"] if self.unused else []
        return "\n".join(lines)


def create_pretrained(
    construct: Callable[[], Any],
    source: Source,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """Build a network around the weights of `source`: no initial values are drawn except for what the file lacks."""
    what = f"{source.spec.name}.{source.weights.tag}" if source.weights_from == "tag" and source.weights else ""
    check_license(source.license, what or source.weights_from)
    path = fetch_weights(source)
    state = read_state(path)
    model, numbers = build_skeleton(construct)
    own = model.state_dict()
    state, report = fit(state, model, own, source, path)
    missing, unused = check_fit(state, own, source.spec.name)
    allowed = {f"{head}.{part}" for head in model._heads() for part in ("weight", "bias")}
    buffers = {name for name, _ in model.named_buffers()}
    lacking = [name for name in missing if name not in allowed and name not in buffers]
    if lacking or unused:
        raise WeightsError(misfit(path, source.spec.name, lacking, unused))
    report.initialized = [name for name in missing if name not in buffers]
    if report.initialized:
        parameters = dict(model.named_parameters())
        model, _ = build_skeleton(construct, real={numbers[id(parameters[name])] for name in report.initialized})
    assign(model, cast_like(state, own))
    if device is not None or dtype is not None:
        model.to(device=device, dtype=dtype)
    model.load_report = report
    return model


def fit(state: State, model: Any, own: State, source: Source | None, path: Path) -> tuple[State, LoadReport]:
    """Convert and adapt a state dict; the report tells what was done."""
    weights = source.weights if source and source.weights_from == "tag" else None
    report = LoadReport(str(path), source.license if source else "")
    target = source.spec.target if source else f"{type(model).__module__}:{type(model).__name__}"
    state, report.format = convert(state, model, own, target, weights.format if weights else "")
    state, report.adapted = fit_state(state, model, own, weights.label_offset if weights else 0)
    return state, report


def misfit(path: Path, name: str, lacking: list[str], unused: list[str]) -> str:
    """One sentence on a file that belongs to another network."""
    parts = []
    if lacking:
        parts.append(f"lacks {len(lacking)} tensors ({', '.join(lacking[:3])}, ...)")
    if unused:
        parts.append(f"has {len(unused)} it cannot place ({', '.join(unused[:3])}, ...)")
    return f"'{path}' does not fit {name}: it {' and '.join(parts)}"


def load_checkpoint(
    model: Any, path: str | os.PathLike[str], *, strict: bool = True, use_ema: bool = True
) -> LoadReport:
    """Load a weight file into an existing model, converting and adapting it; raises `WeightsError` if it does not fit.

    `strict=False` leaves what the file lacks as it is; `use_ema` prefers averaged weights where a checkpoint has both.
    A model on the meta device moves to the CPU.
    """
    path = Path(path)
    if path.is_dir():
        from .fetch import folder_file

        path = folder_file(path)
    own = model.state_dict()
    state, report = fit(read_state(path, use_ema), model, own, None, path)
    missing, report.unused = check_fit(state, own, type(model).__name__)
    report.initialized = missing
    if strict and (missing or report.unused):
        raise WeightsError(misfit(path, type(model).__name__, missing, report.unused))
    if any(value.is_meta for value in own.values()):
        if missing:
            raise WeightsError(f"a model on the meta device has no values for {missing[0]}, and neither has '{path}'")
        model.to_empty(device="cpu")  # which computes the buffers that no file holds
    model.load_state_dict(state, strict=False)
    return report
