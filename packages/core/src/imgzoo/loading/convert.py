"""Foreign checkpoint formats: a table of renames per source, kept beside the family that needs it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from torch import Tensor

from imgzoo.errors import WeightsError

State = dict[str, Tensor]


Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A pattern and what stands in its place, as `re.sub` takes them: a function where numbers change."""


class Format(NamedTuple):
    """One foreign format: how to know it, and how its names become ours.

    `marker` is searched in the names; every rule is applied to every name, in order; a name that becomes empty is
    dropped. `finish(state, model)` does what renaming cannot (transposing, splitting).
    """

    name: str
    marker: str
    rules: Sequence[Rule] = ()
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
    form = _format_of(state, target, asked)
    return (state, "") if form is None else (_apply(form, state, model), form.name)


def needed(names: Sequence[str], target: str, asked: str = "") -> list[str]:
    """Those of a file's names that are not dropped on the way into `target`: one tower of many, say."""
    form = _format_of(names, target, asked)
    return [name for name in names if form is None or _rename(form, name)]


def _format_of(names: Iterable[str], target: str, asked: str) -> Format | None:
    """The format asked for, or the first whose marker is in a name."""
    names = list(names)
    for form in formats_of(target):
        if asked == form.name or (not asked and any(re.search(form.marker, name) for name in names)):
            return form
    return None


def _rename(form: Format, name: str) -> str:
    for pattern, replacement in form.rules:
        name = re.sub(pattern, replacement, name)
    return name


def _apply(form: Format, state: Mapping[str, Tensor], model: Any) -> State:
    renamed: State = {}
    for theirs, value in state.items():
        key = _rename(form, theirs)
        if key in renamed:
            raise WeightsError(f"the file has several tensors for {key}, '{theirs}' among them; save one network alone")
        if key:
            renamed[key] = value
    try:
        return form.finish(renamed, model) if form.finish else renamed
    except KeyError as error:
        raise WeightsError(f"the file is no whole checkpoint of the format '{form.name}': it lacks {error}") from error
