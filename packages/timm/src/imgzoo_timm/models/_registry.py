"""Names: what is known to `create_model`, of the catalogs and of `register_model`. No torch."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import imgzoo
from imgzoo.errors import UnknownNameError
from imgzoo.models import find_weights, resolve_model
from imgzoo.registry import registry
from imgzoo_timm._door import MissingName

from ._pretrained import DefaultCfg, PretrainedCfg, generate_default_cfgs, of_weights

__all__ = ["generate_default_cfgs", "get_arch_name", "get_arch_pretrained_cfgs", "get_deprecated_models",
           "get_pretrained_cfg", "get_pretrained_cfg_value", "is_model", "is_model_in_modules",
           "is_model_pretrained", "list_models", "list_modules", "list_pretrained", "model_entrypoint",
           "register_model", "register_model_deprecations", "split_model_name_tag"]  # fmt: skip

entries: dict[str, Callable[..., Any]] = {}
"""What `register_model` was told, by name; it goes before the catalogs."""
entry_cfgs: dict[str, DefaultCfg] = {}


def split_model_name_tag(model_name: str, no_tag: str = "") -> tuple[str, str]:
    name, _, tag = model_name.partition(".")
    return name, tag or no_tag


def get_arch_name(model_name: str) -> str:
    return split_model_name_tag(model_name)[0]


def register_model(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Let `create_model` call `fn(pretrained=..., **options)` for its name; its module's `default_cfgs` are read."""
    name = fn.__name__
    if is_model(name) and name not in deprecated():
        warnings.warn(f"Overwriting {name}: {fn.__module__} registers a name that is known already", stacklevel=2)
    for table in renamed.values():
        table.pop(name, None)
    entries[name] = fn
    entry_cfgs.pop(name, None)
    module = sys.modules.get(fn.__module__)
    if module is not None and name not in (exported := getattr(module, "__all__", [name])):
        exported.append(name)
    cfg = getattr(module, "default_cfgs", {}).get(name)
    if cfg is not None and not isinstance(cfg, DefaultCfg):
        made = cfg if isinstance(cfg, PretrainedCfg) else PretrainedCfg(**known_fields(cfg))
        cfg = generate_default_cfgs({name: made})[name]
    if cfg is not None:
        entry_cfgs[name] = replace(cfg, cfgs={tag: on_hub(each, name, tag) for tag, each in cfg.cfgs.items()})
    return fn


def on_hub(cfg: PretrainedCfg, name: str, tag: str) -> PretrainedCfg:
    """A configuration whose repository is called as the weights where only its owner is said (`timm/`)."""
    if not (cfg.hf_hub_id or "").endswith("/"):
        return cfg
    return replace(cfg, hf_hub_id=f"{cfg.hf_hub_id}{name}.{tag}" if tag else f"{cfg.hf_hub_id}{name}")


def known_fields(cfg: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in cfg.items() if key in PretrainedCfg.__dataclass_fields__}


def family_of(name: str) -> str:
    return entries[name].__module__.rpartition(".")[2] if name in entries else imgzoo.get_spec(name).family


def list_models(filter: str | Iterable[str] = "", module: str | Iterable[str] = "", pretrained: bool = False,
                exclude_filters: str | Iterable[str] = "", name_matches_cfg: bool = False,
                include_tags: bool | None = None) -> list[str]:  # fmt: skip
    """Names that match a glob (or any of several), in natural order; with tags those of published weights."""
    tagged = pretrained if include_tags is None else include_tags
    wanted, without, modules = ([each] if isinstance(each, str) else list(each)
                                for each in (filter, exclude_filters, module))  # fmt: skip
    specs = registry("models").listed()
    names: list[str] = []
    for name in sorted({*specs, *entries} - deprecated(), key=natural_key):
        if any(modules) and family_of(name) not in modules:
            continue
        cfgs = architecture_cfgs(name)
        published = [tag for tag, cfg in cfgs.items() if cfg.has_weights]
        if tagged:
            names += [f"{name}.{tag}" if tag else name for tag in (published if pretrained else cfgs or [""])]
        elif published or not pretrained:
            names.append(name)

    def matches(name: str, patterns: list[str]) -> bool:
        return any(fnmatchcase(name, each) or fnmatchcase(name.partition(".")[0], each) for each in patterns if each)

    if any(wanted):
        names = [name for name in names if matches(name, wanted)]
    names.sort(key=natural_key)
    return [name for name in names if not matches(name, without)]


def natural_key(text: str) -> list[Any]:
    from imgzoo_timm.utils._misc import natural_key as key

    return key(text.lower())


def list_pretrained(filter: str | Iterable[str] = "", exclude_filters: str = "") -> list[str]:
    return list_models(filter, pretrained=True, exclude_filters=exclude_filters, include_tags=True)


def list_modules() -> list[str]:
    """The families, each a module of `models`."""
    return sorted({spec.family for spec in registry("models").specs() if spec.family} | {*map(family_of, entries)})


def is_model(model_name: str) -> bool:
    name = get_arch_name(model_name)
    return name in entries or imgzoo.is_model(name)


def is_model_in_modules(model_name: str, module_names: str | Iterable[str]) -> bool:
    modules = {module_names} if isinstance(module_names, str) else set(module_names)
    return is_model(model_name) and family_of(get_arch_name(model_name)) in modules


def model_entrypoint(model_name: str, module_filter: str | None = None) -> Callable[..., Any]:
    """The function that makes a network of this name."""
    name = get_arch_name(model_name)
    if not is_model(name) or (module_filter and family_of(name) != module_filter):
        raise UnknownNameError(f"there is no model {name}" + (f" in {module_filter}" if module_filter else ""))
    return entries.get(name) or entry_function(name)


def entry_function(name: str) -> Callable[..., Any]:
    """`resnet50(pretrained=False, **kwargs)` and its like."""

    def entry(pretrained: bool = False, **kwargs: Any) -> Any:
        from ._factory import create_model

        return create_model(name, pretrained=pretrained, **kwargs)

    entry.__name__ = entry.__qualname__ = name
    entry.__module__ = f"{__package__}.{imgzoo.get_spec(name).family}"
    entry.__doc__ = f"`imgzoo.create_model('{name}')`"
    return entry


def architecture_cfgs(name: str) -> dict[str, PretrainedCfg]:
    """Configurations of an architecture by tag, the default first."""
    if name in entry_cfgs:
        return {tag: entry_cfgs[name].cfgs[tag] for tag in entry_cfgs[name].tags}
    if name in entries or not imgzoo.is_model(name):
        return {}
    spec = imgzoo.get_spec(name)
    return {weights.tag: of_weights(weights, spec.name) for weights in spec.weights}


def get_arch_pretrained_cfgs(model_name: str) -> dict[str, PretrainedCfg]:
    """The configurations of an architecture by `name.tag`."""
    name = get_arch_name(model_name)
    return {f"{name}.{tag}" if tag else name: cfg for tag, cfg in architecture_cfgs(name).items()}


renamed: dict[str, dict[str, str | None]] = {}
"""What `register_model_deprecations` was told, by module."""


def register_model_deprecations(module_name: str, deprecation_map: Mapping[str, str | None]) -> None:
    """Let earlier names make what their successors do, with a warning; one without a successor says that it is gone."""
    renamed.setdefault(module_name.rpartition(".")[2], {}).update(deprecation_map)
    for old, new in deprecation_map.items():
        entries[old] = successor(old, new, module_name)
        entry_cfgs.pop(old, None)


def deprecated() -> set[str]:
    """Names that are told to be of earlier versions."""
    return {old for table in renamed.values() for old in table}


def successor(old: str, new: str | None, module: str) -> Callable[..., Any]:
    """What makes a network under an earlier name."""

    def entry(pretrained: bool = False, **kwargs: Any) -> Any:
        if new is None:
            from ._factory import UnknownModelError

            raise UnknownModelError(f"{old} is gone, and nothing has taken its place")
        warnings.warn(f"{old} is an earlier name: say {new}", stacklevel=2)
        name, tag = split_model_name_tag(new)
        told = {"pretrained_cfg": tag} if tag else {}
        return model_entrypoint(name)(pretrained=pretrained, **{**kwargs, **told})

    entry.__name__, entry.__module__ = old, module
    return entry


def get_deprecated_models(module: str = "") -> dict[str, str | None]:
    """Earlier names and what they are called now."""
    of_catalogs = {old: new for old, rows in registry("models").aliases.items() for new in rows.values()
                   if not module or family_of(get_arch_name(new)) == module}  # fmt: skip
    told = [names for name, names in renamed.items() if not module or name == module]
    return {**of_catalogs, **{old: new for names in told for old, new in names.items()}}


def is_model_pretrained(model_name: str) -> bool:
    """Whether a name, or its tag where one is said, has weights."""
    name, tag = split_model_name_tag(model_name)
    return any(cfg.has_weights for each, cfg in architecture_cfgs(name).items() if tag in ("", each))


class UnknownTagError(UnknownNameError, RuntimeError):
    """A tag that a name does not have, as clients expect to be told of it."""


def known_tags(name: str) -> str:
    """What can be said of a name's tags."""
    tags = [key.partition(".")[2] for key in get_arch_pretrained_cfgs(name)]
    return f"there are {', '.join(filter(None, tags))}" if any(tags) else f"{name} has no tags"


def get_pretrained_cfg(model_name: str, allow_unregistered: bool = True) -> PretrainedCfg | None:
    """What is known of the weights of `name[.tag]`."""
    name, tag = split_model_name_tag(model_name)
    if name in entries:
        cfgs = architecture_cfgs(name)
        if tag and tag not in cfgs:
            raise UnknownTagError(f"Invalid pretrained tag ({tag}): {known_tags(name)}")
        return cfgs[tag] if tag else next(iter(cfgs.values()), None)
    try:
        spec, weights = resolve_model(model_name)
    except UnknownNameError as error:
        if allow_unregistered and not tag:
            return None
        if not tag:
            raise UnknownNameError(f"{model_name}: {error}") from error
        raise UnknownTagError(f"Invalid pretrained tag ({tag}): {error}") from error
    weights = weights or find_weights(spec)
    return of_weights(weights, spec.name) if weights else replace(PretrainedCfg(), architecture=spec.name)


def get_pretrained_cfg_value(model_name: str, cfg_key: str) -> Any:
    return getattr(get_pretrained_cfg(model_name, allow_unregistered=False), cfg_key, None)


def default_cfgs_of(family: str) -> dict[str, DefaultCfg]:
    """The `default_cfgs` table of a family."""
    rows = {f"{spec.name}.{weights.tag}": of_weights(weights, spec.name)
            for spec in registry("models").specs() if spec.family == family for weights in spec.weights}  # fmt: skip
    if not rows:
        raise MissingName(f"there is no family {family}: imgzoo_timm.list_modules() names those there are")
    return generate_default_cfgs(rows)
