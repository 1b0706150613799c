"""Models of a script or a notebook: `register_model` gives a class or function a name, in this process. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar, overload

from .discovery.manager import manager
from .errors import UsageError
from .plugin import ModelSpec, WeightSpec, hookimpl
from .registry import registry
from .specs import NOTHING
from .text import NAME, safe

PLUGIN = "session"
Build = TypeVar("Build", bound=Callable[..., Any])


class Session:
    """The plugin that brings them."""

    def __init__(self) -> None:
        self.specs: dict[str, ModelSpec] = {}

    @hookimpl
    def imgzoo_models(self) -> list[ModelSpec]:
        return list(self.specs.values())


session = Session()
built = SimpleNamespace()
"""The constructors by name, so that a spec can say where one stands."""


@overload
def register_model(build: Build, /) -> Build: ...


@overload
def register_model(
    *,
    name: str = "",
    kwargs: Mapping[str, Any] = NOTHING,
    weights: Iterable[WeightSpec] = (),
    capabilities: Iterable[str] = (),
) -> Callable[[Build], Build]: ...


def register_model(
    build: Any = None,
    /,
    *,
    name: str = "",
    kwargs: Mapping[str, Any] = NOTHING,
    weights: Iterable[WeightSpec] = (),
    capabilities: Iterable[str] = (),
) -> Any:
    """Let `create_model` know a constructor of an `ImageModel`, a class or a function, under its own name or `name`.

        @register_model
        def small_vit(**options):
            return VisionTransformer(dim=128, depth=4, heads=2, **options)

    `kwargs` are options that the name stands for, `weights` its published files, `capabilities` what it can do. The
    same name again replaces the former, as a notebook's cell does; a name that a plugin brings is a `UsageError`.
    """

    def registered(build: Build) -> Build:
        model = name or build.__name__
        if not NAME.fullmatch(model):
            raise UsageError(f"'{safe(model)}' is no name for a model (letters, digits, '_' and '-'): give name=")
        owners = {*registry("models").owners(model)} - {PLUGIN}
        if owners:
            raise UsageError(f"the model '{model}' is brought by {', '.join(sorted(owners))}: give another name=")
        host = manager()
        with host.lock:
            setattr(built, model, build)
            files = tuple(row._replace(arch=model) for row in weights)
            target = f"{__name__}:built.{model}"
            session.specs[model] = ModelSpec(model, target, dict(kwargs), files, capabilities=frozenset(capabilities))
            if host.hooks.get_plugin(PLUGIN) is session:
                host.registries.clear()
            else:
                host.add(session, PLUGIN)
        return build

    return registered if build is None else registered(build)
