"""One registry for every kind of thing that plugins bring: names to specs. No torch."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from . import _discovery
from ._discovery import Manager, Plugin, manager
from .errors import AmbiguousNameError, PluginError, UnknownNameError, UsageError
from .specs import CommandSpec, ComponentSpec, HealthCheck, ModelSpec, WeightSpec

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Kind(NamedTuple):
    """A kind of registered thing: the hook that brings it and the type of its rows."""

    noun: str
    hook: str
    spec: type


KINDS = {
    "models": Kind("model", "imgzoo_models", ModelSpec),
    "optimizers": Kind("optimizer", "imgzoo_optimizers", ComponentSpec),
    "schedulers": Kind("scheduler", "imgzoo_schedulers", ComponentSpec),
    "losses": Kind("loss", "imgzoo_losses", ComponentSpec),
    "transforms": Kind("transform", "imgzoo_transforms", ComponentSpec),
    "datasets": Kind("dataset", "imgzoo_datasets", ComponentSpec),
    "loggers": Kind("logger", "imgzoo_loggers", ComponentSpec),
    "trainers": Kind("trainer", "imgzoo_trainers", ComponentSpec),
    "commands": Kind("command", "imgzoo_commands", CommandSpec),
    "health_checks": Kind("health check", "imgzoo_health_checks", HealthCheck),
}


class Registry:
    """All specs of one kind, by short and by qualified name."""

    def __init__(self, kind: str, plugins: Manager) -> None:
        self.kind, self.plugins = KINDS[kind], plugins
        self.rows: dict[str, dict[str, Any]] = {}  # short name -> plugin name -> spec
        for plugin, specs in plugins.collect(self.kind.hook, self._checked):
            for spec in specs:
                self.rows.setdefault(spec.name, {})[plugin.name] = spec
        plugins.report()

    def _checked(self, plugin: Plugin, spec: Any) -> Any:
        """The spec with its plugin's name on it; a malformed one is a `TypeError` or `ValueError`."""
        if not isinstance(spec, self.kind.spec):
            raise TypeError(f"expected a {self.kind.spec.__name__}, got {type(spec).__name__}")
        row: Any = spec
        if not NAME.fullmatch(row.name):
            raise ValueError(f"'{row.name}' is no {self.kind.noun} name (letters, digits, '_' and '-')")
        if ":" not in row.target:
            raise ValueError(f"{row.name}: target '{row.target}' is not 'package.module:attribute'")
        return row._replace(plugin=plugin.name)

    def names(self) -> list[str]:
        """Every name that resolves, sorted: short where it is owned, qualified where plugins clash."""
        return sorted(self._listed())

    def specs(self) -> list[Any]:
        """Every spec, in the order of `names`."""
        listed = self._listed()
        return [listed[name] for name in sorted(listed)]

    def _listed(self) -> dict[str, Any]:
        listed: dict[str, Any] = {}
        for name, owners in self.rows.items():
            owner = self._owner(owners)
            for plugin, spec in owners.items():
                listed[name if plugin == owner else f"{plugin}/{name}"] = spec
        return listed

    def _owner(self, owners: dict[str, Any]) -> str | None:
        """The plugin that a short name means: the preferred, the first-party, or the only one."""
        if len(owners) == 1:
            return next(iter(owners))
        preferred = [name for name in owners if name in self.plugins.switches.prefer]
        if len(preferred) == 1:
            return preferred[0]
        ours = [name for name in owners if name in _discovery.FIRST_PARTY.values()]
        return ours[0] if ours else None

    def resolve(self, name: str) -> Any:
        """The spec of `name` or `plugin/name`; raises `UnknownNameError` or `AmbiguousNameError`."""
        plugin, _, short = name.rpartition("/")
        owners = self.rows.get(short, {})
        if plugin:
            if plugin in owners:
                return owners[plugin]
        elif owners:
            owner = self._owner(owners)
            if owner is not None:
                return owners[owner]
            choices = ", ".join(f"{each}/{short}" for each in owners)
            raise AmbiguousNameError(f"several plugins bring the {self.kind.noun} '{short}': say one of {choices}")
        raise self.unknown(name)

    def unknown(self, name: str) -> UnknownNameError:
        """The error for a name that nobody brings, with near names."""
        from difflib import get_close_matches

        near = get_close_matches(name, list(self._listed()), 3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        return UnknownNameError(f"there is no {self.kind.noun} '{name}'{hint}")

    def __contains__(self, name: str) -> bool:
        try:
            self.resolve(name)
        except AmbiguousNameError:
            return True
        except UnknownNameError:
            return False
        return True


_registries: dict[tuple[int, str], Registry] = {}


def registry(kind: str) -> Registry:
    """The registry of a kind (`models`, `optimizers`, ...), filled on first use."""
    if kind not in KINDS:
        raise UsageError(f"there is no kind '{kind}'; kinds are {', '.join(KINDS)}")
    plugins = manager()
    with plugins.lock:
        key = (id(plugins), kind)
        if key not in _registries:
            _registries[key] = Registry(kind, plugins)
        return _registries[key]


def plugins() -> list[Plugin]:
    """Every installed plugin with its state."""
    return list(manager().plugins)


def register(plugin: Any, name: str) -> None:
    """Add a plugin object (a module or class with hook implementations) to this process, for tests and notebooks."""
    host = manager()
    with host.lock:
        if any(each.name == name for each in host.plugins):
            raise PluginError(f"there is a plugin '{name}' already")
        host.hooks.register(plugin, name)
        info = Plugin(name, value=getattr(plugin, "__name__", type(plugin).__name__))
        info.state = "ok"
        info.hooks = sorted(hook.name for hook in host.hooks.get_hookcallers(plugin) or ())
        host.plugins.append(info)
        _registries.clear()


def reload() -> None:
    """Forget every plugin and discover again on next use."""
    _discovery.set_manager(None)
    _registries.clear()


def prefer(*names: str) -> None:
    """Let these plugins win clashes of short names, as `IMGZOO_PREFER` does."""
    manager().switches.prefer = frozenset(names)


__all__ = ["KINDS", "Registry", "WeightSpec", "plugins", "prefer", "register", "registry", "reload"]
