"""Which plugins the installed distributions declare, and by which names they go; runs no plugin code. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from imgzoo.text import safe, told

from .distributions import Distribution, canonical, name_and_version

GROUP = "imgzoo.plugins"
FIRST_PARTY = {  # distribution -> plugin; a name of this table belongs to that distribution alone
    "imgzoo-core": "core",
    "imgzoo-archs-cnn": "archs-cnn",
    "imgzoo-archs-transformer": "archs-transformer",
    "imgzoo-archs-efficientnet": "archs-efficientnet",
    "imgzoo-optim": "optim",
    "imgzoo-data": "data",
    "imgzoo-train": "train",
}
RESERVED = frozenset(FIRST_PARTY.values())
PLUGIN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


class Plugin:
    """One installed plugin: who brings it, its state, and why it is not used if it is not."""

    def __init__(self, name: str, dist: str = "", version: str = "", value: str = "") -> None:
        self.name = self.short_name = name
        self.dist, self.version, self.value = dist, version, value
        self.state, self.reason = "found", ""
        self.api: tuple[int, int] | None = None
        self.ms = 0.0
        """CPU time that importing the plugin and calling its hooks took."""
        self.hooks: list[str] = []
        self.items: dict[str, int] = {}
        self.broken: set[str] = set()
        """Declaration hooks that failed; the answers of its other hooks still count."""

    @property
    def first_party(self) -> bool:
        return FIRST_PARTY.get(self.dist) == self.name

    @property
    def names(self) -> tuple[str, str, str]:
        """What it goes by: its name here, the one it chose, its distribution's."""
        return self.name, self.short_name, self.dist

    @property
    def package(self) -> str:
        """The import package that holds the plugin module and its catalog."""
        return self.value.rpartition(".")[0]

    @property
    def title(self) -> str:
        """Name, distribution and version, for messages."""
        source = f"{self.dist} {self.version}".strip()
        return safe(self.name if source in ("", self.name) else f"{self.name} ({source})")

    def fail(self, state: str, reason: str) -> None:
        self.state, self.reason = state, reason

    def __str__(self) -> str:
        return f"plugin:{self.name}"

    def __repr__(self) -> str:
        return f"Plugin({self.title}: {self.state})"


def find_plugins(distributions: Iterable[Distribution]) -> list[Plugin]:
    """Plugins that the distributions declare, first-party first, then by name; runs no plugin code."""
    found: list[Plugin] = []
    seen: set[str] = set()
    for dist in distributions:
        declared = _declared(dist)
        if declared and declared[0].dist not in seen:  # the first copy on the path hides later ones, as in import
            seen.add(declared[0].dist)
            found += declared
    return sorted(found, key=_order)


def _order(plugin: Plugin) -> tuple[bool, str, str]:
    return not plugin.first_party, plugin.name, plugin.dist


def _declared(dist: Distribution) -> list[Plugin]:
    """Plugins of one distribution; what cannot be read becomes an `unreadable` row."""
    try:
        text = dist.read_text("entry_points.txt") or ""
    except Exception as error:
        return [_unreadable(_folder_name(dist), "", f"entry_points.txt: {told(error)}")]
    if GROUP not in text:
        return []

    name, version = name_and_version(dist)
    if not name:
        return [_unreadable(_folder_name(dist), "", "its METADATA is missing: reinstall it")]
    plugins: list[Plugin] = []
    for line in _group_lines(text):
        plugin_name, _, value = (part.strip() for part in line.partition("="))
        if PLUGIN_NAME.fullmatch(plugin_name) and MODULE.fullmatch(value):
            plugins.append(Plugin(plugin_name, name, version, value))
        else:
            plugins.append(_unreadable(name, version, f"entry point '{line}' is not 'plugin-name = package.module'"))
    return plugins


def _unreadable(dist: str, version: str, reason: str) -> Plugin:
    plugin = Plugin(dist, dist, version)
    plugin.fail("unreadable", reason)
    return plugin


def _folder_name(dist: Distribution) -> str:
    folder = os.path.basename(str(getattr(dist, "_path", "")))
    return canonical(folder.partition("-")[0]) or "a distribution"


def _group_lines(text: str) -> Iterator[str]:
    """Rows of the section `[imgzoo.plugins]`; what stands in other sections does not matter."""
    inside = False
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            inside = line == f"[{GROUP}]"
        elif inside and line and line[0] not in "#;":
            yield line


def settle_names(plugins: list[Plugin]) -> None:
    """Keep first-party names for imgzoo; plugins that claim one name each go by their distribution's name."""
    candidates = [plugin for plugin in plugins if plugin.state == "found"]
    claims: dict[str, set[str]] = {}
    for plugin in candidates:
        claims.setdefault(plugin.name, set()).add(plugin.dist)

    forced = {plugin.dist for plugin in candidates if len(claims[plugin.name]) > 1}
    taken: set[str] = set()
    for plugin in candidates:
        if plugin.name in RESERVED and not plugin.first_party:
            plugin.fail("name-taken", f"the plugin name '{plugin.name}' belongs to imgzoo")
            continue
        contested = len(claims[plugin.name]) > 1
        plugin.name = plugin.dist if contested else plugin.name
        chosen = not contested and plugin.name in forced - {plugin.dist}  # what another has to be called
        if chosen or plugin.name in taken or (plugin.name in RESERVED and not plugin.first_party):
            plugin.fail("name-taken", f"another plugin goes by the name '{plugin.name}'")
        else:
            taken.add(plugin.name)


def find_module(module: str) -> ModuleSpec | None:
    """Where a module is, None if there is none; its parent packages are not imported."""
    places: Any = None
    spec = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), places)
        if spec is None:
            return None
        places = spec.submodule_search_locations
    return spec


def api_in_text(module: str) -> tuple[int, int] | None:
    """The `IMGZOO_API` that the source of a module states, found without importing anything; None if it states none."""
    spec = find_module(module)
    try:
        text = Path(spec.origin or "").read_text("utf-8") if spec else ""
    except (OSError, ValueError):
        return None
    stated = re.search(r"^IMGZOO_API\b[^=\n]*=[\s(]*(\d{1,9})\s*,\s*(\d{1,9})\b", text, re.MULTILINE)
    return (int(stated[1]), int(stated[2])) if stated else None
