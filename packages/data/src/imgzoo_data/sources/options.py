"""A source as text, `scheme:location?option=value&...`: its parts, and values of the types that the scheme declares."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from imgzoo.errors import OptionError
from imgzoo.options import kinds_of

_PREFIXES = {"torch/": "torchvision", "hfds/": "hf", "hfids/": "hf", "tfds/": "tfds", "wds/": "wds"}
_QUERY = re.compile(r"\?(?=[A-Za-z_]\w*(?:[=&]|$))")
_NEXT = re.compile(r"&(?=[A-Za-z_]\w*(?:[=&]|$))")
_SCHEME = re.compile(r"[^/?\\]{2,}|[A-Za-z0-9_-]+/[A-Za-z0-9_-]{2,}")
_WORDS = {"true": True, "yes": True, "1": True, "": True, "false": False, "no": False, "0": False}
_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def parse_source(source: str) -> tuple[str, str, dict[str, Any]]:
    """Split `scheme:location?option=value&...`; a bare path is recognized by what lies there.

    Values have the types of the scheme's own parameters; nothing in them is decoded or evaluated. A `?` that belongs to
    an existing path is part of it.
    """
    text = str(source)
    for prefix, scheme in _PREFIXES.items():
        if text.startswith(prefix):
            location, written = _cut(text[len(prefix) :])
            streaming = {"streaming": True} if prefix == "hfids/" else {}
            return scheme, location, {**streaming, **_typed(scheme, written)}
    scheme, colon, rest = text.partition(":")
    named = bool(colon) and not rest.startswith("\\") and _is_scheme(scheme)
    location, written = _cut(rest if named else text)
    scheme = scheme if named else _scheme_of_path(Path(location))
    return scheme, location, _typed(scheme, written)


def _is_scheme(text: str) -> bool:
    """Whether `scheme` or `plugin/scheme` is one, and not a path."""
    from imgzoo.registry import registry

    return bool(_SCHEME.fullmatch(text)) and ("/" not in text or text in registry("datasets"))


def _cut(text: str) -> tuple[str, dict[str, str]]:
    """The location, and the options as they are written."""
    places = [] if "?" not in text or Path(text).exists() else [found.start() for found in _QUERY.finditer(text)]
    if not places:
        return text, {}
    place = next((place for place in places if place and Path(text[:place]).exists()), places[0])
    found: dict[str, str] = {}
    for name, _, value in (part.partition("=") for part in _NEXT.split(text[place + 1 :])):
        if found.setdefault(name, value) != value:
            raise OptionError(f"option {name} of '{text[:place]}' is given twice, as '{found[name]}' and as '{value}'")
    return text[:place], found


def _scheme_of_path(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return "csv"
    if suffix in (".parquet", ".tar", ".zip"):
        return suffix[1:]
    if path.is_dir() and next(path.glob("*.tar"), None) is not None:
        return "tar"
    return "folder"


def _typed(scheme: str, written: Mapping[str, str]) -> dict[str, Any]:
    if not written:
        return {}
    from imgzoo.registry import registry

    kinds = kinds_of(registry("datasets").resolve(scheme).load())
    return {name: convert(text, kinds.get(name, str), f"{scheme}: option {name}") for name, text in written.items()}


def convert(text: str, kind: Any, what: str) -> Any:
    """A written value as one of the declared type; raises `OptionError` where it is none."""
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    kinds = typing.get_args(kind) if union else (kind,)
    if types.NoneType in kinds and text.lower() in ("none", "") and str not in kinds:
        return None
    if bool in kinds and text.lower() in _WORDS and (str not in kinds or text.lower() in ("true", "false", "")):
        return _WORDS[text.lower()]
    for number in (int, float):
        if number in kinds:
            try:
                return number(text)
            except ValueError:
                continue
    if any(typing.get_origin(item) in (Iterable, Sequence, list, tuple) for item in kinds):
        return tuple(part.strip() for part in text.split(","))
    wanted = [_KINDS[item] for item in kinds if item in _KINDS]
    if wanted and str not in kinds and Any not in kinds:
        raise OptionError(f"{what} takes {' or '.join(wanted)}, not '{text}'")
    return text


def check_options(target: Any, options: dict[str, Any], what: str, skip: Sequence[str] = ()) -> None:
    """Raise `OptionError` naming the valid options when `target` does not take one of `options`."""
    parameters = inspect.signature(target).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    valid = [name for name in parameters if name not in skip]
    unknown = [name for name in options if name not in valid]
    if unknown:
        raise OptionError(f"{what} does not take {', '.join(unknown)}; it takes {', '.join(valid) or 'no options'}")
