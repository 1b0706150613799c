"""What a plugin author imports: the hook marker, the specs that hooks return, and the catalog reader. No torch.

A plugin is a torch-free module named by an entry point of the group `imgzoo.plugins`:

    from imgzoo.plugin import Catalog, hookimpl

    IMGZOO_API = (1, 0)

    @hookimpl
    def imgzoo_models():
        return Catalog.read(__package__)
"""

from __future__ import annotations

import pluggy

from .catalog.read import Catalog
from .specs import CommandSpec, ComponentSpec, HealthCheck, ModelSpec, WeightSpec, load_target

API = (1, 0)
"""Version of the plugin API: a plugin needs the same major and at most this minor."""

hookimpl = pluggy.HookimplMarker("imgzoo")
hookspec = pluggy.HookspecMarker("imgzoo")

__all__ = [
    "API",
    "Catalog",
    "CommandSpec",
    "ComponentSpec",
    "HealthCheck",
    "ModelSpec",
    "WeightSpec",
    "hookimpl",
    "hookspec",
    "load_target",
]
