"""Load plugins and ask their hooks; one broken plugin never takes another down. No torch."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import pluggy

from imgzoo import hookspecs
from imgzoo.errors import IncompatiblePluginError, PluginError
from imgzoo.guard import attempt
from imgzoo.plugin import API
from imgzoo.text import safe, told

from .distributions import Distribution, canonical, installed, version
from .find import PLUGIN_NAME, RESERVED, Plugin, api_in_text, find_plugins, settle_names
from .switches import Switches
from .watch import Watch, way_out

TROUBLE = ("incompatible", "name-taken", "error", "unreadable")
HEAVY = ("torch", "numpy", "PIL", "huggingface_hub")


class Manager:
    """All plugins of one process: found once, loaded once, asked hook by hook.

    `distributions` (default: those installed) and `environ` (default: the process's) make a manager for a test.
    With `IMGZOO_STRICT` set, trouble of any plugin is a `PluginError`.
    """

    def __init__(
        self,
        distributions: Iterable[Distribution] | None = None,
        environ: Mapping[str, str] | None = None,
        strict: bool | None = None,
    ) -> None:
        self.switches = Switches(os.environ if environ is None else environ)
        if strict is not None:
            self.switches.strict = strict
        self.watch = Watch(self.switches.timeout)
        self.hooks = pluggy.PluginManager("imgzoo")
        self.hooks.add_hookspecs(hookspecs)
        self.declarations = frozenset(name for name in vars(hookspecs) if _is_declaration(name))
        self.registries: dict[str, Any] = {}
        self.lock = threading.RLock()
        self._reported = self._reported_switches = False

        self.plugins = [Plugin("core", "imgzoo-core", version("imgzoo-core"), "imgzoo._plugin")]
        self.plugins += find_plugins(installed() if distributions is None else distributions)
        settle_names(self.plugins)
        modules = {plugin.name: self._import(plugin) for plugin in self.plugins if plugin.state == "found"}
        loaded = [plugin for plugin in self.plugins if modules.get(plugin.name)]
        for plugin in loaded:  # specifications first, so that a wrong implementation is its own plugin's fault
            self._guarded(plugin, lambda plugin=plugin: self._add_hooks(modules[plugin.name]))
        for plugin in loaded:
            if plugin.state not in TROUBLE:
                self._guarded(plugin, lambda plugin=plugin: self._register(plugin, modules[plugin.name]))

        bad = self.troubled("eager")
        if self.switches.strict and bad:
            raise PluginError(f"plugin {bad[0].title} is {bad[0].state}: {safe(bad[0].reason)}")

    def _import(self, plugin: Plugin) -> Any:
        """The plugin's module, None when it may not or cannot be used."""
        refusal = self.switches.refusal(plugin)
        if refusal:
            plugin.fail("disabled", refusal)
            return None
        return self._guarded(plugin, lambda: self._checked_import(plugin))

    def _checked_import(self, plugin: Plugin) -> Any:
        module, error = attempt(lambda: importlib.import_module(plugin.value))
        if error is not None:
            stated = api_in_text(plugin.value)  # a plugin for a newer core may ask for what this one lacks
            if stated is not None:
                self._check_api(plugin, stated)
            raise error
        self._check_api(plugin, getattr(module, "IMGZOO_API", None))
        return module

    def _check_api(self, plugin: Plugin, api: Any) -> None:
        match api:
            case (int(major), int(minor)) if 0 <= major < 1e9 and 0 <= minor < 1e9:
                plugin.api = major, minor
            case _:
                raise IncompatiblePluginError(f"{plugin.value} declares no IMGZOO_API = (major, minor)")
        theirs, ours = f"{major}.{minor}", f"{API[0]}.{API[1]}"
        if major < API[0]:
            raise IncompatiblePluginError(f"written for plugin API {theirs}, this is {ours}: upgrade {plugin.dist}")
        if plugin.api > API:
            raise IncompatiblePluginError(f"needs plugin API {theirs}, this is {ours}: pip install -U imgzoo-core")

    def _add_hooks(self, module: Any) -> None:
        if self.hooks.parse_hookimpl_opts(module, "imgzoo_addhooks") is not None:
            module.imgzoo_addhooks(pluginmanager=self.hooks)

    def _register(self, plugin: Plugin, module: Any) -> None:
        self.hooks.register(module, plugin.name)
        callers = self.hooks.get_hookcallers(module) or []
        for caller in callers:
            wraps = any(impl.plugin is module and (impl.wrapper or impl.hookwrapper) for impl in caller.get_hookimpls())
            if wraps and caller.name in self.declarations:
                raise TypeError(f"{caller.name} declares things: it cannot be a wrapper")
        plugin.hooks = sorted(caller.name for caller in callers)
        if plugin.state == "found":
            plugin.state = "ok"

    def _guarded(self, plugin: Plugin, action: Callable[[], Any]) -> Any:
        """The action's result; on failure the plugin is out and the result None. Its prints go to stderr."""
        light = [name for name in HEAVY if name not in sys.modules]
        answer, error = self._attempt(plugin, action)
        if error is not None:
            incompatible = isinstance(error, IncompatiblePluginError)
            plugin.fail("incompatible" if incompatible else "error", str(error) if incompatible else told(error))
            if self.hooks.has_plugin(plugin.name):
                self.hooks.unregister(name=plugin.name)
            if self.switches.strict:
                raise PluginError(f"plugin {plugin.title}: {safe(plugin.reason)}") from error
        self._note_heavy(plugin, light)
        return answer

    def _attempt(self, plugin: Plugin, action: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        """As `attempt`, with the plugin watched, timed, and named when Ctrl-C stops it."""

        def watched() -> Any:
            with contextlib.redirect_stdout(sys.stderr), self.watch.over(plugin):
                return action()

        started = time.process_time()
        try:
            return attempt(watched)
        except KeyboardInterrupt:
            print(f"imgzoo: stopped in plugin {plugin.title} ({way_out(plugin)})", file=sys.stderr)
            raise
        finally:
            plugin.ms += (time.process_time() - started) * 1000

    def _note_heavy(self, plugin: Plugin, light: list[str], where: str = "when it is discovered") -> None:
        heavy = [name for name in light if name in sys.modules]
        if heavy and plugin.state in ("found", "ok"):
            plugin.fail("eager", f"imports {', '.join(heavy)} {where}")

    def collect(self, hook: str, check: Callable[[Plugin, Any], Any]) -> Iterator[tuple[Plugin, list[Any]]]:
        """Each plugin's answer to a declaration hook, checked item by item; an answer counts whole or not at all."""
        answers = {impl.plugin_name: impl.function for impl in getattr(self.hooks.hook, hook).get_hookimpls()}
        for plugin in self.plugins:
            if plugin.name not in answers or hook in plugin.broken:
                continue
            light = [name for name in HEAVY if name not in sys.modules]
            items, error = self._attempt(plugin, partial(_answer, plugin, answers[plugin.name], check))
            if error is not None:
                plugin.broken.add(hook)
                plugin.fail("error", f"{hook}: {told(error)}")
                if self.switches.strict:
                    raise PluginError(f"plugin {plugin.title}: {safe(plugin.reason)}") from error
                continue
            self._note_heavy(plugin, light, f"in {hook}")
            plugin.items[hook] = len(items)
            yield plugin, items

    def each(self, hook: str, **values: Any) -> Iterator[tuple[Plugin, Any, BaseException | None]]:
        """Each plugin's answer to an action hook, or what it failed with; the plugin that came last is asked first."""
        caller = getattr(self.hooks.hook, hook, None)
        names: set[str] = {impl.plugin_name for impl in caller.get_hookimpls()} if caller is not None else set()
        for plugin in reversed(self.plugins) if names else ():
            if plugin.name not in names:
                continue
            others = [self.hooks.get_plugin(name) for name in names - {plugin.name}]
            answer, error = attempt(partial(self.hooks.subset_hook_caller(hook, others), **values))
            yield plugin, answer, error

    def tell(self, hook: str, **values: Any) -> None:
        """Call an action hook; a plugin that fails is named in the log, or with `IMGZOO_STRICT` in a `PluginError`."""
        for plugin, _, error in self.each(hook, **values):
            if error is not None and self.switches.strict:
                raise PluginError(f"plugin {plugin.title} failed at {hook}: {safe(told(error))}") from error
            if error is not None:
                _log(f"imgzoo: plugin {plugin.title} failed at {hook}: {safe(told(error))}")

    def troubled(self, *more: str) -> list[Plugin]:
        """Plugins that cannot be used as they should."""
        return [plugin for plugin in self.plugins if plugin.state in (*TROUBLE, *more)]

    def report(self) -> None:
        """Say once, in one line on stderr, which installed plugins cannot be used."""
        failed = self.troubled()
        if failed and not self._reported:
            self._reported = True
            rows = "; ".join(f"{plugin.title}: {safe(plugin.reason)}" for plugin in failed)
            count = "1 plugin has" if len(failed) == 1 else f"{len(failed)} plugins have"
            _log(f"imgzoo: {count} trouble: {rows}. Run 'imgzoo doctor'.")
        if not self._reported_switches:
            self._reported_switches = True
            for switch, names in self.switches.named().items():
                for name in sorted(names):
                    if not self.named(name):
                        _log(f"imgzoo: {switch} names '{safe(name)}', and there is no such plugin")

    def named(self, name: str) -> list[Plugin]:
        """Plugins that go by this name, by their own choice or by their distribution, in any spelling."""
        wanted = canonical(name)
        return [plugin for plugin in self.plugins if wanted in {*map(canonical, plugin.names)}]

    def add(self, module: Any, name: str) -> None:
        """Register a plugin object by hand."""
        if name in RESERVED or not PLUGIN_NAME.fullmatch(name) or self.named(name):
            raise PluginError(f"the plugin name '{safe(name)}' is taken or malformed")
        self._add_hooks(module)
        plugin = Plugin(name, value=getattr(module, "__name__", type(module).__name__))
        self._register(plugin, module)
        self.plugins.append(plugin)
        self.registries.clear()


def _log(message: str) -> None:
    """A log line, not a warning: where warnings are errors, a broken plugin must not be one."""
    import logging

    logging.getLogger("imgzoo").warning("%s", message)


def _is_declaration(hook: str) -> bool:
    actions = ("imgzoo_fetch", "imgzoo_model_created", "imgzoo_addhooks")
    return hook.startswith("imgzoo_") and hook not in actions


def _answer(plugin: Plugin, hook: Callable[[], Iterable[Any] | None], check: Callable[[Plugin, Any], Any]) -> list[Any]:
    items = [check(plugin, item) for item in hook() or ()]
    _refuse_twins(items)
    return items


def _refuse_twins(items: list[Any]) -> None:
    seen: set[Any] = set()
    for item in items:
        key = (getattr(item, "name", None), getattr(item, "arch", None), getattr(item, "tag", None))
        if key in seen:
            raise ValueError(f"'{next(part for part in key if part)}' is there twice")
        seen.add(key)


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
        importlib.invalidate_caches()
        return old
