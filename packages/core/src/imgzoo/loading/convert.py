"""Foreign checkpoint formats: a table of renames per source, kept beside the family that needs it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from torch import Tensor

from imgzoo.errors import WeightsError

State = dict[str, Tensor]


class Format(NamedTuple):
    """One foreign format: how to know it, and how its names become ours.

    `marker` is searched in the names; every rule is applied to every name, in order; a name that becomes empty is
    dropped. `finish(state, model)` does what renaming cannot (transposing, splitting).
    """

    name: str
    marker: str
    rules: Sequence[tuple[str, str]] = ()
    finish: Callable[[State, Any], State] | None = None


def project(state: State, model: Any) -> State:
    """The projection of open_clip's tower becomes our classifier, with zeros for a bias that it has not."""
    head = model._heads()[0]
    state = {re.sub(r"^visual\.head\.proj\.", f"{head}.", key): value for key, value in state.items()}
    if f"{head}.weight" in state and f"{head}.bias" not in state:
        state[f"{head}.bias"] = state[f"{head}.weight"].new_zeros(len(state[f"{head}.weight"]))
    return state


TRUNK = [(r"^(?!visual\.).*", ""), (r"^visual\.trunk\.", "")]
ANY = [Format("open-clip-trunk", r"^visual\.trunk\.", TRUNK, project)]
"""What a checkpoint of every family may come in: open_clip builds its visual towers from all of them."""


def formats_of(target: str) -> list[Format]:
    """The `FORMATS` of `<package>.convert.<family>` for a constructor `<package>.<family>:Class`, then `ANY`."""
    module = target.partition(":")[0]
    package, _, family = module.rpartition(".")
    name = f"{package}.convert.{family}"
    try:
        if not package or find_spec(name) is None:
            return ANY
    except ModuleNotFoundError:
        return ANY
    return [*importlib.import_module(name).FORMATS, *ANY]


def convert(state: State, model: Any, own: State, target: str, asked: str = "") -> tuple[State, str]:
    """State with our names, and the format it came in ("" for our own).

    A state whose names all are the model's stays untouched; otherwise the first format whose marker occurs is applied.
    Two tensors that come to one name are a `WeightsError`.
    """
    if not asked and state.keys() <= own.keys():
        return state, ""
    for form in formats_of(target):
        if asked == form.name or (not asked and any(re.search(form.marker, key) for key in state)):
            return _apply(form, state, model), form.name
    return state, ""


def _apply(form: Format, state: Mapping[str, Tensor], model: Any) -> State:
    renamed: State = {}
    for theirs, value in state.items():
        key = theirs
        for pattern, replacement in form.rules:
            key = re.sub(pattern, replacement, key)
        if key in renamed:
            raise WeightsError(f"the file has several tensors for {key}, '{theirs}' among them; save one network alone")
        if key:
            renamed[key] = value
    try:
        return form.finish(renamed, model) if form.finish else renamed
    except KeyError as error:
        raise WeightsError(f"the file is no whole checkpoint of the format '{form.name}': it lacks {error}") from error
