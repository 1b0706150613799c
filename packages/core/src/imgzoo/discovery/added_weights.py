"""Weights that plugins add to architectures through `imgzoo_weights`. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from imgzoo.errors import AmbiguousNameError
from imgzoo.rules import complaint
from imgzoo.specs import ModelSpec, WeightSpec
from imgzoo.text import NAME, safe

if TYPE_CHECKING:
    from imgzoo.registry import Registry

    from .find import Plugin


class AddedWeights:
    """Weights for architectures of any plugin, joined to the specs of the registry.

    A tag that is free joins the architecture's weights. One that is taken stays reachable as `plugin/name.tag`.
    """

    def __init__(self, models: Registry) -> None:
        self.models = models
        self.by_plugin: dict[tuple[str, str, str], tuple[ModelSpec, WeightSpec]] = {}
        """(plugin, architecture, tag) -> what `plugin/architecture.tag` means."""
        self.hidden: dict[tuple[str, str, str], list[str]] = {}
        """(architecture's plugin, architecture, tag) -> plugins whose weights the short name does not mean."""
        self.orphans: list[WeightSpec] = []
        """Weights for architectures that no plugin brings, or several."""
        claims: dict[tuple[str, str], dict[str, dict[str, WeightSpec]]] = {}
        for _, weights in models.plugins.collect("imgzoo_weights", _checked):
            for row in weights:
                try:
                    found = models.lookup(row.arch)
                except AmbiguousNameError:
                    found = None
                if found is None:
                    self.orphans.append(row)
                    continue
                spec = found[0]
                claims.setdefault((spec.plugin, spec.name), {}).setdefault(row.tag, {})[row.plugin] = row
        for (plugin, name), tags in claims.items():
            self._attach(models.rows[name][plugin], tags)

    def _attach(self, spec: ModelSpec, tags: Mapping[str, Mapping[str, WeightSpec]]) -> None:
        own = {row.tag: row for row in spec.weights}
        for tag, rivals in tags.items():
            owners = {spec.plugin: own[tag], **rivals} if tag in own else dict(rivals)
            owner = self.models.owner(owners, home=spec.plugin)
            if owner is None:
                own.pop(tag, None)
            else:
                own[tag] = owners[owner]
            others = [plugin for plugin in owners if plugin != owner]
            if others:
                self.hidden[spec.plugin, spec.name, tag] = others
        complete = spec._replace(weights=tuple(own.values()))
        self.models.rows[spec.name][spec.plugin] = complete
        for tag, rivals in tags.items():
            for plugin, row in rivals.items():
                self.by_plugin[plugin, spec.name, tag] = (complete, row)


def _checked(plugin: Plugin, row: Any) -> WeightSpec:
    if not isinstance(row, WeightSpec):
        raise TypeError(f"expected a WeightSpec, got {type(row).__name__}")
    wrong = complaint(row)
    if wrong:
        raise TypeError(f"weights '{safe(str(row.arch)[:80])}.{safe(str(row.tag)[:80])}': {wrong}")
    if not NAME.fullmatch(row.tag) or not row.arch:
        raise ValueError(f"weights '{safe(row.arch)}.{safe(row.tag)}' need an architecture and a plain tag")
    return row._replace(plugin=plugin.name)
