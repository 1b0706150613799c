"""Find, check and load plugins; one broken plugin never takes another down. No torch."""

from __future__ import annotations

import importlib
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import importlib_metadata
import pluggy

from . import hookspecs
from .errors import IncompatiblePluginError, PluginError
from .plugin import API

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
TROUBLE = ("incompatible", "name-taken", "error", "unreadable")
PLUGIN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
ROW = re.compile(r"([^=\[\]\s][^=]*?)\s*=\s*([A-Za-z_][\w.]*)(?:\s*\[.*\])?", re.ASCII)


class Plugin:
    """One installed plugin: who brings it, its state, and why it is not used if it is not."""

    __slots__ = ("api", "dist", "hooks", "items", "ms", "name", "reason", "short_name", "state", "value", "version")

    def __init__(self, name: str, dist: str = "", version: str = "", value: str = "") -> None:
        self.name = self.short_name = name
        self.dist, self.version, self.value = dist, version, value
        self.state, self.reason = "found", ""
        self.api: tuple[int, int] | None = None
        self.ms = 0.0
        self.hooks: list[str] = []
        self.items: dict[str, int] = {}

    @property
    def first_party(self) -> bool:
        return FIRST_PARTY.get(self.dist) == self.name

    @property
    def usable(self) -> bool:
        return self.state in ("ok", "eager")

    def fail(self, state: str, reason: str) -> None:
        self.state, self.reason = state, reason

    def __repr__(self) -> str:
        return f"Plugin({self.name!r}, {self.dist} {self.version}, {self.state})"


def canonical(dist_name: str) -> str:
    """The comparable form of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", dist_name).lower()


def find_plugins(distributions: Iterable[Any]) -> list[Plugin]:
    """Plugins that the distributions declare, first-party first, then by name; runs no plugin code."""
    found: dict[tuple[str, str], Plugin] = {}
    for dist in distributions:
        for plugin in _declared(dist):
            found.setdefault((plugin.dist, plugin.name), plugin)  # the first on the path hides later copies
    return sorted(found.values(), key=_order)


def _order(plugin: Plugin) -> tuple[bool, str, str]:
    return not plugin.first_party, plugin.name, plugin.dist


def _declared(dist: Any) -> list[Plugin]:
    """Plugins of one distribution; a distribution that cannot be read becomes one `unreadable` row."""
    try:
        text = dist.read_text("entry_points.txt") or ""
    except Exception as error:
        return [_unreadable(_folder_name(dist), "", f"entry_points.txt: {type(error).__name__}: {error}")]
    if GROUP not in text:
        return []

    try:
        metadata = dist.read_text("METADATA") or dist.read_text("PKG-INFO") or ""
    except Exception:
        metadata = ""
    name, version = (_header(metadata, key) for key in ("Name", "Version"))
    if not name:
        return [_unreadable(_folder_name(dist), "", "its METADATA is missing; reinstall it")]
    name = canonical(name)

    plugins = []
    for line in _group_lines(text):
        match = ROW.fullmatch(line)
        if match is None or not PLUGIN_NAME.fullmatch(match[1]):
            plugins.append(_unreadable(name, version, f"entry point '{line}' is not 'plugin-name = package.module'"))
        else:
            plugins.append(Plugin(match[1], name, version, match[2]))
    return plugins


def _unreadable(dist: str, version: str, reason: str) -> Plugin:
    plugin = Plugin(dist, dist, version)
    plugin.fail("unreadable", reason)
    return plugin


def _folder_name(dist: Any) -> str:
    folder = os.path.basename(str(getattr(dist, "_path", ""))) or "a distribution"
    return canonical(folder.partition("-")[0])


def _header(metadata: str, key: str) -> str:
    match = re.search(rf"^{key}:[ \t]*(\S+)", metadata, re.MULTILINE | re.IGNORECASE)
    return match[1] if match else ""


def _group_lines(text: str) -> Iterator[str]:
    """Rows of the section `[imgzoo.plugins]`; what stands in other sections does not matter."""
    inside = False
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            inside = line == f"[{GROUP}]"
        elif inside and line and line[0] not in "#;":
            yield line


class Switches:
    """Which plugins may load, from the environment; read before anything of a plugin is imported."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        allowed = environ.get("IMGZOO_PLUGINS")
        self.allowed = None if allowed is None else _names(allowed)
        self.denied = _names(environ.get("IMGZOO_DISABLE_PLUGINS", ""))
        self.prefer = _names(environ.get("IMGZOO_PREFER", ""))
        self.strict = environ.get("IMGZOO_STRICT", "") not in ("", "0")
        self.first_party_only = environ.get("IMGZOO_NO_PLUGINS", "") not in ("", "0")

    def refusal(self, plugin: Plugin) -> str:
        """Why the plugin may not load; empty when it may."""
        names = {plugin.name, plugin.short_name, plugin.dist}
        if self.first_party_only and not plugin.first_party:
            return "--no-plugins"
        if self.denied & names:
            return "IMGZOO_DISABLE_PLUGINS names it"
        if self.allowed is not None and not self.allowed & names:
            return "IMGZOO_PLUGINS does not name it"
        return ""


def _names(text: str) -> frozenset[str]:
    return frozenset(re.split(r"[\s,]+", text.strip())) - {""}


class Manager:
    """All plugins of one process: found once, loaded once, asked hook by hook."""

    def __init__(self, distributions: Iterable[Any] | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.switches = Switches(os.environ if environ is None else environ)
        self.hooks = pluggy.PluginManager("imgzoo")
        self.hooks.add_hookspecs(hookspecs)
        self.plugins: list[Plugin] = []
        self.lock = threading.RLock()
        self._reported = False
        self._load_core()
        for plugin in find_plugins(importlib_metadata.distributions() if distributions is None else distributions):
            self.plugins.append(plugin)
        self._settle_names()
        for plugin in self.plugins:
            if plugin.state == "found":
                self._load(plugin)
        self.hooks.hook.imgzoo_addhooks.call_historic(kwargs={"pluginmanager": self.hooks})

    def _load_core(self) -> None:
        from . import __version__

        core = Plugin("core", "imgzoo-core", __version__, "imgzoo._plugin")
        self.plugins.append(core)
        self._load(core)

    def _settle_names(self) -> None:
        """Reserve first-party names; plugins that claim one name each go by their distribution's name."""
        reserved = set(FIRST_PARTY.values())
        claims: dict[str, list[Plugin]] = {}
        for plugin in self.plugins:
            if plugin.state == "found":
                claims.setdefault(plugin.name, []).append(plugin)
        for name, rivals in claims.items():
            for plugin in rivals:
                if name in reserved and not plugin.first_party:
                    plugin.fail("name-taken", f"the plugin name '{name}' belongs to imgzoo")
                elif len(rivals) > 1:
                    plugin.name = plugin.dist
        taken: set[str] = set()
        for plugin in self.plugins:
            if plugin.state != "found":
                continue
            if plugin.name in taken or (plugin.name in reserved and not plugin.first_party):
                plugin.fail("name-taken", f"another plugin goes by the name '{plugin.name}'")
            taken.add(plugin.name)

    def _load(self, plugin: Plugin) -> None:
        refusal = self.switches.refusal(plugin)
        if refusal and plugin.name != "core":
            plugin.fail("disabled", refusal)
            return
        had_torch = "torch" in sys.modules
        started = time.perf_counter()
        try:
            module = importlib.import_module(plugin.value)
            self._check_api(plugin, module)
            self.hooks.register(module, plugin.name)
            plugin.state = "ok"
        except IncompatiblePluginError as error:
            self._failed(plugin, "incompatible", error, str(error))
        except (Exception, SystemExit) as error:
            self._failed(plugin, "error", error, f"{type(error).__name__}: {error}")
        plugin.ms = (time.perf_counter() - started) * 1000
        if plugin.usable:
            plugin.hooks = sorted(hook.name for hook in self.hooks.get_hookcallers(module) or ())
            if not had_torch and "torch" in sys.modules:
                plugin.fail("eager", "imports torch when it is discovered")

    def _check_api(self, plugin: Plugin, module: Any) -> None:
        api = getattr(module, "IMGZOO_API", None)
        if not (isinstance(api, tuple) and len(api) == 2 and all(isinstance(part, int) for part in api)):
            raise IncompatiblePluginError(f"{plugin.value} declares no IMGZOO_API = (major, minor)")
        plugin.api = api
        text, ours = ".".join(map(str, api)), ".".join(map(str, API))
        if api[0] < API[0]:
            raise IncompatiblePluginError(f"written for plugin API {text}, this is {ours}: upgrade {plugin.dist}")
        if api > API:
            raise IncompatiblePluginError(f"needs plugin API {text}, this is {ours}: pip install -U imgzoo-core")

    def _failed(self, plugin: Plugin, state: str, error: BaseException, reason: str) -> None:
        plugin.fail(state, reason)
        if self.hooks.has_plugin(plugin.name):
            self.hooks.unregister(name=plugin.name)
        if self.switches.strict:
            raise PluginError(f"plugin '{plugin.name}' ({plugin.dist} {plugin.version}): {reason}") from error

    def collect(self, hook: str, check: Any) -> Iterator[tuple[Plugin, list[Any]]]:
        """Each plugin's answer to a declaration hook, checked item by item; its items count all or not at all."""
        answers = {impl.plugin_name: impl.function for impl in getattr(self.hooks.hook, hook).get_hookimpls()}
        for plugin in self.plugins:
            if not plugin.usable or plugin.name not in answers:
                continue
            had_torch = "torch" in sys.modules
            try:
                items = [check(plugin, item) for item in answers[plugin.name]() or ()]
            except (Exception, SystemExit) as error:
                self._failed(plugin, "error", error, f"{hook}: {type(error).__name__}: {error}")
                continue
            if not had_torch and "torch" in sys.modules:
                plugin.fail("eager", f"{hook} imports torch")
            plugin.items[hook] = len(items)
            yield plugin, items

    def troubled(self) -> list[Plugin]:
        return [plugin for plugin in self.plugins if plugin.state in TROUBLE]

    def report(self) -> None:
        """Say once, in one line on stderr, about plugins that are installed and cannot be used."""
        failed = self.troubled()
        if failed and not self._reported:
            self._reported = True
            rows = "; ".join(f"{plugin.name} {plugin.version}: {plugin.reason}" for plugin in failed)
            noun = "plugin" if len(failed) == 1 else "plugins"
            import logging  # a log line, not a warning: one broken plugin must not fail a run with warnings as errors

            logging.getLogger("imgzoo").warning(
                "imgzoo: %d %s not loaded (%s). Run 'imgzoo doctor'.", len(failed), noun, rows
            )


_manager: Manager | None = None
_lock = threading.RLock()


def manager() -> Manager:
    """The process's plugin manager; the first call discovers."""
    global _manager
    with _lock:
        if _manager is None:
            _manager = Manager()
        return _manager


def set_manager(new: Manager | None) -> Manager | None:
    """Put another manager in place (None: discover again on next use); returns the former one."""
    global _manager
    with _lock:
        old, _manager = _manager, new
        return old
