"""Installed distributions: a quick reader for discovery, and the full library for the few who need more.

Only here is `importlib_metadata` imported. That takes a fourth of the time of `imgzoo list`, so discovery reads the
`.dist-info` folders on the path itself, and falls back where the path holds something else (archives, own finders).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from typing import Any, Protocol

from imgzoo.text import natural


class Distribution(Protocol):
    """What discovery needs of a distribution; those of `importlib_metadata` have it."""

    def read_text(self, filename: str, /) -> str | None: ...


class Folder:
    """A `.dist-info` folder on disk."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def read_text(self, filename: str) -> str | None:
        try:
            with open(os.path.join(self._path, filename), encoding="utf-8", errors="replace") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None


def installed() -> Iterator[Distribution]:
    """Distributions on `sys.path`, in its order; within a folder by name, of one name the newest first."""
    if any(_finds_distributions(finder) for finder in sys.meta_path):
        yield from library().distributions()
        return
    for place in dict.fromkeys(sys.path):
        try:
            names = sorted(os.listdir(place or "."))
        except NotADirectoryError:
            yield from library().distributions(path=[place])
            continue
        except OSError:
            continue
        found = [name for name in names if name.endswith((".dist-info", ".egg-info"))]
        if len({name.partition("-")[0] for name in found}) < len(found):  # an upgrade that left its former self behind
            found.sort(key=natural, reverse=True)
            found.sort(key=lambda name: name.partition("-")[0])
        for name in found:
            yield Folder(os.path.join(place, name))


def _finds_distributions(finder: Any) -> bool:
    """Whether a finder of the import system knows distributions that are not folders on the path."""
    kind = finder if isinstance(finder, type) else type(finder)
    known = kind is PathFinder or kind.__module__.startswith("importlib_metadata")
    return not known and hasattr(finder, "find_distributions")


def library() -> Any:
    """The module `importlib_metadata`."""
    import importlib_metadata

    return importlib_metadata


def canonical(dist_name: str) -> str:
    """The comparable form of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", dist_name).lower()


def name_and_version(dist: Distribution) -> tuple[str, str]:
    """Canonical name and version of a distribution, empty when its METADATA cannot be read."""
    try:
        metadata = dist.read_text("METADATA") or dist.read_text("PKG-INFO") or ""
    except Exception:
        return "", ""
    name, version = (re.search(rf"^{key}:[ \t]*(\S+)", metadata, re.MULTILINE) for key in ("Name", "Version"))
    return canonical(name[1]) if name else "", version[1] if version else ""


def version(name: str) -> str:
    """Version of the distribution that is installed under a name, "0+unknown" where none is."""
    wanted = canonical(name)
    for dist in installed():
        if isinstance(dist, Folder) and not canonical(os.path.basename(dist._path)).startswith(wanted):
            continue  # its METADATA need not be read
        found, told = name_and_version(dist)
        if found == wanted:
            return told
    return "0+unknown"
