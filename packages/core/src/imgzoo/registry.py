"""One registry for every kind of thing that plugins bring: names to specs. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, overload

from .discovery.added_weights import AddedWeights
from .discovery.distributions import canonical
from .discovery.find import RESERVED, Plugin
from .discovery.manager import Manager, manager, set_manager
from .errors import AmbiguousNameError, ImgzooDeprecationWarning, UnknownNameError, UsageError
from .rules import TEXT, complaint
from .specs import CommandSpec, ComponentSpec, HealthCheck, ModelSpec
from .text import NAME, natural, safe


class Kind(NamedTuple):
    """A kind of registered thing: what one is called, the hook that brings it, the type of its rows."""

    noun: str
    hook: str
    spec: type
    pattern: re.Pattern[str] = NAME
    """Names that the parsers of this kind can reach."""
    words: str = "letters, digits, '_' and '-'"


SCHEME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,199}")  # one letter is a drive
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[\w.-]+")
KINDS = {
    "models": Kind("model", "imgzoo_models", ModelSpec),
    "optimizers": Kind("optimizer", "imgzoo_optimizers", ComponentSpec),
    "schedulers": Kind("scheduler", "imgzoo_schedulers", ComponentSpec),
    "losses": Kind("loss", "imgzoo_losses", ComponentSpec),
    "transforms": Kind("transform", "imgzoo_transforms", ComponentSpec),
    "datasets": Kind("dataset", "imgzoo_datasets", ComponentSpec, SCHEME, "two letters, digits, '_' or '-', or more"),
    "loggers": Kind("logger", "imgzoo_loggers", ComponentSpec),
    "trainers": Kind("trainer", "imgzoo_trainers", ComponentSpec),
    "commands": Kind("command", "imgzoo_commands", CommandSpec),
    "health_checks": Kind("health check", "imgzoo_health_checks", HealthCheck),
}


class Registry:
    """All specs of one kind, by short name and by `plugin/name`.

    A short name means the plugin that `IMGZOO_PREFER` names, else imgzoo's own, else the only one that brings it.
    """

    def __init__(self, kind: str, plugins: Manager) -> None:
        self.kind, self.plugins = KINDS[kind], plugins
        self.rows: dict[str, dict[str, Any]] = {}
        """Short name -> plugin -> spec."""
        self.aliases: dict[str, dict[str, str]] = {}
        """Deprecated name -> plugin -> the name that replaces it."""
        self._listed: dict[str, Any] | None = None
        self._sound: Any = None
        for plugin, specs in plugins.collect(self.kind.hook, self._checked):
            for spec in specs:
                self.rows.setdefault(spec.name, {})[plugin.name] = spec
                for old, new in getattr(spec, "aliases", {}).items():
                    self.aliases.setdefault(old, {})[plugin.name] = new

    def _checked(self, plugin: Plugin, spec: Any) -> Any:
        """The spec with its plugin's name on it; a malformed one is a `TypeError` or `ValueError`."""
        if not isinstance(spec, self.kind.spec):
            raise TypeError(f"expected a {self.kind.spec.__name__}, got {type(spec).__name__}")
        row: Any = spec
        if not TEXT.holds(row.name):
            raise TypeError(f"the name of a {self.kind.noun} is text, not a {type(row.name).__name__}")
        if not self.kind.pattern.fullmatch(row.name):
            raise ValueError(f"'{safe(row.name[:80])}' is no name for a {self.kind.noun} ({self.kind.words})")
        if not TEXT.holds(row.target):
            raise TypeError(f"{row.name}: the target is text, not a {type(row.target).__name__}")
        if not TARGET.fullmatch(row.target):
            raise ValueError(f"{row.name}: target '{safe(row.target[:80])}' is not 'package.module:attribute'")
        wrong = complaint(row, self._sound)
        if wrong:
            raise TypeError(f"{row.name}: {wrong}")
        self._sound = row
        return row._make((*row[:-1], plugin.name))  # `plugin` is the last field; quicker than _replace

    def names(self) -> list[str]:
        """Every name that resolves, in natural order: short where one plugin owns it, qualified where it does not."""
        return list(self.listed())

    def specs(self) -> list[Any]:
        """Every spec, in the order of `names`."""
        return list(self.listed().values())

    def listed(self) -> dict[str, Any]:
        """Specs by the name to use for each; deprecated names are left out."""
        if self._listed is None:
            unsorted: dict[str, Any] = {}
            for name, rows in self.rows.items():
                owner = self.owner(self.owners(name))
                for plugin, spec in rows.items():
                    unsorted[name if plugin == owner else f"{plugin}/{name}"] = spec
            self._listed = {name: unsorted[name] for name in sorted(unsorted, key=natural)}
        return self._listed

    def owner(self, owners: Iterable[str], home: str = "") -> str | None:
        """The plugin that a short name means: the preferred, imgzoo's own, `home`, or the only one."""
        owners = list(owners)
        ours = [name for name in owners if name in RESERVED]
        if len(owners) == 1 or (ours and self.kind.noun == "command"):  # imgzoo's commands cannot be replaced
            return (ours or owners)[0]
        preferred = [name for name in owners if self._is_preferred(name)]
        if len(preferred) == 1:
            return preferred[0]
        return home if home in owners else (ours[0] if ours else None)

    def _is_preferred(self, name: str) -> bool:
        prefer = self.plugins.switches.prefer
        return bool(prefer) and any(
            prefer & {*map(canonical, plugin.names)} for plugin in self.plugins.plugins if plugin.name == name
        )

    def find(self, name: str) -> tuple[Any, str]:
        """The spec of `[plugin/]name` and, for a deprecated name, the name that replaces it."""
        found = self.lookup(name)
        if found is None:
            raise self.unknown(name)
        return found

    def lookup(self, name: str) -> tuple[Any, str] | None:
        """As `find`, with None for a name that nobody brings; an ambiguous one is an `AmbiguousNameError`."""
        prefix, _, short = name.rpartition("/")
        owners = self.owners(short)
        plugin = self._qualifier(prefix, short, owners) if prefix else self.owner(owners) if owners else ""
        if plugin is None:
            choices = ", ".join(f"{each}/{short}" for each in owners)
            raise AmbiguousNameError(f"several plugins bring the {self.kind.noun} '{short}': say one of {choices}")
        if plugin not in owners:
            return None
        current = plugin in self.rows.get(short, {})
        return owners[plugin], "" if current else self.aliases[short][plugin]

    def owners(self, short: str) -> dict[str, Any]:
        """What each plugin means by a short name; a deprecated name is as good as a current one."""
        rows = self.rows.get(short, {})
        if short not in self.aliases:
            return rows
        targets = {
            plugin: self.rows.get(new.partition(".")[0], {}).get(plugin) for plugin, new in self.aliases[short].items()
        }
        return {plugin: spec for plugin, spec in targets.items() if spec is not None} | rows

    def _qualifier(self, prefix: str, short: str, owners: Mapping[str, Any]) -> str:
        """The plugin that a prefix means; two distributions that claim it make it an `AmbiguousNameError`."""
        if prefix in owners:
            return prefix
        claimed = [plugin.name for plugin in self.plugins.named(prefix) if plugin.name in owners]
        if len(claimed) > 1:
            choices = ", ".join(f"{name}/{short}" for name in claimed)
            raise AmbiguousNameError(f"several distributions have a plugin '{prefix}': say one of {choices}")
        return claimed[0] if claimed else prefix

    def resolve(self, name: str) -> Any:
        """The spec of `name` or `plugin/name`; raises `UnknownNameError` or `AmbiguousNameError`."""
        spec, replacement = self.find(name)
        if replacement:
            warn_deprecated(name, replacement)
        return spec

    def unknown(self, name: str) -> UnknownNameError:
        """The error for a name that nobody brings: near names, failed plugins that may bring it, what to install."""
        from difflib import get_close_matches

        from .discovery.homes import home

        known = {each.lower(): each for each in (*self.listed(), *self.aliases)}
        typed = name.lower()
        near = [each for each in known if name and each.startswith(typed)][:3] or get_close_matches(typed, known, 3)
        hints = [f"did you mean {' or '.join(known[each] for each in near)}"] if near else []
        short = name.rpartition("/")[2]
        dist = home(self.kind.noun, short)
        for plugin in self.plugins.plugins:
            foreign = not plugin.first_party or plugin.dist == dist
            if foreign and plugin.state not in ("ok", "eager"):
                hints.append(f"plugin {plugin.title} may bring it, but it is '{plugin.state}': {safe(plugin.reason)}")
        if dist and not any(plugin.dist == dist for plugin in self.plugins.plugins):
            hints.append(f"{dist} brings such names: pip install {dist}")
        return UnknownNameError("; ".join([f"there is no {self.kind.noun} '{safe(name)}'", *hints]))

    def __contains__(self, name: str) -> bool:
        try:
            return self.lookup(name) is not None
        except AmbiguousNameError:
            return True


class Models(Registry):
    """The registry of architectures, with the weights that other plugins add to them."""

    def __init__(self, plugins: Manager) -> None:
        super().__init__("models", plugins)
        self.added = AddedWeights(self)


def warn_deprecated(old: str, new: str) -> None:
    import warnings

    warnings.warn(f"'{old}' is deprecated: say '{new}'", ImgzooDeprecationWarning, stacklevel=4)


@overload
def registry(kind: Literal["models"]) -> Models: ...


@overload
def registry(kind: str) -> Registry: ...


def registry(kind: str) -> Registry:
    """The registry of a kind (`models`, `optimizers`, ...), filled on first use."""
    if kind not in KINDS:
        raise UsageError(f"there is no kind '{safe(kind)}'; kinds are {', '.join(KINDS)}")
    host = manager()
    with host.lock:
        if kind not in host.registries:
            fill(host, kind)
            host.report()
        return host.registries[kind]


def fill(host: Manager, kind: str) -> Registry:
    """Ask the plugins of `host` for what they bring of a kind, unless they were asked before."""
    if kind not in host.registries:
        host.registries[kind] = Models(host) if kind == "models" else Registry(kind, host)
    return host.registries[kind]


def plugins() -> list[Plugin]:
    """Every installed plugin with its state, after each of its declaration hooks was called."""
    host = manager()
    for kind in KINDS:
        registry(kind)
    return list(host.plugins)


def register(plugin: Any, name: str) -> None:
    """Add a plugin object (a module or object with hook implementations) to this process, for tests and notebooks."""
    host = manager()
    with host.lock:
        host.add(plugin, name)


def reload() -> None:
    """Forget every plugin and discover again on next use."""
    set_manager(None)


def prefer(*names: str) -> None:
    """Let these plugins win clashes of short names, as `IMGZOO_PREFER` does."""
    host = manager()
    with host.lock:
        host.switches.prefer = frozenset(map(canonical, names))
        host.registries.clear()


__all__ = ["KINDS", "Registry", "plugins", "prefer", "register", "registry", "reload"]
