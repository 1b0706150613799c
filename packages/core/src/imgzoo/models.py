"""Questions about models by name: which exist, what they are, which weights they have. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from .errors import UnknownNameError
from .registry import registry
from .specs import ModelSpec, WeightSpec


def resolve_model(name: str) -> tuple[ModelSpec, WeightSpec | None]:
    """The architecture and the weights of `[plugin/]name[.tag]`; no tag means the default, None if it has none."""
    arch, _, tag = name.partition(".")
    spec: ModelSpec = registry("models").resolve(arch)
    return spec, find_weights(spec, tag)


def find_weights(spec: ModelSpec, tag: str = "") -> WeightSpec | None:
    """The weights of a tag, the default ones for an empty tag; an unknown tag is an `UnknownNameError`."""
    if not tag:
        return spec.weights[0] if spec.weights else None
    for weights in spec.weights:
        if weights.tag == tag:
            return weights
    tags = ", ".join(weights.tag for weights in spec.weights) or "none"
    raise UnknownNameError(f"{spec.name} has no weights '{tag}'; it has {tags}")


def get_spec(name: str) -> ModelSpec:
    """The spec of `[plugin/]name[.tag]`."""
    return resolve_model(name)[0]


def is_model(name: str) -> bool:
    """Whether `create_model(name)` would know the name."""
    try:
        resolve_model(name)
    except UnknownNameError:
        return False
    return True


def list_models(pattern: str | Iterable[str] = "", *, pretrained: bool = False) -> list[str]:
    """Names of architectures that match a glob pattern (or any of several), sorted."""
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    models = registry("models")
    return [
        name
        for name, spec in zip(models.names(), models.specs())
        if (not any(patterns) or any(fnmatchcase(name, each) for each in patterns)) and (spec.weights or not pretrained)
    ]


def list_weights(name: str = "") -> list[str]:
    """`name.tag` of every weight file, or of one architecture's; the default tag comes first."""
    models = registry("models")
    if name:
        return [f"{name}.{weights.tag}" for weights in get_spec(name).weights]
    return [f"{each}.{weights.tag}" for each, spec in zip(models.names(), models.specs()) for weights in spec.weights]
