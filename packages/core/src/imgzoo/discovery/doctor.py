"""The checks of `imgzoo doctor`: what is wrong with the installed plugins, and what to do. No torch unless `deep`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from imgzoo.guard import attempt
from imgzoo.registry import KINDS, fill
from imgzoo.text import told

from .distributions import canonical, library, name_and_version
from .find import GROUP, Plugin, find_module
from .manager import TROUBLE, Manager

SLOW_MS = 100
LEVELS = ("ok", "warning", "error")

Finding = tuple[str, str, str]
"""Level, plugin (or other subject), message."""


class Finished(NamedTuple):
    """A finding with the check that made it."""

    level: str
    check: str
    subject: str
    message: str


def examine(
    host: Manager, deep: bool = False, names: tuple[str, ...] = (), only: tuple[str, ...] = ()
) -> list[Finished]:
    """Run the checks, or `only` those; keep rows named by `names` (a check, or the plugin that they speak of).

    A check that dies is an error.
    """
    for kind in KINDS:
        fill(host, kind)
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        name: (lambda check=check: check(host)) for name, check in CHECKS.items()
    }
    if deep:
        checks["targets"] = lambda: check_targets_deep(host)
    for name, spec in _added(host).items():
        checks[name] = lambda spec=spec: _contributed(spec)

    found = [row for name, check in checks.items() if not only or name in only for row in _run(name, check)]
    return [row for row in found if not names or row.check in names or row.subject in names]


def known_names(host: Manager) -> set[str]:
    """What `examine(names=...)` accepts."""
    checks = {*CHECKS, *_added(host)}
    return checks | {plugin.name for plugin in host.plugins}


def _added(host: Manager) -> dict[str, Any]:
    """Checks of plugins; one that is called as a check of imgzoo is `plugin/name`."""
    rows = host.registries["health_checks"].listed()
    return {f"{spec.plugin}/{name}" if name in {*CHECKS, "targets"} else name: spec for name, spec in rows.items()}


def _run(name: str, check: Callable[[], Iterator[Finding]]) -> list[Finished]:
    rows, error = attempt(lambda: [Finished(level, name, subject, message) for level, subject, message in check()])
    if error is not None:
        return [Finished("error", name, "", f"the check itself failed: {told(error)}")]
    return rows or [Finished("ok", name, "", "")]


def _contributed(spec: Any) -> Iterator[Finding]:
    for level, message in spec.load()():
        yield level, spec.plugin, message


def check_plugins(host: Manager) -> Iterator[Finding]:
    """Every plugin loads and answers its hooks."""
    for plugin in host.plugins:
        if plugin.state in TROUBLE:
            yield "error", plugin.name, f"{plugin.state}: {plugin.reason}"
        elif plugin.state == "eager":
            yield "warning", plugin.name, f"{plugin.reason}: every command pays for it; import inside functions"
        elif plugin.ms > SLOW_MS:
            yield "warning", plugin.name, f"discovery took {plugin.ms:.0f} ms of CPU time, more than {SLOW_MS}"


def check_metadata(host: Manager) -> Iterator[Finding]:
    """Metadata of installed distributions is readable, and each is there once."""
    seen: dict[tuple[str, str], str] = {}
    for dist in library().distributions():
        name, version = name_and_version(dist)
        place = os.path.dirname(str(getattr(dist, "_path", "")))
        other = seen.setdefault((name, place), version)
        if name and other != version and any(name == plugin.dist for plugin in host.plugins):
            yield (
                "warning",
                name,
                f"{place} holds it twice, {other} and {version}: pip install --force-reinstall {name}",
            )
        try:
            points = dist.entry_points
        except Exception as error:
            yield "warning", name, f"its entry_points.txt is malformed ({error}): reinstall {name or 'it'}"
            continue
        if not name and any(point.group == GROUP for point in points):
            yield "warning", "", f"{getattr(dist, '_path', 'a distribution')} has no METADATA: remove or reinstall it"


def check_editables(host: Manager) -> Iterator[Finding]:
    """Editable installs point at folders that are there."""
    import json
    from urllib.parse import unquote, urlparse

    for plugin, dist in _distributions(host):
        text = dist.read_text("direct_url.json")
        origin = json.loads(text) if text else {}
        folder = unquote(urlparse(origin.get("url", "")).path)
        if origin.get("dir_info", {}).get("editable") and not os.path.isdir(folder):
            yield (
                "error",
                plugin.name,
                f"it is an editable install of {folder}, which is gone: pip uninstall {plugin.dist}",
            )


def check_requirements(host: Manager) -> Iterator[Finding]:
    """Plugins have the imgzoo distributions they ask for."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:
        return
    for plugin, dist in _distributions(host):
        for line in dist.requires or ():
            try:
                need = Requirement(line)
            except InvalidRequirement:
                yield "warning", plugin.name, f"its requirement '{line}' cannot be read"
                continue
            if not canonical(need.name).startswith("imgzoo-") or (
                need.marker and not need.marker.evaluate({"extra": ""})
            ):
                continue
            try:
                version = library().version(need.name)
            except library().PackageNotFoundError:
                yield "error", plugin.name, f"it needs {need.name}: pip install '{need}'"
                continue
            if not need.specifier.contains(version, prereleases=True):
                yield (
                    "error",
                    plugin.name,
                    f"it needs {need}, there is {version}: pip install -U {plugin.dist} {need.name}",
                )


def _distributions(host: Manager) -> Iterator[tuple[Plugin, Any]]:
    for plugin in host.plugins:
        if plugin.dist:
            try:
                yield plugin, library().distribution(plugin.dist)
            except library().PackageNotFoundError:
                continue


def check_names(host: Manager) -> Iterator[Finding]:
    """Names are unique, and the switches name plugins that exist."""
    for plugin in host.plugins:
        if plugin.name != plugin.short_name and plugin.state not in TROUBLE:
            yield "warning", plugin.name, f"other plugins are called '{plugin.short_name}' too: say {plugin.name}/..."
    for registry in host.registries.values():
        for name in registry.rows:
            owners = registry.owners(name)
            owner = registry.owner(owners)
            for plugin in owners if len(owners) > 1 else ():
                if owner is None:
                    yield "warning", plugin, f"{registry.kind.noun} '{name}' is ambiguous: say {plugin}/{name}"
                elif plugin != owner:
                    yield "warning", plugin, f"{registry.kind.noun} '{name}' means {owner}'s: say {plugin}/{name}"
    yield from _lost_aliases(host.registries["models"])
    for row in host.registries["models"].added.orphans:
        yield "warning", row.plugin, f"it brings weights for '{row.arch}', which no plugin or more than one brings"
    for switch, names in host.switches.named().items():
        for name in names:
            if not host.named(name):
                yield "warning", "", f"{switch} names '{name}', and there is no such plugin"


def _lost_aliases(models: Any) -> Iterator[Finding]:
    for old, news in models.aliases.items():
        for plugin, new in news.items():
            if plugin not in models.rows.get(new.partition(".")[0], {}):
                yield "warning", plugin, f"model '{old}' stands for '{new}', which it does not bring"


def check_hooks(host: Manager) -> Iterator[Finding]:
    """Plugins implement hooks that exist, and mark what they implement."""
    for plugin in host.plugins:
        module = host.hooks.get_plugin(plugin.name)
        for name in dir(module):
            is_hook = name.startswith("imgzoo_") and hasattr(host.hooks.hook, name) and callable(getattr(module, name))
            if is_hook and host.hooks.parse_hookimpl_opts(module, name) is None:
                yield "warning", plugin.name, f"{name} is not marked with @hookimpl: it is never called"
        for caller in host.hooks.get_hookcallers(module) or ():
            if not caller.has_spec() and not all(impl.optionalhook for impl in caller.get_hookimpls()):
                yield "warning", plugin.name, f"there is no hook '{caller.name}': it is never called"


def check_catalogs(host: Manager) -> Iterator[Finding]:
    """Catalog files have the shape they should."""
    from imgzoo.catalog import catalog_files, check, read_json

    for plugin in host.plugins:
        if not plugin.package or plugin.state in ("disabled", *TROUBLE):
            continue
        for path in catalog_files(plugin.package):
            for problem in check(read_json(path)):
                yield "warning", plugin.name, f"{os.path.basename(path)}: {problem}"


def check_targets(host: Manager) -> Iterator[Finding]:
    """The modules that specs name exist; `--deep` imports them."""
    for spec, module in _targets(host):
        if find_module(module) is None:
            yield "error", spec.plugin, f"{spec.name}: there is no module {module}"


def check_targets_deep(host: Manager) -> Iterator[Finding]:
    """Everything that specs name can be imported."""
    seen: set[str] = set()
    for registry in host.registries.values():
        for spec in registry.specs():
            if spec.target not in seen:
                seen.add(spec.target)
                try:
                    spec.load()
                except Exception as error:
                    yield "error", spec.plugin, f"{spec.name}: {error}"


def _targets(host: Manager) -> Iterator[tuple[Any, str]]:
    """One spec for each module that any names."""
    seen: set[str] = set()
    for registry in host.registries.values():
        for spec in registry.specs():
            module = spec.target.partition(":")[0]
            if module not in seen:
                seen.add(module)
                yield spec, module


def check_cache() -> Iterator[tuple[str, str]]:
    """The folder for downloaded weights can be written."""
    home = os.environ.get("HF_HOME") or os.path.join("~", ".cache", "huggingface")
    folder = Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if os.access(there, os.W_OK):
        yield "ok", f"weights are cached in {folder}"
    else:
        yield "error", f"{there} cannot be written: set HF_HOME to a folder of yours"


CHECKS: dict[str, Callable[[Manager], Iterator[Finding]]] = {
    "plugins": check_plugins,
    "metadata": check_metadata,
    "editables": check_editables,
    "requirements": check_requirements,
    "names": check_names,
    "hooks": check_hooks,
    "catalogs": check_catalogs,
    "targets": check_targets,
}
