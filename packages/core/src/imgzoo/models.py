"""Questions about models by name: which exist, what they are, which weights they have. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from .errors import AmbiguousNameError, UnknownNameError
from .registry import registry, warn_deprecated
from .specs import ModelSpec, WeightSpec
from .text import safe


def resolve_model(name: str) -> tuple[ModelSpec, WeightSpec | None]:
    """The architecture and the weights of `[plugin/]name[.tag]`; no tag means the default, None if it has none.

    Without published weights the row still tells how images are prepared; `weights.published` is False then.
    """
    spec, weights, replacement = _resolve(name)
    if replacement:
        warn_deprecated(name, replacement)
    return spec, weights


def _resolve(name: str) -> tuple[ModelSpec, WeightSpec | None, str]:
    models = registry("models")
    prefix, slash, rest = name.rpartition("/")
    arch, _, tag = rest.partition(".")
    for plugin in models.plugins.named(prefix) if prefix and tag else ():
        if (plugin.name, arch, tag) in models.added.by_plugin:
            return *models.added.by_plugin[plugin.name, arch, tag], ""
    spec, replacement = models.find(prefix + slash + arch)
    return spec, find_weights(spec, tag or replacement.partition(".")[2]), replacement


def find_weights(spec: ModelSpec, tag: str = "") -> WeightSpec | None:
    """The weights of a tag, the default ones for an empty tag; an unknown tag is an `UnknownNameError`."""
    if not tag:
        own = [row for row in spec.weights if row.plugin in ("", spec.plugin)] or spec.weights
        return next((row for row in own if row.published), own[0] if own else None)
    for row in spec.weights:
        if row.tag == tag:
            return row
    rivals = registry("models").added.hidden.get((spec.plugin, spec.name, tag))
    if rivals:
        choices = ", ".join(f"{plugin}/{spec.name}.{tag}" for plugin in rivals)
        raise AmbiguousNameError(f"several plugins bring weights '{tag}' for {spec.name}: say one of {choices}")
    tags = ", ".join(row.tag for row in spec.weights if row.published) or "none"
    raise UnknownNameError(f"{spec.name} has no weights '{safe(tag)}'; it has {tags}")


def get_spec(name: str) -> ModelSpec:
    """The spec of the architecture that `[plugin/]name[.tag]` means."""
    return resolve_model(name)[0]


def is_model(name: str) -> bool:
    """Whether `create_model(name)` would know the name."""
    if name.partition(".")[0] not in registry("models") and "/" not in name:
        return False  # without looking for near names
    try:
        _resolve(name)
    except UnknownNameError:
        return False
    return True


def list_models(pattern: str | Iterable[str] = "", *, pretrained: bool = False) -> list[str]:
    """Names of architectures that match a glob pattern (or any of several), in natural order.

    `pretrained=True` keeps those with published weights; `list_weights` names the weights themselves.
    """
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    return [
        name
        for name, spec in registry("models").listed().items()
        if (not any(patterns) or any(fnmatchcase(name, each) for each in patterns))
        and (not pretrained or any(row.published for row in spec.weights))
    ]


def list_weights(name: str = "") -> list[str]:
    """`name.tag` of every published weight file, or of one architecture's; its default tag comes first."""
    models = registry("models")
    chosen = {name.partition(".")[0]: get_spec(name)} if name else models.listed()
    return [weights_name(each, row) for each, spec in chosen.items() for row in spec.weights if row.published]


def weights_name(model: str, weights: WeightSpec) -> str:
    """The name that brings these weights: `model.tag`."""
    return f"{model}.{weights.tag}"
