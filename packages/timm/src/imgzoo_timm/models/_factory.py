"""`create_model` with the field's arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imgzoo
from imgzoo.errors import OptionError, UnknownNameError, UsageError
from imgzoo.loading.places import fetch_config
from imgzoo_timm._door import rooms
from imgzoo_timm.layers._config import set_layer_config

from ._pretrained import PretrainedCfg, with_source
from ._registry import entries

__all__ = ["create_model", "parse_model_name", "safe_model_name"]

SCHEMES = {"hf-hub": "hf-hub", "hf_hub": "hf-hub", "local-dir": "local-dir"}
EXTRACTOR = ("feature_cls", "out_map", "feature_cfg")


class UnknownModelError(UnknownNameError, RuntimeError):
    """A name that no catalog has, as clients expect to be told of it."""


class ModelNameError(UsageError, ValueError):
    """What is no name of a model, as clients expect to be told of it."""


class RefusedError(UsageError, AssertionError):
    """A value that a network does not take, as clients expect to be told of it."""


@contextmanager
def asserted() -> Iterator[None]:
    """Inside, what is refused is an `AssertionError` too."""
    try:
        yield
    except UsageError as error:
        if type(error) is not UsageError:
            raise
        raise RefusedError(str(error)) from error


def no_cache_dir(cache_dir: Any) -> None:
    """Refuse a place for downloads that one call names."""
    if cache_dir is not None:
        raise OptionError("cache_dir is not taken here: HF_HUB_CACHE says where downloads are kept")


def parse_model_name(model_name: str) -> tuple[str | None, str]:
    """Where a model comes from (`hf-hub`, `local-dir`, or None: by its name) and its name there; `timm/` is left out.

    Raises:
        ModelNameError: the name is a path, or of a source that is not known.
    """
    scheme, colon, rest = model_name.partition(":")
    source = SCHEMES.get(scheme.lower())
    if colon and source is None and len(scheme) > 1 and "\\" not in scheme:  # one letter, or behind one, is a drive
        raise ModelNameError(f"{model_name!r} is of no source that is known: say hf-hub:{rest} or local-dir:{rest}")
    if source is not None and colon:
        if not rest:
            raise ModelNameError(f"{model_name!r} names nothing behind {scheme}:")
        return source, rest
    name = model_name.removeprefix("timm/")
    if colon or "/" in name or "\\" in name:
        raise ModelNameError(f"{model_name!r} is a path or a repository: say local-dir:{model_name} or "
                             f"hf-hub:{model_name}")  # fmt: skip
    return None, name


def safe_model_name(model_name: str, remove_source: bool = True) -> str:
    """The name with `_` for what may not stand in the name of a file."""
    if remove_source:
        model_name = parse_model_name(model_name)[1]
    return "".join(each if each.isalnum() else "_" for each in model_name).rstrip("_")


def create_model(
    model_name: str, pretrained: bool = False, pretrained_cfg: str | Mapping[str, Any] | PretrainedCfg | None = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None, checkpoint_path: str | Path | None = None,
    cache_dir: str | Path | None = None, scriptable: bool | None = None, exportable: bool | None = None,
    no_jit: bool | None = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """`imgzoo.create_model`, or what `register_model` was told; every module has the field's attributes.

    `scriptable`, `exportable` and `no_jit` are for layers of a script's own, which ask `layers.is_scriptable()` and its
    kin while they are made: ours script, export and trace as they are.
    """
    with set_layer_config(scriptable, exportable, no_jit), asserted():
        return _made(model_name, pretrained, pretrained_cfg, pretrained_cfg_overlay, checkpoint_path, cache_dir, kwargs)


def _made(model_name: str, pretrained: bool, pretrained_cfg: Any, pretrained_cfg_overlay: Any, checkpoint_path: Any,
          cache_dir: Any, kwargs: dict[str, Any]) -> Any:  # fmt: skip
    options = {key: value for key, value in kwargs.items() if value is not None}
    scheme, name = parse_model_name(model_name)
    told = {"pretrained_cfg": pretrained_cfg, "pretrained_cfg_overlay": pretrained_cfg_overlay, "cache_dir": cache_dir}
    told = {key: value for key, value in told.items() if value is not None}
    arch = name.partition(".")[0]
    if not scheme and arch in entries:
        if name != arch:
            told.setdefault("pretrained_cfg", name.partition(".")[2])
        model = entries[arch](pretrained=pretrained, **told, **options)
    else:
        if pretrained:
            no_cache_dir(cache_dir)
        model = native_model(f"{scheme}:{name}" if scheme else name, pretrained, told, options)
    if checkpoint_path:
        from ._helpers import load_checkpoint

        load_checkpoint(model, str(checkpoint_path))
    return model


def native_model(name: str, pretrained: bool, told: dict[str, Any], options: dict[str, Any]) -> Any:
    """A network of the catalogs, adopted: what `told` says of its weights goes before what the catalog says."""
    from ._classes import adopted
    from ._initial import draw, scale_by_depth, take_scheme
    from ._own_parts import give_parts, take_parts

    cfg = told.get("pretrained_cfg")
    where: Any = pretrained
    if isinstance(cfg, str):
        name, cfg = f"{name.partition('.')[0]}.{cfg}", None
    overlay = {**as_mapping(cfg), **with_source(as_mapping(told.get("pretrained_cfg_overlay")))}
    if cfg is not None or ":" in name:  # others than the catalog's
        overlay.setdefault("custom_load", False)
    options = unmerged(name, {**asked_by(name, overlay), **options})
    if pretrained and overlay.get("state_dict") is None:
        where = overlay.get("file") or hub(overlay) or (cfg is not None and overlay.get("url")) or True
    features = bool(options.pop("features_only", False))
    extractor = {key: options.pop(key) for key in EXTRACTOR if key in options}
    extractor |= extractor.pop("feature_cfg", {})
    for key in ("output_fmt", "norm", "return_dict", "feature_location") if features else ():
        if key in options:
            extractor[key] = options.pop(key)
    indices = extractor.pop("out_indices", options.pop("out_indices", None))
    loads = bool(pretrained) and overlay.get("state_dict") is None
    scheme = take_scheme(name, options)
    fix_init, own = options.pop("fix_init", None), take_parts(name.partition(".")[0], options)
    try:
        model = imgzoo.create_model(name, pretrained=where if loads else False, **options)
    except UnknownNameError as error:
        raise UnknownModelError(f"Unknown model ({name}): {error}") from error
    model = adopted(model, overlay)
    if own:
        give_parts(model, own, loads)
    if not loads:
        draw(model, scheme)
    if fix_init is not None:
        scale_by_depth(model, fix_init, loads)
    if pretrained and not loads:
        from . import checkpoint_filter_fn
        from ._builder import load_pretrained

        told = {**model.pretrained_cfg, "state_dict": overlay["state_dict"]}
        load_pretrained(model, told, model.num_classes, model.in_chans, checkpoint_filter_fn)
    if features:
        from ._extractors import extractor_of

        return extractor_of(model, indices, **extractor)
    return model


def unmerged(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options by name; an encoder of a language model merges tokens by its pool's own word alone."""
    from ._classes import leave_apart

    return leave_apart(imgzoo.get_spec(name).load(), options) if imgzoo.is_model(name) else options


def asked_by(name: str, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Classes, channels and, where it takes one, size of a network by name whose weights `cfg` describes otherwise."""
    if ":" in name or not imgzoo.is_model(name):  # a folder says what its weights are of
        return {}
    from ._builder import resolve_pretrained_cfg

    usual, found = as_mapping(resolve_pretrained_cfg(name)), {}
    if cfg.get("num_classes", usual["num_classes"]) != usual["num_classes"]:
        found["num_classes"] = cfg["num_classes"]
    size, before = tuple(cfg.get("input_size") or usual["input_size"]), tuple(usual["input_size"])
    if size[0] != before[0]:
        found["in_chans"] = size[0]
    if size[1:] != before[1:] and cfg.get("fixed_input_size", usual["fixed_input_size"]):
        found["img_size"] = size[1:]
    return found


def folder_cfg(model_name: str) -> dict[str, Any] | None:
    """What a folder or repository says of its weights; None of a name."""
    scheme, name = parse_model_name(model_name)
    return dict(fetch_config(f"{scheme}:{name}").get("pretrained_cfg") or {}) if scheme else None


def hub(cfg: Mapping[str, Any]) -> str | None:
    return f"hf-hub:{cfg['hf_hub_id']}" if cfg.get("hf_hub_id") else None


def as_mapping(cfg: Any) -> dict[str, Any]:
    if cfg is None:
        return {}
    return cfg.to_dict() if isinstance(cfg, PretrainedCfg) else dict(cfg)


def __getattr__(name: str) -> Any:
    """What the field's path of this name has, too, and other files here."""
    return rooms[__name__.rpartition(".")[0]].find(name)
