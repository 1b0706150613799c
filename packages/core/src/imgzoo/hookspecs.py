"""The hooks a plugin may implement; this page is the whole contract.

Declaration hooks take nothing and return specs as data. Each plugin's answer is consumed apart from the others':
its items count all or not at all. Action hooks are called when something happens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .plugin import CommandSpec, ComponentSpec, HealthCheck, ModelSpec, WeightSpec, hookspec

if TYPE_CHECKING:  # pathlib takes as long to import as pluggy
    from pathlib import Path


@hookspec
def imgzoo_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """Architectures, usually `Catalog.read(__package__)`."""


@hookspec
def imgzoo_weights() -> Iterable[WeightSpec]:  # type: ignore[empty-body]
    """Weight tags for architectures of any plugin (`arch` names it)."""


@hookspec
def imgzoo_optimizers() -> Iterable[ComponentSpec]:  # type: ignore[empty-body]
    """Optimizers: `target(params, lr=..., weight_decay=..., **kwargs)`."""


@hookspec
def imgzoo_schedulers() -> Iterable[ComponentSpec]:  # type: ignore[empty-body]
    """Learning-rate schedules: functions of the update number."""


@hookspec
def imgzoo_losses() -> Iterable[ComponentSpec]:  # type: ignore[empty-body]
    """Losses: `target(**kwargs)` returns a callable `(output, target) -> scalar`."""


@hookspec
def imgzoo_transforms() -> Iterable[ComponentSpec]:  # type: ignore[empty-body]
    """Image transforms for `create_transform` rows."""


@hookspec
def imgzoo_datasets() -> Iterable[ComponentSpec]:  # type: ignore[empty-body]
    """Image sources; the name is the scheme of `name:location[?options]`."""


@hookspec
def imgzoo_loggers() -> Iterable[ComponentSpec]:  # type: ignore[empty-body]
    """Sinks for training metrics."""


@hookspec
def imgzoo_trainers() -> Iterable[ComponentSpec]:  # type: ignore[empty-body]
    """Training loops for `imgzoo train --trainer`."""


@hookspec
def imgzoo_commands() -> Iterable[CommandSpec]:  # type: ignore[empty-body]
    """Commands of the `imgzoo` program."""


@hookspec
def imgzoo_health_checks() -> Iterable[HealthCheck]:  # type: ignore[empty-body]
    """Checks that `imgzoo doctor` runs."""


@hookspec(firstresult=True)
def imgzoo_fetch(uri: str, cache_dir: Path) -> Path | None:
    """Bring a weight file that core's schemes do not know (`s3://...`), or the `url` of a catalog row, into the cache.

    None passes it on. Not called when downloads are off (`IMGZOO_OFFLINE`): then what it brought before is found again.
    """


@hookspec
def imgzoo_model_created(model: Any, spec: ModelSpec) -> None:
    """Called after `create_model` built a model; an error is logged with the plugin's name and goes no further."""


@hookspec(historic=True)
def imgzoo_addhooks(pluginmanager: Any) -> None:
    """Add hook specifications of your own: `pluginmanager.add_hookspecs(module)`."""
